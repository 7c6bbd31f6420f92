"""The card of a corpus: what is in it, what was left out and why, and how it sounds.

The card depends on the tables and the arguments alone: the same corpus gets the same card.
"""

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.dataset
import yaml

from storage.corpus import Corpus
from storage.files import written_aside
from storage.schema import AUDIO, REJECT, UTTERANCE
from storage.statistics import Statistics, measure

LICENCE = "The rights stay with the owners of the source media"
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EXAMPLES = 6
_CLIP_SECONDS = (1.5, 8.0)
_CAPTIONS = {
    "durations": "Length of utterances",
    "series": "Minutes of speech by series",
    "speakers": "Minutes of speech by speaker",
    "prosody": "Pitch, energy and speaking rate",
    "emotions": "Emotions",
    "retention": "Share of the turns kept against the similarity threshold",
    "rejects": "What was refused, by stage and reason",
    "cost": "Compute and real-time factor by stage",
}


@dataclass(frozen=True, slots=True)
class CardPaths:
    """The files of a card."""

    readme: Path
    page: Path
    plots: Mapping[str, Path]


def write_card(
    corpus: Corpus,
    *,
    title: str,
    settings: Mapping[str, Any],
    threshold: float | None,
    folder: Path | None = None,
    data_files: Mapping[str, Sequence[str]] | None = None,
) -> CardPaths:
    """Write README.md (a Hugging Face dataset card), card.html (one file, with sound) and plots/*.png.

    Args:
        corpus: What the card is about.
        title: Any text; it is escaped, as all text of the corpus is.
        settings: The settings of the build to show; nested ones are shown as "outer.inner".
        threshold: The similarity in use, on the scale of the rows; None when turns were not filtered by it.
        folder: Where to write. The corpus's own folder by default, which must be a local one.
        data_files: The Parquet files of "utterances" and "rejects" relative to `folder`. By default the
            shards of the current version by name: the folder of a live table also holds shards that were
            replaced, or that a killed writer never committed, and `datasets` must not read those.

    Raises:
        CorpusError: No folder is named and the corpus lives in an object store.
    """
    from storage.plots import draw  # matplotlib takes a second, and every flow imports this module

    target = corpus.folder if folder is None else folder
    target.mkdir(parents=True, exist_ok=True)
    statistics = measure(corpus)
    plots = draw(statistics, target / "plots", threshold=threshold)
    files = data_files or _live_files(corpus, statistics.version)
    view = {
        "title": title,
        "statistics": statistics,
        "totals": statistics.totals,
        "summary": _summary(statistics),
        "lengths": _lengths(statistics),
        "tiles": _tiles(statistics),
        "reasons": list(statistics.reasons.items()),
        "settings": list(_flat(settings)),
        "hours": _hours,
    }
    readme, page = target / "README.md", target / "card.html"
    with written_aside(readme) as part:
        part.write_text(_readme(view, title, files, plots, statistics), encoding="utf-8")
    with written_aside(page) as part:
        part.write_text(_page(view, plots, _examples(corpus, statistics)), encoding="utf-8")
    return CardPaths(readme=readme, page=page, plots=plots)


def escape_markdown(value: Any) -> str:
    """Any value as one line of Markdown that shows it literally, in a table cell too.

    What would steer a terminal or turn the direction of the text around it is shown as U+FFFD.
    """
    flat = _STEERING.sub("\N{REPLACEMENT CHARACTER}", " ".join(html.escape(str(value), quote=False).split()))
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$<>-])", r"\\\1", flat)
    return re.sub(r"^(\d+)\.", r"\1\\.", escaped)  # or it would begin a list


def _environment(*, escaped: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("storage", "templates"),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    return environment


def _readme(
    view: Mapping[str, Any],
    title: str,
    files: Mapping[str, Sequence[str]],
    plots: Mapping[str, Path],
    statistics: Statistics,
) -> str:
    template = _environment(escaped=False).get_template("card.md.j2")
    return template.render(
        view,
        front_matter=_front_matter(title, files=files, statistics=statistics),
        example_path="path/to/this/folder",
        plots=[(name, _CAPTIONS[name]) for name in plots],
    )


def _page(view: Mapping[str, Any], plots: Mapping[str, Path], examples: list[dict[str, Any]]) -> str:
    images = [(_CAPTIONS[name], data_uri(path.read_bytes(), "image/png")) for name, path in plots.items()]
    return _environment(escaped=True).get_template("card.html.j2").render(view, images=images, examples=examples)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that a page can show or play, `kind` being their media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _live_files(corpus: Corpus, version: int) -> dict[str, list[str]]:
    return {"utterances": [f"utterances/{shard}" for shard in corpus.shards(version=version)]}


# Front matter: https://huggingface.co/docs/hub/datasets-cards


def _front_matter(title: str, *, files: Mapping[str, Sequence[str]], statistics: Statistics) -> str:
    schemas = {"utterances": UTTERANCE, "rejects": REJECT}
    named = {name: paths for name, paths in files.items() if paths}
    rate = statistics.sample_rates[0] if len(statistics.sample_rates) == 1 else None
    meta = {
        "pretty_name": " ".join(title.split()),
        "license": "other",
        "license_name": "rights-of-the-source-media",
        "license_details": LICENCE,
        "task_categories": ["text-to-speech", "automatic-speech-recognition", "audio-classification"],
        "language": [code for code in statistics.languages if code != "unknown"],
        "size_categories": [_size_category(statistics.totals.turns_kept)],
        "configs": [
            {
                "config_name": name,
                **({"default": True} if name == "utterances" else {}),
                "data_files": [{"split": "train", "path": list(paths)}],
            }
            for name, paths in named.items()
        ],
        "dataset_info": [
            {
                "config_name": name,
                "features": [{"name": field.name, **_feature(field.type, rate=rate)} for field in schemas[name]],
            }
            for name in named
        ],
    }
    return yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=110)


def _feature(kind: pa.DataType, *, rate: int | None) -> dict[str, Any]:
    """An Arrow type as `datasets` writes its features in a card."""
    if kind.equals(AUDIO):
        return {"dtype": {"audio": {} if rate is None else {"sampling_rate": rate}}}
    if pa.types.is_struct(kind):
        members = (kind.field(index) for index in range(kind.num_fields))
        return {"struct": [{"name": member.name, **_feature(member.type, rate=rate)} for member in members]}
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type, rate=rate)
        return {"list": inner.get("struct", inner.get("dtype"))}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind))}


def _size_category(rows: int) -> str:
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M" if rows < 10**7 else "n>10M")


# What the page says


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _tiles(statistics: Statistics) -> list[tuple[str, str]]:
    totals = statistics.totals
    return [
        (f"{totals.turns_kept:,}", "utterances"),
        (_hours(totals.hours_out), "of speech kept"),
        (_hours(totals.hours_in), "of recordings read"),
        (f"{totals.speakers:,}", "speakers"),
        (f"{sum(totals.sources.values()):,}", "episodes"),
        (_percent(totals.turns_kept, totals.turns_found), "of the turns kept"),
    ]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _summary(statistics: Statistics) -> list[tuple[str, str]]:
    totals, groups = statistics.totals, statistics.caption_groups
    unique, captions = groups.get(1, 0), sum(groups.values())
    rows = [(f"episodes {status}", f"{count:,}") for status, count in totals.sources.items()]
    return [
        *rows,
        ("recordings read", _hours(totals.hours_in)),
        ("speech kept", _hours(totals.hours_out)),
        ("turns found", f"{totals.turns_found:,}"),
        ("turns kept", f"{totals.turns_kept:,} ({_percent(totals.turns_kept, totals.turns_found)})"),
        ("turns rejected", f"{totals.turns_rejected:,}"),
        ("speakers (labels are per episode)", f"{totals.speakers:,}"),
        (
            "persons (speakers.parquet says who is who)",
            f"{statistics.persons:,}" if statistics.persons else "not linked",
        ),
        ("different captions", f"{captions:,}"),
        ("clips whose caption no other has", f"{unique:,} ({_percent(unique, totals.turns_kept)})"),
        ("most clips with one caption", f"{max(groups, default=0):,}"),
        ("different styles", f"{statistics.styles:,}"),
        ("languages", _listed(statistics.languages)),
    ]


def _lengths(statistics: Statistics) -> list[tuple[str, str]]:
    names = {0.0: "shortest", 0.5: "median", 1.0: "longest"}
    return [
        (names.get(level) or f"{100 * level:.0f} % are shorter than", f"{seconds:.2f} s")
        for level, seconds in statistics.duration_quantiles().items()
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _flat(settings: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _examples(corpus: Corpus, statistics: Statistics) -> list[dict[str, Any]]:
    """A few utterances to hear: one a speaker, the largest speakers first, each most like its speaker."""
    chosen = _choose(corpus, statistics)
    dataset = corpus.dataset(version=statistics.version)
    wanted = pyarrow.dataset.field("utterance_id").isin(pa.array(chosen, pa.string()))
    columns = ["utterance_id", "caption", "text", "speaker", "duration", "audio"]
    rows = {row["utterance_id"]: row for row in dataset.to_table(columns=columns, filter=wanted).to_pylist()}
    return [
        {**rows[utterance_id], "sound": data_uri(rows[utterance_id]["audio"]["bytes"], "audio/flac")}
        for utterance_id in chosen
    ]


def _choose(corpus: Corpus, statistics: Statistics) -> list[str]:
    columns = ["utterance_id", "speaker", "duration", "similarity"]
    by_speaker: dict[str, list[dict[str, Any]]] = {}
    for row in corpus.utterances(version=statistics.version, columns=columns).to_pylist():
        by_speaker.setdefault(row["speaker"], []).append(row)
    shortest, longest = _CLIP_SECONDS
    for rows in by_speaker.values():
        rows.sort(
            key=lambda row: (
                not shortest <= row["duration"] <= longest,
                row["similarity"] is None,  # its speaker's only turn
                -(row["similarity"] or 0.0),
                row["utterance_id"],
            )
        )
    rounds = max(map(len, by_speaker.values()), default=0)
    order = [
        by_speaker[group.name][turn]["utterance_id"]
        for turn in range(min(rounds, _EXAMPLES))
        for group in statistics.speakers
        if turn < len(by_speaker[group.name])
    ]
    return order[:_EXAMPLES]
