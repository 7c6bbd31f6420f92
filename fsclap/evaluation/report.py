"""The report of an evaluation: an HTML file with plots and sound, and evaluation.json."""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib.figure import Figure

from fsclap import Seconds
from fsclap.audio import decode_flac
from fsclap.evaluation import plots
from fsclap.evaluation.results import ALL_WORDS, FILE, METRICS, Evaluation, Example, Natural, RetrievalFigures
from fsclap.evaluation.vectors import FILE as VECTORS
from fsclap.evaluation.vectors import Vectors
from fsclap.evaluation.words import (
    HEADLINE,
    RANKINGS,
    headline,
    interval,
    judged_meaning,
    meaning,
    natural_header,
    natural_meaning,
    natural_rows,
    percent,
)
from fsclap.files import written_aside

log = logging.getLogger(__name__)

PAGE, MAP = "report.html", "map.png"
_MAP_LABEL = "A map of the embeddings of clips and captions"
# Per list: queries shown, and clips shown for each.
_EXAMPLES = 10
_SHOWN = 3
_WORST = 10
"""Queries as people type them that are listed."""
_CLIP_SECONDS: Seconds = 8.0
# Bytes of base64 sound in a page, which stays under 8 MB with its plots.
_SOUND_BUDGET = 5_500_000
# libsndfile's compression level: a constant 40 kbit/s at 24 kHz, which every browser plays.
_MP3 = 0.8
_DIRECTIONS = {"mean": "mean of both", "text_to_audio": "text → audio", "audio_to_text": "audio → text"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the report.

    Attributes:
        style: Words of its style, such as "pitch low"; equal styles have equal words.
        flac: Sound, as stored in the corpus.
    """

    caption: str
    style: tuple[str, ...]
    speaker: str
    flac: bytes


def clips_needed(evaluation: Evaluation) -> set[str]:
    """Return the utterances whose sound a report plays."""
    shown = [*evaluation.best[:_EXAMPLES], *evaluation.worst[:_EXAMPLES]]
    return {name for example in shown for name in (example.expected_id, *example.found_ids[:_SHOWN])}


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    vectors: Vectors,
    history: Sequence[Mapping[str, Any]],
    clips: Mapping[str, Clip],
) -> Path:
    """Write report.html, evaluation.json, and the embeddings with their map.

    The page is self-contained: it needs no other file and no network. evaluation.json is written last.

    Args:
        evaluation: The results. If the model leaks, the report shows no retrieval figure.
        folder: Created if missing; replaces an earlier report.
        vectors: The evaluated pairs, with their embeddings.
        history: One mapping per epoch of the training: epoch, step, loss, validation,
            learning_rate. May be empty.
        clips: By utterance id, at least `clips_needed(evaluation)`; a clip that is missing or
            unreadable is shown without sound.

    Returns:
        The page.

    Raises:
        ValueError: The embeddings are not of the same pairs.
    """
    audio, text = vectors.audio, vectors.text
    if audio.shape != text.shape or audio.ndim != 2:
        raise ValueError(
            "a report needs audio and text embeddings of the same pairs, (clips, dim); "
            f"got {audio.shape} and {text.shape}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(evaluation, audio, text, history)
    page = _render(
        evaluation, {label: plots.inline_svg(figure, label=label) for label, figure in figures.items()}, clips
    )
    if _MAP_LABEL in figures:
        with written_aside(folder / MAP) as part:
            part.write_bytes(plots.png(figures[_MAP_LABEL]))
    with written_aside(folder / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    vectors.save(folder / VECTORS)
    evaluation.save(folder / FILE)
    return folder / PAGE


def _figures(
    evaluation: Evaluation, audio: np.ndarray, text: np.ndarray, history: Sequence[Mapping[str, Any]]
) -> dict[str, Figure]:
    """Draw the figures there is data for, by label."""
    drawn = {}
    if len(audio):
        drawn[_MAP_LABEL] = plots.map_figure(audio, text, seed=evaluation.seed)
    if history:
        drawn["Loss, validation and learning rate by epoch"] = plots.curves_figure(history)
    if len(audio) > 1:
        drawn["Histogram of similarities"] = plots.similarities_figure(audio, text, seed=evaluation.seed)
    if evaluation.group_sizes:
        drawn["Histogram of clips that share a style"] = plots.groups_figure(evaluation.group_sizes)
    for mode in ("paper", "grouped"):
        pools = None if evaluation.leak.leaks else plots.pools_figure(evaluation, mode=mode)
        if pools is not None:
            drawn[f"Recall by pool size, {mode} mode"] = pools
    return drawn


def page_templates(*packages: str) -> jinja2.Environment:
    """Return the templates of report pages: those of this package, among them page.css, and of `packages`."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in (__package__, *packages)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "interval": interval}
    return environment


def _render(evaluation: Evaluation, figures: Mapping[str, str], clips: Mapping[str, Clip]) -> str:
    sounds = _Sounds(clips)
    leaks = evaluation.leak.leaks
    return (
        page_templates()
        .get_template("report.html.j2")
        .render(
            evaluation=evaluation,
            leak=evaluation.leak,
            headline=headline(evaluation),
            metric=HEADLINE[1],
            metrics=METRICS,
            meaning=meaning(evaluation),
            judged=None if leaks or evaluation.judged is None else evaluation.judged,
            judged_meaning=judged_meaning,
            natural=None if leaks or evaluation.natural is None else _natural(evaluation.natural),
            tables=[] if leaks else _tables(evaluation),
            all_words=ALL_WORDS,
            directions=_DIRECTIONS,
            examples=[] if leaks else _examples(evaluation, clips, sounds),
            figures=[Markup(svg) for svg in figures.values()],
            facts=_facts(evaluation),
        )
    )


def _tables(evaluation: Evaluation) -> list[tuple[str, list[RetrievalFigures]]]:
    """One table per mode, then the re-ranked ones; largest pool and mean of directions first."""
    order = list(_DIRECTIONS)

    def rows(mode: str, *, reranked: bool) -> list[RetrievalFigures]:
        chosen = [r for r in evaluation.retrieval if r.mode == mode and (r.stage != "embeddings") == reranked]
        return sorted(chosen, key=lambda r: (-r.pool, r.stage, order.index(r.direction)))

    titles = {
        ("paper", False): "Paper mode: one right answer per query",
        ("grouped", False): "Grouped mode: every clip of the same style is right",
        ("paper", True): "Re-ranked by the matching head, paper mode",
        ("grouped", True): "Re-ranked by the matching head, grouped mode",
    }
    tables = [(title, rows(mode, reranked=reranked)) for (mode, reranked), title in titles.items()]
    return [(title, table) for title, table in tables if table]


def _natural(natural: Natural) -> dict[str, Any]:
    """Lay out queries as people type them: the rankings, and the queries that fared worst."""
    return {
        "meaning": natural_meaning(natural),
        "header": natural_header(),
        "rows": natural_rows(natural),
        "rankings": {name: RANKINGS.get(name, name) for name in natural.rankings},
        "worst": natural.worst(_WORST),
    }


def _examples(evaluation: Evaluation, clips: Mapping[str, Clip], sounds: "_Sounds") -> list[dict[str, Any]]:
    sections = (("Best queries", evaluation.best), ("Worst queries", evaluation.worst))
    return [
        {"title": title, "queries": [_query(example, clips, sounds) for example in listed[:_EXAMPLES]]}
        for title, listed in sections
        if listed
    ]


def _query(example: Example, clips: Mapping[str, Clip], sounds: "_Sounds") -> dict[str, Any]:
    def shown(name: str) -> dict[str, Any]:
        clip = clips.get(name, Clip(caption=f"(clip {name} is missing)", style=(), speaker="", flac=b""))
        if name == example.expected_id:
            verdict = "right"
        else:
            verdict = "same style" if right is not None and clip.style and clip.style == right.style else ""
        return {"clip": clip, "verdict": verdict, "sound": sounds.uri(name)}

    right = clips.get(example.expected_id)
    top = [shown(name) for name in example.found_ids[:_SHOWN]]
    missed = example.expected_id not in example.found_ids[:_SHOWN]
    return {
        "query": example.query,
        "rank": f"{example.rank:g}",
        "found": top,
        "right": shown(example.expected_id) if missed else None,
    }


class _Sounds:
    """Clips as data URIs of MP3, each encoded once, until the page's budget is spent."""

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        self._clips = clips
        self._encoded: dict[str, str] = {}
        self._left = _SOUND_BUDGET

    def uri(self, name: str) -> str | None:
        """Return a clip's sound; None if it is missing or unreadable, or the budget is spent."""
        if name not in self._encoded:
            clip = self._clips.get(name)
            self._encoded[name] = _mp3_uri(name, clip.flac) if clip is not None else ""
        uri = self._encoded[name]
        if not uri or len(uri) > self._left:
            return None
        self._left -= len(uri)
        return uri


def _mp3_uri(name: str, flac: bytes) -> str:
    try:
        wave, sample_rate = decode_flac(flac)
    except ValueError as error:
        log.warning("the report has no sound for clip %s: %s", name, error)
        return ""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, wave[: int(_CLIP_SECONDS * sample_rate)], sample_rate, format="MP3", subtype="MPEG_LAYER_III",
        compression_level=_MP3, bitrate_mode="CONSTANT",
    )  # fmt: skip
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    nearest = evaluation.nearest_training_speaker
    similarity = "no speaker embeddings" if nearest is None else f"cosine {nearest:.2f}"
    return [
        ("model", evaluation.model),
        ("corpus", f"{evaluation.corpus}, version {evaluation.version}"),
        ("part", evaluation.part),
        ("clips", f"{evaluation.clips:,}"),
        ("speakers", f"{evaluation.speakers:,}, none of them in training"),
        ("distinct captions", f"{evaluation.captions:,}"),
        ("distinct styles", f"{evaluation.styles:,}"),
        ("closest to a training speaker", similarity),
        ("seed", str(evaluation.seed)),
        ("date", evaluation.date),
        ("machine", ", ".join(f"{key} {value}" for key, value in evaluation.machine.items())),
    ]
