"""What the search page costs a person: results on a screen, and the way to an exported prompt.

    fsclap app &
    python -m bench.page http://127.0.0.1:8420 [--json FILE]

In Chromium at 1280x900 and 390x844: whole results that fit on the first screen, the height of ten, and
the Tab keys from the query to the first result. Then, at 1280x900, the way from the start page to the
files of one prompt with its text, listening to three clips: clicks and keys, apart from typing the
query, and seconds of the browser's processor time in script and layout.
"""

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from bench import report
from harness.chromium import launch

QUERY = "a low voice, slow, with long pauses"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
ROWS = "#results article"
"""A result, in this version of the page and in those before."""


def screens(page: Page, address: str) -> dict[str, Any]:
    """Count what fits on the first screen of results."""
    page.goto(f"{address}/?query={QUERY.replace(' ', '+')}")
    page.locator(ROWS).first.wait_for()
    page.wait_for_load_state("networkidle")
    boxes = page.locator(ROWS).evaluate_all("all => all.map((one) => one.getBoundingClientRect().toJSON())")
    page.locator("#query").focus()
    tabs = 0
    while not page.evaluate("selector => Boolean(document.activeElement.closest(selector))", ROWS):
        page.keyboard.press("Tab")
        tabs += 1
    height = page.evaluate("innerHeight")
    return {
        "results": len(boxes),
        "whole on the screen": sum(box["bottom"] <= height for box in boxes),
        "height of all, px": round(boxes[-1]["bottom"] - boxes[0]["top"]),
        "tabs from the query to the first": tabs,
    }


def task(page: Page, address: str) -> dict[str, Any]:
    """Search, listen to three clips, and bring the sound and text of one of them home."""
    page.goto(address)
    page.wait_for_load_state("networkidle")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before = processor_time(session)
    steps = 1
    page.locator("#query").fill(QUERY)
    page.keyboard.press("Enter")
    page.locator(ROWS).first.wait_for()
    for number in range(3):
        steps += 1
        page.locator(ROWS).nth(number).get_by_role("button", name="Play:").click()
        page.wait_for_function("() => document.getElementById('audio').currentTime > 0.2")
    row = page.locator(ROWS).nth(1)
    if row.get_by_role("button", name="Keep:").count():
        steps += 2
        row.get_by_role("button", name="Keep:").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Export prompts").click()
        names = zipfile.ZipFile(Path(download.value.path())).namelist()
        complete = any(name.endswith("prompts.jsonl") for name in names)
    else:  # the page before had the sound alone; the text had to be copied
        steps += 1
        with page.expect_download():
            row.get_by_role("link", name="Download").click()
        complete = False
    spent = processor_time(session) - before
    return {"clicks and keys": steps, "with its text": complete, "processor time, s": round(spent, 2)}


def processor_time(session: CDPSession) -> float:
    """Read the seconds that the page's main thread has worked."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = report.parser("bench.page", __doc__)
    parser.add_argument("address")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            found[name] = screens(page, options.address)
            page.context.close()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found["from the start to a prompt"] = task(page, options.address)
        browser.close()
    for name, figures in found.items():
        print(f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures.items()))
    report.write(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
