"""Who can use the page: rules of axe, the accessibility tree that a screen reader reads, both languages."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from fsclap.retrieval import notes
from fsclap.retrieval.app import STATIC
from tests.browser.conftest import DESK, PHONE, opened
from tests.browser.states import STATES, bring
from tests.browser.test_page import find, results

QUICK = ("results", "compare", "judge")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in STATES if name not in QUICK]


def violations(page: Page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.evaluate("() => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")
    found: dict[str, Any] = axe.Axe().run(page).response
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_axe_finds_nothing(browser: Browser, address: str, name: str) -> None:
    for size, dark in ((DESK, False), (PHONE, True)):
        with opened(browser, size) as page:
            page.emulate_media(color_scheme="dark" if dark else "light")
            bring(page, address, name)
            assert violations(page) == []


def test_a_screen_reader_hears_the_results_as_a_list_of_clips(page: Page, address: str) -> None:
    page.goto(address)
    find(page, "a high voice")
    expect(page.locator("#results ol").first).to_match_aria_snapshot("""
        - list /Search results|matches/:
          - listitem:
            - article:
              - button /Play/
              - slider /Position in/
              - heading
              - button /Voice/
              - paragraph: /Match/
              - button /Keep/
              - button /Details/
    """)
    expect(page.get_by_role("status").filter(has_text="10 of 40 clips, best first")).to_have_count(1)
    tree = page.locator("body").aria_snapshot()
    for part in (
        "banner",
        "main",
        "search",
        'complementary "Filters"',
        'navigation "Views"',
        'toolbar "Search with a sound"',
    ):
        assert f"- {part}" in tree
    for slider in ("Pitch: at least", "Pitch: at most", "Length: at least"):
        assert f'slider "{slider}"' in tree


def test_the_name_of_every_control_contains_its_label(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=a+high+voice")
    expect(results(page)).to_have_count(10)
    results(page).first.get_by_role("button", name="Details:").click()
    pairs = page.locator("a[aria-label], button[aria-label]").evaluate_all(
        "all => all.filter((one) => one.checkVisibility()).map((one) => [one.innerText.trim(), one.ariaLabel])"
    )
    assert len(pairs) > 40
    wrong = [(label, name) for label, name in pairs if label.replace(" ×", "").strip(" ×") not in name]
    assert wrong == []


def test_a_finger_sees_no_hints_for_keys(phone: Page, address: str) -> None:
    phone.goto(f"{address}/?query=a+high+voice")
    expect(phone.locator("#results article")).to_have_count(10)
    assert phone.locator("kbd:visible").count() == 0
    assert phone.locator(".keys:visible").count() == 0


def texts_of_the_page() -> set[str]:
    """All texts that the page shows: those in the code, and those in its HTML."""
    code = "\n".join(file.read_text(encoding="utf-8") for file in STATIC.glob("*.js"))
    found = set()
    for call in re.finditer(r"\b(?:t|counted)\((?=[^)]*\")", code):
        depth, at = 1, call.end()
        while depth and at < len(code):
            depth += {"(": 1, ")": -1}.get(code[at], 0)
            at += 1
        arguments = re.sub(r"\{[^{}\"]*:.*", "", code[call.end() : at])  # values have no texts
        found |= set(re.findall(r'"((?:[^"\\]|\\.)+)"', arguments))
    html = re.sub(
        r"<(script|style|noscript|option)\b.*?</\1>", "", (STATIC / "page.html").read_text(encoding="utf-8"), flags=re.S
    )
    body = html[html.index("<body") :]
    found |= {" ".join(text.split()) for text in re.findall(r">([^<>]+)<", body)}
    found |= set(re.findall(r'(?:aria-label|placeholder|title)="([^"]+)"', body))
    return {text for text in found if re.search("[a-z]{2}", text)}


def test_every_text_of_the_page_is_in_the_other_language() -> None:
    known = json.loads((STATIC / "zh.json").read_text(encoding="utf-8"))
    told = {text for name, text in vars(notes).items() if name.isupper()}
    assert len(told) == 11
    missing = (texts_of_the_page() | told) - set(known)
    assert missing <= {"FS-CLAP", "higher and faster", "column", "from", "state", "ArrowDown"}, missing
    for text, other in known.items():
        assert set(re.findall(r"\{\w+\}", other)) <= set(re.findall(r"\{\w+\}", text)), text
