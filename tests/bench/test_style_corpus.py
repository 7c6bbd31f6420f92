import numpy as np
import pytest

from bench.dialogues import TEST_SPEAKERS
from bench.style_corpus import PARTS, part_of


def test_no_speaker_is_in_two_parts() -> None:
    cast = [speaker for part in PARTS.values() for speaker in part]
    assert len(cast) == len(set(cast))
    assert {part_of(speaker) for speaker in PARTS["train"]} == {"train"}
    assert {part_of(speaker) for speaker in PARTS["test"]} == {"test"}
    assert {part_of(speaker) for speaker in TEST_SPEAKERS - set(cast)} == {"validation"}


def test_training_and_test_differ_in_language() -> None:
    languages = {part: {speaker.split("/")[0] for speaker in cast} for part, cast in PARTS.items()}
    assert not languages["train"] & languages["test"]


def vowel(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A voice that glides by two semitones around 150 Hz."""
    times = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(150 * 2 ** (np.sin(2 * np.pi * 2 * times) / 6)) / rate
    return 0.05 * sum(np.sin(k * phase) / k for k in range(1, 20))


@pytest.mark.parametrize(
    ("control", "attribute", "expected"),
    [
        ("pitch", "pitch_hz", 1.4),
        ("pitch_range", "pitch_range_st", 2.0),
        ("energy", "energy_db", None),
    ],
)
def test_a_control_changes_what_it_names_and_little_else(control: str, attribute: str, expected: float | None) -> None:
    from bench.synthetic_corpus import FACTORS, RATE, resynthesize
    from fsclap.corpus.captioning.attributes import measure

    nothing = dict.fromkeys(FACTORS, 0)
    plain = measure(resynthesize(vowel(RATE), nothing), RATE)
    changed = measure(resynthesize(vowel(RATE), nothing | {control: 1}), RATE)
    before, after = getattr(plain, attribute), getattr(changed, attribute)
    if expected is None:
        assert after - before == pytest.approx(8.0, abs=0.5)
    else:
        assert after / before == pytest.approx(expected, rel=0.12)
    if control != "pitch":
        assert changed.pitch_hz == pytest.approx(plain.pitch_hz, rel=0.05)


def test_rate_changes_the_length() -> None:
    from bench.synthetic_corpus import FACTORS, RATE, resynthesize

    wave = vowel(RATE)
    fast = resynthesize(wave, dict.fromkeys(FACTORS, 0) | {"speaking_rate": 1})
    assert len(fast) == pytest.approx(len(wave) / 1.4, rel=0.02)


def test_the_verdict_on_a_word() -> None:
    from bench.synthetic_corpus import _verdict

    assert _verdict("pitch", "very high", 1) == "same"
    assert _verdict("pitch", "low", 1) == "other"
    assert _verdict("pitch", "medium", -1) == "silent"
    assert _verdict("energy", None, -1) == "silent"
