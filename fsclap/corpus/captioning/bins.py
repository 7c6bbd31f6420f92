"""Where one word for an attribute ends and the next begins: at the quantiles of a corpus."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fsclap.corpus.captioning.attributes import Attributes

REFERENCE_BINS = Path(__file__).with_name("reference_bins.json")

MIN_VALUES = 30
"""Values of a measure below which its quantiles are not worth a bin."""
NOISE_PER_OCTAVE = -0.13
"""How the measured aperiodicity goes with pitch: a longer period leaves more time to change. Slope
over 110-230 Hz of 24 utterances resynthesised by WORLD at three pitches, all else equal."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How one attribute becomes a word, by quantiles of a corpus; None: no word.

    Attributes:
        words: From the lowest value to the highest.
        quantiles: Of the values; or of their magnitudes, so that "rising" rises however rare rising
            is; or of the positive values, so that an utterance without a pause never has "some".
    """

    words: tuple[str | None, ...]
    quantiles: tuple[float, ...]
    of: Literal["values", "magnitudes", "positive values"] = "values"


SCALES: Mapping[str, Scale] = {
    "pitch": Scale(("very low", "low", "medium", "high", "very high"), (0.1, 0.35, 0.65, 0.9)),
    "pitch_range": Scale(("monotone", "narrow", None, "lively", "sweeping"), (0.1, 0.3, 0.7, 0.9)),
    "intonation": Scale(("falling", None, "rising"), (0.7,), of="magnitudes"),
    "energy": Scale(("hushed", "soft", None, "loud", "very loud"), (0.1, 0.3, 0.7, 0.9)),
    "dynamics": Scale(("even", None, "contrasted"), (0.2, 0.8)),
    "speaking_rate": Scale(("very slow", "slow", None, "fast", "very fast"), (0.1, 0.3, 0.7, 0.9)),
    "pauses": Scale((None, "some", "many"), (0.2, 0.7), of="positive values"),
    "voice_quality": Scale(("clear", None, "husky"), (0.2, 0.8)),
    "timbre": Scale(("bright", None, "dark"), (0.2, 0.8)),
    "relative_pitch": Scale(("lowered", None, "raised"), (0.15, 0.85)),
    "relative_rate": Scale(("slower", None, "faster"), (0.15, 0.85)),
}


class Bins(BaseModel):
    """Where one word ends and the next begins, learnt from a corpus.

    Attributes:
        edges: For each attribute of `SCALES`, ascending edges in the units of its measure: Hz,
            semitones, semitones a second, dB, dB, syllables a second, share, share, dB, semitones,
            octaves (of rate).
        about: Where the bins come from, for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    edges: dict[str, tuple[float, ...]]
    about: dict[str, str | int | list[str]] = {}

    @model_validator(mode="after")
    def _complete(self) -> "Bins":
        wrong = [name for name, scale in SCALES.items() if not self._fits(name, scale)]
        if wrong or set(self.edges) != set(SCALES):
            raise ValueError(f"edges must be ascending, one fewer than the words, for {list(SCALES)}: see {wrong}")
        return self

    def _fits(self, name: str, scale: Scale) -> bool:
        edges = self.edges.get(name, ())
        return len(edges) == len(scale.words) - 1 and all(np.diff(edges) > 0) and bool(np.isfinite(edges).all())

    def word(self, name: str, value: float | None) -> str | None:
        """Return the word for a value of a measure; None in the silent middle or without value."""
        if value is None:
            return None
        return SCALES[name].words[int(np.searchsorted(self.edges[name], value, side="right"))]

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_bins(path: Path | None) -> Bins:
    """Read bins; None reads the reference ones.

    Raises:
        ValueError: The file holds no bins; the message says how to make some.
    """
    file = path or REFERENCE_BINS
    try:
        return Bins.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{file} does not hold caption bins (made by fit_bins(...).save): {error}") from error


def fit_bins(
    attributes: Sequence[Attributes],
    speakers: Sequence[str],
    *,
    about: Mapping[str, str | int | list[str]] | None = None,
) -> Bins:
    """Bins at the quantiles of a corpus.

    Args:
        attributes: One per utterance.
        speakers: The speaker of each, so that each can be compared with their own mean.
        about: Kept with the bins: sources, date, number of clips.

    Raises:
        ValueError: Fewer than MIN_VALUES clips have a measure, or its values hardly vary.
    """
    usual = {name: mean([a for a, s in zip(attributes, speakers, strict=True) if s == name]) for name in set(speakers)}
    rows = [measures(a, usual[s]) for a, s in zip(attributes, speakers, strict=True)]
    edges = {}
    for name, scale in SCALES.items():
        values = np.array([row[name] for row in rows if row[name] is not None], dtype=float)
        edges[name] = _edges(name, values, scale)
    return Bins(edges=edges, about=dict(about or {}))


def _edges(name: str, values: np.ndarray, scale: Scale) -> tuple[float, ...]:
    values = {"values": values, "magnitudes": np.abs(values), "positive values": values[values > 0]}[scale.of]
    if len(values) < MIN_VALUES:
        raise ValueError(f"{len(values)} clips have {scale.of} of {name}; bins need at least {MIN_VALUES}")
    edges = [round(float(edge), 4) for edge in np.quantile(values, scale.quantiles)]
    return (-edges[0], edges[0]) if scale.of == "magnitudes" else tuple(edges)


def mean(attributes: Sequence[Attributes]) -> Attributes:
    """Average each attribute (pitch on a log scale) over the clips that have it."""
    means: dict[str, float | None] = {}
    for field in fields(Attributes):
        values = [v for v in (getattr(a, field.name) for a in attributes) if v is not None]
        geometric = field.name == "pitch_hz"
        centre = np.mean(np.log(values) if geometric else values) if values else None
        means[field.name] = None if centre is None else float(np.exp(centre) if geometric else centre)
    return Attributes(**means)


def measures(a: Attributes, usual: Attributes) -> dict[str, float | None]:
    """Return the value that each scale bins; None where it cannot be computed."""
    return {
        "pitch": a.pitch_hz,
        "pitch_range": a.pitch_range_st,
        "intonation": a.pitch_slope_st,
        "energy": None if a.energy_db is None or usual.energy_db is None else a.energy_db - usual.energy_db,
        "dynamics": a.energy_range_db,
        "speaking_rate": a.speaking_rate,
        "pauses": a.pause_ratio,
        "voice_quality": _noise(a),
        "timbre": a.spectral_tilt_db,
        "relative_pitch": _octaves(a.pitch_hz, usual.pitch_hz, scale=12),
        "relative_rate": _octaves(a.speaking_rate, usual.speaking_rate, scale=1),
    }


def _octaves(value: float | None, usual: float | None, *, scale: float) -> float | None:
    return scale * math.log2(value / usual) if value and usual else None


def _noise(a: Attributes) -> float | None:
    """Aperiodicity as it would be at 100 Hz."""
    if a.aperiodicity is None or a.pitch_hz is None:
        return None
    return a.aperiodicity - NOISE_PER_OCTAVE * math.log2(a.pitch_hz / 100)
