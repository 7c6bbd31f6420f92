"""FunASR's Paraformer with timestamps, on stretches of speech from many recordings.

Padding changes nothing: what the encoder puts out after the end of a stretch is zeroed before the
predictors see it, and their LSTM turns round at that end.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fsclap import Hertz, Seconds
from fsclap.corpus.funasr_weights import FunasrModel, quiet
from fsclap.devices import Batches, by_length
from fsclap.weights import WeightsError, WeightsSettings

with quiet():
    from funasr.models.bicif_paraformer.cif_predictor import cif_wo_hidden
    from funasr.utils.load_utils import extract_fbank
    from funasr.utils.postprocess_utils import sentence_postprocess
    from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

log = logging.getLogger(__name__)

SETTING = "diarization.funasr"
RATE: Hertz = 16_000
"""The rate of every model of this engine."""
PER_MS = RATE // 1000


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech.

    Attributes:
        recording: Its index.
        start, end: Position in the recording, in milliseconds.
    """

    recording: int
    start: int
    end: int

    @property
    def seconds(self) -> Seconds:
        return (self.end - self.start) / 1000

    def of(self, wave: np.ndarray) -> np.ndarray:
        """Copy its sound, (samples,), out of the recording."""
        return np.array(wave[self.start * PER_MS : self.end * PER_MS], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a stretch of speech.

    Attributes:
        text: Words, characters being words, with spaces between them.
        times: [start, end] of each word in milliseconds from the start of the stretch.
    """

    text: str
    times: list[list[int]]


SILENT = Transcript("", [])


class Paraformer:
    """The recogniser of the engine `funasr`.

    Args:
        model: A Paraformer with timestamps.
        settings: Its weights, for messages.
        device: Where it runs.
        batch_seconds: Seconds of padded sound per batch.

    Raises:
        WeightsError: The model gives no timestamps.
    """

    def __init__(
        self, model: FunasrModel, settings: WeightsSettings, *, device: torch.device, batch_seconds: Seconds
    ) -> None:
        _check_timestamps(model, settings)
        self.network = model.network
        self._options = model.options
        self._device = device
        self._batch_seconds = batch_seconds
        self._batches = Batches(self.recognise, setting=f"{SETTING}.batch_seconds")

    def transcribe(self, recordings: Sequence[np.ndarray], segments: Sequence[Segment]) -> list[Transcript]:
        """Transcribe each segment, in order."""
        transcripts = [SILENT] * len(segments)
        for group in by_length([segment.seconds for segment in segments], self._batch_seconds):
            waves = [segments[index].of(recordings[segments[index].recording]) for index in group]
            for index, transcript in zip(group, self._batches(waves), strict=True):
                transcripts[index] = transcript
        return transcripts

    @torch.inference_mode()
    def recognise(self, waves: list[np.ndarray]) -> list[Transcript]:
        """Transcribe (samples,) waves as one batch."""
        network, options = self.network, self._options
        features, lengths = extract_fbank([torch.from_numpy(wave) for wave in waves], frontend=options["frontend"])
        states, lengths = network.encode(features.to(self._device), lengths.to(self._device))
        # (batch, frames, dim). What lies behind a segment's end is what the predictors pad with:
        # nothing.
        states = states * (torch.arange(states.shape[1], device=self._device) < lengths[:, None])[..., None]
        embeddings, counts, *_ = network.calc_predictor(states, lengths)
        counts = counts.round().long()
        if counts.max() < 1:
            return [SILENT] * len(waves)
        scores, _ = network.cal_decoder_with_predictor(states, lengths, embeddings, counts)
        tokens = scores.argmax(dim=-1).cpu()
        weights = _boundary_weights(network.predictor, states, lengths, counts).cpu()
        fires = cif_wo_hidden(weights, network.predictor.threshold - 1e-4)
        ends = (lengths * network.predictor.upsample_times).tolist()
        return [
            self._transcript(tokens[row, :count], weights[row, :end], fires[row, :end])
            for row, (count, end) in enumerate(zip(counts.tolist(), ends, strict=True))
        ]

    def _transcript(self, tokens: Tensor, weights: Tensor, fires: Tensor) -> Transcript:
        """Turn one segment's token ids, and its boundary weights and sums, into words and times."""
        network = self.network
        special = {network.sos, network.eos, network.blank_id}
        words = self._options["tokenizer"].ids2tokens([token for token in tokens.tolist() if token not in special])
        if not words:
            return SILENT
        times = _times(words, weights, fires)
        if len(times) != len(words):
            log.info("%d words are left out: Paraformer gives no times for them", len(words))
            return SILENT
        text, times, _ = sentence_postprocess(words, times)
        return Transcript(text, times)


def _check_timestamps(model: FunasrModel, settings: WeightsSettings) -> None:
    predictor = model.network.predictor
    if getattr(predictor, "upsample_type", None) != "cnn_blstm":
        raise WeightsError(
            f"{SETTING}.asr: {settings.name} gives no timestamps (its predictor is a {type(predictor).__name__}), so "
            f"its sentences have no speakers. Choose a Paraformer with timestamps in {SETTING}.asr"
        )


def _boundary_weights(predictor: Any, states: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """(batch, 3 frames): how much of a token begins in each 20 ms, `counts` in all.

    `CifPredictorV3.get_upsample_timestamp`, but for the LSTM, whose way back begins at each
    segment's own end rather than in the padding.
    """
    times = predictor.upsample_times
    sound = torch.relu(predictor.cif_conv1d(predictor.pad(states.mT))) if predictor.use_cif1_cnn else states.mT
    fine = predictor.upsample_cnn(sound).mT
    packed = pack_padded_sequence(fine, (lengths * times).cpu(), batch_first=True, enforce_sorted=False)
    fine, _ = pad_packed_sequence(predictor.blstm(packed)[0], batch_first=True, total_length=fine.shape[1])
    weights = torch.sigmoid(predictor.cif_output2(fine)).squeeze(-1)
    weights = torch.relu(weights * predictor.smooth_factor2 - predictor.noise_threshold2)
    inside = torch.arange(weights.shape[1], device=weights.device) < (lengths * times)[:, None]
    weights = weights * inside
    return weights * (counts / weights.sum(dim=-1))[:, None]


def _times(words: Sequence[str], weights: Tensor, fires: Tensor) -> list[list[int]]:
    """[start, end] of each token; fewer if the weights do not allow it."""
    if not torch.isfinite(weights).all():
        return []
    try:
        _, times = ts_prediction_lfr6_standard(weights, fires, list(words))
    except IndexError:
        return []
    return times
