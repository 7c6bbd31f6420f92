"""Take the pictures of the page in docs/screenshots/page from a running app, one per state:

fsclap app &
python -m tests.browser.screenshots http://127.0.0.1:8420 docs/screenshots/page [STATE ...]
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from harness.chromium import launch
from tests.browser.states import STATES, bring

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SIZES = {"desk": DESK, "dark": DESK | {"color_scheme": "dark"}, "phone": PHONE}
COLOURS = 128
"""Of a picture, so that forty of them stay small."""


def main(address: str, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name in names or STATES:
            for size, options in SIZES.items():
                context = browser.new_context(**options)
                page = context.new_page()
                bring(page, address, name)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                picture.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}-{size}.png", optimize=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
