"""Take the pictures of the page in docs/screenshots from a running app:

fsclap app &
python -m tests.browser.screenshots http://127.0.0.1:8420 docs/screenshots
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.chromium import launch

QUERY = "A low voice, speaking slowly, with long pauses"


def main(address: str, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        desk = browser.new_page(viewport={"width": 1280, "height": 900})
        _search(desk, address)
        desk.screenshot(path=folder / "search-desktop.png")
        _map(desk, address)
        desk.screenshot(path=folder / "search-map.png")
        _judge(desk, address)
        desk.screenshot(path=folder / "search-judge.png")
        phone = browser.new_context(
            viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True
        ).new_page()
        _search(phone, address)
        phone.screenshot(path=folder / "search-phone.png")
        dark = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
        _search(dark, address)
        dark.screenshot(path=folder / "search-dark.png")
        browser.close()


def _search(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    page.locator(".results .wave svg.rest").first.wait_for()
    page.get_by_role("button", name="Play:").first.click()
    page.wait_for_function("() => document.getElementById('audio').currentTime > 1.2")
    page.get_by_role("button", name="Pause:").first.click()
    page.mouse.move(2, 400)


def _map(page: Page, address: str) -> None:
    page.goto(f"{address}/map")
    plane = page.locator("#plane")
    plane.wait_for(timeout=180_000)
    page.select_option("#colour", label="Pitch")
    plane.focus()
    for way in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        before = page.locator("#map-said").text_content()
        page.keyboard.press(way)
        page.wait_for_function("before => document.getElementById('map-said').textContent !== before", arg=before)
    page.locator("#chosen .wave svg.rest").wait_for()


def _judge(page: Page, address: str) -> None:
    page.goto(f"{address}/judge")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Start").click()
    page.locator("#judge-deck .wave svg.rest").wait_for()
    page.wait_for_function("() => document.getElementById('audio').currentTime > 0.5")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
