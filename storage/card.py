"""The card of a corpus: its contents, what was refused and why, and example clips.

The card depends only on the tables and the arguments: equal corpora get equal cards.
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
from storage.rights import consenting
from storage.schema import AUDIO, REJECT, UTTERANCE
from storage.statistics import Statistics, measure

README, PAGE = "README.md", "card.html"
SINGLETONS = (
    "the speaker's only turn in a recording, which has nothing to be compared with. For recordings of one sentence "
    'each, build with settings={"consistency": {"singletons": "keep"}}, or `fsclap build --singletons keep`.'
)
"""What `single_turn_speaker` means to a newcomer."""
LICENCE = "The rights remain with the owners of the source media"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EXAMPLES = 6
_CLIP_SECONDS = (1.5, 8.0)
_CAPTIONS = {
    "durations": "Length of utterances",
    "series": "Minutes of speech by series",
    "speakers": "Minutes of speech by speaker",
    "prosody": "Pitch, energy and speaking rate",
    "emotions": "Emotions",
    "retention": "Share of the turns kept against the similarity threshold",
    "rejects": "Refusals by stage and reason",
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
    folder: Path,
    data_files: Mapping[str, Sequence[str]] | None = None,
    schema: pa.Schema = UTTERANCE,
) -> CardPaths:
    """Write README.md (a Hugging Face dataset card), card.html (with audio) and plots/*.png.

    Args:
        corpus: The corpus to describe.
        title: Any text. Like all text of the corpus, it is escaped.
        settings: The settings of the build; nested ones are shown as "outer.inner".
        threshold: The similarity threshold in use, on the scale of the rows; None without that
            filter.
        folder: The folder to write to, made if there is none; `storage.copies.upload` brings it to the corpus.
        data_files: The Parquet files of "utterances" and "rejects" relative to `folder`. By default
            the shards of the current version by name: the folder also has shards that were replaced
            or never committed, and `datasets` must not read those.
        schema: Columns of the utterances in these files.

    Returns:
        The files written.
    """
    from storage.plots import draw  # matplotlib takes a second, and every flow imports this module

    folder.mkdir(parents=True, exist_ok=True)
    statistics = measure(corpus)
    plots = draw(statistics, folder / "plots", threshold=threshold)
    files = data_files or _live_files(corpus, statistics.version)
    view = {
        "title": title,
        "statistics": statistics,
        "totals": statistics.totals,
        "summary": _summary(statistics),
        "lengths": _lengths(statistics),
        "tiles": _tiles(statistics),
        "reasons": list(statistics.reasons.items()),
        "singletons": SINGLETONS if ("consistency", "single_turn_speaker") in statistics.reasons else "",
        "settings": list(_flat(settings)),
        "hours": _hours,
        "licences": _licences(statistics.licences),
    }
    readme, page = folder / README, folder / PAGE
    with written_aside(readme) as part:
        front_matter = _front_matter(title, files=files, statistics=statistics, schema=schema)
        part.write_text(_readme(view, front_matter, plots), encoding="utf-8")
    with written_aside(page) as part:
        part.write_text(_page(view, plots, _examples(consenting(corpus), statistics)), encoding="utf-8")
    return CardPaths(readme=readme, page=page, plots=plots)


def escape_markdown(value: Any) -> str:
    """One line of Markdown that shows a value literally, also in a table cell.

    Characters that control a terminal or the direction of text are shown as U+FFFD.
    """
    flat = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(html.escape(str(value), quote=False).split()))
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$<>-])", r"\\\1", flat)
    return re.sub(r"^(\d+)\.", r"\1\\.", escaped)  # "1." would begin a list


def _environment(*, escaped: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("storage", "templates"),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    return environment


def _readme(view: Mapping[str, Any], front_matter: str, plots: Mapping[str, Path]) -> str:
    template = _environment(escaped=False).get_template("card.md.j2")
    return template.render(
        view,
        front_matter=front_matter,
        example_path="path/to/this/folder",
        plots=[(name, _CAPTIONS[name]) for name in plots],
    )


def _page(view: Mapping[str, Any], plots: Mapping[str, Path], examples: list[dict[str, Any]]) -> str:
    images = [(_CAPTIONS[name], data_uri(path.read_bytes(), "image/png")) for name, path in plots.items()]
    return _environment(escaped=True).get_template("card.html.j2").render(view, images=images, examples=examples)


def data_uri(content: bytes, kind: str) -> str:
    """Build a data: URI, for an image or a clip within a page; `kind` is the media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _live_files(corpus: Corpus, version: int) -> dict[str, list[str]]:
    return {"utterances": [f"utterances/{shard}" for shard in corpus.shards(version=version)]}


# Front matter: https://huggingface.co/docs/hub/datasets-cards


def _front_matter(title: str, *, files: Mapping[str, Sequence[str]], statistics: Statistics, schema: pa.Schema) -> str:
    schemas = {"utterances": schema, "rejects": REJECT}
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
    """Describe an Arrow type in the notation of `datasets` cards."""
    if kind.equals(AUDIO):
        return {"dtype": {"audio": {} if rate is None else {"sampling_rate": rate}}}
    if pa.types.is_struct(kind):
        members = (kind.field(index) for index in range(kind.num_fields))
        return {"struct": [{"name": member.name, **_feature(member.type, rate=rate)} for member in members]}
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type, rate=rate)
        return {"list": inner.get("struct", inner.get("dtype"))}
    return {"dtype": {"double": "float64", "float": "float32", "date32[day]": "date32"}.get(str(kind), str(kind))}


def _size_category(rows: int) -> str:
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M" if rows < 10**7 else "n>10M")


# Contents of the page


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _tiles(statistics: Statistics) -> list[tuple[str, str]]:
    totals = statistics.totals
    return [
        (f"{totals.turns_kept:,}", "utterances"),
        (_hours(totals.hours_out), "of speech kept"),
        (_hours(totals.hours_in), "of recordings processed"),
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
        ("recordings processed", _hours(totals.hours_in)),
        ("speech kept", _hours(totals.hours_out)),
        ("turns found", f"{totals.turns_found:,}"),
        ("turns kept", f"{totals.turns_kept:,} ({_percent(totals.turns_kept, totals.turns_found)})"),
        ("turns rejected", f"{totals.turns_rejected:,}"),
        ("speakers (labels are per episode)", f"{totals.speakers:,}"),
        (
            "persons (see speakers.parquet)",
            f"{statistics.persons:,}" if statistics.persons else "not linked",
        ),
        ("different captions", f"{captions:,}"),
        ("clips with a unique caption", f"{unique:,} ({_percent(unique, totals.turns_kept)})"),
        ("most clips with the same caption", f"{max(groups, default=0):,}"),
        ("different styles", f"{statistics.styles:,}"),
        ("languages", _listed(statistics.languages)),
        *([("events (cries, gasps, laughs)", f"{statistics.events:,}")] if statistics.events else []),
    ]


def _licences(counts: Mapping[str | None, int]) -> list[tuple[str, str]]:
    """Count the utterances under each licence; nothing if none is stated."""
    return [(name or "not stated", f"{count:,}") for name, count in counts.items()] if any(counts) else []


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
    """Choose a few clips and return their rows with a playable address, "audio".

    One clip per speaker, the most similar to its speaker, and the largest speakers first.
    """
    chosen = _choose(corpus, statistics)
    dataset = corpus.dataset(version=statistics.version)
    is_chosen = pyarrow.dataset.field("utterance_id").isin(pa.array(chosen, pa.string()))
    columns = ["utterance_id", "caption", "text", "speaker", "duration", "audio"]
    rows = {row["utterance_id"]: row for row in dataset.to_table(columns=columns, filter=is_chosen).to_pylist()}
    return [
        {**rows[utterance_id], "audio": data_uri(rows[utterance_id]["audio"]["bytes"], "audio/flac")}
        for utterance_id in chosen
    ]


def _choose(corpus: Corpus, statistics: Statistics) -> list[str]:
    columns = ["utterance_id", "speaker", "duration", "similarity"]
    clips = corpus.utterances(version=statistics.version, columns=columns).to_pandas()
    clips["too_short_or_long"] = ~clips["duration"].between(*_CLIP_SECONDS)
    clips = clips.sort_values(
        ["too_short_or_long", "similarity", "utterance_id"], ascending=[True, False, True], na_position="last"
    )
    clips["turn"] = clips.groupby("speaker").cumcount()
    clips["rank"] = clips["speaker"].map({group.name: rank for rank, group in enumerate(statistics.speakers)})
    return clips.sort_values(["turn", "rank"])["utterance_id"].head(_EXAMPLES).tolist()
