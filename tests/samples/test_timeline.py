from pathlib import Path

import numpy as np
import pytest
import soundfile

from samples.sources import Clip
from samples.timeline import (
    SPEECH_DB,
    active_stretches,
    at_ratio,
    group_lines,
    lay,
    level_speakers,
    music_bed,
    speak,
    speech_mask,
)

RATE = 16_000


def tone(seconds: float, *, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def clip(folder: Path, name: str, wave: np.ndarray, *, speaker: str = "a", text: str | None = "words") -> Clip:
    path = folder / f"{name}.wav"
    soundfile.write(path, wave, RATE)
    return Clip(path, speaker, "en", text, len(wave) / RATE)


def test_speech_is_found_to_a_frame_and_short_silences_are_bridged() -> None:
    wave = np.concatenate([silence(0.3), tone(1), silence(0.4), tone(1), silence(0.8), tone(0.5), silence(0.2)])
    found = active_stretches(wave, RATE)
    assert np.allclose(found, [(0.3, 2.7), (3.5, 4.0)], atol=0.021)


def test_speech_mask_leaves_out_clicks_and_sound_35_db_below_the_peak() -> None:
    wave = np.concatenate([tone(1), tone(1, amplitude=0.5 * 10 ** (-40 / 20)), silence(0.6), tone(0.03)])
    assert np.allclose(active_stretches(wave, RATE), [(0, 1)], atol=0.021)
    louder = np.concatenate([tone(1), tone(1, amplitude=0.5 * 10 ** (-30 / 20))])
    assert np.allclose(active_stretches(louder, RATE), [(0, 2)], atol=0.021)


def test_digital_silence_holds_no_speech() -> None:
    assert active_stretches(silence(1), RATE) == []


def test_turns_lie_where_the_sound_is(tmp_path) -> None:
    rng = np.random.default_rng(0)
    first = clip(tmp_path, "first", np.concatenate([silence(0.4), tone(2), silence(0.7), tone(1), silence(0.5)]))
    second = clip(tmp_path, "second", np.concatenate([tone(1.5), silence(0.3)]), speaker="b", text=None)
    lines = [line for line in (speak([c], RATE, rng) for c in (first, second)) if line]
    wave, turns = lay(lines, sample_rate=RATE, tail=0.5)
    assert [(t.speaker, t.text, t.line) for t in turns] == [("a", "words", 0), ("a", "", 0), ("b", None, 1)]
    assert np.allclose([t.end - t.start for t in turns], [2, 1, 1.5], atol=0.03)
    mask = speech_mask([(t.start, t.end) for t in turns], len(wave), RATE)
    assert np.sum(wave[~mask] ** 2) < 1e-3 * np.sum(wave[mask] ** 2)
    assert all(0.2 <= pause <= 1.5 for line in lines for pause in line.pauses)


def test_speakers_reach_one_level_and_keep_loud_and_soft_lines(tmp_path) -> None:
    rng = np.random.default_rng(0)
    clips = [clip(tmp_path, f"a{i}", tone(2, amplitude=a), speaker="a") for i, a in enumerate((0.1, 0.2, 0.4))]
    clips += [clip(tmp_path, "b", tone(2, amplitude=0.01), speaker="b")]
    lines = [line for line in (speak([c], RATE, rng) for c in clips) if line]
    levels = [line.phrases[0].level for line in level_speakers(lines, {"a": 0.0, "b": 1.5})]
    assert np.allclose(levels, [SPEECH_DB - 6.02, SPEECH_DB, SPEECH_DB + 6.02, SPEECH_DB + 1.5], atol=0.05)


def test_only_clips_without_words_are_joined(tmp_path) -> None:
    texts = [None, None, "a line", None, "another"]
    seconds = [1.2, 1.2, 2.0, 0.5, 1.0]
    clips = [clip(tmp_path, f"c{i}", tone(s), text=t) for i, (s, t) in enumerate(zip(seconds, texts, strict=True))]
    grouped = [[c.path.stem for c in group] for group in group_lines(clips, (1.5, 8.0), join=2.2)]
    assert grouped == [["c0", "c1"], ["c2"]]


def test_music_meets_the_ratio_over_speech_only() -> None:
    rng = np.random.default_rng(0)
    speech = np.concatenate([tone(2), silence(2)])
    mask = np.arange(len(speech)) < 2 * RATE
    music = at_ratio(rng.normal(size=len(speech)).astype(np.float32), speech, mask=mask, snr_db=5)
    ratio = 10 * np.log10(np.mean(speech[mask] ** 2) / np.mean(music[mask] ** 2))
    assert ratio == pytest.approx(5, abs=1e-3)


def test_silent_music_is_an_error() -> None:
    with pytest.raises(ValueError, match="silent"):
        at_ratio(silence(1), tone(1), mask=np.ones(RATE, dtype=bool), snr_db=5)


def test_a_track_begins_again_where_it_ends() -> None:
    assert music_bed(np.arange(4), samples=6, offset=3).tolist() == [3, 0, 1, 2, 3, 0]
