"""What people reach for: keeping and comparing, voices, sliders, a recording, another language, a proxy."""

import io
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from fsclap.retrieval.app import make_app
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion
from tests.browser.conftest import DESK, PHONE, opened
from tests.browser.test_page import PLAYING, find, ids, played, results
from tests.fsclap.retrieval.serving import served


def kept(page: Page, *numbers: int) -> None:
    for number in numbers:
        results(page).nth(number).get_by_role("button", name="Keep:").click()


@pytest.mark.parametrize(("size", "least"), [(DESK, 6), (PHONE, 3)])
def test_many_results_fit_on_a_screen(browser: Browser, address: str, size: dict[str, int], least: int) -> None:
    with opened(browser, size) as page:
        page.goto(f"{address}/?query=a+high+voice")
        expect(results(page)).to_have_count(10)
        whole = results(page).evaluate_all(
            "all => all.filter((one) => one.getBoundingClientRect().bottom <= innerHeight).length"
        )
    assert whole >= least


def test_clips_are_kept_compared_and_exported(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(address)
    find(page)
    kept(page, 0, 2, 4)
    chosen = [ids(page)[number] for number in (0, 2, 4)]
    page.reload()
    basket = page.get_by_role("region", name="Kept clips")
    expect(basket.get_by_text("3 clips kept")).to_be_visible()
    basket.get_by_role("button", name="Compare", exact=True).click()
    dialog = page.get_by_role("dialog", name="Compare")
    expect(dialog.get_by_role("columnheader")).to_have_count(3)
    for id_ in chosen:
        expect(dialog.get_by_text(mapped.row(id_)["text"])).to_be_visible()
    dialog.get_by_role("button", name="Listen in turn").click()
    heard = []
    for id_ in chosen:
        page.wait_for_function(f"() => document.getElementById('audio').getAttribute('src')?.includes('{id_}')")
        heard.append(played(page))
    assert heard == chosen
    page.keyboard.press("2")
    page.wait_for_function(PLAYING)
    assert played(page) == chosen[1]
    dialog.get_by_role("button", name="Remove: C").click()
    expect(dialog.get_by_role("columnheader")).to_have_count(2)
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Export prompts").click()
    archive = zipfile.ZipFile(Path(download.value.path()))
    prompts = [json.loads(line) for line in archive.read("prompts/prompts.jsonl").splitlines()]
    assert [prompt["utterance_id"] for prompt in prompts] == chosen[:2]
    assert prompts[0]["query"] == "a weary voice, speaking slowly"
    dialog.get_by_role("button", name="Close").click()
    basket.get_by_role("button", name="Empty").click()
    expect(basket).to_be_hidden()


def test_a_kept_clip_that_is_gone_is_told(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.evaluate("() => { for (const key of [...Object.keys(localStorage)]) localStorage.removeItem(key); }")
    find(page)
    kept(page, 0)
    page.evaluate(
        "() => { const key = Object.keys(localStorage).find((name) => name.includes('basket'));"
        "localStorage.setItem(key, JSON.stringify([...JSON.parse(localStorage.getItem(key)), 'gone-00000'])); }"
    )
    page.reload()
    expect(page.get_by_text("1 clip kept")).to_be_visible()
    expect(page.get_by_text("1 kept clip is no longer in the index.")).to_be_visible()


def test_words_on_a_clip_filter(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(address)
    find(page, "a high voice")
    results(page).first.get_by_role("button", name="Details:").click()
    results(page).first.get_by_role("button", name="Pitch high").click()
    expect(page).to_have_url(re.compile("style.pitch=high"))
    expect(page.get_by_text("10 of 10 clips, best first")).to_be_visible()
    hits = mapped.search("a high voice", where=[Condition.parse("style.pitch = high")])
    assert ids(page) == [hit.utterance_id for hit in hits]
    page.get_by_role("button", name="Pitch: high: remove this filter").click()
    expect(page.get_by_text("10 of 40 clips, best first")).to_be_visible()
    assert parse_qs(urlsplit(page.url).query) == {"query": ["a high voice"]}


def test_a_slider_stays_in_the_address(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=a+high+voice&attributes.pitch_hz=120..150")
    expect(page.get_by_text("10 of 14 clips, best first")).to_be_visible()
    expect(page.get_by_role("button", name="Pitch 120 Hz – 150 Hz: remove this filter")).to_be_visible()
    low = page.get_by_label("Pitch: at least")
    expect(low).to_have_attribute("aria-valuetext", "120 Hz")
    low.focus()
    page.keyboard.press("Home")
    expect(page).to_have_url(re.compile(r"attributes\.pitch_hz=\.\.150"))
    page.go_back()
    expect(low).to_have_attribute("aria-valuetext", "120 Hz")


def test_a_voice_has_a_card(page: Page, address: str) -> None:
    page.goto(address)
    page.locator(".voice-card").first.click()
    card = page.get_by_role("dialog")
    expect(card.get_by_role("article")).not_to_have_count(0)
    expect(card.locator("dl")).to_contain_text("Hz")
    name = card.get_by_role("heading").first.inner_text()
    card.get_by_role("article").first.get_by_role("button", name="Play:").click()
    page.wait_for_function(PLAYING)
    card.get_by_role("button", name="Search only this voice").click()
    expect(card).to_be_hidden()
    expect(page.get_by_role("button", name=f"Speaker: {name}: remove this filter")).to_be_visible()
    find(page, "a high voice")
    expect(page.locator("#results .speaker").first).to_have_text(name)


def test_more_of_what_a_recording_found(page: Page, address: str, mapped: Searcher, version: CorpusVersion) -> None:
    id_ = mapped.index.rows["utterance_id"][7].as_py()
    file = {"name": "mine.flac", "mimeType": "audio/flac", "buffer": dict(version.audio([id_]))[id_]}
    page.goto(address)
    expect(page.get_by_text("40 clips to search")).to_be_visible()
    page.get_by_label("File to search with").set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_role("region", name="Searched with")).to_contain_text("mine.flac")
    expect(results(page)).to_have_count(10)
    page.get_by_role("button", name="Show more").click()
    expect(results(page)).to_have_count(20)
    assert ids(page)[0] == id_
    results(page).nth(1).get_by_role("button", name="Details:").click()
    results(page).nth(1).get_by_role("link", name="More like this").click()
    expect(page.get_by_role("heading", name="Clips like this one")).to_be_visible()
    like = parse_qs(urlsplit(page.url).query)["like"][0]
    page.get_by_role("button", name="Show more").click()
    expect(results(page)).to_have_count(20)
    assert ids(page) == [hit.utterance_id for hit in mapped.like_clip(like, top=20)]
    page.go_back()
    page.go_back()
    expect(page.get_by_role("region", name="Searched with")).to_contain_text("mine.flac")
    page.get_by_role("region", name="Searched with").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("list", name="Examples")).to_be_visible()


def test_a_recording_from_the_microphone(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_text("40 clips to search")).to_be_visible()
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_role("button", name="Stop (1 s)")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    mine = page.get_by_role("region", name="Searched with")
    expect(mine.get_by_role("heading")).to_have_text("Recording 1.webm")
    expect(results(page)).to_have_count(10)
    mine.get_by_role("button", name="Play:").click()
    page.wait_for_function(PLAYING)


def test_like_this_but_higher(page: Page, address: str, mapped: Searcher) -> None:
    id_ = mapped.index.rows["utterance_id"][5].as_py()
    page.goto(f"{address}/?like={id_}")
    expect(results(page)).to_have_count(10)
    page.get_by_role("button", name="higher", exact=True).click()
    expect(page.locator("#results .score").first).to_have_text("1 of 1")
    expect(page).to_have_url(re.compile("but=higher"))
    assert ids(page) == [hit.utterance_id for hit in mapped.like_clip(id_, words="higher", top=10)]
    page.get_by_label("Like this, but …").fill("of medium pitch")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("button", name="higher", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="higher", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="says nothing that can be compared")).to_be_visible()


def test_weak_matches_are_set_apart_and_a_guess_is_called_one(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=a+high+voice&style.pitch=low")
    expect(page.get_by_role("heading", name="Only weak matches")).to_be_visible()
    find(page, "mortgage interest rates")
    expect(page.get_by_role("heading", name="A guess")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="little more than a guess")).to_be_visible()
    expect(page.locator("#results .score").first).to_have_text("")


def test_in_chinese(browser: Browser, address: str) -> None:
    context = browser.new_context(locale="zh-CN", viewport=DESK)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{address}/?query=a+high+voice")
    expect(page.get_by_role("button", name="搜索", exact=True)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(results(page)).to_have_count(10)
    page.goto(f"{address}/?query=a+high+voice+😀")
    expect(page.get_by_text("无法识别 '😀'")).to_be_visible()
    page.locator("#language").select_option("en")
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_visible()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    context.close()


def test_without_site_data_clips_are_kept_until_the_page_closes(page: Page, address: str) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('denied', 'SecurityError'); } });"
    )
    page.goto(address)
    find(page)
    kept(page, 0)
    expect(page.get_by_text("1 clip kept")).to_be_visible()
    expect(page.get_by_text("This browser keeps no data")).to_be_visible()


def test_ten_searches_for_ten_purposes(page: Page, address: str) -> None:
    """A casting director and an engineer at work, one step after the other, without a reload."""
    page.goto(address)
    find(page, "a deep voice with long pauses")  # 1 a narrator
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_function(PLAYING)
    kept(page, 1)
    find(page, "a mouse on helium")  # 2 a cartoon
    kept(page, 0)
    results(page).nth(1).get_by_role("button", name="Details:").click()
    results(page).nth(1).get_by_role("link", name="More like this").click()  # 3 more of it
    expect(page.get_by_role("heading", name="Clips like this one")).to_be_visible()
    page.get_by_role("button", name="lower", exact=True).click()  # 4 but lower
    expect(page.locator("#results .score").first).to_contain_text("of 1")
    find(page, "not high, slow")  # 5 a negation
    page.get_by_label("Series", exact=True).select_option("Dvě ryby")  # 6 of one series
    expect(page.get_by_text("10 of 20 clips")).to_be_visible()
    page.get_by_label("Emotion", exact=True).select_option("sad")  # 7 of one mood
    expect(page.get_by_text(re.compile("of 7 clips"))).to_be_visible()
    page.get_by_label("Condition").fill('text ~ "sentence 3"')  # 8 by what is said
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 1 clip")).to_be_visible()
    page.get_by_role("button", name="Remove all filters").first.click()
    results(page).first.get_by_role("button", name="Voice:").click()  # 9 one voice
    page.get_by_role("dialog").get_by_role("button", name="Search only this voice").click()
    expect(page.get_by_role("button", name="remove this filter")).to_be_visible()
    find(page, "xqzvk blorp")  # 10 nonsense
    expect(page.get_by_role("heading", name="A guess")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export prompts").click()
    content = Path(download.value.path()).read_bytes()
    assert len([name for name in zipfile.ZipFile(io.BytesIO(content)).namelist() if name.endswith(".flac")]) == 2


def test_behind_a_proxy_at_a_path(browser: Browser, mapped: Searcher, version: CorpusVersion) -> None:
    from fastapi import FastAPI

    outer = FastAPI()
    outer.mount("/speech", make_app(mapped, version.audio, None))
    with served(outer) as address, opened(browser, DESK) as page:
        page.goto(f"{address}/speech/")
        find(page)
        results(page).first.get_by_role("button", name="Play:").click()
        page.wait_for_function(PLAYING)
        page.get_by_role("link", name="Map", exact=True).click()
        expect(page).to_have_url(f"{address}/speech/map")
        expect(page.get_by_role("heading", name="Map of the corpus")).to_be_visible()
        page.reload()
        page.get_by_role("link", name="Search", exact=True).click()
        expect(page).to_have_url(f"{address}/speech/")


def test_an_area_of_the_map_is_a_set_of_clips(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(f"{address}/map")
    plane = page.get_by_role("application")
    box = plane.bounding_box()
    assert box is not None
    page.get_by_role("button", name="Draw around clips").click()
    left, right = box["x"] + 2, box["x"] + box["width"] / 2
    top, bottom = box["y"] + 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for place in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    expect(page.get_by_role("heading", name="20 clips in the area")).to_be_visible()
    shown = page.locator("#chosen article").evaluate_all("all => all.map((one) => one.dataset.id)")
    ids_ = mapped.index.rows["utterance_id"].to_pylist()
    assert shown == [id_ for at, id_ in enumerate(ids_) if at % 8 < 4]
    page.get_by_role("button", name="Keep all that are listed").click()
    expect(page.get_by_text("20 clips kept")).to_be_visible()


def test_from_a_result_to_the_map_and_back(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=a+high+voice")
    expect(results(page)).to_have_count(10)
    chosen = ids(page)[1]
    results(page).nth(1).get_by_role("button", name="Details:").click()
    results(page).nth(1).get_by_role("link", name="Show on the map").click()
    expect(page).to_have_url(f"{address}/map?clip={chosen}")
    expect(page.locator("#chosen article")).to_have_attribute("data-id", chosen)
    page.locator("#chosen").get_by_role("link", name="More like this").click()
    expect(page).to_have_url(f"{address}/?like={chosen}")
    page.go_back()
    page.go_back()
    expect(results(page)).to_have_count(10)


def test_a_tap_on_the_map_brings_the_clip_into_view(phone: Page, address: str) -> None:
    phone.goto(f"{address}/map")
    plane = phone.get_by_role("application")
    box = plane.bounding_box()
    assert box is not None
    high = 4 / 7  # the grid, stretched at most 1.6 times
    wide, tall = box["width"] - 52, (box["height"] - 52) / high
    unit = min(tall, 1.6 * wide)
    plane.tap(position={"x": 26, "y": (box["height"] - unit * high) / 2})
    phone.wait_for_function(PLAYING)
    play = phone.locator("#chosen").get_by_role("button", name=re.compile("Play|Pause"))
    expect(play).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_word_without_end_does_not_widen_the_page(page: Page, address: str, size: dict[str, int]) -> None:
    def lengthened(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        endless = "x" * 3000
        for clip in found["clips"]:
            clip |= {"emotion": endless, "events": [endless], "speaker": endless, "title": endless, "text": endless}
            clip |= {"caption": endless, "why": [endless], "lacks": [endless]}
        route.fulfill(response=answer, json=found)

    page.set_viewport_size(size)  # type: ignore[arg-type]
    page.route("**/api/search?*", lengthened)
    page.goto(f"{address}/?query=a+high+voice")
    expect(results(page)).to_have_count(10)
    results(page).first.get_by_role("button", name="Details:").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
