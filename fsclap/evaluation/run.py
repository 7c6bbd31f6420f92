"""Evaluate a trained model: from its folder and the clips of a corpus to an `Evaluation`."""

import datetime
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fsclap.data.batches import Pairs, embed, load_pairs
from fsclap.data.captions import caption_groups
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Part, Split
from fsclap.evaluation.collapse import alignment, collapse
from fsclap.evaluation.leak import probe
from fsclap.evaluation.match import match_attributes
from fsclap.evaluation.metrics import one_vector_a_caption, ranks, top_items
from fsclap.evaluation.natural import Read, Searched, score_queries
from fsclap.evaluation.protocol import Rerank, evaluate_embeddings
from fsclap.evaluation.report import Clip
from fsclap.evaluation.results import Evaluation, Example, LeakProbe, Natural
from fsclap.evaluation.vectors import Vectors
from fsclap.machine import processor
from fsclap.model.embedded import SentenceTokens
from fsclap.model.systems import System, load_system
from fsclap.model.tokens import Tokens, pad
from fsclap.queries.conditions import clip_words
from fsclap.queries.prompts import Asked, Prompts
from fsclap.queries.reading import Encode, Reader
from fsclap.weights import WeightsError

log = logging.getLogger(__name__)

# Per list of examples: queries shown, and clips kept for each.
_EXAMPLES = 10
_TOP = 10
# Pairs the matching head scores at once.
_AT_A_TIME = 64
# Pairs in the leak probe: enough for a narrow interval, few enough to take seconds.
_PROBED = 256


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """An evaluation with the embeddings it was computed from."""

    evaluation: Evaluation
    vectors: Vectors


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
) -> EvaluationRun:
    """Evaluate a model on one part of a corpus.

    That is the leak probe, the protocol for the model and for a matcher that uses none, queries as
    people type them, collapse figures and examples.

    Args:
        folder: Folder of the model, as `load_system` takes it.
        store: Clips of the corpus version.
        split: The model's split (its split.json).
        part: Which clips; those missing from the store or unusable are left out.
        cache: Folder of cached features; may be that of the training.
        corpus: Location of the corpus, for the record.
        version: Version of the corpus, for the record.
        seed: Seed of pools, bootstrap and probe.
        device: "cpu", "cuda", or "auto": a GPU if there is one.

    Returns:
        An evaluation, without retrieval figures if the model leaks.

    Raises:
        ValueError: Fewer than 2 clips of the part are usable.
        WeightsError: The installed encoders are not those the model was trained on.
    """
    model = load_system(folder, device)
    pairs = usable_pairs(model, store, split.ids(part), cache)
    if len(pairs) < 2:
        raise ValueError(
            f"{folder}: {len(pairs)} of its {len(split.ids(part))} {part} clips are usable in {corpus} "
            f"version {version}; evaluate it on the corpus that it was trained on"
        )
    leak = probe(model, *_some_tokens(model, pairs, seed), seed=seed)
    audio, text = (rows.numpy() for rows in embed(model, pairs))
    evaluation = _describe(
        model, store, pairs, audio, text, leak,
        folder=folder, corpus=corpus, version=version, part=part, seed=seed,
        nearest=None if part == "train" else split.nearest_training_speaker(part),
    )  # fmt: skip
    if not leak.leaks:
        evaluation = evaluation.model_copy(update=_retrieval(model, folder, store, pairs, audio, text, seed))
    styles = store.column("style_key", pairs.ids)
    return EvaluationRun(evaluation, Vectors(list(pairs.ids), list(pairs.captions), list(styles), audio, text))


def examples(
    ids: Sequence[str], captions: Sequence[str], audio: np.ndarray, text: np.ndarray, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """Pick the captions whose right clip ranks best and worst: at most 10 each, none twice."""
    text = one_vector_a_caption(text, captions)
    place = ranks(text, audio).expected
    first = np.unique(caption_groups(captions), return_index=True)[1]
    order = first[np.lexsort((-np.einsum("nd,nd->n", audio, text)[first], place[first]))]
    count = min(_EXAMPLES, (len(order) + 1) // 2)
    chosen = [*order[:count], *order[count:][::-1][:count]]
    top = top_items(text[chosen], audio, _TOP, seed=seed)
    shown = [
        Example(
            query=captions[row], expected_id=ids[row], rank=float(place[row]), found_ids=[ids[item] for item in items]
        )
        for row, items in zip(chosen, top, strict=True)
    ]
    return shown[:count], shown[count:]


def report_clips(store: ClipStore, ids: Iterable[str]) -> dict[str, Clip]:
    """Load clips as a report shows them, by utterance id."""
    columns = {name: store.table[name] for name in ("caption", "speaker", "style_key")}
    clips = {}
    for id_ in ids:
        row = store.rows[id_]
        caption, speaker, style = (columns[name][row].as_py() for name in columns)
        words = tuple(part.replace("=", " ").replace("_", " ") for part in style.split(";") if part)
        clips[id_] = Clip(caption=caption, style=words, speaker=speaker, flac=store.audio(row))
    return clips


def usable_pairs(model: System, store: ClipStore, ids: Iterable[str], cache: Path) -> Pairs:
    """Load the pairs of these utterances that are in the store and can be used."""
    stored = [id_ for id_ in ids if id_ in store.rows]
    return load_pairs(store, stored, (model.audio_encoder, model.text_encoder), folder=cache, progress=False)


def _describe(
    model: System,
    store: ClipStore,
    pairs: Pairs,
    audio: np.ndarray,
    text: np.ndarray,
    leak: LeakProbe,
    *,
    folder: Path,
    corpus: str,
    version: int,
    part: Part,
    seed: int,
    nearest: float | None,
) -> Evaluation:
    """Everything but retrieval, which a model that leaks must not have."""
    styles = store.column("style_key", pairs.ids)
    return Evaluation(
        model=str(folder),
        corpus=corpus,
        version=version,
        part=part,
        clips=len(pairs),
        speakers=len(set(store.column("speaker", pairs.ids))),
        captions=len(set(caption_groups(pairs.captions).tolist())),
        styles=len(set(styles)),
        seed=seed,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=_machine(model),
        leak=leak,
        retrieval=[],
        audio=collapse(audio),
        text=collapse(text),
        joint=alignment(audio, text),
        group_sizes=dict(sorted(Counter(Counter(styles).values()).items())),
        nearest_training_speaker=nearest,
    )


def _retrieval(
    model: System, folder: Path, store: ClipStore, pairs: Pairs, audio: np.ndarray, text: np.ndarray, seed: int
) -> dict[str, object]:
    styles = store.column("style_key", pairs.ids)
    best, worst = examples(pairs.ids, pairs.captions, audio, text, seed=seed)
    return {
        "retrieval": evaluate_embeddings(audio, text, pairs.captions, styles, seed=seed, rerank=_rerank(model, pairs)),
        "matched": match_attributes(pairs.captions, styles, seed=seed),
        "natural": _natural(model, folder, store, pairs, audio, seed),
        "best": best,
        "worst": worst,
    }


def _natural(
    model: System, folder: Path, store: ClipStore, pairs: Pairs, audio: np.ndarray, seed: int
) -> Natural | None:
    if model.settings.fusion == "paired":
        return None  # such a model embeds no query
    clips = Searched.of(store.table, np.array([store.rows[id_] for id_ in pairs.ids]), audio)
    read = reading(clips.style_keys)
    return score_queries(clips, asked(model, folder, read), read, seed=seed)


def asked(model: System, folder: Path, read: Read | None) -> Asked:
    """Embed queries as a search by this model does, given its folder and how queries are read."""
    return Asked(lambda texts: model.embed_text(texts).cpu().numpy(), read, Prompts.load(folder))


def reading(style_keys: Sequence[str]) -> Read | None:
    """Read queries of clips with these styles by all wordings but the held-out ones; None if nothing can read them."""
    encode = _sentences()
    return None if encode is None else Reader.of(encode, clip_words(style_keys), held_out=False).read


def _sentences() -> Encode | None:
    """Return the sentence encoder that queries are read with; None if its weights are not installed."""
    try:
        return SentenceTokens().sentences
    except WeightsError as error:
        log.warning("queries are not read by the words of styles: %s", error)
        return None


def _some_tokens(model: System, pairs: Pairs, seed: int) -> tuple[Tokens, Tokens]:
    """Clips and their captions, at most _PROBED of them."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:_PROBED])
    items = [pairs[None, int(position)] for position in chosen]
    return pad([item[0] for item in items]).to(model.device), pad([item[1] for item in items]).to(model.device)


def _rerank(model: System, pairs: Pairs) -> Rerank | None:
    if not model.settings.rerank:
        return None

    def score(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
        logits = []
        with torch.inference_mode():
            for start in range(0, len(audio), _AT_A_TIME):
                rows = slice(start, start + _AT_A_TIME)
                clips = pad([pairs[None, int(row)][0] for row in audio[rows]]).to(model.device)
                captions = pad([pairs[None, int(row)][1] for row in text[rows]]).to(model.device)
                logits.append(model.match(clips, captions).float().cpu().numpy())
        return np.concatenate(logits)

    return Rerank(score)


def _machine(model: System) -> dict[str, str | int]:
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    return {"processor": processor(), "cores": os.cpu_count() or 1, "device": device}
