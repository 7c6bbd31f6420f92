"""Diarization with FunASR: FSMN-VAD, Paraformer with timestamps, ct-punc and CAM++.

1. FSMN-VAD finds stretches of speech of up to 60 s.
2. Paraformer (Gao et al. 2022, arXiv:2206.08317) transcribes them; its second predictor (Shi et al.
   2023, arXiv:2301.12343) times each character.
3. ct-punc (Chen et al. 2020, arXiv:2003.01309) punctuates the transcript of a recording: each mark
    ends a sentence.
4. CAM++ (Wang et al. 2023, arXiv:2303.00332) embeds windows of 1.5 s every 0.75 s; FunASR's back
   end clusters those of a recording: fewer than 20 are one speaker, up to 2047 go through spectral
   clustering, more through UMAP and HDBSCAN.
5. A sentence belongs to the speaker whose windows cover most of it. Sentences become turns (see
   `sentences`).
6. CAM++ embeds each turn's own sound.

The networks and every rule are FunASR's, and sentences, times and speakers are those of its
`AutoModel.generate` with `spk_model`, one recording at a time. What differs is the order of work:
`generate` takes one recording and, on a CPU, one stretch of speech and one window at a time; here
those of all recordings go through the networks together, sorted by length. Padding changes nothing:
what the encoder puts out behind a stretch's end is zeroed before the predictors see it, and their
LSTM turns round at the end. (FunASR's own batches, which it makes on a GPU, do neither, and change
words and times.)

Where `generate` fails or draws lots, this does not:

- a stretch in which Paraformer finds no token is dropped as without words (`generate`: IndexError);
- silence so sure that its probability is 1 is silence (`generate`: the logarithm of 0);
- when ct-punc counts other words than Paraformer, each stretch of speech is a sentence (`generate`:
  the whole recording is one sentence of one speaker);
- the clustering is seeded, and its noise is not a speaker.

Memory: the networks; 60 s of sound for the VAD; `batch_seconds` of sound, or the longest stretch of
speech, for the others; the embeddings of all windows (4 MB an hour of speech); and for the
clustering of one recording up to half a gigabyte. Recordings are read where they are needed, so
memory maps stay on disk.
"""

import importlib.metadata
import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fsclap import Seconds
from fsclap.clustering import k_means, normalized
from fsclap.corpus.diarization.base import DiarizationSettings, check_recording
from fsclap.corpus.diarization.paraformer import PER_MS, RATE, SETTING, Paraformer, Segment, Transcript
from fsclap.corpus.diarization.sentences import Sentence, Stretch, label, parse_sentences, stretches
from fsclap.corpus.funasr_weights import FunasrModel, load_model, quiet, undisturbed
from fsclap.corpus.turns import Diarized, Turn
from fsclap.devices import Batches, torch_device
from fsclap.weights import WeightsSettings

with quiet():
    from funasr.auto.auto_model import _join_vad_texts, _vad_segment_sentences
    from funasr.models.campplus.cluster_backend import ClusterBackend, UmapHdbscan
    from funasr.models.campplus.utils import distribute_spk, extract_feature, postprocess, sv_chunk
    from funasr.utils.timestamp_tools import timestamp_sentence

log = logging.getLogger(__name__)


VAD_BLOCK = 60 * RATE
"""What FSMN-VAD looks at in one go; it carries its state from block to block."""
CERTAIN = 1e-7
"""Probabilities of the VAD are kept this far from 0 and 1, of which it takes the logarithm."""
SHORTEST = 400
"""Samples of one frame of features; a stretch of less has none."""

WINDOW: Seconds = 1.5
"""Length of the windows that are clustered."""
FEWEST = 20
"""Windows from which FunASR clusters at all."""
SPECTRAL = 2048
"""Windows from which FunASR clusters by UMAP and HDBSCAN."""
SEED = 0

MIN_EMBEDDED: Seconds = 0.5
"""Shorter turns get no embedding. CAM++ pools statistics over time, and half a second is 24 of its
frames; the windows that are clustered are three times as long."""
MAX_EMBEDDED: Seconds = 10.0
"""Longer turns are embedded in equal parts of no more than this, which bounds the memory of one."""
GRID = RATE // 4
"""Sound that is embedded is cut, at both ends alike, to a multiple of these samples, so that turns
of about one length
share a batch without padding: CAM++ has no mask, and would pool the padding too."""


Voices = tuple[list[tuple[Seconds, Seconds]], np.ndarray]
"""For one recording: the spans of its windows, in order, and (windows, 192) their embeddings."""
T = TypeVar("T")


class FunASRDiarizer:
    """The engine `funasr`; see the module."""

    name = "funasr"
    sample_rate = RATE

    def __init__(self, settings: DiarizationSettings, *, device: str = "cpu") -> None:
        self.settings = settings
        self.device = torch_device(device, setting="device")
        own = settings.funasr
        features = ("am.mvn",)
        asr = self._load("asr", own.asr, ("BiCifParaformer", "SeacoParaformer"), (*features, "tokens.json"))
        # A network of 0.4 M parameters, and a loop over its output in Python: a GPU would wait at
        # each frame.
        self.vad = self._load("vad", own.vad, ("FsmnVADStreaming",), features, device=torch.device("cpu"))
        self.punc = self._load("punc", own.punc, ("CTTransformer",), ("tokens.json",))
        self.speaker = self._load("speaker", own.speaker, ("CAMPPlus",), ())
        self.vad.network.encoder.register_forward_hook(_uncertain)
        for model in (asr, self.vad):
            # New noise in each run; the published models have none.
            model.options["frontend"].dither = 0.0
        self.clusters = ClusterBackend(merge_thr=own.merge_threshold)
        version = importlib.metadata.version("funasr")
        models = (asr, self.vad, self.punc, self.speaker)
        self.revision = "+".join([f"funasr-{version}", *(model.revision for model in models)])
        self.recogniser = Paraformer(asr, own.asr, device=self.device, batch_seconds=own.batch_seconds)
        self._embedded = Batches(self._embed, setting=f"{SETTING}.batch_seconds")

    def _load(
        self,
        part: str,
        settings: WeightsSettings,
        classes: Sequence[str],
        needs: Sequence[str],
        device: torch.device | None = None,
    ) -> FunasrModel:
        return load_model(
            settings, setting=f"{SETTING}.{part}", classes=classes, needs=needs, device=device or self.device
        )

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[Diarized]:
        """See `fsclap.corpus.diarization.Diarizer`; the speech of all recordings shares batches."""
        heard = self.heard(recordings)
        found = [stretches(sentences, self.settings, wordless=wordless) for sentences, wordless in heard]
        vectors = self.embeddings(recordings, [[one for one in own if one.kind == "speech"] for own, _ in found])
        for own, dropped in found:
            turns = [self._turn(one, next(vectors) if one.kind == "speech" else None) for one in own]
            yield Diarized(turns, dropped)

    def _turn(self, stretch: Stretch, embedding: np.ndarray | None) -> Turn:
        return Turn(
            start=stretch.start,
            end=stretch.end,
            speaker=stretch.speaker,
            text=stretch.text,
            language=self.settings.language,
            embedding=embedding,
            overlap=stretch.overlap,
            kind=stretch.kind,
        )

    def heard(self, recordings: Sequence[np.ndarray]) -> list[tuple[list[Sentence], list[Sentence]]]:
        """Find the sentences of each recording, as `AutoModel.generate` finds them, and the speech without words.

        Raises:
            ValueError: A recording is not one-dimensional or holds a value that is not finite.
        """
        for number, wave in enumerate(recordings):
            check_recording(wave, number)
        # FunASR's encoders draw random numbers even where they leave no layer out.
        with undisturbed():
            return self._heard(recordings)

    def _heard(self, recordings: Sequence[np.ndarray]) -> list[tuple[list[Sentence], list[Sentence]]]:
        segments = [segment for number, wave in enumerate(recordings) for segment in self.detect(wave, number)]
        transcripts = self.recogniser.transcribe(recordings, segments)
        voices = self.voices(recordings, segments)
        found = []
        for number, wave in enumerate(recordings):
            own = [pair for pair in zip(segments, transcripts, strict=True) if pair[0].recording == number]
            info = self.punctuate(own)
            silent = [{"start": segment.start, "end": segment.end} for segment, said in own if not said.text]
            noise = self.assign([*info, *silent], *voices[number]) if own else None
            wordless = [Sentence(one["start"] / 1000, one["end"] / 1000, label(one, noise), "") for one in silent]
            found.append((parse_sentences(info, duration=len(wave) / RATE, noise=noise), wordless))
        return found

    @torch.inference_mode()
    def detect(self, wave: np.ndarray, number: int = 0) -> list[Segment]:
        """Stretches of speech in one recording, in order.

        Block by block, with the VAD's state carried on, which is how it takes a whole recording
        apart itself.
        """
        cache: dict[str, Any] = {}
        found: list[list[int]] = []
        for start in range(0, len(wave), VAD_BLOCK):
            block = torch.from_numpy(np.array(wave[start : start + VAD_BLOCK], dtype=np.float32))
            last = start + VAD_BLOCK >= len(wave)
            (result,), _ = self.vad.network.inference(
                [block], key=["block"], cache=cache, is_final=last, **self.vad.options
            )
            found += result["value"]
        segments = [Segment(number, start, min(end, len(wave) // PER_MS)) for start, end in found]
        long = [segment for segment in segments if (segment.end - segment.start) * PER_MS >= SHORTEST]
        if len(long) < len(segments):
            log.info("recording %d: %d stretches of speech are too short", number, len(segments) - len(long))
        return long

    @torch.inference_mode()
    def punctuate(self, pairs: Sequence[tuple[Segment, Transcript]]) -> list[dict[str, Any]]:
        """Punctuate one recording; return FunASR's sentence_info, times in milliseconds."""
        text = _join_vad_texts(transcript.text for _, transcript in pairs)
        if not text:
            return []
        times = [[segment.start + a, segment.start + b] for segment, transcript in pairs for a, b in transcript.times]
        (result,), _ = self.punc.network.inference([text], key=["text"], **self.punc.options)
        marks = result["punc_array"]
        if marks is None or len(marks) != len(times):
            log.warning(
                "ct-punc counts %s words where Paraformer has %d: each stretch of speech is a sentence",
                "no" if marks is None else len(marks),
                len(times),
            )
            return _by_segment(pairs)
        return timestamp_sentence(marks, times, text)

    def voices(self, recordings: Sequence[np.ndarray], segments: Sequence[Segment]) -> list[Voices]:
        """Embed the windows of each recording; windows of all recordings share batches."""
        spans: list[list[tuple[Seconds, Seconds]]] = [[] for _ in recordings]
        vectors: list[list[np.ndarray]] = [[] for _ in recordings]
        windows = (
            (segment.recording, window)
            for segment in segments
            for window in _windows(segment, recordings[segment.recording])
        )
        for batch in _batches(windows, max(1, int(self.settings.funasr.batch_seconds / WINDOW))):
            embedded = self._embedded([sound for _, (_, _, sound) in batch])
            for (number, (start, end, _)), vector in zip(batch, embedded, strict=True):
                spans[number].append((start, end))
                vectors[number].append(vector)
        return [(own, np.array(points)) for own, points in zip(spans, vectors, strict=True)]

    def assign(
        self, info: list[dict[str, Any]], spans: Sequence[tuple[Seconds, Seconds]], vectors: np.ndarray
    ) -> int | None:
        """Give each sentence of a recording its `spk`.

        Args:
            info: The sentences; changed in place.
            spans: Of the windows, in order.
            vectors: (windows, 192) their embeddings.

        Returns:
            The label that stands for noise; None when there is none.
        """
        labels = self.cluster(vectors)
        distribute_spk(info, postprocess(spans, None, labels, vectors))
        # `postprocess` numbers labels in order of appearance, noise (-1) along with the speakers.
        order = list(dict.fromkeys(labels.tolist()))
        return order.index(-1) if -1 in order else None

    def cluster(self, vectors: np.ndarray) -> np.ndarray:
        """(windows,) labels of (windows, 192) embeddings; -1: noise. The same each time."""
        with undisturbed(seed=SEED):
            # FunASR hands over tensors.
            points, known = torch.from_numpy(vectors), self.settings.speakers
            if known is not None and not FEWEST <= len(points) < SPECTRAL:
                # FunASR takes few windows for one speaker, and has no way to divide many of them by a number.
                return k_means(normalized(vectors), min(known, len(points)))
            if len(points) < SPECTRAL:
                return self.clusters(points, **({} if known is None else {"oracle_num": known}))
            labels = _umap_hdbscan(points, self.clusters.umap_hdbscan_cluster)
            if labels.max() < 0:  # all of it noise, which FunASR asserts not to be
                return labels
            return self.clusters.merge_by_cos(labels, points, self.clusters.model_config["merge_thr"])

    @torch.inference_mode()
    def _embed(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """(192,) embeddings of sounds that are equally long; of any norm."""
        features, _, _ = extract_feature([torch.from_numpy(wave) for wave in waves])
        return list(self.speaker.network(features.to(self.device)).float().cpu().numpy())

    def embeddings(
        self, recordings: Sequence[np.ndarray], found: Sequence[Sequence[Stretch]]
    ) -> Iterator[np.ndarray | None]:
        """Yield the speaker embedding of each turn in order: (192,) of unit norm, or None."""
        turns = [(wave, stretch) for wave, own in zip(recordings, found, strict=True) for stretch in own]
        jobs = [(number, part) for number, (wave, stretch) in enumerate(turns) for part in _parts(stretch, len(wave))]
        # The longest first: what does not fit into memory shows at once.
        jobs.sort(key=lambda job: (-len(job[1]), job[0], job[1].start))
        sums: dict[int, np.ndarray] = {}
        for samples, same in itertools.groupby(jobs, key=lambda job: len(job[1])):
            count = max(1, int(self.settings.funasr.batch_seconds * RATE / samples))
            for batch in _batches(same, count):
                waves = [np.array(turns[n][0][part.start : part.stop], dtype=np.float32) for n, part in batch]
                for (number, _), vector in zip(batch, self._embedded(waves), strict=True):
                    sums[number] = sums.get(number, 0) + normalized(vector)
        for number in range(len(turns)):
            yield normalized(sums[number]) if number in sums else None


def _uncertain(module: torch.nn.Module, inputs: object, probabilities: Tensor) -> Tensor:
    return probabilities.clamp(CERTAIN, 1 - CERTAIN)


def _by_segment(pairs: Iterable[tuple[Segment, Transcript]]) -> list[dict[str, Any]]:
    pairs = [(segment, transcript) for segment, transcript in pairs if transcript.text]
    results = [
        {"text": transcript.text, "timestamp": [[segment.start + a, segment.start + b] for a, b in transcript.times]}
        for segment, transcript in pairs
    ]
    return _vad_segment_sentences(results, [[segment.start, segment.end] for segment, _ in pairs])


def _windows(segment: Segment, wave: np.ndarray) -> list[tuple[Seconds, Seconds, np.ndarray]]:
    """Start, end and (24000,) sound of each window of a segment, padded if it is shorter."""
    return sv_chunk([[segment.start / 1000, segment.end / 1000, segment.of(wave)]])


def _batches(items: Iterable[T], count: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, count)):
        yield batch


def _umap_hdbscan(points: Tensor, settings: UmapHdbscan) -> np.ndarray:
    """`UmapHdbscan`, seeded; unseeded, UMAP's threads race, and each run gives other clusters."""
    import umap
    from sklearn.cluster import HDBSCAN

    reduced = umap.UMAP(
        n_neighbors=settings.n_neighbors,
        min_dist=0.0,
        n_components=min(settings.n_components, len(points) - 2),
        metric=settings.metric,
        random_state=SEED,
        n_jobs=1,
    ).fit_transform(points)
    return HDBSCAN(
        min_samples=settings.min_samples,
        min_cluster_size=settings.min_cluster_size,
        allow_single_cluster=True,
        copy=False,
    ).fit_predict(reduced)


def _parts(stretch: Stretch, samples: int) -> list[range]:
    """Choose what of a turn to embed: equal parts, multiples of GRID, up to MAX_EMBEDDED."""
    start, end = round(stretch.start * RATE), min(round(stretch.end * RATE), samples)
    if end - start < MIN_EMBEDDED * RATE:
        return []
    count = math.ceil((end - start) / (MAX_EMBEDDED * RATE))
    share = (end - start) // count
    length = share // GRID * GRID
    first = start + (share - length) // 2
    return [range(first + number * share, first + number * share + length) for number in range(count)]
