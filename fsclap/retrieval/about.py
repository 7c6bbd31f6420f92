"""What an index holds, for people who choose among its clips: filters, histograms, voices, examples."""

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fsclap.queries.conditions import vocabulary
from fsclap.retrieval import By
from fsclap.retrieval.filters import columns, words_of
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.recordings import MAX_RECORDING_BYTES
from fsclap.retrieval.search import Searcher

MOST_VALUES = 500
"""Values that a filter suggests, the most frequent ones; any other can still be typed."""
FACETS = ("emotion", "speaker", "series", "language", "kind")
MEASURES = {
    "attributes.pitch_hz": "Hz",
    "attributes.speaking_rate": "syllables/s",
    "attributes.energy_db": "dB",
    "attributes.pause_ratio": "%",
    "attributes.aperiodicity": "%",
    "duration": "s",
}
"""Column that has a slider -> its unit; a share of 0 to 1 is shown as "%"."""
BARS = 24
"""Bars of a histogram."""
EDGE = 1.0
"""Percent of the clips beyond each end of a slider: a few extremes would squeeze all others."""
MOST_VOICES = 12
"""Voices on the start page."""
VOICE_CLIPS = 8
"""Clips that a voice card plays, spread over the pitch of the voice."""
VOICE_WORDS = 6
EXAMPLES = 4
_ASKED = {
    "a deep voice with long pauses": ("pitch", "pauses"),
    "talks fast, lively, up and down": ("speaking_rate", "pitch_range"),
    "breathy and quiet": ("voice_quality", "energy"),
    "a bored monotone": ("pitch_range",),
    "a mouse on helium": ("pitch",),
    "sad": ("emotion",),
    "laughing": ("events",),
    "not high, without a pause": ("pitch", "pauses"),
}
"""Example -> the attributes that a clip must have a word for."""


def about(searcher: Searcher) -> dict[str, Any]:
    """Describe the index, for the page before the first search."""
    record, rows = searcher.index.record, searcher.index.rows
    return {
        "corpus": Path(record.corpus).name,
        "version": record.version,
        "model": Path(record.model).name,
        "status": record.model_status.sentence() if record.model_status else "",
        "warning": record.model_status.warning() if record.model_status else "",
        "by": {"default": searcher.default, "ways": get_args(By)},
        "clips": record.clips,
        "captions": record.captions,
        "facets": [facet for name in FACETS if (facet := _facet(rows, name)) is not None],
        "measures": [found for name, unit in MEASURES.items() if (found := _measure(rows, name, unit)) is not None],
        "style": _styles(rows),
        "columns": columns(rows),
        "examples": _examples(rows),
        "largest": MAX_RECORDING_BYTES,
    }


def voices(searcher: Searcher) -> list[dict[str, Any]]:
    """Describe the speakers with the most clips."""
    facet = _facet(searcher.index.rows, "speaker")
    return [voice(searcher, value["value"]) for value in facet["values"][:MOST_VOICES]] if facet else []


def voice(searcher: Searcher, speaker: str) -> dict[str, Any]:
    """Describe one speaker: clips, pitch, pace, and what is said of them most often.

    Raises:
        SearchError: No clip is of that speaker.
    """
    rows = searcher.index.rows
    own = rows.filter(pc.equal(rows["speaker"], speaker)) if "speaker" in rows.column_names else rows.slice(0, 0)
    if not len(own):
        raise SearchError(f"no clip is of a speaker {speaker!r}")
    pitch = _numbers(own, "attributes.pitch_hz")
    order = np.argsort(np.where(np.isfinite(pitch), pitch, np.inf), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(VOICE_CLIPS, len(order))).round().astype(int)]
    said = Counter(
        (name, word) for key in _texts(own, "style_key") for name, some in words_of(key).items() for word in some
    )
    return {
        "speaker": speaker,
        "series": sorted({name for name in _texts(own, "series") if name}),
        "clips": len(own),
        "seconds": float(np.nansum(_numbers(own, "duration"))),
        "ranges": {name: found for name in MEASURES if (found := _spread(_numbers(own, name))) is not None},
        "emotions": _counted(Counter(name for name in _texts(own, "emotion") if name)),
        "words": [
            {"attribute": name, "word": word, "clips": count} for (name, word), count in said.most_common(VOICE_WORDS)
        ],
        "ids": [own["utterance_id"][int(row)].as_py() for row in chosen],
    }


def _spread(values: np.ndarray) -> list[float] | None:
    """10th, 50th and 90th percentile of finite values; None without any."""
    finite = values[np.isfinite(values)]
    return np.percentile(finite, [10, 50, 90]).round(3).tolist() if len(finite) else None


def _counted(counts: "Counter[str]") -> list[dict[str, Any]]:
    return [{"value": value, "clips": count} for value, count in counts.most_common()]


def _facet(rows: pa.Table, name: str) -> dict[str, Any] | None:
    """Count a column's values, the most frequent first; None if all clips have the same one."""
    if name not in rows.schema.names:
        return None
    counts = rows[name].drop_null().value_counts()
    if len(counts) == 0 or (len(counts) == 1 and rows[name].null_count == 0):
        return None
    values = sorted(counts.to_pylist(), key=lambda count: (-count["counts"], count["values"]))
    return {
        "column": name,
        "distinct": len(values),
        "values": [{"value": count["values"], "clips": count["counts"]} for count in values[:MOST_VALUES]],
    }


def _measure(rows: pa.Table, name: str, unit: str) -> dict[str, Any] | None:
    """Count the clips between the ends of a slider; None if the column is not there or constant."""
    values = _numbers(rows, name)
    finite = values[np.isfinite(values)]
    if not len(finite) or np.ptp(finite) == 0:
        return None
    low, high = np.percentile(finite, [EDGE, 100 - EDGE]).tolist()
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    counts, _ = np.histogram(np.clip(finite, low, high), bins=BARS, range=(low, high))
    return {"column": name, "unit": unit, "low": low, "high": high, "counts": counts.tolist()}


def _styles(rows: pa.Table) -> list[dict[str, Any]]:
    """Count the words of the clips' styles, by attribute, in the order of their scales."""
    counts: dict[str, Counter[str]] = {}
    for key in _texts(rows, "style_key"):
        for name, some in words_of(key).items():
            counts.setdefault(name, Counter()).update(some)
    known = vocabulary()
    places = {name: at for at, name in enumerate(known)}
    return [
        {
            "attribute": name,
            "words": [
                {"word": word, "clips": counts[name][word]}
                for word in sorted(counts[name], key=lambda word: [*known.get(name, ()), word].index(word))
            ],
        }
        for name in sorted(counts, key=lambda name: places.get(name, len(places)))
    ]


def _examples(rows: pa.Table) -> list[str]:
    """Choose the examples that the clips of a corpus can answer."""
    known = {name for key in set(_texts(rows, "style_key")) for name in words_of(key)}
    known |= {name for name in ("emotion", "events") if any(_texts(rows, name))}
    return [text for text, attributes in _ASKED.items() if known.issuperset(attributes)][:EXAMPLES]


def _texts(rows: pa.Table, name: str) -> list[Any]:
    return [value or "" for value in rows[name].to_pylist()] if name in rows.column_names else []


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    """(rows,) float64, NaN where a value is unknown or there is no such column."""
    whole, _, part = name.partition(".")
    if name not in columns(rows):
        return np.full(len(rows), np.nan)
    values = rows[whole].combine_chunks()
    values = pc.struct_field(values, part) if part else values
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
