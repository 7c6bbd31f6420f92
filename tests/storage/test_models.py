"""Runs, and the one model that is the current one."""

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from storage.models import FINISHED, HISTORY, PROMOTED, Decision, ModelStore, ModelStoreError

SETTINGS = {"epochs": 10, "loss": {"gamma": 0.15}}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore.open(tmp_path / "models")


def finished(store: ModelStore, version: int, **settings: Any) -> str:
    name = store.name("data/corpus", version, SETTINGS | settings)
    store.folder(name).mkdir()
    (store.folder(name) / FINISHED).write_text("{}")
    return name


def decision(model: str, *, against: str | None = None, promoted: bool = True) -> Decision:
    return Decision(
        model=model,
        against=against,
        promoted=promoted,
        reason="because",
        figure={"value": 0.2, "low": 0.1, "high": 0.3},
        difference=None,
        clips=200,
        date="2026-11-23T12:00:00+00:00",
    )


def decisions(store: ModelStore) -> list[Decision]:
    """Every recorded decision; lines that are not complete are left out."""
    found = []
    for line in (store.root.folder / HISTORY).read_text().splitlines():
        with suppress(ValidationError):
            found.append(Decision.model_validate_json(line))
    return found


def test_a_run_has_one_name_for_one_version_and_one_set_of_settings(store: ModelStore) -> None:
    name = store.name("data/My corpus!/", 3, SETTINGS)
    assert name.startswith("My-corpus-v3-")
    assert name == store.name("/elsewhere/My corpus!", 3, dict(reversed(SETTINGS.items())))
    others = {store.name("data/My corpus!", 4, SETTINGS), store.name("data/My corpus!", 3, SETTINGS | {"epochs": 11})}
    assert len(others | {name}) == 3
    assert store.name("s3://bucket/日本語", 1, {}).startswith("日本語-v1-")
    assert store.folder(store.name("...", 1, {})).parent == store.root.folder


@pytest.mark.parametrize("name", ["", "..", "../promoted", "/etc", ".hidden", "a/b"])
def test_a_name_cannot_leave_the_store(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelStoreError, match="not the name of a model"):
        store.folder(name)


def test_a_run_is_finished_when_its_last_file_is_there(store: ModelStore) -> None:
    name = store.name("data/corpus", 1, SETTINGS)
    assert not store.finished(name)
    store.folder(name).mkdir()
    assert not store.finished(name)
    assert store.names() == []
    known = [finished(store, version) for version in (2, 3)]
    assert all(store.finished(name) for name in known)
    assert store.names() == known


def test_a_promotion_takes_effect_and_a_refusal_does_not(store: ModelStore) -> None:
    assert store.promoted() is None
    first, second, third = (finished(store, version) for version in (1, 2, 3))
    store.record(decision(first))
    store.record(decision(second, against=first, promoted=False))
    assert store.promoted() == decision(first)
    store.record(decision(third, against=first))
    assert store.promoted() == decision(third, against=first)
    assert [(found.model, found.promoted) for found in decisions(store)] == [
        (first, True), (second, False), (third, True),
    ]  # fmt: skip


def test_a_comparison_with_a_model_that_is_no_longer_current_promotes_nothing(store: ModelStore) -> None:
    first, second, third = (finished(store, version) for version in (1, 2, 3))
    store.record(decision(first))
    store.record(decision(second, against=first))
    with pytest.raises(ModelStoreError, match="start the evaluation again"):
        store.record(decision(third, against=first))
    assert store.promoted() == decision(second, against=first)
    assert len(decisions(store)) == 2


def test_an_unknown_model_cannot_be_promoted(store: ModelStore) -> None:
    with pytest.raises(ModelStoreError, match="not a finished model"):
        store.record(decision("corpus-v1-00000000"))
    assert store.promoted() is None


def test_a_current_model_whose_folder_is_gone_is_named_with_a_way_out(store: ModelStore) -> None:
    name = finished(store, 1)
    store.record(decision(name))
    (store.folder(name) / FINISHED).unlink()
    with pytest.raises(ModelStoreError, match=f"{name}.*delete the file"):
        store.promoted()


def test_damaged_files_are_named(store: ModelStore) -> None:
    name = finished(store, 1)
    store.record(decision(name))
    with (store.root.folder / HISTORY).open("a") as history:
        history.write('{"model": "half a li')
    assert [found.model for found in decisions(store)] == [name]
    store.record(decision(name, against=name))
    assert [found.model for found in decisions(store)] == [name, name]
    (store.root.folder / PROMOTED).write_text("{")
    with pytest.raises(ModelStoreError, match=PROMOTED):
        store.promoted()


def test_a_file_is_no_model_store(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(ModelStoreError, match="is a file"):
        ModelStore.open(tmp_path / "models")


def _promote_again_and_again(root: Path, model: str) -> None:
    store = ModelStore.open(root)
    while True:
        store.record(decision(model, against=model))


def test_a_kill_in_the_middle_leaves_a_current_model(store: ModelStore) -> None:
    name = finished(store, 1)
    store.record(decision(name))
    for round_ in range(5):
        writer = multiprocessing.get_context("fork").Process(
            target=_promote_again_and_again, args=(store.root.folder, name)
        )
        writer.start()
        before = len(decisions(store))
        while len(decisions(store)) < before + 3 + round_:
            os.sched_yield()
        writer.kill()
        writer.join()
        current = store.promoted()
        assert current is not None
        assert current.model == name
