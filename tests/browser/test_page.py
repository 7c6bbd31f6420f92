import dataclasses
import re
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from fsclap.retrieval.app import make_app
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.index import ModelStatus
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion
from tests.browser.conftest import COLUMNS, opened
from tests.fsclap.retrieval.fixtures import HOSTILE
from tests.fsclap.retrieval.serving import served
from tests.fsclap.retrieval.test_judging import InMemory

QUERY = "a weary voice, speaking slowly"
PLAYING = "() => { const audio = document.getElementById('audio'); return !audio.paused && audio.currentTime > 0.05; }"

OTHER_VIEWS = [pytest.param(path, marks=pytest.mark.slow) for path in ("/map", "/judge")]


def find(page: Page, query: str = QUERY) -> None:
    page.get_by_role("searchbox").fill(query)
    page.keyboard.press("Enter")
    expect(page.get_by_text("best first")).to_be_visible()


def chooser(page: Page) -> Locator:
    """The field for a recording. Unlike a click, choosing a file doesn't wait until the form is shown."""
    expect(page.get_by_role("searchbox")).to_be_visible()
    return page.get_by_label("File to search with")


def results(page: Page) -> Locator:
    return page.locator("#results article")


def ids(page: Page) -> list[str]:
    """Ids of the clips that are shown, in order."""
    return [str(name) for name in results(page).evaluate_all("all => all.map((one) => one.dataset.id)")]


def played(page: Page) -> str:
    """Id of the clip in the audio element."""
    source = page.evaluate("() => document.getElementById('audio').getAttribute('src')")
    return str(source).split("/")[2]


def focused(page: Page) -> str:
    """Accessible name of the focused element."""
    return str(page.evaluate("() => (document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"))


def test_the_first_visit_offers_examples(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("status").filter(has_text="40 clips to search")).to_be_visible()
    example = page.get_by_role("list", name="Examples").get_by_role("button").first
    text = example.inner_text()
    example.click()
    expect(page.get_by_role("searchbox")).to_have_value(text)
    expect(results(page)).to_have_count(10)


def test_typing_and_enter_shows_what_the_searcher_finds(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(address)
    find(page)
    hits = mapped.search(QUERY, top=10)
    assert ids(page) == [hit.utterance_id for hit in hits]
    first = results(page).first
    expect(first.get_by_role("heading")).to_have_text(hits[0].caption)
    expect(page.get_by_role("status").filter(has_text="10 of 40 clips, best first")).to_be_visible()
    share = mapped.calibration("words").share(hits[0].score)  # type: ignore[union-attr]
    expect(first.locator(".score")).to_contain_text(f"{100 * share:.0f} %")
    expect(first.locator(".details")).to_be_hidden()
    first.get_by_role("button", name="Details:").click()
    expect(first.get_by_text(f"“{hits[0].row['text']}”")).to_be_visible()
    expect(first.get_by_role("link", name="Source")).to_have_attribute("href", hits[0].row["url"])
    expect(first.locator("dl")).to_contain_text(f"{hits[0].row['attributes']['pitch_hz']:.0f} Hz")
    expect(first.locator("dl")).not_to_contain_text("Pitch slope")  # null in the corpus
    page.get_by_role("button", name="Show more").click()
    expect(results(page)).to_have_count(20)
    assert ids(page) == [hit.utterance_id for hit in mapped.search(QUERY, top=20)]


def test_a_search_has_an_address_and_the_back_button_works(page: Page, address: str, browser: Browser) -> None:
    page.goto(address)
    find(page)
    page.get_by_label("Series", exact=True).select_option("Dvě ryby")
    expect(page).to_have_url(re.compile("series="))
    expect(page.get_by_text(re.compile("10 of .* clips, best first"))).to_be_visible()
    narrowed, shared = ids(page), page.url
    page.get_by_role("link", name="Map").click()
    expect(page).to_have_url(f"{address}/map")
    expect(page.get_by_role("heading", name="Map of the corpus")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Series", exact=True)).to_have_value("Dvě ryby")
    expect(results(page)).to_have_count(10)
    assert ids(page) == narrowed
    page.go_back()
    expect(page.get_by_label("Series", exact=True)).to_have_value("")
    page.go_back()
    expect(page.get_by_role("list", name="Examples")).to_be_visible()
    assert parse_qs(urlsplit(shared).query) == {"query": [QUERY], "series": ["Dvě ryby"]}
    page.goto(shared)
    expect(results(page)).to_have_count(10)
    assert ids(page) == narrowed


def test_the_clips_can_be_ranked_by_words(page: Page, address: str, mapped: Searcher) -> None:
    query = "a high voice 😀"
    page.goto(address)
    find(page, query)
    expect(page.get_by_role("status").filter(has_text="'😀' can't be read")).to_be_visible()
    orders = [[hit.utterance_id for hit in mapped.search(query, by=by)] for by in ("words", "both", "model")]
    assert ids(page) == orders[0] != orders[2]
    expect(page.locator("#results mark").first).to_have_text("high")
    page.get_by_label("Rank descriptions by").select_option("both")
    expect(page).to_have_url(re.compile("by=both"))
    expect(page.get_by_text(re.compile("10 of .* clips, best first"))).to_be_visible()
    page.wait_for_function(f"() => document.querySelector('#results article')?.dataset.id === '{orders[1][0]}'")
    assert ids(page) == orders[1]
    results(page).first.get_by_role("button", name="Details:").click()
    expect(results(page).first.get_by_text("Has what was asked for: high pitch")).to_be_visible()
    shared = page.url
    page.get_by_label("Rank descriptions by").select_option("model")
    expect(page.get_by_text(re.compile("10 of .* clips, best first"))).to_be_visible()
    page.wait_for_function(f"() => document.querySelector('#results article')?.dataset.id === '{orders[2][0]}'")
    assert ids(page) == orders[2]
    page.go_back()
    expect(page.get_by_label("Rank descriptions by")).to_have_value("both")
    page.goto(shared)
    expect(results(page)).to_have_count(10)
    assert ids(page) == orders[1]
    expect(page.locator("#active-filters")).to_have_text("")


def test_a_model_that_was_not_promoted_is_named_as_such(
    browser: Browser, mapped: Searcher, version: CorpusVersion
) -> None:
    status = ModelStatus(promoted=False, figure=0.031, chance=0.029, metric="mAP@10")
    record = mapped.index.record.model_copy(update={"model_status": status})
    app = make_app(Searcher(dataclasses.replace(mapped.index, record=record), mapped.model), version.audio, None)
    with served(app) as address, opened(browser, {"width": 800, "height": 600}) as page:
        page.goto(address)
        expect(page.get_by_text("The model was not promoted: mAP@10 is 3.1 %, chance is 2.9 %.")).to_be_visible()


def test_filters_narrow(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(address)
    find(page)
    page.get_by_label("Emotion", exact=True).select_option("sad")
    page.get_by_label("Length: at least").fill("50")  # whole steps of 0.02 s
    page.get_by_label("Length: at most").fill("70")
    page.get_by_label("Condition").fill("attributes.pitch_hz < 150; speaker ~ 'crossed'")
    page.keyboard.press("Enter")
    conditions = ["emotion = sad", "duration >= 1", "duration <= 1.4", "attributes.pitch_hz < 150", "speaker ~ crossed"]
    hits = mapped.search(QUERY, where=[Condition.parse(text) for text in conditions])
    assert 0 < len(hits) < 10
    expect(results(page)).to_have_count(len(hits))
    assert ids(page) == [hit.utterance_id for hit in hits]


def test_nothing_found_says_so_and_offers_a_way_out(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=voice&where=duration+%3E+99")
    expect(page.get_by_role("status").filter(has_text="No clip meets these conditions.")).to_be_visible()
    expect(results(page)).to_have_count(0)
    page.get_by_role("main").get_by_role("button", name="Remove all filters").last.click()
    expect(results(page)).to_have_count(10)


def test_an_unreadable_condition_shows_an_error(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=voice&where=colour+%3D+red")
    expect(page.get_by_role("alert").filter(has_text="There is no column 'colour'")).to_be_visible()
    field = page.get_by_label("Condition")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("There is no column 'colour'"))
    page.get_by_role("button", name="Mend the condition").click()
    expect(field).to_be_focused()
    page.get_by_label("Condition").fill("")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(results(page)).to_have_count(10)
    expect(page.get_by_text("There is no column")).to_have_count(0)


def test_an_unreachable_server_shows_an_error(page: Page, address: str) -> None:
    page.route("**/api/search**", lambda route: route.abort())
    page.goto(address)
    expect(page.get_by_text("40 clips to search")).to_be_visible()
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="The server does not answer")).to_be_visible()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(results(page)).to_have_count(10)


def test_the_page_says_that_it_is_searching(page: Page, address: str) -> None:
    held = []
    page.route("**/api/search**", lambda route: held.append(route))
    page.goto(address)
    expect(page.get_by_text("40 clips to search")).to_be_visible()
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Searching")).to_be_visible()
    expect(page.locator("#search")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    expect(results(page)).to_have_count(10)
    expect(page.locator("#search")).not_to_have_attribute("aria-busy", "true")


def test_clips_play_one_at_a_time(page: Page, address: str) -> None:
    page.goto(address)
    find(page)
    first, second, third = (results(page).nth(number) for number in range(3))
    first.get_by_role("button", name="Play:").click()
    page.wait_for_function(PLAYING)
    assert played(page) == ids(page)[0]
    expect(first.get_by_role("button", name="Pause:")).to_be_visible()
    second.get_by_role("button", name="Play:").click()
    page.wait_for_function(PLAYING)
    assert played(page) == ids(page)[1]
    expect(first.get_by_role("button", name="Play:")).to_be_visible()
    page.wait_for_function("() => document.getElementById('audio').ended")
    expect(second.get_by_role("button", name="Play:")).to_be_visible()

    wave = third.get_by_role("slider")
    expect(wave.locator("svg.rest path")).to_have_attribute("d", re.compile("^M2 .*V"))
    wave.focus()
    page.keyboard.press("End")
    expect(wave).to_have_attribute("aria-valuenow", "100")
    page.keyboard.press("ArrowLeft")
    expect(wave).to_have_attribute("aria-valuenow", "95")
    page.keyboard.press("Home")
    expect(wave).to_have_attribute("aria-valuenow", "0")
    assert played(page) == ids(page)[2]
    box = wave.bounding_box()
    assert box is not None
    wave.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_function("() => document.getElementById('audio').currentTime > 0.25")


def test_more_like_this(page: Page, address: str, mapped: Searcher) -> None:
    page.goto(address)
    find(page)
    chosen = ids(page)[2]
    results(page).nth(2).get_by_role("button", name="Details:").click()
    results(page).nth(2).get_by_role("link", name="More like").click()
    expect(page.get_by_role("heading", name="Clips like this one")).to_be_visible()
    expect(page).to_have_url(f"{address}/?like={chosen}")
    assert ids(page) == [hit.utterance_id for hit in mapped.like_clip(chosen, top=10)]
    page.goto(f"{address}/?like=nobody-00000")
    expect(page.get_by_role("alert").filter(has_text="has no clip 'nobody-00000'")).to_be_visible()


def test_a_recording_finds_itself(page: Page, address: str, mapped: Searcher, version: CorpusVersion) -> None:
    id_ = mapped.index.rows["utterance_id"][7].as_py()
    file = {"name": "mine.flac", "mimeType": "audio/flac", "buffer": dict(version.audio([id_]))[id_]}
    page.goto(address)
    chooser(page).set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_text("best first")).to_be_visible()
    assert ids(page)[0] == id_
    mine = page.get_by_role("region", name="Searched with")
    expect(mine.get_by_role("heading")).to_have_text("mine.flac")
    mine.get_by_text("Captions that fit best").click()
    expect(mine.locator(".captions li")).to_have_count(5)
    mine.get_by_role("button", name="Play: mine.flac").click()
    page.wait_for_function(PLAYING)
    page.get_by_label("Series", exact=True).select_option("Dvě ryby")
    expect(page.get_by_text("best first")).to_be_visible()
    assert id_.rsplit("-")[0] != ids(page)[0].rsplit("-")[0]


def test_a_file_without_sound_or_too_large_shows_an_error(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(address)
    chooser(page).set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"words " * 50})
    expect(page.get_by_role("alert").filter(has_text="no supported media format")).to_be_visible()
    with (tmp_path / "b.wav").open("wb") as large:
        large.truncate(20_100_000)
    chooser(page).set_input_files(tmp_path / "b.wav")
    expect(page.get_by_role("alert").filter(has_text="b.wav has 20.1 MB; the limit is 20 MB")).to_be_visible()


def test_text_of_the_corpus_is_never_markup(page: Page, address: str, mapped: Searcher) -> None:
    hostile = next(row for row in mapped.index.rows.to_pylist() if row["caption"] == HOSTILE)
    page.goto(f"{address}/?like={hostile['utterance_id']}")
    expect(page.locator("#searched-with").get_by_role("heading", name=HOSTILE, exact=True)).to_have_text(HOSTILE)
    assert page.locator("article img, article b").count() == 0
    assert "hit" not in page.title()


def test_the_map_plays_what_is_clicked(page: Page, address: str, mapped: Searcher) -> None:
    clips = mapped.index.rows["utterance_id"].to_pylist()
    page.goto(f"{address}/map")
    plane = page.get_by_role("application", name="Map of 40 clips")
    box = plane.bounding_box()
    assert box is not None
    # The grid is 1 wide and 4/7 high. The page fits it in, 26 pixels from the edge, and stretches
    # one axis, at most 1.6 times.
    high = (len(clips) // COLUMNS - 1) / (COLUMNS - 1)
    wide, tall = box["width"] - 52, (box["height"] - 52) / high
    unit_x, unit_y = min(wide, 1.6 * tall), min(tall, 1.6 * wide)
    corner = {"x": (box["width"] + unit_x) / 2, "y": (box["height"] + unit_y * high) / 2}
    plane.click(position=corner)  # type: ignore[arg-type]
    page.wait_for_function(PLAYING)
    assert played(page) == clips[-1]
    caption = mapped.row(clips[-1])["caption"]
    expect(page.locator("#chosen").get_by_role("heading")).to_have_text(caption)
    page.get_by_label("Colour by").select_option("attributes.pitch_hz")
    expect(page.locator(".scale")).to_contain_text("100")
    page.get_by_label("Colour by").select_option("emotion")
    expect(page.get_by_role("list", name="Colours").get_by_role("listitem")).to_have_text(["happy", "sad", "unknown"])


def test_the_map_by_keys(page: Page, address: str, mapped: Searcher) -> None:
    clips = mapped.index.rows["utterance_id"].to_pylist()
    page.goto(f"{address}/map")
    plane = page.get_by_role("application", name="Map of 40 clips")
    plane.focus()
    chosen = page.locator("#chosen article")

    def go(key: str, to: int) -> None:
        page.keyboard.press(key)
        expect(chosen).to_have_attribute("data-id", clips[to])

    page.keyboard.press("ArrowRight")  # to the middle of all
    at = clips.index(chosen.get_attribute("data-id"))
    assert at // COLUMNS == 2
    go("ArrowUp", at - COLUMNS)
    go("ArrowLeft", at - COLUMNS - 1)
    go("ArrowDown", at - 1)
    go("ArrowRight", at)
    page.keyboard.press("Enter")
    page.wait_for_function(PLAYING)
    assert played(page) == clips[at]


@pytest.mark.slow
def test_a_map_that_is_being_made_is_waited_for(
    page: Page,
    address: str,
) -> None:
    asked = []

    def answer(route: object) -> None:
        asked.append(route)
        if len(asked) < 3:
            route.fulfill(status=202, json={"state": "making"})  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/api/map", answer)
    page.goto(f"{address}/map")
    expect(page.get_by_role("status").filter(has_text="Making the map")).to_be_visible()
    expect(page.get_by_role("application")).to_be_visible()
    assert len(asked) == 3


def test_judging(page: Page, address: str, mapped: Searcher, log: InMemory) -> None:
    before = len(log.judgements)
    page.goto(f"{address}/judge")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Description to judge").fill(QUERY)
    page.keyboard.press("Enter")
    pair = page.locator("#judge-pair")
    expect(pair.get_by_text("Clip 1 of 15")).to_be_visible()
    text = pair.inner_text()
    assert not [row for row in mapped.index.rows.to_pylist() if row["caption"] in text or row["speaker"] in text]
    page.wait_for_function(PLAYING)
    first = played(page)
    page.keyboard.press("1")
    expect(pair.get_by_text("Clip 2 of 15")).to_be_visible()
    page.wait_for_function(PLAYING)
    second = played(page)
    pair.get_by_role("button", name="No").click()
    expect(pair.get_by_text("Clip 3 of 15")).to_be_visible()
    pair.get_by_role("button", name="Skip").click()
    expect(pair.get_by_text("Clip 4 of 15")).to_be_visible()
    pair.get_by_role("button", name="Back").click()
    expect(pair.get_by_text("Clip 3 of 15")).to_be_visible()
    pair.get_by_role("button", name="Back").click()
    expect(pair.get_by_text("2 of 15 judged")).to_be_visible()
    expect(pair.get_by_role("button", name="No")).to_have_attribute("aria-pressed", "true")
    kept = [(one.judge, one.query, one.utterance_id, one.verdict) for one in log.judgements[before:]]
    assert kept == [("Ada", QUERY, first, "fits"), ("Ada", QUERY, second, "no")]
    page.goto(f"{address}/judge")
    expect(page.get_by_label("Your name")).to_have_value("Ada")
    page.get_by_label("Description to judge").fill(QUERY)
    page.keyboard.press("Enter")
    expect(pair.get_by_text("Clip 3 of 15")).to_be_visible()
    page.wait_for_function(PLAYING)
    assert played(page) not in (first, second)


def test_a_link_hands_a_description_to_a_judge(page: Page, address: str) -> None:
    page.goto(f"{address}/judge")
    page.get_by_label("Your name").fill("Dora")
    page.get_by_label("Description to judge").fill("a low voice")
    page.get_by_role("button", name="Link for a judge").click()
    link = page.get_by_label("Link", exact=True).input_value()
    assert link == f"{address}/judge?judge=Dora&query=a+low+voice"
    page.goto(link)
    expect(page.get_by_label("Your name")).to_have_value("Dora")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Clip 1 of 15")).to_be_visible()


def test_who_skips_all_clips_is_told_what_is_left(page: Page, address: str) -> None:
    page.goto(f"{address}/judge?judge=Eve&query=a+slow+voice")
    page.get_by_role("button", name="Start").click()
    for number in range(1, 16):
        expect(page.get_by_text(f"Clip {number} of 15")).to_be_visible()
        page.get_by_role("button", name="Skip").click()
    expect(page.get_by_text("you skipped 15. Start again to judge them.")).to_be_visible()


def test_judging_works_with_site_data_blocked(page: Page, address: str) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('denied', 'SecurityError'); } });"
    )
    page.goto(f"{address}/judge")
    expect(page.get_by_text("This browser keeps no data")).to_be_visible()
    page.get_by_label("Your name").fill("Fay")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function(PLAYING)
    page.keyboard.press("2")
    expect(page.get_by_text("Clip 2 of 15")).to_be_visible()


def test_a_clip_can_only_be_judged_after_it_played(page: Page, address: str, log: InMemory) -> None:
    before = len(log.judgements)
    held = []
    page.route("**/audio", lambda route: held.append(route))
    page.goto(f"{address}/judge")
    page.get_by_label("Your name").fill("Bob")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Fits")).to_be_disabled()
    page.keyboard.press("1")
    expect(page.get_by_text("Listen to the clip first.")).to_be_visible()
    assert len(log.judgements) == before


def test_a_judgement_that_could_not_be_stored_shows_an_error_and_stays(page: Page, address: str) -> None:
    page.route("**/api/judgements", lambda route: route.fulfill(status=500, json={"error": "the disk is full"}))
    page.goto(f"{address}/judge")
    page.get_by_label("Your name").fill("Cleo")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function(PLAYING)
    page.keyboard.press("2")
    expect(page.get_by_role("alert").filter(has_text="The disk is full")).to_be_visible()
    expect(page.get_by_text("Clip 1 of")).to_be_visible()


def test_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_text("40 clips to search")).to_be_visible()
    seen = []
    while focused(page) != "Describe how the speech should sound":
        page.keyboard.press("Tab")
        seen.append(focused(page))
        assert len(seen) < 10, seen
    assert seen[0] == "Skip to content"
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expect(results(page)).to_have_count(10)
    for _ in range(3):
        page.keyboard.press("Tab")
    assert focused(page).startswith("Play: ")
    page.keyboard.press("Space")
    page.wait_for_function(PLAYING)
    page.keyboard.press("ArrowDown")  # with sound
    page.wait_for_function(PLAYING)
    assert played(page) == ids(page)[1]
    page.keyboard.press("b")
    expect(results(page).nth(1).get_by_role("button", name="Keep:")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("d")
    expect(results(page).nth(1).get_by_role("link", name="More like this")).to_be_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "Describe how the speech should sound"
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith(("Play: ", "Pause: "))


def test_the_results_are_one_step_from_the_start_of_the_page(page: Page, address: str) -> None:
    page.goto(f"{address}/?query=voice")
    expect(results(page)).to_have_count(10)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the results"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page).startswith("Play: ")


@pytest.mark.parametrize("path", ["/?query=voice", *OTHER_VIEWS])
def test_every_control_has_a_name_and_room_for_a_finger(phone: Page, address: str, path: str) -> None:
    phone.goto(address + path)
    phone.wait_for_load_state("networkidle")
    if path.startswith("/?"):
        phone.get_by_text("Filters", exact=True).click()
        expect(results(phone)).to_have_count(10)
    controls = phone.locator(
        ":is(a, button, input:not([type=file]), select, summary, [role=slider]):visible:not([type=range], .wave)"
    )
    assert controls.count() > 4
    small = controls.evaluate_all(
        "all => all.filter((one) => !one.matches('.skip') && one.getBoundingClientRect().height < 44)"
        ".map((one) => one.outerHTML.slice(0, 80))"
    )
    assert small == []
    snapshot = phone.locator("body").aria_snapshot()
    unnamed = [
        line for line in snapshot.splitlines() if re.match(r"\s*- (button|link|textbox|combobox|slider)\b[^\"]*$", line)
    ]
    assert unnamed == []


@pytest.mark.parametrize("path", ["/?query=voice", pytest.param("/", marks=pytest.mark.slow), *OTHER_VIEWS])
def test_on_a_phone_nothing_is_cut_off(phone: Page, address: str, path: str) -> None:
    phone.goto(address + path)
    phone.wait_for_load_state("networkidle")
    wide = phone.evaluate("() => document.documentElement.scrollWidth")
    assert wide == 390
    if "query" in path:
        results(phone).first.get_by_role("button", name="Play:").tap()
        phone.wait_for_function(PLAYING)


def test_a_password_is_asked_for(browser: Browser, mapped: Searcher, version: CorpusVersion) -> None:
    with served(make_app(mapped, version.audio, None, password="secret")) as address:
        for password, status in (("wrong", 401), ("secret", 200)):
            context = browser.new_context(http_credentials={"username": "anybody", "password": password})
            page = context.new_page()
            answer = page.goto(address)
            assert answer is not None
            assert answer.status == status
            if status == 200:
                find(page)
            context.close()


def test_without_a_place_for_judgements_the_view_says_so(
    browser: Browser, mapped: Searcher, version: CorpusVersion
) -> None:
    app = make_app(mapped, version.audio, None)
    with served(app) as address, opened(browser, {"width": 800, "height": 600}) as page:
        page.goto(f"{address}/judge")
        expect(page.get_by_text("Judging is switched off")).to_be_visible()
        expect(page.get_by_role("button", name="Start")).to_be_hidden()


@pytest.mark.slow
def test_the_map_is_made_when_it_is_first_opened(
    browser: Browser, mapped: Searcher, version: CorpusVersion, tmp_path: Path
) -> None:
    shutil.copytree(mapped.index.folder, tmp_path / "index")
    next(tmp_path.glob("index/*/map.npy")).unlink()
    fresh = Searcher(dataclasses.replace(mapped.index, folder=tmp_path / "index"), mapped.model)
    with (
        served(make_app(fresh, version.audio, None)) as address,
        opened(browser, {"width": 800, "height": 600}) as page,
    ):
        page.goto(f"{address}/map")
        expect(page.get_by_role("status").filter(has_text="Making the map")).to_be_visible()
        page.get_by_role("application", name="Map of 40 clips").wait_for(timeout=180_000)
