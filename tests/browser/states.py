"""Every state of the page, for the tests of access and for the pictures."""

import re
from collections.abc import Callable

from playwright.sync_api import Page

QUERY = "/?query=a+low+voice,+slow,+with+long+pauses"
State = tuple[str, Callable[[Page], None]]


def _settled(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def _open(page: Page) -> None:
    page.locator("#results .more").nth(1).click()


def _keep(page: Page) -> None:
    for number in range(4):
        page.locator("#results .keep").nth(number).click()


def _compare(page: Page) -> None:
    _keep(page)
    page.get_by_role("button", name="Compare", exact=True).click()


def _like(page: Page) -> None:
    _open(page)
    page.get_by_role("link", name="More like this").first.click()
    page.get_by_role("button", name="higher", exact=True).click()


def _voice(page: Page) -> None:
    page.locator(".voice-card").first.click()


def _recorded(page: Page) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Stop (1 s)").wait_for()
    page.get_by_role("button", name=re.compile("^Stop")).click()
    page.locator("#searched-with .recorded").wait_for()


def _chosen(page: Page) -> None:
    plane = page.locator("#plane")
    plane.wait_for(timeout=180_000)
    page.select_option("#colour", label="Pitch")
    plane.focus()
    page.keyboard.press("ArrowRight")
    page.locator("#chosen article").wait_for()


def _area(page: Page) -> None:
    _chosen(page)
    page.get_by_role("button", name="Draw around clips").click()
    box = page.locator("#plane").bounding_box()
    assert box is not None
    corners = [(0.2, 0.2), (0.7, 0.15), (0.75, 0.7), (0.3, 0.75)]
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in [*places[1:], places[0]]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    page.locator("#chosen h2").wait_for()


def _judging(page: Page) -> None:
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator("#judge-deck .wave svg.rest").wait_for()
    page.wait_for_function("() => !document.querySelector('[data-verdict]').disabled")


STATES: dict[str, State] = {
    "start": ("/", _settled),
    "results": (QUERY, _settled),
    "details": (QUERY, _open),
    "filters": (f"{QUERY}&attributes.pitch_hz=150..&duration=1..", _settled),
    "kept": (QUERY, _keep),
    "compare": (QUERY, _compare),
    "like": (QUERY, _like),
    "recorded": ("/", _recorded),
    "voice": ("/", _voice),
    "guess": ("/?query=mortgage+interest+rates", _settled),
    "nothing": (f"{QUERY}&duration=99..", _settled),
    "error": (f"{QUERY}&where=colour+%3D+red", _settled),
    "map": ("/map", _chosen),
    "area": ("/map", _area),
    "judge-start": ("/judge", _settled),
    "judge": ("/judge", _judging),
}


def bring(page: Page, address: str, name: str) -> None:
    """Bring a page of the app at `address` into a state."""
    path, act = STATES[name]
    page.goto(address + path)
    _settled(page)
    act(page)
    _settled(page)
