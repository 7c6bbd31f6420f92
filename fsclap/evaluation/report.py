"""The report of an evaluation: one HTML file with plots and sound inside, and evaluation.json for machines."""

import base64
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib.figure import Figure

from fsclap.audio import decode_flac
from fsclap.evaluation import plots
from fsclap.evaluation.results import METRICS, Evaluation, Example, Interval, Judged, Mode, RetrievalFigures

log = logging.getLogger(__name__)

PAGE, FIGURES, MAP = "report.html", "evaluation.json", "map.png"
HEADLINE: tuple[Mode, str] = ("paper", "mAP@10")
"""Mode and metric of the figure that a report opens with, in the largest pool, mean of both directions."""
FEW_QUERIES = 5
"""Judged queries below which an interval over queries says nothing."""
_MAP_LABEL = "A map of the embeddings of clips and captions"
_EXAMPLES = 10
_FOUND = 3
_CLIP_SECONDS = 8.0
_SOUND_BUDGET = 5_500_000
"""Bytes of base64 in a page, which stays under 8 MB with its plots."""
_MP3 = 0.8
"""libsndfile's compression level; a constant 40 kbit/s at 24 kHz, and every browser plays it."""
_DIRECTIONS = {"mean": "mean of both", "text_to_audio": "text → audio", "audio_to_text": "audio → text"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the report.

    Attributes:
        style: The words of its style, "pitch low"; equal styles have equal words.
        flac: The sound as it lies in the corpus.
    """

    caption: str
    style: tuple[str, ...]
    speaker: str
    flac: bytes


def clips_needed(evaluation: Evaluation) -> set[str]:
    """The utterances of which a report shows the sound."""
    shown = [*evaluation.best[:_EXAMPLES], *evaluation.worst[:_EXAMPLES]]
    return {name for example in shown for name in (example.expected_id, *example.found_ids[:_FOUND])}


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    audio_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    history: Sequence[Mapping[str, Any]],
    clips: Mapping[str, Clip],
) -> Path:
    """Write report.html, which needs no other file and no network, evaluation.json, and map.png of the embeddings.

    Args:
        evaluation: What was found. Of a model that leaks, the report shows no retrieval figure.
        folder: Made when absent; an earlier report in it is replaced.
        audio_embeddings, text_embeddings: (clips, dim) unit rows of the evaluated pairs, in one order.
        history: One mapping an epoch of the training: epoch, step, loss, validation, learning_rate. May be empty.
        clips: By utterance id, at least `clips_needed(evaluation)`; a clip that is missing or unreadable is shown
            without sound.

    Returns:
        The page.

    Raises:
        ValueError: The embeddings are not of the same pairs.
    """
    if audio_embeddings.shape != text_embeddings.shape or audio_embeddings.ndim != 2:
        raise ValueError(
            "a report wants the embeddings of pairs, (clips, dim) of audio and of text; "
            f"got {audio_embeddings.shape} and {text_embeddings.shape}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(evaluation, audio_embeddings, text_embeddings, history)
    page = _render(
        evaluation, {label: plots.inline_svg(figure, label=label) for label, figure in figures.items()}, clips
    )
    if _MAP_LABEL in figures:
        _replace(folder / MAP, plots.png(figures[_MAP_LABEL]))
    _replace(folder / FIGURES, (evaluation.model_dump_json(indent=1) + "\n").encode())
    _replace(folder / PAGE, page.encode())
    return folder / PAGE


def headline(evaluation: Evaluation) -> RetrievalFigures | None:
    """The row that a report opens with; None when the model leaks or nothing was scored."""
    mode, _ = HEADLINE
    rows = [row for row in _first_stage(evaluation) if row.mode == mode and row.direction == "mean"]
    return None if evaluation.leak.leaks or not rows else max(rows, key=lambda row: row.pool)


def meaning(evaluation: Evaluation) -> str:
    """What the headline figure says, in words for someone who does not know the metric."""
    row = headline(evaluation)
    if row is None:
        return "There is no figure to explain."
    _, metric = HEADLINE
    found, chance = row.metrics[metric], row.chance[metric]
    said = (
        f"Out of {row.pool:,} clips, one is the right answer to a query; {metric} is the mean of 1/rank of that "
        "answer, counted as 0 when it is not among the first ten. "
        f"An order at random reaches {percent(chance)}; a perfect model would reach {percent(row.ceiling[metric])}"
    )
    said += ". " if row.ceiling[metric] == 1 else ", as clips with equal captions cannot be told apart. "
    if found.low <= chance:
        return said + "The interval reaches down to chance: this evaluation cannot tell the model from guessing."
    return said + f"The model is {found.value / chance:.1f} times as good as chance, and the interval excludes chance."


def judged_meaning(judged: Judged) -> str:
    """What people's judgements say of the model, in words."""
    if judged.ndcg is None or judged.chance is None or judged.above_chance is None:
        return (
            f"None of {judged.left_out} judged queries can be scored: each has fewer than two judged clips in this "
            "part, or the same verdict for all of them."
        )
    said = (
        f"People judged how well clips fit {judged.queries} queries; the model puts these clips in an order that "
        f"reaches {percent(judged.ndcg.value)} of the best order's gain (nDCG@10), an order at random "
        f"{percent(judged.chance)}. "
    )
    apart = judged.above_chance
    points = f"{100 * apart.value:+.1f} points ({100 * apart.low:+.1f} to {100 * apart.high:+.1f})"
    if judged.queries < FEW_QUERIES:
        return said + f"The difference is {points}, but with fewer than {FEW_QUERIES} queries it means nothing yet."
    if apart.low <= 0:
        return said + f"The difference is {points}: these judgements cannot tell the model from guessing."
    return said + f"The difference is {points}, and the interval excludes chance."


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(value: Interval) -> str:
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _first_stage(evaluation: Evaluation) -> list[RetrievalFigures]:
    return [row for row in evaluation.retrieval if row.stage == "embeddings"]


def _figures(
    evaluation: Evaluation, audio: np.ndarray, text: np.ndarray, history: Sequence[Mapping[str, Any]]
) -> dict[str, Figure]:
    """What there is data for."""
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
            drawn[f"Recall by size of the pool, {mode} mode"] = pools
    return drawn


def _render(evaluation: Evaluation, figures: Mapping[str, str], clips: Mapping[str, Clip]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fsclap.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "interval": interval}
    sounds = _Sounds(clips)
    leaks = evaluation.leak.leaks
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        leak=evaluation.leak,
        headline=headline(evaluation),
        metric=HEADLINE[1],
        metrics=METRICS,
        meaning=meaning(evaluation),
        judged=None if leaks or evaluation.judged is None else evaluation.judged,
        judged_meaning=judged_meaning,
        tables=[] if leaks else _tables(evaluation),
        directions=_DIRECTIONS,
        examples=[] if leaks else _examples(evaluation, clips, sounds),
        figures=[Markup(svg) for svg in figures.values()],
        facts=_facts(evaluation),
    )


def _tables(evaluation: Evaluation) -> list[tuple[str, list[RetrievalFigures]]]:
    """A table a mode, then the re-ranked figures; the largest pool and the mean of directions first."""
    order = list(_DIRECTIONS)

    def rows(mode: str, *, reranked: bool) -> list[RetrievalFigures]:
        found = [r for r in evaluation.retrieval if r.mode == mode and (r.stage != "embeddings") == reranked]
        return sorted(found, key=lambda r: (-r.pool, r.stage, order.index(r.direction)))

    titles = {
        ("paper", False): "Paper mode: one right answer a query",
        ("grouped", False): "Grouped mode: every clip of the same style is right",
        ("paper", True): "Re-ranked by the matching head, paper mode",
        ("grouped", True): "Re-ranked by the matching head, grouped mode",
    }
    tables = [(title, rows(mode, reranked=reranked)) for (mode, reranked), title in titles.items()]
    return [(title, found) for title, found in tables if found]


def _examples(evaluation: Evaluation, clips: Mapping[str, Clip], sounds: "_Sounds") -> list[dict[str, Any]]:
    sections = (("Best queries", evaluation.best), ("Worst queries", evaluation.worst))
    return [
        {"title": title, "queries": [_query(example, clips, sounds) for example in found[:_EXAMPLES]]}
        for title, found in sections
        if found
    ]


def _query(example: Example, clips: Mapping[str, Clip], sounds: "_Sounds") -> dict[str, Any]:
    def shown(name: str) -> dict[str, Any]:
        clip = clips.get(name, Clip(caption=f"(clip {name} was not given)", style=(), speaker="", flac=b""))
        if name == example.expected_id:
            verdict = "right"
        else:
            verdict = "same style" if right is not None and clip.style and clip.style == right.style else ""
        return {"clip": clip, "verdict": verdict, "sound": sounds.uri(name)}

    right = clips.get(example.expected_id)
    found = [shown(name) for name in example.found_ids[:_FOUND]]
    missed = example.expected_id not in example.found_ids[:_FOUND]
    return {
        "query": example.query,
        "rank": f"{example.rank:g}",
        "found": found,
        "right": shown(example.expected_id) if missed else None,
    }


class _Sounds:
    """Clips as data URIs of MP3, encoded once each, until a page's budget is spent."""

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        self._clips = clips
        self._encoded: dict[str, str] = {}
        self._left = _SOUND_BUDGET

    def uri(self, name: str) -> str | None:
        """None when there is no such clip, it is unreadable, or the budget is spent."""
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
        log.warning("clip %s is in the report without its sound: %s", name, error)
        return ""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, wave[: int(_CLIP_SECONDS * sample_rate)], sample_rate, format="MP3", subtype="MPEG_LAYER_III",
        compression_level=_MP3, bitrate_mode="CONSTANT",
    )  # fmt: skip
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    nearest = evaluation.nearest_training_speaker
    spoken = "no speaker embeddings" if nearest is None else f"cosine {nearest:.2f}"
    return [
        ("model", evaluation.model),
        ("corpus", f"{evaluation.corpus}, version {evaluation.version}"),
        ("part", evaluation.part),
        ("clips", f"{evaluation.clips:,}"),
        ("speakers", f"{evaluation.speakers:,}, none of them in training"),
        ("distinct captions", f"{evaluation.captions:,}"),
        ("distinct styles", f"{evaluation.styles:,}"),
        ("closest to a training speaker", spoken),
        ("seed", str(evaluation.seed)),
        ("date", evaluation.date),
        ("machine", ", ".join(f"{key} {value}" for key, value in evaluation.machine.items())),
    ]


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(content)
    aside.replace(path)
