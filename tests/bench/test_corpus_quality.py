import numpy as np
import pytest

from bench.corpus_quality import (
    dialogues,
    diarization_errors,
    filter_quality,
    lines,
    purity,
    si_sdr,
    summarize,
    word_errors,
)
from fsclap.corpus.turns import Turn
from samples.timeline import TrueTurn

TRUTH = [
    TrueTurn(0.0, 2.0, "a", "Press one now.", "en", 0),
    TrueTurn(3.0, 5.0, "b", None, "en", 1),
    TrueTurn(6.0, 8.0, "a", "I'm sorry.", "en", 2),
    TrueTurn(8.2, 10.0, "a", "Goodbye.", "en", 3),
]


def turn(start: float, end: float, speaker: int, text: str = "") -> Turn:
    return Turn(start, end, speaker, text, "en", None)


def ratios(parts: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {name: part[0] / part[1] for name, part in parts.items()}


def test_the_truth_itself_has_no_error_under_any_labels() -> None:
    found = [turn(t.start, t.end, {"a": 7, "b": 3}[t.speaker]) for t in TRUTH]
    assert set(ratios(diarization_errors(TRUTH, found, 10)).values()) == {0.0}


def test_each_kind_of_diarization_error_is_counted() -> None:
    # 1 s missed at the start, 0.5 s of false alarm, the second speaker given to the first
    found = [turn(1, 2.5, 0), turn(3, 5, 0), turn(6, 8, 0), turn(8.2, 10, 0)]
    errors = ratios(diarization_errors(TRUTH, found, 10))
    speech = 7.8
    assert errors["miss"] == pytest.approx(1 / speech)
    assert errors["false_alarm"] == pytest.approx(0.5 / speech)
    assert errors["confusion"] == pytest.approx(2 / speech)
    assert errors["der"] == pytest.approx(3.5 / speech)


def test_the_collar_forgives_250_ms_on_each_side_and_no_more() -> None:
    exact = [turn(t.start, t.end, {"a": 0, "b": 1}[t.speaker]) for t in TRUTH]
    late = [turn(0.24, 2.24, 0), *exact[1:]]
    later = [turn(0.3, 2.3, 0), *exact[1:]]
    assert ratios(diarization_errors(TRUTH, late, 10))["der_collar_250ms"] == 0
    assert ratios(diarization_errors(TRUTH, later, 10))["der_collar_250ms"] > 0


def test_words_are_compared_after_normalisation_where_they_are_known() -> None:
    found = [turn(0, 2, 0, "press 1 now"), turn(3, 5, 1, "who knows"), turn(6, 10, 0, "I am sorry, good bye")]
    errors, words = word_errors(TRUTH, found)["wer"]
    assert words == 7  # press one now; i am sorry; goodbye
    assert errors == 2  # good, bye for goodbye; the digit is no error


def test_words_of_another_speaker_are_errors() -> None:
    found = [turn(0, 2, 0, "press one now"), turn(5, 10, 0, "and others I'm sorry goodbye")]
    assert word_errors(TRUTH, found)["wer"] == (2.0, 7.0)


def test_no_known_words_no_figure() -> None:
    assert word_errors([TrueTurn(0, 1, "a", "Ano.", "cs", 0)], [turn(0, 1, 0, "a no")]) == {}


def test_purity_is_over_true_speech_only() -> None:
    assert purity(turn(0, 3, 0), TRUTH) == 1
    assert purity(turn(1, 4, 0), TRUTH) == pytest.approx(0.5)
    assert purity(turn(2.2, 2.8, 0), TRUTH) == 0


def test_the_filter_is_judged_by_what_it_keeps() -> None:
    found = [turn(0, 2, 0), turn(1, 4, 0), turn(6, 10, 0)]
    parts = ratios(filter_quality(TRUTH, found, [True, False, True]))
    assert parts == pytest.approx({"pure_found": 2 / 3, "pure_kept": 1, "kept": 2 / 3, "kept_seconds": 6 / 9})


def test_si_sdr_ignores_scale_and_offset_and_hears_noise() -> None:
    rng = np.random.default_rng(0)
    speech, noise = rng.normal(size=(2, 48_000))
    noise -= (noise @ speech) / (speech @ speech) * speech
    noise *= np.linalg.norm(speech) / np.linalg.norm(noise)
    assert si_sdr(0.3 * (speech + 0.1 * noise) + 5, speech) == pytest.approx(20, abs=0.01)
    assert si_sdr(speech + noise, speech) == pytest.approx(0, abs=0.01)


def test_figures_are_ratios_of_sums_within_their_interval() -> None:
    parts = [{"x": (1.0, 10.0)}, {"x": (4.0, 10.0), "y": (1.0, 1.0)}, {"x": (1.0, 40.0)}]
    figures = summarize(parts)
    assert figures["x"].value == pytest.approx(0.1)
    assert figures["x"].low < 0.1 < figures["x"].high
    assert (figures["x"].items, figures["y"].items) == (3, 1)
    assert figures["y"].low == figures["y"].high == 1
    assert summarize(parts) == figures
    assert [line.split()[0] for line in lines(figures)] == ["figure", "x", "y"]


def test_without_dialogues_the_command_that_makes_them_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m bench\.dialogues"):
        dialogues(tmp_path / "dev", None)
