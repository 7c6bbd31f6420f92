"""Lay recorded lines on a timeline and know where speech is.

The rule for where a clip holds speech looks at the single clip, before any mixing, and shares
nothing with the voice activity detectors under test.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from samples.sources import Clip, load

FRAME, HOP = 0.020, 0.010
ACTIVE_DB = 35.0
"""A frame is speech when its level is within this many dB of the loudest frame of its clip. At 40
the room noise of the Czech recordings counts as speech; at 30 soft word endings are lost."""
JOIN = 0.5
"""Silences up to this long belong to the speech around them; a longer one splits it."""
SHORTEST = 0.1
"""A stretch shorter than this is a click or a breath, not speech."""
MARGIN = 0.03
"""Sound kept on each side of a clip's speech so that the cut is inaudible; not in the truth."""
SPEECH_DB = -24.0
"""Level that every speaker is brought to, RMS over speech, dBFS."""


@dataclass(frozen=True, slots=True, eq=False)
class Phrase:
    """A clip cut to its speech.

    Attributes:
        clip: Where it comes from.
        wave: (samples,) float32.
        speech: Stretches of speech, seconds in `wave`.
        level: RMS over the speech, dBFS.
    """

    clip: Clip
    wave: np.ndarray
    speech: tuple[tuple[float, float], ...]
    level: float


@dataclass(frozen=True, slots=True)
class Line:
    """What one speaker says in a row: phrases, and the silence before each, in seconds."""

    phrases: tuple[Phrase, ...]
    pauses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TrueTurn:
    """One stretch of speech in a recording, as it was put there.

    Attributes: start, end: Seconds in the recording. speaker: Who. text: Words of the whole line;
        "" when an earlier turn of the same line has them; None if unknown. language: ISO 639-1.
        line: Number of the line, from 0: a line with a long silence inside is several turns.
    """

    start: float
    end: float
    speaker: str
    text: str | None
    language: str
    line: int


def active_stretches(wave: np.ndarray, sample_rate: int) -> list[tuple[float, float]]:
    """Stretches (start, end) in seconds whose frames are within ACTIVE_DB of the loudest frame.

    Frames of 20 ms every 10 ms; silences of up to JOIN are bridged, then stretches below SHORTEST
    dropped.
    """
    hop, size = round(HOP * sample_rate), round(FRAME * sample_rate)
    if len(wave) < size:
        return []
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    active = power > max(power.max() * 10 ** (-ACTIVE_DB / 10), 1e-12)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    stretches: list[tuple[float, float]] = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        start, end = first * HOP, (last - 1) * HOP + FRAME
        if stretches and start - stretches[-1][1] <= JOIN:
            start = stretches.pop()[0]
        stretches.append((start, end))
    return [(start, end) for start, end in stretches if end - start >= SHORTEST]


def cut(clip: Clip, sample_rate: int) -> Phrase | None:
    """Decode a clip and cut it to its speech with MARGIN on both sides; None when it holds none."""
    wave = load(clip.path, sample_rate)
    stretches = active_stretches(wave, sample_rate)
    if not stretches:
        return None
    first = max(0, round((stretches[0][0] - MARGIN) * sample_rate))
    last = min(len(wave), round((stretches[-1][1] + MARGIN) * sample_rate))
    offset = first / sample_rate
    speech = tuple((start - offset, end - offset) for start, end in stretches)
    mask = speech_mask(speech, len(wave[first:last]), sample_rate)
    level = 10 * np.log10(np.mean(np.square(wave[first:last][mask], dtype=np.float64)))
    return Phrase(clip, _fade(wave[first:last], sample_rate), speech, float(level))


def _fade(wave: np.ndarray, sample_rate: int, seconds: float = 0.005) -> np.ndarray:
    size = min(round(seconds * sample_rate), len(wave) // 2)
    ramp = np.ones(len(wave), dtype=np.float32)
    ramp[:size] = np.linspace(0, 1, size, endpoint=False)
    ramp[len(wave) - size :] = ramp[:size][::-1]
    return wave * ramp


def speech_mask(stretches: Sequence[tuple[float, float]], samples: int, sample_rate: int) -> np.ndarray:
    """Make a mask, (samples,) bool, true inside the stretches."""
    mask = np.zeros(samples, dtype=bool)
    for start, end in stretches:
        mask[max(0, round(start * sample_rate)) : round(end * sample_rate)] = True
    return mask


def group_lines(clips: Sequence[Clip], seconds: tuple[float, float], *, join: float) -> Iterator[list[Clip]]:
    """Group one speaker's clips into lines of `seconds` (shortest, longest) each.

    A clip with known words is a line; exclamations without are joined until they last
    `join` seconds.
    """
    shortest, longest = seconds
    pending: list[Clip] = []
    for clip in clips:
        if clip.text is not None:
            if shortest <= clip.seconds <= longest:
                yield [clip]
        elif clip.seconds <= longest:
            pending.append(clip)
            if sum(c.seconds for c in pending) >= join:
                yield pending
                pending = []


def speak(clips: Sequence[Clip], sample_rate: int, rng: np.random.Generator) -> Line | None:
    """Make a line of clips: 0.2-1.5 s of silence first, 0.15-0.3 s between; None if silent."""
    cuts = [cut(clip, sample_rate) for clip in clips]
    phrases = tuple(phrase for phrase in cuts if phrase is not None)
    if not phrases:
        return None
    pauses = (rng.uniform(0.2, 1.5), *rng.uniform(0.15, 0.3, len(phrases) - 1))
    return Line(phrases, tuple(float(p) for p in pauses))


def level_speakers(lines: Sequence[Line], offsets: dict[str, float]) -> list[Line]:
    """Bring every speaker's median level to SPEECH_DB plus an offset (dB); keep loud and soft lines.

    A phrase that would then clip is turned down to a peak of -1 dBFS.
    """
    levels: dict[str, list[float]] = {}
    for phrase in (phrase for line in lines for phrase in line.phrases):
        levels.setdefault(phrase.clip.speaker, []).append(phrase.level)
    gains = {who: SPEECH_DB + offsets[who] - float(np.median(values)) for who, values in levels.items()}
    return [replace(line, phrases=tuple(_louder(p, gains[p.clip.speaker]) for p in line.phrases)) for line in lines]


def _louder(phrase: Phrase, gain_db: float) -> Phrase:
    headroom = -1.0 - 20 * np.log10(max(float(np.abs(phrase.wave).max()), 1e-9))
    gain_db = min(gain_db, headroom)
    wave = (phrase.wave * 10 ** (gain_db / 20)).astype(np.float32)
    return replace(phrase, wave=wave, level=phrase.level + gain_db)


def lay(lines: Sequence[Line], *, sample_rate: int, tail: float) -> tuple[np.ndarray, list[TrueTurn]]:
    """Lay lines one after the other, each phrase after its pause, then `tail` seconds of silence.

    Returns:
        The recording, (samples,) float32, and its turns in order.
    """
    pieces: list[np.ndarray] = []
    turns: list[TrueTurn] = []
    position = 0
    for number, line in enumerate(lines):
        first = len(turns)
        for phrase, pause in zip(line.phrases, line.pauses, strict=True):
            pieces += [np.zeros(round(pause * sample_rate), dtype=np.float32), phrase.wave]
            position += len(pieces[-2])
            turns += _turns(phrase, position / sample_rate, number)
            position += len(phrase.wave)
        turns[first:] = _join(turns[first:], line)
    pieces.append(np.zeros(round(tail * sample_rate), dtype=np.float32))
    return np.concatenate(pieces), turns


def _turns(phrase: Phrase, at: float, number: int) -> Iterator[TrueTurn]:
    for start, end in phrase.speech:
        yield TrueTurn(at + start, at + end, phrase.clip.speaker, None, phrase.clip.language, number)


def _join(turns: Sequence[TrueTurn], line: Line) -> list[TrueTurn]:
    """Join what is at most JOIN apart, and give the words of the line to its first turn."""
    joined: list[TrueTurn] = []
    for turn in turns:
        if joined and turn.start - joined[-1].end <= JOIN:
            joined[-1] = replace(joined[-1], end=turn.end)
        else:
            joined.append(turn)
    texts = [phrase.clip.text for phrase in line.phrases]
    if all(text is not None for text in texts):
        words = " ".join(text for text in texts if text)
        joined = [replace(turn, text="" if i else words) for i, turn in enumerate(joined)]
    return [replace(t, start=round(t.start, 3), end=round(t.end, 3)) for t in joined]


def music_bed(track: np.ndarray, *, samples: int, offset: int) -> np.ndarray:
    """Take `samples` of a track from `offset` on, starting again where it ends."""
    return np.take(track, np.arange(offset, offset + samples), mode="wrap")


def at_ratio(music: np.ndarray, speech: np.ndarray, *, mask: np.ndarray, snr_db: float) -> np.ndarray:
    """Scale music so that speech is `snr_db` louder where `mask` marks speech."""
    power = np.mean(np.square(speech[mask], dtype=np.float64))
    noise = np.mean(np.square(music[mask], dtype=np.float64))
    if noise <= 0:
        raise ValueError("the music is silent wherever there is speech: choose another stretch of the track")
    return (music * np.sqrt(power / noise / 10 ** (snr_db / 10))).astype(np.float32)
