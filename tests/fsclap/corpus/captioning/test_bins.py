"""Bins against corpora whose quantiles are known."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.bins import SCALES, fit_bins, load_bins, mean


def corpus(clips: int, seed: int = 0) -> tuple[list[Attributes], list[str]]:
    """Plausible attributes of four speakers."""
    rng = np.random.default_rng(seed)
    speakers = [f"s{i % 4}" for i in range(clips)]
    attributes = [
        Attributes(
            pitch_hz=float([100, 130, 190, 230][i % 4] * 2 ** (rng.normal(0, 2) / 12)),
            pitch_range_st=float(rng.gamma(5, 2)),
            pitch_slope_st=float(rng.normal(-1, 3)),
            energy_db=float(rng.normal([-30, -25, -20, -15][i % 4], 3)),
            energy_range_db=float(rng.normal(19, 3)),
            speaking_rate=float(rng.normal(3.5, 0.6)),
            pause_ratio=float(max(0, rng.normal(0, 0.1))),
            voiced_ratio=0.6,
            spectral_tilt_db=float(rng.normal(8, 5)),
            aperiodicity=float(rng.uniform(0.3, 0.7)),
        )
        for i in range(clips)
    ]
    return attributes, speakers


def test_fitted_bins_hold_the_share_of_clips_they_were_fitted_for(tmp_path: Path) -> None:
    attributes, speakers = corpus(800)
    bins = fit_bins(attributes, speakers, about={"made of": "nothing"})
    for name, measure in {"pitch": "pitch_hz", "timbre": "spectral_tilt_db"}.items():
        values = [bins.word(name, getattr(a, measure)) for a in attributes]
        bounds = (0.0, *SCALES[name].quantiles, 1.0)
        shares = dict(zip(SCALES[name].words, np.diff(bounds), strict=True))
        assert {word: values.count(word) / 800 for word in shares} == pytest.approx(shares, abs=0.01)
    bins.save(tmp_path / "bins.json")
    assert load_bins(tmp_path / "bins.json") == bins


def test_level_and_pitch_are_binned_by_their_distance_from_the_speaker() -> None:
    bins = fit_bins(*corpus(800))
    assert bins.edges["energy"] == pytest.approx([3 * z for z in (-1.28, -0.52, 0.52, 1.28)], abs=0.4)
    assert bins.edges["relative_pitch"] == pytest.approx([-2.07, 2.07], abs=0.25)


def test_rising_rises_and_a_pause_is_a_pause_whatever_the_corpus() -> None:
    bins = fit_bins(*corpus(800))  # its intonation falls on average, and half of it never pauses
    assert bins.edges["intonation"][0] == -bins.edges["intonation"][1] < 0
    assert bins.edges["pauses"][0] > 0
    assert bins.word("pauses", 0.0) is None


def test_too_small_a_corpus_has_no_bins() -> None:
    with pytest.raises(ValueError, match="8 clips have values of pitch; bins need at least 30"):
        fit_bins(*corpus(8))


@pytest.mark.parametrize(
    "edges", [{"pitch": (1.0,)}, {"pitch": (4.0, 3.0, 2.0, 1.0)}, {"timbre": (0.0, float("nan"))}, {"age": (1.0,)}]
)
def test_bins_that_make_no_sense_are_refused_by_name(edges: dict[str, Sequence[float]], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"edges": {**load_bins(None).edges, **edges}}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.json does not hold caption bins"):
        load_bins(path)


def test_the_reference_bins_say_where_they_come_from() -> None:
    about = load_bins(None).about
    assert about["clips"] >= 500
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"])
    assert about["sources"]
    assert len(about["speakers"]) >= 10


def test_mean_skips_what_was_not_measured_and_is_geometric_in_pitch() -> None:
    one = Attributes(pitch_hz=100.0, energy_db=-20.0, speaking_rate=3.0)
    other = Attributes(pitch_hz=400.0, energy_db=-10.0)
    assert mean([one, other, Attributes()]) == Attributes(
        pitch_hz=pytest.approx(200.0), energy_db=-15.0, speaking_rate=3.0
    )
    assert mean([]) == Attributes()
