"""Files that describe other files, altered at random: the documented error, or computed again. Nothing else happens.

Beside each folder lies a file that nothing may read or remove.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from fsclap.corpus.captioning.bins import Bins, load_bins
from fsclap.weights import MANIFEST as WEIGHTS_MANIFEST
from fsclap.weights import Weights, WeightsError, WeightsSettings, find_weights, write_manifest
from storage.build_record import ANNOUNCED, BUILD, read_announced, read_build
from storage.corpus import Corpus
from storage.models import FINISHED, PROMOTED, Decision, ModelStore, ModelStoreError
from storage.rows import CorpusError
from storage.work import MANIFEST, Step, WorkStore, sha256_file
from tasks.stages import OUTCOME, Outcome, outcome
from tests.fuzz.mutations import documents, flipped
from tests.properties import attempt, fuzzed

SECRET = b"not yours"
STEP = Step("decode", 1, "", {"a": 1}, ())
FILES = {"a": b"wave", "b/c": b""}
SAID = Outcome(seconds={"decode": 1.0}, facts={"n": 1}).model_dump_json()
MODEL = ("config.json", "model.bin")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a file beside what is tested; afterwards it must be as it was."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "secret").write_bytes(SECRET)
    yield folder
    assert (folder / "secret").read_bytes() == SECRET
    assert (folder / "secret").stat().st_nlink == 1


# The work store


def published(root: Path) -> tuple[WorkStore, Path]:
    shutil.rmtree(root, ignore_errors=True)
    store = WorkStore(root)
    with store.write(STEP) as folder:
        (folder / "b").mkdir()
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        (folder / OUTCOME).write_text(SAID)
    found = store.folder(STEP)
    assert found is not None
    return store, found


def described(files: dict[str, bytes]) -> dict[str, dict[str, object]]:
    """Files as manifests describe them."""
    return {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }


OF_THE_STORE = {"step": STEP.as_dict(), "files": described(FILES | {OUTCOME: SAID.encode()})}
OF_WEIGHTS = {
    "name": "owner/model", "hub": "modelscope", "revision": "master", "licence": "unknown",
    "files": described({name: name.encode() for name in MODEL}),
}  # fmt: skip


def whole_or_removed(store: WorkStore, place: Path) -> None:
    folder = store.folder(STEP)
    if folder is None:
        assert not place.exists()
        with store.write(STEP) as again:
            (again / "a").write_bytes(b"computed again")
        folder = store.folder(STEP)
    assert folder == place
    assert (place / "a").is_file()


@fuzzed
@given(altered=documents(json.dumps(OF_THE_STORE).encode()))
@example(altered=json.dumps(OF_THE_STORE).encode())
@example(altered=b'{"files": {"a": 4}}')
@example(altered=b'{"files": {}}')
@example(altered=b'{"files":' * 3000)
def test_a_work_store_with_any_manifest_has_the_output_or_computes_it_again(beside: Path, altered: bytes) -> None:
    store, place = published(beside / "work")
    (place / MANIFEST).write_bytes(altered)
    whole_or_removed(store, place)


def a_link_in_place_of_the_output(place: Path, other: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(other)


def a_link_in_place_of(name: str) -> Callable[[Path, Path], None]:
    def make(place: Path, other: Path) -> None:
        (place / name).unlink()
        (place / name).symlink_to(other / "kept")

    return make


def a_link_to_nothing(place: Path, other: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(other / "no such folder")


def a_file_in_place_of_the_output(place: Path, other: Path) -> None:
    shutil.rmtree(place)
    place.write_bytes(b"")


@pytest.mark.parametrize(
    "harm",
    [
        a_link_in_place_of_the_output,
        a_link_in_place_of(MANIFEST),
        a_link_in_place_of("a"),
        a_file_in_place_of_the_output,
        a_link_to_nothing,
    ],
)
def test_links_lead_nobody_out_of_the_work_store(beside: Path, harm: Callable[[Path, Path], None]) -> None:
    store, place = published(beside / "work")
    other = beside / "other"
    other.mkdir(exist_ok=True)
    (other / "kept").write_bytes(SECRET)
    harm(place, other)
    whole_or_removed(store, place)
    assert (other / "kept").read_bytes() == SECRET
    assert [path.name for path in other.iterdir()] == ["kept"]


@fuzzed
@given(data=st.data())
def test_any_outcome_is_read_or_refused(beside: Path, data: st.DataObject) -> None:
    store, place = published(beside / "work")
    content = data.draw(documents((place / OUTCOME).read_bytes()))
    with (place / OUTCOME).open("r+b") as file:  # of the same size, or the store would compute it again
        size = os.fstat(file.fileno()).st_size
        file.write((content + b" " * size)[:size])
    found, told = attempt(lambda: outcome(store, STEP), ValidationError, UnicodeDecodeError)
    assert told or isinstance(found, Outcome)


# Weights


def model_folder(folder: Path) -> WeightsSettings:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in MODEL:
        (folder / name).write_bytes(name.encode())
    write_manifest(folder, name="owner/model", hub="modelscope", revision="master", licence="unknown")
    return WeightsSettings(name="owner/model", folder=folder)


@fuzzed
@given(altered=documents(json.dumps(OF_WEIGHTS).encode()))
@example(altered=json.dumps(OF_WEIGHTS).encode())
@example(altered=json.dumps(OF_WEIGHTS).replace("model.bin", "x" * 5000).encode())
def test_weights_with_any_manifest_are_whole_or_refused(beside: Path, altered: bytes) -> None:
    options = model_folder(beside / "weights")
    (beside / "weights" / WEIGHTS_MANIFEST).write_bytes(altered)
    found, told = attempt(lambda: find_weights(options, setting="x.weights", needs=["*.bin"]), WeightsError)
    if told:
        assert str(beside / "weights") in told
    else:
        assert isinstance(found, Weights)


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_whose_manifest_names_other_files_are_refused(beside: Path, absolute: bool) -> None:
    options = model_folder(beside / "weights")
    path = beside / "weights" / WEIGHTS_MANIFEST
    content = json.loads(path.read_bytes())
    name = str(beside / "secret") if absolute else "../secret"
    content["files"][name] = {"size": len(SECRET), "sha256": sha256_file(beside / "secret")}
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="secret"):
        find_weights(options, setting="x.weights")


# How a corpus was built, and what was announced of it


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        (BUILD, b'{"sources": ["a"], "work": "w", "settings": {"decode": {"timeout": 1}}}', read_build),
        (ANNOUNCED, b'{"version": 3}', read_announced),
    ],
)
def test_a_record_of_a_corpus_is_read_or_refused(
    beside: Path, name: str, content: bytes, read: Callable[[Corpus], object]
) -> None:
    corpus = Corpus.open(beside / "corpus", create=True)

    @fuzzed
    @given(altered=documents(content))
    @example(altered=content)
    @example(altered=content[:-1])
    def check(altered: bytes) -> None:
        (corpus.folder / name).write_bytes(altered)
        found, told = attempt(lambda: read(corpus), CorpusError)
        if told:
            assert name in told
        else:
            assert isinstance(found, dict) if name == BUILD else type(found) is int

    check()


# Models


DECISION = Decision(
    model="m-v1-0123abcd", against=None, promoted=True, reason="r", figure={"value": 0.1}, difference=None, clips=3,
    date="2026-11-23",
)  # fmt: skip


@fuzzed
@given(altered=documents(DECISION.model_dump_json().encode()))
@example(altered=DECISION.model_copy(update={"model": "x" * 5000}).model_dump_json().encode())
def test_the_current_model_is_one_of_the_store_or_refused(beside: Path, altered: bytes) -> None:
    store = ModelStore.open(beside / "models")
    for name in ("models/m-v1-0123abcd", "models-of-others"):
        (beside / name).mkdir(exist_ok=True)
        (beside / name / FINISHED).write_text("{}")
    (store.root.folder / PROMOTED).write_bytes(altered)
    found, told = attempt(lambda: store.promoted(), ModelStoreError)
    if told:
        assert "m-v1-0123abcd" in told or PROMOTED in told
    else:
        assert found is not None
        assert found.model == "m-v1-0123abcd"


# Caption bins


@fuzzed
@given(data=st.data())
def test_bins_are_bins_or_refused(beside: Path, data: st.DataObject) -> None:
    path = beside / "bins.json"
    content = load_bins(None).model_dump_json().encode()
    path.write_bytes(data.draw(st.one_of(documents(content), flipped(content))))
    found, told = attempt(lambda: load_bins(path), ValueError)
    if told:
        assert str(path) in told
    else:
        assert isinstance(found, Bins)
        assert found.word("pitch", 90.0) in ("very low", "low", "medium", "high", "very high")
