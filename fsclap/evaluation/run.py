"""A trained model put to the test: from its folder and the clips of a corpus to an `Evaluation`, and two compared."""

import datetime
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsclap.data.batches import Pairs, embed, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Part, Split
from fsclap.evaluation.collapse import alignment, collapse
from fsclap.evaluation.leak import probe
from fsclap.evaluation.metrics import clip_map10, one_vector_a_caption, random_metrics, ranks, top_items
from fsclap.evaluation.protocol import Rerank, difference, evaluate_embeddings, interval
from fsclap.evaluation.report import Clip
from fsclap.evaluation.results import Evaluation, Example, Interval
from fsclap.machine import processor
from fsclap.model.encoders import EncoderError
from fsclap.model.fsclap import FSCLAP, load_model
from fsclap.model.tokens import Tokens, pad

log = logging.getLogger(__name__)

_EXAMPLES = 10
_FOUND = 10
_AT_A_TIME = 64
_PROBED = 256
_FEWEST = 8
"""Clips that two models are compared on at least."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation with what it was computed from.

    Attributes:
        ids: Utterance id of each pair.
        audio, text: (pairs, embedding) float32 unit rows, in the order of `ids`.
    """

    evaluation: Evaluation
    ids: list[str]
    audio: np.ndarray
    text: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model should take the place of the current one.

    Attributes:
        better: It should.
        reason: A sentence.
        figure: Mean of both directions' mAP@10 of the model on the clips that decide.
        difference: By how much the model exceeds the current one on the same clips; None without a comparison.
        clips: Clips that decide.
    """

    better: bool
    reason: str
    figure: Interval | None
    difference: Interval | None
    clips: int


def evaluate_model(
    folder: Path,
    store: ClipStore,
    split: Split,
    part: Part,
    *,
    cache: Path,
    corpus: str,
    version: int,
    seed: int = 0,
    device: str = "auto",
) -> Evaluated:
    """The leak probe, then the protocol, collapse and examples, on a part of a corpus.

    Args:
        folder: Of the model: `FSCLAP.from_pretrained`.
        store: The clips of the corpus version.
        split: Of the model: its split.json.
        part: Which clips; those that are not in the store or cannot be used are left out.
        cache: Of features; may be that of the training.
        corpus, version: For the record.
        seed: Of pools, bootstrap and probe.
        device: "cpu", "cuda" or "auto": a GPU when there is one.

    Returns:
        An evaluation without retrieval figures when the model leaks.

    Raises:
        ValueError: Fewer than 2 clips of the part are usable.
        EncoderError: The model's encoders are not what it was trained on.
    """
    model = load_model(folder, device)
    pairs = _pairs(model, store, split.ids(part), cache)
    if len(pairs) < 2:
        raise ValueError(
            f"{folder}: {len(pairs)} of its {len(split.ids(part))} {part} clips are usable in {corpus} "
            f"version {version}; evaluate it on the corpus that it was trained on"
        )
    found = probe(model, *_some_tokens(model, pairs, seed), seed=seed)
    audio, text = (rows.numpy() for rows in embed(model, pairs))
    captions, styles = (store.column(name, pairs.ids) for name in ("caption", "style_key"))
    sizes = Counter(Counter(styles).values())
    evaluation = Evaluation(
        model=str(folder),
        corpus=corpus,
        version=version,
        part=part,
        clips=len(pairs),
        speakers=len(set(store.column("speaker", pairs.ids))),
        captions=len(set(captions)),
        styles=len(set(styles)),
        seed=seed,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=_machine(model),
        leak=found,
        retrieval=[]
        if found.leaks
        else evaluate_embeddings(audio, text, captions, styles, seed=seed, rerank=_rerank(model, pairs)),
        audio=collapse(audio),
        text=collapse(text),
        joint=alignment(audio, text),
        group_sizes=dict(sorted(sizes.items())),
        nearest_training_speaker=None if part == "train" else split.nearest_training_speaker(part),
    )
    if not found.leaks:
        best, worst = examples(pairs.ids, captions, audio, text, seed=seed)
        evaluation = evaluation.model_copy(update={"best": best, "worst": worst})
    return Evaluated(evaluation, list(pairs.ids), audio, text)


def examples(
    ids: Sequence[str], captions: Sequence[str], audio: np.ndarray, text: np.ndarray, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """The captions whose own clip comes first, and those whose own clip comes last: at most 10 each, none twice."""
    text = one_vector_a_caption(text, captions)
    place = ranks(text, audio).expected
    first = np.unique(captions, return_index=True)[1]
    order = first[np.lexsort((-np.einsum("nd,nd->n", audio, text)[first], place[first]))]
    count = min(_EXAMPLES, (len(order) + 1) // 2)
    chosen = [*order[:count], *order[count:][::-1][:count]]
    found = top_items(text[chosen], audio, _FOUND, seed=seed)
    shown = [
        Example(
            query=captions[row], expected_id=ids[row], rank=float(place[row]), found_ids=[ids[item] for item in items]
        )
        for row, items in zip(chosen, found, strict=True)
    ]
    return shown[:count], shown[count:]


def compare(
    model: Path,
    current: Path | None,
    store: ClipStore,
    split: Split,
    *,
    cache: Path,
    seed: int = 0,
    device: str = "auto",
) -> Verdict:
    """Whether a model should take the place of the current one, by the validation part.

    The first model has to beat chance, any other the current one: on the same clips, less those that the current one
    was trained on, the 95 % interval of the paired difference must lie above 0. The figure is the one that training
    selects by, the mean of both directions' mAP@10.

    Args:
        model: A folder of a model that does not leak.
        current: Of the current model, with its split.json; None when there is none.
        split: Of `model`.
    """
    if current is None:
        return _against_chance(model, store, split.validation, cache=cache, seed=seed, device=device)
    known = set(Split.load(current / "split.json").train)
    ids = [id_ for id_ in split.validation if id_ in store.rows and id_ not in known]
    if len(ids) < _FEWEST:
        return Verdict(
            better=False,
            reason=f"only {len(ids)} of its {len(split.validation)} validation clips are unknown to the current model; "
            f"{_FEWEST} are the least to compare on",
            figure=None,
            difference=None,
            clips=len(ids),
        )
    try:
        theirs = _figures(current, store, ids, cache, device)
    except EncoderError as error:
        log.warning("the current model cannot be compared with: %s", error)
        found = _against_chance(model, store, ids, cache=cache, seed=seed, device=device)
        return Verdict(
            found.better,
            f"the current model cannot be loaded any more ({error}), so chance was to be beaten: {found.reason}",
            found.figure,
            None,
            found.clips,
        )
    ours = _figures(model, store, ids, cache, device)
    both = sorted(ours.keys() & theirs.keys())
    return against_current(*(np.array([figures[id_] for id_ in both]) for figures in (ours, theirs)), seed=seed)


def against_current(ours: np.ndarray, theirs: np.ndarray, *, seed: int) -> Verdict:
    """(clips,) of each model."""
    apart = difference(ours, theirs, seed=seed)
    better = apart.low > 0
    said = f"{_points(apart)} on {len(ours)} validation clips"
    reason = f"it beats the current model: {said}" if better else f"it does not beat the current model: {said}"
    return Verdict(better, reason, interval(ours, seed=seed), apart, len(ours))


def _against_chance(model: Path, store: ClipStore, ids: list[str], *, cache: Path, seed: int, device: str) -> Verdict:
    values = np.array(list(_figures(model, store, ids, cache, device).values()))
    figure = interval(values, seed=seed)
    chance = float(random_metrics(len(values), np.ones(1, dtype=np.int64))["mAP@10"][0])
    better = figure.low > chance
    said = f"{_percent(figure)} on {len(values)} validation clips, chance {100 * chance:.1f} %"
    reason = f"it beats chance: {said}" if better else f"it does not beat chance: {said}"
    return Verdict(better, reason, figure, None, len(values))


def history_of(folder: Path) -> list[dict[str, Any]]:
    """A row for each epoch of a training: epoch, step, loss, validation, learning_rate (of its last step)."""
    rows, rate = [], None
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)
        if "validation" not in figures:
            rate = figures["lr"]
            continue
        rows.append(
            {
                "epoch": figures["epoch"],
                "step": figures["step"],
                "loss": figures["epoch_loss"],
                "validation": figures["validation"],
                "learning_rate": rate,
            }
        )
    return rows


def clips_of(store: ClipStore, ids: Iterable[str]) -> dict[str, Clip]:
    """Clips as a report shows them."""
    columns = {name: store.table[name] for name in ("caption", "speaker", "style_key")}
    found = {}
    for id_ in ids:
        row = store.rows[id_]
        caption, speaker, style = (columns[name][row].as_py() for name in columns)
        words = tuple(part.replace("=", " ").replace("_", " ") for part in style.split(";") if part)
        found[id_] = Clip(caption=caption, style=words, speaker=speaker, flac=store.audio(row))
    return found


def _pairs(model: FSCLAP, store: ClipStore, ids: list[str], cache: Path) -> Pairs:
    held = [id_ for id_ in ids if id_ in store.rows]
    return load_pairs(store, held, (model.audio_encoder, model.text_encoder), folder=cache, progress=False)


def _some_tokens(model: FSCLAP, pairs: Pairs, seed: int) -> tuple[Tokens, Tokens]:
    """Clips and their captions, 256 at most."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:_PROBED])
    items = [pairs[None, int(position)] for position in chosen]
    return pad([item[0] for item in items]).to(model.device), pad([item[1] for item in items]).to(model.device)


def _figures(folder: Path, store: ClipStore, ids: list[str], cache: Path, device: str) -> dict[str, float]:
    """Utterance id -> the mean of both directions' AP@10."""
    model = load_model(folder, device)
    pairs = _pairs(model, store, ids, cache)
    audio, text = (rows.numpy() for rows in embed(model, pairs))
    text = one_vector_a_caption(text, store.column("caption", pairs.ids))
    return dict(zip(pairs.ids, clip_map10(audio, text).tolist(), strict=True))


def _rerank(model: FSCLAP, pairs: Pairs) -> Rerank | None:
    if not model.settings.rerank:
        return None

    def score(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
        logits = []
        with torch.inference_mode():
            for start in range(0, len(audio), _AT_A_TIME):
                rows = slice(start, start + _AT_A_TIME)
                heard = pad([pairs[None, int(row)][0] for row in audio[rows]]).to(model.device)
                read = pad([pairs[None, int(row)][1] for row in text[rows]]).to(model.device)
                logits.append(model.match(heard, read).float().cpu().numpy())
        return np.concatenate(logits)

    return Rerank(score)


def _machine(model: FSCLAP) -> dict[str, str | int]:
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    return {"processor": processor(), "cores": os.cpu_count() or 1, "device": device}


def _percent(figure: Interval) -> str:
    return f"mAP@10 {100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _points(apart: Interval) -> str:
    return f"mAP@10 {100 * apart.value:+.1f} points ({100 * apart.low:+.1f} to {100 * apart.high:+.1f})"
