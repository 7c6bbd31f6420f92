"""Diarization with transcript: who speaks when, what they say, and an embedding of their voice."""

import functools
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz
from fsclap.corpus.turns import Turn


class Diarizer(Protocol):
    """What every diarization engine offers.

    Attributes:
        name: The engine, as in `DiarizationSettings.engine`.
        revision: The versions of its weights; part of what a row depends on.
        sample_rate: The rate it wants its recordings at.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def sample_rate(self) -> Hertz: ...

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[list[Turn]]:
        """Finds the turns of each recording.

        Args:
            recordings: Each (samples,) float32 mono in [-1, 1] at `sample_rate`; a memmap will do.

        Yields:
            For each recording, in order, its turns by start time: they do not overlap and lie within the
            recording. A recording without speech yields an empty list.

        Raises:
            ValueError: A recording is not one-dimensional or holds a value that is not finite.
        """
        ...


class DiarizationSettings(BaseModel):
    """Which engine finds the turns, and what it depends on.

    The defaults of the thresholds were chosen on the dev half of the dialogues of `bench.dialogues`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["whisper-resemblyzer"] = Field(
        "whisper-resemblyzer",
        description="whisper-resemblyzer: Silero VAD, Resemblyzer, agglomerative clustering, Whisper tiny.en",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the speaker encoder and the recogniser run")
    language: Literal["en"] | None = Field(
        None,
        description="Language of the speech, when known. The recogniser knows English only and cannot tell, "
        "so a turn's language is this value; None means unknown, and the text of other languages is unreliable",
    )
    vad_onset: float = Field(0.4, gt=0, lt=1, description="Speech probability that starts a stretch of speech")
    vad_offset: float = Field(0.02, gt=0, lt=1, description="Speech probability below which it ends")
    vad_pad: float = Field(0.06, ge=0, le=1, description="Seconds added on both sides of detected speech")
    min_silence: float = Field(0.2, gt=0, le=5, description="Seconds of silence that end a stretch of speech")
    min_turn: float = Field(0.4, gt=0, le=5, description="Shortest turn, in seconds; shorter ones are dropped")
    max_turn: float = Field(15.0, ge=2, le=29, description="Longest turn, in seconds; cut at its best pause")
    merge_gap: float = Field(0.5, ge=0, le=5, description="Longest pause, in seconds, within a turn of one speaker")
    window: float = Field(3.0, ge=1.6, le=10, description="Longest stretch, in seconds, that is one point to cluster")
    change_distance: float = Field(
        0.4, gt=0, le=1, description="Cosine distance between neighbouring windows that is a change of voice"
    )
    cluster_threshold: float = Field(
        0.37, gt=0, le=1, description="Mean cosine distance above which two clusters are two speakers"
    )
    switch_cost: float = Field(
        0.3, ge=0, le=5, description="Cosine that a change of speaker within a stretch of speech has to win"
    )
    min_speaker: float = Field(
        4.0, ge=0, le=60, description="Seconds of speech below which a cluster is given to the others"
    )
    max_speakers: int = Field(20, ge=1, le=1000, description="Most speakers in one recording")


@functools.lru_cache(maxsize=1)
def load_diarizer(settings: DiarizationSettings) -> Diarizer:
    """Loads the engine once in a process.

    Raises:
        ModuleNotFoundError, FileNotFoundError: The weights are not installed; the message says which package
            and file, and the command that installs them.
    """
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    from fsclap.corpus.engines.whisper_resemblyzer import WhisperResemblyzer

    return WhisperResemblyzer(settings)
