import dataclasses
import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fsclap.data.batches import Batch, Item, Pairs, batches_of, embed, epoch_batches, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.data.features import text_features
from fsclap.model.embedded import ProsodicFrames
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.queries.bank import draw_bank
from fsclap.queries.conditions import clip_words, surely_met
from tests.fsclap.training.conftest import TINY
from tests.fsclap.training.encoders import frozen, trained


@pytest.fixture(scope="module")
def pairs(store: ClipStore, cache: Path) -> Pairs:
    ids = store.table["utterance_id"].to_pylist()
    return load_pairs(store, ids, frozen(), folder=cache, seed=3, progress=False)


def same(one: Batch, other: Batch) -> bool:
    tensors = [(b.audio.values, b.audio.mask, b.text.values, b.text.mask, b.groups, b.positions) for b in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_an_epoch_has_every_clip_once_in_an_order_of_its_own() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, size=1000)
    epochs = [epoch_batches(lengths, 24, seed=1, epoch=epoch) for epoch in (0, 0, 1)]
    orders = [np.concatenate(batches) for batches in epochs]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    sizes = [len(batch) for batch in epochs[0]]
    assert len(sizes) == -(-1000 // 24)
    assert min(sizes) >= 20  # what is left over is shared out
    assert max(sizes) == 24


def test_the_same_clips_do_not_meet_in_every_epoch() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, size=1000)
    together = []
    for epoch in (0, 1):
        batches = epoch_batches(lengths, 100, seed=1, epoch=epoch)
        together.append({(a, b) for batch in batches for a in batch.tolist() for b in batch.tolist() if a < b})
    # Batches of clips sorted over the whole corpus would be the same in every epoch.
    assert len(together[0] & together[1]) / len(together[0]) < 0.5


def test_clips_of_like_length_are_together() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, size=2000)

    def padding(batches: list[np.ndarray]) -> float:
        padded = sum(len(batch) * lengths[batch].max() for batch in batches)
        return float(padded / lengths.sum() - 1)

    batches = epoch_batches(lengths, 32, seed=0, epoch=0)
    order = np.random.default_rng(0).permutation(2000)
    assert padding(batches) < 0.25 < 0.5 < padding([order[at : at + 32] for at in range(0, 2000, 32)])
    means = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5  # and the batches are in no order


@pytest.mark.parametrize(("clips", "sizes"), [(17, [5, 6, 6]), (16, [8, 8]), (8, [8]), (2, [2]), (1, [])])
def test_batches_are_of_like_size_and_one_that_contrasts_nothing_is_left_out(clips: int, sizes: list[int]) -> None:
    assert sorted(map(len, epoch_batches(np.ones(clips), 8, seed=0, epoch=0))) == sizes


def test_every_device_gets_as_much() -> None:
    for clips in range(30, 60):
        sizes = [len(batch) for batch in epoch_batches(np.ones(clips), 8, seed=0, epoch=0, multiple=4)]
        assert all(size % 4 == 0 for size in sizes)
        assert clips - sum(sizes) < 4


def test_workers_change_nothing(pairs: Pairs, store: ClipStore, cache: Path) -> None:
    heard = load_pairs(store, pairs.ids, trained(), folder=cache, seed=3, progress=False)
    for some in (pairs, heard):
        plan = epoch_batches(some.audio.lengths, 16, seed=3, epoch=2)
        alone, helped = (list(batches_of(some, plan, epoch=2, workers=workers)) for workers in (0, 2))
        assert len(alone) == len(helped) == 6
        assert all(same(*both) for both in zip(alone, helped, strict=True))
        assert [b.positions.tolist() for b in alone] == [batch.tolist() for batch in plan]


def test_long_clips_are_cropped(pairs: Pairs) -> None:
    position = int(pairs.audio.lengths.argmax())
    whole = pairs.audio[position]
    spare = len(whole) - pairs.max_frames
    assert spare > 5
    crops = [pairs[epoch, position][0] for epoch in (0, 1, 2, 3, 0)]
    assert all(len(crop) == pairs.max_frames for crop in crops)
    starts = [next(at for at in range(spare + 1) if np.array_equal(whole[at : at + 40], crop)) for crop in crops]
    assert len(set(starts)) > 1
    assert starts[0] == starts[4]
    np.testing.assert_array_equal(pairs[None, position][0], whole[spare // 2 : spare // 2 + 40])
    short = int(pairs.audio.lengths.argmin())
    np.testing.assert_array_equal(pairs[0, short][0], pairs.audio[short])


def test_groups(store: ClipStore, cache: Path) -> None:
    ids = store.table["utterance_id"].to_pylist()
    by_caption, by_style = (
        load_pairs(store, ids, frozen(), folder=cache, no_negatives_by=column, progress=False)
        for column in ("caption", "style_key")  # type: ignore[arg-type]
    )
    assert len(set(by_caption.groups.tolist())) == 90
    styles = store.table["style_key"].to_pylist()
    for a in (0, 7, 44, 60):
        for b in range(90):
            assert (by_style.groups[a] == by_style.groups[b]) == (styles[a] == styles[b])


def test_embeds_in_the_order_of_the_pairs(pairs: Pairs) -> None:
    model = FSCLAP(TINY, encoders=frozen())
    found = embed(model, pairs, batch=16)
    assert found.audio.shape == found.text.shape == (90, TINY.embedding)
    assert model.training  # as it was
    model.eval()
    for position in (0, 33, 89):
        (batch,) = batches_of(pairs, [np.array([position])], epoch=None)
        torch.testing.assert_close(found.audio[position], model.encode_audio(batch.audio)[0])
        torch.testing.assert_close(found.text[position], model.encode_text(batch.text)[0])


def test_workers_end_well_where_threads_have_exit_handlers(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a scheduler in the same process has: they know threads that a fork does not have.
    monkeypatch.setattr(threading, "_threading_atexits", [lambda: 1 / 0])
    plan = epoch_batches(pairs.audio.lengths, 16, seed=0, epoch=0)
    loaded = batches_of(pairs, plan, epoch=0, workers=2)
    workers = [next(loaded)]
    forked = multiprocessing.active_children()
    workers += loaded
    for process in forked:
        process.join()
    assert [process.exitcode for process in forked] == [0, 0]
    assert len(workers) == len(plan)


def test_queries_take_the_place_of_captions_where_they_are_true(store: ClipStore, cache: Path) -> None:
    ids = store.table["utterance_id"].to_pylist()
    bank = draw_bank(400)
    some = load_pairs(store, ids, frozen(), folder=cache, seed=3, bank=bank, query_share=0.5, progress=False)
    assert some.queries is not None
    words = clip_words(store.column("style_key", some.ids))
    items = [some[epoch, position] for epoch in (0, 1, 2) for position in range(len(some))]
    queries = [item for item in items if item.asked is not None and item.asked.any()]
    assert 0.3 < len(queries) / len(items) < 0.6  # and no more than a query is true of
    for item in queries:
        assert item.asked is not None
        assert surely_met(item.asked[None], words[item.position][None]).all()
        (number,) = np.flatnonzero((bank.allowed == item.asked).all(axis=1) & _same_text(some, item))[:1]
        assert surely_met(bank.allowed[number][None], words[item.position][None]).all()
    captions = [item for item in items if item.asked is not None and not item.asked.any()]
    assert all(np.array_equal(item.text, some.text[item.position]) for item in captions)
    (batch,) = batches_of(some, [np.arange(12)], epoch=0, workers=0)
    assert batch.meets is not None
    np.testing.assert_array_equal(batch.meets.words.numpy(), words[:12])
    assert some[None, 0].asked is None  # an evaluation has captions alone


def _same_text(pairs: Pairs, item: Item) -> np.ndarray:
    assert pairs.queries is not None
    return np.array([np.array_equal(pairs.queries.features[at], item.text) for at in range(len(pairs.queries.asked))])


def test_the_context_is_left_out_now_and_then(store: ClipStore, cache: Path) -> None:
    ids = store.table["utterance_id"].to_pylist()
    encoders = ProsodicFrames("speaker"), frozen()[1]
    some = load_pairs(store, ids[:40], encoders, folder=cache, seed=3, progress=False)
    assert some.context is not None
    some = dataclasses.replace(some, context=np.ones_like(some.context))

    def unknown(epoch: int | None) -> float:
        return float(np.mean([some[epoch, position].audio[0, -3:].all() for position in range(len(some))]))

    assert unknown(None) == 0
    assert 0.02 < np.mean([unknown(epoch) for epoch in range(4)]) < 0.4


SEVERAL = {3: ["first", "second", "third"], 5: ["second", "FIRST"]}
"""Rows with several captions; the first and the last one of them have the same words."""


@pytest.fixture(scope="module")
def captioned(store: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """The clips, two of them with several captions."""
    rows = store._rows.drop_columns(["audio_sha256", "defect"]).slice(0, 12).combine_chunks()
    captions = [[*SEVERAL[row]] if row in SEVERAL else None for row in range(12)]
    firsts = [SEVERAL[row][0] if row in SEVERAL else one for row, one in enumerate(rows["caption"].to_pylist())]
    sound = pa.array([{"bytes": data, "path": ""} for data in rows["audio"].to_pylist()])
    rows = rows.set_column(rows.column_names.index("audio"), "audio", sound)
    rows = rows.set_column(rows.column_names.index("caption"), "caption", pa.array(firsts))
    table = rows.append_column("captions", pa.array(captions, type=pa.list_(pa.string())))
    return ClipStore.create(tmp_path_factory.mktemp("several"), table.to_batches(), key="several", progress=False)


def test_each_epoch_draws_one_of_a_clips_captions(captioned: ClipStore, tmp_path: Path) -> None:
    ids, encoders = captioned.table["utterance_id"].to_pylist(), frozen()
    drawn, first = (
        load_pairs(captioned, ids, encoders, folder=tmp_path, seed=3, several=several, progress=False)
        for several in (True, False)
    )
    texts = ["first", "second", "third", "FIRST"]
    known = text_features(texts, encoders[1], folder=tmp_path, progress=False)
    features = {text: known[at] for at, text in enumerate(texts)}
    epochs = range(60)
    for row, captions in SEVERAL.items():
        found = [drawn[epoch, row].text for epoch in epochs]
        counts = {text: sum(np.array_equal(one, features[text]) for one in found) for text in captions}
        assert sum(counts.values()) == len(epochs)
        assert min(counts.values()) > len(epochs) / len(captions) / 2, counts
        assert np.array_equal(drawn[None, row].text, features[captions[0]]), "evaluated by the first"
        assert all(np.array_equal(drawn[epoch, row].text, found[epoch]) for epoch in epochs), "and again the same"
    groups = {text: drawn[epoch, 3].group for text in SEVERAL[3] for epoch in epochs
              if np.array_equal(drawn[epoch, 3].text, features[text])}  # fmt: skip
    assert len(set(groups.values())) == 3
    same = [drawn[epoch, 5].group for epoch in epochs if np.array_equal(drawn[epoch, 5].text, features["FIRST"])]
    assert set(same) == {groups["first"]}, "captions of the same words are no negatives of each other"
    for row in set(range(12)) - set(SEVERAL):  # and nothing else has changed
        assert np.array_equal(drawn[4, row].text, first[4, row].text)
        assert np.array_equal(drawn[4, row].audio, first[4, row].audio)
    assert all(np.array_equal(first[epoch, 3].text, features["first"]) for epoch in epochs)
