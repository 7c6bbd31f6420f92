"""Diarization with transcript: who speaks when, what they say, and an embedding of their voice."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap import Hertz
from fsclap.corpus.turns import Diarized
from fsclap.settings import Folded, engine_block, execution
from fsclap.weights import WeightsSettings

EMBEDDED = "whisper-campplus"
"""The engine whose weights come with this package and with pip packages."""
CHECKED = 1 << 22
"""Samples that `check_recording` reads at once."""


class Diarizer(Protocol):
    """What every diarization engine offers.

    Attributes:
        name: The engine, as in `DiarizationSettings.engine`.
        revision: The versions of its weights; part of what a row depends on.
        sample_rate: The rate of the recordings it takes.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def sample_rate(self) -> Hertz: ...

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[Diarized]:
        """Find the turns of each recording.

        Args:
            recordings: Each (samples,) float32 mono in [-1, 1] at `sample_rate`; may be a memory
                map.

        Yields:
            For each recording, in order, its turns, and the speech that became none. A recording
            without speech has neither.

        Raises:
            ValueError: A recording is not one-dimensional or holds a value that is not finite.
        """
        ...


def check_recording(wave: np.ndarray, number: int) -> None:
    """Refuse what is not a recording; read it in blocks.

    Raises:
        ValueError: It is not one-dimensional, or holds a value that is not finite.
    """
    if wave.ndim != 1:
        raise ValueError(f"recording {number} has shape {wave.shape}: expected (samples,), mono")
    if not all(np.isfinite(wave[start : start + CHECKED]).all() for start in range(0, len(wave), CHECKED)):
        raise ValueError(f"recording {number} holds NaN or infinite samples")


class WhisperCAMPlusPlusSettings(BaseModel):
    """The embedded engine: segmentation-3.0, Silero VAD, CAM++, spectral clustering, Whisper tiny.en.

    The defaults were chosen on the dev halves of `bench.dialogues` and `bench.wide`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    speech_threshold: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Probability of speech, by both detectors together, that starts a stretch of speech; 0.3 of it "
        "ends one. Lower finds more of what is shouted or whispered, and more that is no speech.",
    )
    change_threshold: float = Field(
        0.4,
        gt=0,
        le=1,
        description="How far the speakers of two moments 0.4 s apart must differ to be a change of speaker: 0 finds "
        "changes everywhere, 1 only the surest.",
    )
    window: float = Field(
        6.0, ge=1.6, le=10, description="Longest stretch, in seconds, that is given to one speaker as a whole."
    )
    one_speaker: float = Field(
        0.6,
        ge=0,
        le=1,
        description="How much it counts that all voices of a recording are alike, against their falling apart into "
        "groups. Higher gives more recordings with one speaker.",
    )
    min_speaker: float = Field(
        4.0,
        ge=0,
        le=60,
        description="Seconds of speech that make a speaker; smaller clusters are divided among the others.",
    )
    max_speakers: int = Field(
        20, ge=1, le=1000, description="Most speakers per recording, where `speakers` is not known."
    )
    least_confidence: float = Field(
        0.45,
        ge=0,
        le=1,
        description="Probability of a word piece, averaged over all that a speaker says in a recording, below which "
        "the speaker's texts are left empty: the recogniser knows English only, and makes up words for "
        "other languages. Higher leaves fewer made-up words, and fewer of those that were shouted or mumbled.",
    )


class FunASRSettings(BaseModel):
    """The full engine: FunASR's Paraformer with timestamps, FSMN-VAD, ct-punc and CAM++."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asr: WeightsSettings = execution(
        WeightsSettings(
            name="iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch", revision="v2.0.4"
        ),
        description="Recogniser: a Paraformer with timestamps (BiCifParaformer or SeacoParaformer).",
    )
    vad: WeightsSettings = execution(
        WeightsSettings(name="iic/speech_fsmn_vad_zh-cn-16k-common-pytorch", revision="v2.0.4"),
        description="Speech detector: an FSMN-VAD.",
    )
    punc: WeightsSettings = execution(
        WeightsSettings(name="iic/punc_ct-transformer_cn-en-common-vocab471067-large", revision="v2.0.4"),
        description="Punctuation: a CT-Transformer. Its marks also cut speech into the sentences that get a speaker.",
    )
    speaker: WeightsSettings = execution(
        WeightsSettings(name="iic/speech_campplus_sv_zh-cn_16k-common", revision="v2.0.2"),
        description="Speaker encoder: a CAM++.",
    )
    merge_threshold: float = Field(
        0.78, gt=0, le=1, description="Cosine between the means of two clusters from which they are one speaker."
    )
    batch_seconds: float = execution(
        15.0,
        gt=0,
        le=3600,
        description="Seconds of audio per batch, padding included. More takes more memory. On a GPU use 300 or more; "
        "a CPU gains nothing above 15.",
    )


class DiarizationSettings(BaseModel):
    """How speech is divided into turns and speakers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["whisper-campplus", "funasr"] | None = Field(
        None,
        description="whisper-campplus: segmentation-3.0, Silero VAD, CAM++, Whisper tiny.en; English only. funasr: "
        "Paraformer, FSMN-VAD, ct-punc, CAM++; Chinese by default. None: the profile's (embedded: "
        "whisper-campplus, full: funasr).",
    )
    language: str | None = Field(
        None,
        pattern="^[a-z]{2}$",
        description="Language of the speech as an ISO 639-1 code (zh, en), if known; it is stored with every turn. "
        "None: whisper-campplus, which takes en or None only, states en for the turns whose words it understands, "
        "funasr states none.",
    )
    speakers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="How many people speak in each recording, if that is known and the same in all: 2 for a podcast of "
        "two. None: it is found from their voices.",
    )
    min_turn: float = Field(0.4, gt=0, le=5, description="Shortest turn, in seconds; shorter ones are rejected.")
    max_turn: float = Field(
        15.0, ge=2, le=29, description="Longest turn, in seconds; longer ones are cut at their best pause."
    )
    events: bool = Field(
        False,
        description="Keep bursts of voice without words, such as cries, gasps and laughs, as utterances of the kind "
        "`event`, with empty text, also those shorter than min_turn, of speakers of whom some speech is kept. "
        "Off: what is shorter than min_turn, or in which funasr finds no words, is rejected.",
    )
    merge_gap: float = Field(0.5, ge=0, le=5, description="Longest pause, in seconds, within a turn of one speaker.")
    whisper_campplus: Folded[WhisperCAMPlusPlusSettings] = engine_block(
        "whisper-campplus", WhisperCAMPlusPlusSettings, "Settings of the engine whisper-campplus."
    )
    funasr: Folded[FunASRSettings] = engine_block("funasr", FunASRSettings, "Settings of the engine funasr.")

    @model_validator(mode="after")
    def _engine_knows_the_language(self) -> Self:
        if self.engine == EMBEDDED and self.language not in (None, "en"):
            raise ValueError(
                f"language={self.language}: the engine {EMBEDDED} knows English only; "
                "set language to en or None, or the engine to funasr"
            )
        return self
