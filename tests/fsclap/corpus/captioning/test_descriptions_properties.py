"""Attributes of any clip, and the words and sentences that any attributes get."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.base import CaptioningSettings, Tags
from fsclap.corpus.captioning.bins import SCALES, load_bins
from fsclap.corpus.captioning.describe import STYLE_ORDER, Description, describe, style_key
from fsclap.corpus.captioning.grammar import caption, load_grammar
from tests.fsclap.corpus.captioning.test_captioning import meanings, read_back
from tests.properties import fewer, usual

GRAMMAR = load_grammar()
BINS = load_bins(None)
PITCHED = ("pitch", "pitch_range", "intonation", "relative_pitch", "timbre")
"""What a whisper has no words for."""


def maybe(low: float, high: float) -> st.SearchStrategy[float | None]:
    """None, an end of the range, or what lies between, to a thousandth: nothing is measured finer."""
    between = st.floats(low, high).map(lambda value: round(value, 3))
    return st.one_of(st.none(), between, st.sampled_from([low, high]))


attributes = st.builds(
    Attributes,
    pitch_hz=maybe(60, 600),
    pitch_range_st=maybe(0, 40),
    pitch_slope_st=maybe(-80, 80),
    energy_db=maybe(-65, 3),
    energy_range_db=maybe(0, 60),
    speaking_rate=maybe(0, 12),
    pause_ratio=maybe(0, 1),
    voiced_ratio=maybe(0, 1),
    spectral_tilt_db=maybe(-60, 90),
    aperiodicity=maybe(0, 1),
)
tags = st.builds(
    Tags,
    emotion=st.one_of(st.none(), st.sampled_from(sorted(GRAMMAR.phrases["emotion"]))),
    events=st.lists(st.sampled_from(sorted(GRAMMAR.phrases["events"])), max_size=4).map(tuple),
)
clips = st.lists(st.tuples(attributes, st.sampled_from("AB"), tags), min_size=1, max_size=6)
Clip = tuple[Attributes, str, Tags]


def described(recording: list[Clip], ids: list[str], **options: Any) -> list[Description]:
    found, speakers, heard = zip(*recording, strict=True)
    return describe(found, speakers=speakers, tags=heard, ids=ids, settings=CaptioningSettings(**options))


@usual
@given(recording=clips, seed=st.integers(0, 3))
def test_every_clip_has_a_caption_that_tells_its_style_and_nothing_else(recording: list[Clip], seed: int) -> None:
    ids = [f"clip-{number}" for number in range(len(recording))]
    found = described(recording, ids, seed=seed)
    assert described(recording, ids, seed=seed) == found, "the same again"
    for (own, _, heard), one in zip(recording, found, strict=True):
        assert read_back(one.caption, meanings(GRAMMAR)) == one.style, one.caption
        assert re.fullmatch(r"([A-Z][a-z',\- ]+\.)( [A-Z][a-z',\- ]+\.)*", one.caption), one.caption
        assert list(one.style) == [name for name in STYLE_ORDER if name in one.style]
        assert one.style_key == style_key(one.style)
        assert one.style.get("emotion") == heard.emotion
        assert one.style.get("events", "") == "+".join(sorted(set(heard.events)))
        if own.voiced_ratio is not None and own.voiced_ratio < 0.1:
            assert one.style["voice_quality"] == "whispered"
            assert not set(PITCHED) & set(one.style)
        if own.voiced_ratio is None:
            assert one.style["voice_quality"] == "inaudible"


@usual
@given(recording=clips, data=st.data())
def test_the_order_of_clips_does_not_matter(recording: list[Clip], data: st.DataObject) -> None:
    ids = [f"clip-{number}" for number in range(len(recording))]
    found = dict(zip(ids, described(recording, ids), strict=True))
    order = data.draw(st.permutations(range(len(recording))))
    moved = described([recording[at] for at in order], [ids[at] for at in order])
    for at, one in zip(order, moved, strict=True):
        # Means are sums: in another order their last bit may differ, and a value that lies on an edge change sides.
        differing = {name for name in STYLE_ORDER if one.style.get(name) != found[ids[at]].style.get(name)}
        assert differing <= {"energy", "relative_pitch", "relative_rate"}
        if not differing:
            assert one == found[ids[at]]


@usual
@given(name=st.sampled_from(sorted(SCALES)), data=st.data())
def test_a_word_is_that_of_the_edges_around_the_value(name: str, data: st.DataObject) -> None:
    edges = BINS.edges[name]
    value = data.draw(st.one_of(st.sampled_from(edges), st.floats(edges[0] - 2, edges[-1] + 2)))
    assert BINS.word(name, value) == SCALES[name].words[sum(value >= edge for edge in edges)]
    assert BINS.word(name, None) is None


@usual
@given(first=clips, second=clips, seed=st.integers(0, 3))
def test_clips_share_a_caption_only_when_they_share_every_word(
    first: list[Clip], second: list[Clip], seed: int
) -> None:
    styles = [one.style for recording in (first, second) for one in described(recording, ["x"] * len(recording))]
    texts: dict[str, str] = {}
    for told in styles:
        text = caption(told, seed_text=str(seed), grammar=GRAMMAR)  # of one seed: as like as they can be
        assert texts.setdefault(text, style_key(told)) == style_key(told)


@st.composite
def waves(draw: st.DrawFn) -> np.ndarray:
    """Tones, noise, clicks and silence at any level, one after the other."""
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        samples, level = draw(st.integers(1, 9000)), 10 ** draw(st.integers(-8, 1))
        kind = draw(st.sampled_from(["tone", "noise", "clicks", "silence", "constant"]))
        t = np.arange(samples) / 16_000
        made = {
            "tone": np.sin(2 * np.pi * draw(st.integers(1, 7999)) * t),
            "noise": np.random.default_rng(samples).normal(size=samples),
            "clicks": (np.arange(samples) % draw(st.integers(1, 400)) == 0).astype(float),
            "silence": np.zeros(samples),
            "constant": np.ones(samples),
        }[kind]
        pieces.append(level * made)
    return np.concatenate(pieces).astype(np.float32)


@fewer(2)
@given(wave=waves(), rate=st.sampled_from([16_000, 24_000, 8_000]))
def test_what_is_measured_is_finite_and_in_its_range(wave: np.ndarray, rate: int) -> None:
    found = measure(wave, rate)
    values = {name: value for name, value in dataclasses.asdict(found).items() if value is not None}
    assert all(np.isfinite(value) for value in values.values()), values
    assert all(0 <= values.get(name, 0) <= 1 + 1e-9 for name in ("pause_ratio", "voiced_ratio", "aperiodicity")), values
    assert 60 <= values.get("pitch_hz", 60) <= 600
    assert all(values.get(name, 0) >= 0 for name in ("pitch_range_st", "energy_range_db", "speaking_rate")), values
    assert values.get("speaking_rate", 0) <= 16_000 / 160 / 8 + 1


@fewer(3)
@given(wave=waves(), gain=st.sampled_from([0.25, 0.5, 2.0]))
def test_louder_is_louder_and_nothing_else(wave: np.ndarray, gain: float) -> None:
    # Far from the absolute floor, below which no frame is speech, and from where decibels stop.
    wave = wave / max(float(np.abs(wave).max()), 1e-9) + 1e-4 * np.sin(np.arange(len(wave)), dtype=np.float32)
    before, after = (dataclasses.asdict(measure(x.astype(np.float32), 16_000)) for x in (wave, gain * wave))
    if before["energy_db"] is None or before["energy_db"] < -30:
        return
    assert after["energy_db"] - before["energy_db"] == pytest.approx(20 * np.log10(gain), abs=0.05)
    for name in ("pause_ratio", "voiced_ratio", "pitch_hz", "speaking_rate"):
        assert (after[name] is None) == (before[name] is None)
        assert after[name] is None or np.isclose(after[name], before[name], rtol=0.02, atol=0.02), name
