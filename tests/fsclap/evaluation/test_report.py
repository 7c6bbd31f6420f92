"""The page: what it says, what it must not say, and that it needs nothing but itself."""

import base64
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fsclap.audio import encode_flac
from fsclap.evaluation.report import Clip, clips_needed, write_report
from fsclap.evaluation.results import Evaluation, Interval
from fsclap.evaluation.words import headline, meaning
from tests.fsclap.evaluation import examples

RATE = 24_000


class Tags(HTMLParser):
    """Every start tag with its attributes, and that tags are balanced."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def clip(caption: str = "A low voice.", *, seconds: float = 0.5, **changes: Any) -> Clip:
    wave = 0.1 * np.random.default_rng(0).normal(size=int(RATE * seconds)).astype(np.float32)
    fields = {"caption": caption, "style": ("pitch low",), "speaker": "S00", "flac": encode_flac(wave, RATE)}
    return Clip(**(fields | changes))


def write(folder: Path, evaluation: Evaluation, *, clips: dict[str, Clip] | None = None, pairs: int = 6) -> str:
    audio, text = examples.pairs(pairs)
    page = write_report(
        evaluation,
        folder,
        vectors=examples.vectors(audio, text),
        history=examples.history(3),
        clips=clips or {},
    )
    return page.read_text(encoding="utf-8")


def words(page: str) -> str:
    """The text of a page, without tags, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.split("</style>", 1)[1])).split())


def test_the_headline_has_interval_pool_chance_and_ceiling(tmp_path: Path) -> None:
    evaluation = examples.evaluation()
    said = words(write(tmp_path, evaluation))
    row = headline(evaluation)
    assert row is not None
    assert (row.mode, row.direction, row.pool, row.stage) == ("paper", "mean", 1000, "embeddings")
    found = row.metrics["mAP@10"]
    for figure in (found.value, found.low, found.high, row.chance["mAP@10"], row.ceiling["mAP@10"]):
        assert f"{100 * figure:.1f} %" in said
    assert "1,000 clips in the pool" in said
    assert meaning(evaluation) in said
    assert "Passed." in said


def test_an_interval_down_to_chance_is_called_guessing() -> None:
    row = examples.figures(pool=100)
    row = row.model_copy(update={"metrics": row.metrics | {"mAP@10": Interval(value=0.02, low=0.009, high=0.03)}})
    assert "cannot tell the model from guessing" in meaning(examples.evaluation(retrieval=[row]))
    assert "excludes chance" in meaning(examples.evaluation())


def test_a_leaking_model_gets_a_banner_and_no_retrieval_figure(tmp_path: Path) -> None:
    # Even when someone left the figures in.
    leaking = examples.evaluation(leak=examples.LEAKING, best=[examples.example("q", right="a", found=["a"])])
    page = write(tmp_path, leaking)
    said = words(page)
    assert 'class="banner"' in page
    assert "This model leaks" in said
    assert "Failed." in said
    assert "100.0 % of the cases" in said
    assert "Best queries" not in said
    for row in leaking.retrieval:
        assert f"{100 * row.metrics['mAP@10'].value:.1f}" not in said


def test_the_table_has_every_row_with_the_mean_of_directions_first(tmp_path: Path) -> None:
    evaluation = examples.evaluation()
    page = write(tmp_path, evaluation)
    rows = re.findall(r"<tr(?: class=\"mean\")?><td>([\d,]+)\s.*?<td>([^<]+)", page, flags=re.DOTALL)
    results = [row for row in rows if row[1] in ("mean of both", "text → audio", "audio → text")]
    assert len(results) == len(evaluation.retrieval)
    assert results[:4] == [
        ("1,000", "mean of both"), ("1,000", "text → audio"), ("1,000", "audio → text"), ("200", "mean of both"),
    ]  # fmt: skip
    assert "rerank@20" in page


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    best = [examples.example("low", right="a", found=["a", "b"])]
    page = write(tmp_path, examples.evaluation(best=best), clips={"a": clip(), "b": clip()})
    tags = Tags(page)
    for tag, attributes in tags.found:
        assert tag not in {"link", "script", "iframe"}
        for name in ("src", "href", "xlink:href", "srcset"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, value)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_sound_is_a_short_playable_clip(tmp_path: Path) -> None:
    best = [examples.example("low", right="a", found=["a"])]
    page = write(tmp_path, examples.evaluation(best=best), clips={"a": clip(seconds=20)})
    (sound,) = [attributes["src"] or "" for tag, attributes in Tags(page).found if tag == "audio"]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))
    assert len(wave) / rate == pytest.approx(8, abs=0.2)
    assert np.std(wave) == pytest.approx(0.1, rel=0.3)
    assert len(sound) < 70_000


@pytest.mark.slow
def test_everything_shown_of_a_full_report_stays_under_8_megabytes(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(80)]
    queries = [
        examples.example("q", right=names[4 * n], found=names[4 * n + 1 : 4 * n + 4], rank=50) for n in range(20)
    ]
    evaluation = examples.evaluation(best=queries[:10], worst=queries[10:])
    assert clips_needed(evaluation) == set(names)
    long = clip(seconds=9)
    page = write(tmp_path, evaluation, clips=dict.fromkeys(names, long))
    assert page.count("<audio") == 80
    assert (tmp_path / "report.html").stat().st_size < 8_000_000


def test_when_the_budget_is_spent_clips_stay_without_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsclap.evaluation.report._SOUND_BUDGET", 12_000)
    best = [examples.example("low", right="a", found=["a", "b", "c"])]
    page = write(tmp_path, examples.evaluation(best=best), clips={name: clip(seconds=1) for name in "abc"})
    assert page.count("<audio") == 1
    assert page.count("no sound") == 2


def test_a_query_shows_what_was_found_and_the_right_clip_when_it_was_missed(tmp_path: Path) -> None:
    clips = {"a": clip("A low voice."), "b": clip("A deep voice."), "c": clip("A high voice.", style=("pitch high",))}
    worst = [examples.example("a low voice", right="a", found=["b", "c"], rank=41.5)]
    page = write(tmp_path, examples.evaluation(worst=worst), clips=clips)
    said = words(page)
    assert "right answer at place 41.5" in said
    assert "found 1 · same style A deep voice." in said
    assert "found 2 A high voice." in said
    assert "expected A low voice." in said
    assert page.count("<audio") == 3


def test_a_clip_that_is_unreadable_or_missing_is_shown_without_sound(tmp_path: Path) -> None:
    best = [examples.example("q", right="a", found=["a", "b"])]
    page = write(tmp_path, examples.evaluation(best=best), clips={"a": clip(flac=b"not audio")})
    assert "<audio" not in page
    assert page.count("no sound") == 2
    assert "clip b is missing" in page


def test_all_text_is_escaped(tmp_path: Path) -> None:
    evil = "</style><script>alert('x')</script>\"&"
    best = [examples.example(evil, right="a", found=["a"])]
    evaluation = examples.evaluation(model=evil, corpus=evil, part=evil, machine={"processor": evil}, best=best)
    page = write(tmp_path, evaluation, clips={"a": clip(evil, speaker=evil, style=(evil,))})
    assert "<script" not in page
    assert page.count("</style>") == page.count("<style") > 0
    assert all(tag != "script" for tag, _ in Tags(page).found)
    assert evil in html.unescape(page)


def test_the_json_is_the_evaluation(tmp_path: Path) -> None:
    evaluation = examples.evaluation(best=[examples.example("ä ‹q›", right="a", found=["a"])])
    write(tmp_path, evaluation)
    assert Evaluation.load(tmp_path / "evaluation.json") == evaluation
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "evaluation.json", "map.png", "embeddings.npz"}


def test_a_model_that_scored_nothing_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = write(tmp_path, examples.evaluation(retrieval=[], clips=1, group_sizes={}), pairs=1)
    assert "Nothing was scored." in page


def test_embeddings_of_other_pairs_are_refused(tmp_path: Path) -> None:
    audio, text = examples.pairs(4)
    with pytest.raises(ValueError, match="embeddings of the same pairs"):
        write_report(examples.evaluation(), tmp_path, vectors=examples.vectors(audio, text[:3]), history=[], clips={})
