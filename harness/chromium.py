"""Start this machine's Chromium with Playwright."""

import os
import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = "no Chromium: install the package chromium, or set FSCLAP_CHROMIUM to its program"


def find() -> str | None:
    """Find the program of a Chromium; None if there is none."""
    return os.environ.get("FSCLAP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright: Playwright) -> Browser:
    """Start it without a window.

    Raises:
        RuntimeError: There is none.
    """
    program = find()
    if program is None:
        raise RuntimeError(MISSING)
    # The sandbox does not work as root, and a container has little shared memory.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # it beeps
    arguments = [*root, *microphone, "--disable-dev-shm-usage", "--mute-audio"]
    return playwright.chromium.launch(executable_path=program, args=arguments)
