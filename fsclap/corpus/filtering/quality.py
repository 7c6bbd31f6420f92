"""How clean a clip sounds, as listeners would rate it: DNSMOS P.835."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz
from fsclap.settings import execution


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean opinion scores after ITU-T P.835, about 1 (bad) to 5 (excellent).

    Attributes:
        overall: Of the clip as a whole (OVRL): what `selection.min_quality` is compared with.
        signal: Of the voice: is it distorted (SIG)?
        background: Of everything but the voice: is it disturbing (BAK)?
    """

    overall: float
    signal: float
    background: float


class Scorer(Protocol):
    """An engine that rates clips.

    Attributes:
        name: The engine, as `QualitySettings.engine` calls it.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate of the clips it takes.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def score(self, clips: Sequence[np.ndarray]) -> Iterator[Quality]:
        """Yield the quality of each clip, in order.

        Args:
            clips: Each (samples,) float32 mono at `sample_rate`, of any length but 0; may be memory
                maps. One that passes full scale is rated as `encode_flac` would store it,
                attenuated to a peak of 1.

        Raises:
            ValueError: A clip is empty, not one-dimensional, or holds a value that is not finite.
        """
        ...


class QualitySettings(BaseModel):
    """Whether clips are rated, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["none", "dnsmos"] = Field(
        default="none",
        description="dnsmos: DNSMOS P.835 on the CPU, from the package speechmos; hears noise, music and what "
        "separation leaves of them. none: clips are not rated. Slow (1 to 10 times real time per core), "
        "and made for calls: clean acted speech gets only 2.6 on average, so a threshold meant for calls "
        "removes expressive speech. Use it to inspect a corpus, or for recordings made under bad "
        "conditions.",
    )
    threads: int = execution(1, ge=1, le=64, description="Threads the engine runs on.")
