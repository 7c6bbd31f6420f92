"""Pages and artifacts made of hostile text: what they are built of comes from their templates, none of it from data.

A page is parsed twice, with hostile text and with harmless text in its place: it has the same elements and attributes.
"""

from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from fsclap.evaluation.report import Clip, write_report
from fsclap.evaluation.results import Evaluation
from storage.card import CardPaths, escape_markdown, write_card
from storage.corpus import Corpus
from tasks.notes import card_text, evaluation_text
from tasks.outcomes import EvaluatedModel
from tests.fsclap.evaluation.examples import LEAKING, evaluation, example, history, pairs, vectors
from tests.storage.conftest import rows_of

Page = Counter[tuple[str, str, str]]

STEERING = {chr(code) for code in (*range(32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F),
                                   *range(0x2066, 0x206A))} - {"\n"}  # fmt: skip
"""Characters that move a terminal's cursor, or turn the direction of what stands beside them."""
HARMLESS = "harmless words"
HOSTILE = [
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title></style></textarea></script><script>alert(1)</script>",
    "<!-- <b> --> <![CDATA[ <i>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b&#62;",
    "{{ 7 * 7 }} {% include 'x' %} {# no #} ${7*7} <%= 7 %>",
    "[a](javascript:alert(1)) ![b](http://example.org/x.png) [c]: http://example.org",
    "<javascript:alert(1)> <http://example.org> http://example.org www.example.org a@example.org",
    "# heading\n\n---\n\n- list\n\n```\ncode\n```\n\n    indented\n\n> quote\n\n| a | b |\n|---|---|\n| c | d |",
    "1. one\n2) two\n\n* star\n+ plus\n\nTitle\n=====\n\nOther\n-----",
    "**bold** __bold__ *i* _i_ ~~gone~~ `code` \\<b> | cell |",
    "=HYPERLINK(\"http://example.org\")",
    "\u202egnp.exe\u202c \u2066a\u2069 \u200f\u200e \ufeff",
    "\x00\x07\x08\x1b[31m\x7f\x85\u2028\u2029\ud7ff",
    "---\nlicense: mit\n---",
    "$\\frac{$ \\(x\\) $$",
    "x" * 300,
]  # fmt: skip


class Parsed(HTMLParser):
    """The elements and attributes of a page, and all that is no name: text that is shown, by the browser's rules."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Page = Counter()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements[tag, "", ""] += 1
        for name, value in attributes:
            shown = value if name in ("class", "href", "src") and not str(value).startswith("data:") else ""
            self.elements[tag, name, str(shown)] += 1

    def handle_comment(self, data: str) -> None:
        self.elements["!", "comment", ""] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def markdown(text: str) -> str:
    """As Prefect's UI or a hub may render it, at their most permissive."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)


def squeezed(text: str) -> str:
    return " ".join("".join(" " if character in STEERING else character for character in text).split())


def check_same(found: str, harmless: str, *, shown: list[str]) -> None:
    hostile, plain = Parsed(found), Parsed(harmless)
    assert hostile.elements == plain.elements
    text = squeezed(hostile.text)
    for said in shown:
        assert squeezed(said) in text


# The card of a corpus


def written(folder: Path, texts: list[str]) -> CardPaths:
    """The card of a corpus with a row for each text, in every field whose text comes from outside."""
    corpus = Corpus.open(folder, create=True)
    everything = " ".join(texts)  # where a card shows only some of the rows
    rows = rows_of("e1", kept=len(texts), rejected=len(texts))
    for said, kept, refused in zip(texts, rows["utterances"], rows["rejects"], strict=True):
        shared = {"series": said, "episode": said, "url": said}
        kept |= shared | {"title": said, "emotion": said, "caption": everything, "text": everything}
        kept["speaker"] = f"{everything}/{kept['speaker']}"
        refused |= shared | {"stage": said, "reason": said, "detail": said, "text": said}
    source = rows["source"] | {"title": everything, "url": everything, "stage_seconds": dict.fromkeys(texts, 1.0)}
    corpus.commit_source(source, utterances=rows["utterances"], rejects=rows["rejects"])
    settings = {"outer": {f"{number}.{said}": said for number, said in enumerate(texts)}}
    return write_card(corpus, title=everything, settings=settings, threshold=0.65, folder=corpus.folder)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[CardPaths, CardPaths]:
    harmless = [f"{number} {HARMLESS}" for number in range(len(HOSTILE))]
    hostile, plain = (written(tmp_path_factory.mktemp("corpus"), texts) for texts in (HOSTILE, harmless))
    return hostile, plain


def test_no_element_of_a_card_comes_from_data(cards: tuple[CardPaths, CardPaths]) -> None:
    hostile, plain = (card.page.read_text() for card in cards)
    check_same(hostile, plain, shown=[*HOSTILE, " ".join(HOSTILE)])


def test_no_element_of_a_readme_comes_from_data(cards: tuple[CardPaths, CardPaths]) -> None:
    parts = [card.readme.read_text().removeprefix("---\n").split("\n---\n", 1) for card in cards]
    hostile, plain = (yaml.safe_load(front) for front, _ in parts)
    assert hostile | {"pretty_name": "", "configs": []} == plain | {"pretty_name": "", "configs": []}
    check_same(markdown(parts[0][1]), markdown(parts[1][1]), shown=[])
    check_same(markdown(card_text(cards[0])), markdown(card_text(cards[1])), shown=[])


@pytest.mark.parametrize("said", HOSTILE, ids=lambda said: said[:16].encode("unicode_escape").decode())
def test_markdown_shows_any_text_literally(said: str) -> None:
    for page in (escape_markdown(said), f"| {escape_markdown(said)} |\n|---|\n| {escape_markdown(said)} |"):
        found = Parsed(markdown(page))
        assert set(found.elements) <= {(tag, "", "") for tag in ("p", "table", "thead", "tbody", "tr", "th", "td")}
        assert squeezed(said) in squeezed(found.text.replace("\N{REPLACEMENT CHARACTER}", " "))
        assert not STEERING & set(found.text)


# The report of an evaluation, and what the UI shows of it


def hostile_evaluation(said: str, **changes: Any) -> Evaluation:
    found = [example(said, right="a", found=["b", "c", "missing"], rank=4.0)]
    return evaluation(
        model=said, corpus=said, date=said, machine={said: said}, best=found, worst=found, **changes
    )  # fmt: skip


def report(folder: Path, said: str, **changes: Any) -> str:
    audio, text = pairs(6)
    clips = {name: Clip(caption=said, style=(said, said), speaker=said, flac=b"") for name in "abc"}
    return write_report(
        hostile_evaluation(said, **changes), folder, vectors=vectors(audio, text), history=history(2),
        clips=clips,
    ).read_text()  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"leak": LEAKING}], ids=["passed", "leaking"])
def test_no_element_of_a_report_comes_from_data(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    everything = " ".join(HOSTILE)
    found, harmless = (report(tmp_path / str(n), text, **changes) for n, text in enumerate([everything, HARMLESS]))
    check_same(found, harmless, shown=[everything])


def test_no_element_of_the_evaluation_in_the_ui_comes_from_data(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"")
    pages = []
    for said in ("\n\n".join(HOSTILE), HARMLESS):
        done = EvaluatedModel(
            corpus=said, version=1, model=said, report=str(tmp_path / "report.html"), leaks=False, reason=said
        )
        pages.append(markdown(evaluation_text(done, hostile_evaluation(said), tmp_path / "report.html")))
    hostile, plain = (Parsed(page).elements for page in pages)
    assert hostile == plain
