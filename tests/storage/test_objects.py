"""Files at a place: a local folder, memory, and a real S3 server do the same."""

import multiprocessing
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.copies import local_copy, upload
from storage.objects import Place, PlaceError
from storage.race import race_problem
from tests.object_store import BUCKET, nanio


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        (tmp_path / "place").mkdir()
        return Place.at(tmp_path / "place")
    if request.param == "memory":
        return Place.at(f"memory://{uuid.uuid4().hex}/some folder")
    return Place.at(f"{request.getfixturevalue('bucket')}/some folder")


def names(place: Place, prefix: str = "") -> list[str]:
    return sorted(entry.name for entry in place.list(prefix))


def test_files_are_written_listed_moved_and_deleted(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11_000_000))
    assert (place.read("a/1"), place.version("a/1"), names(place)) == (None, None, [])
    place.write("a/1", b"one")
    place.write("a/10", b"ten")
    place.write("b", tmp_path / "large")
    assert place.read("a/1") == b"one"
    assert {entry.name: entry.size for entry in place.list()} == {"a/1": 3, "a/10": 3, "b": 11_000_000}
    assert names(place, "a/1") == ["a/1", "a/10"]
    assert names(place / "a") == ["1", "10"]
    before = place.version("a/1")
    place.write("a/1", b"another")
    assert place.version("a/1") != before
    place.move("a/10", "c/d/10")
    place.delete("b", "not there")
    assert names(place) == ["a/1", "c/d/10"]
    assert ((place / "a").parent, (place / "a").name) == (place, "a")


def test_of_many_writers_one_creates_a_file(place: Place) -> None:
    assert race_problem(place) is None
    assert names(place) == []


def test_a_change_is_made_as_if_nobody_else_wrote(place: Place) -> None:
    def count() -> None:
        for _ in range(10):
            place.change("count", lambda before: str(int(before or b"0") + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.read("count") == b"30"
    place.change("count", lambda _: None)
    assert place.read("count") == b"30"


def test_records_are_appended(place: Place) -> None:
    for number in range(3):
        place.append("log", bytes([number]) * 4, multiple=4)
    assert place.appended("log") == bytes([0] * 4 + [1] * 4 + [2] * 4)


def test_a_copy_follows_its_place(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSCLAP_CACHE", str(tmp_path / "cache"))
    place.write("weights/a", b"a")
    place.write("b", b"b")
    folder = local_copy(place)
    assert {path.name: path.read_bytes() for path in folder.rglob("[ab]") if path.is_file()} == {"a": b"a", "b": b"b"}
    (folder / "made here").write_bytes(b"c")
    place.write("b", b"newer")
    place.delete("weights/a")
    assert local_copy(place) == folder
    assert (folder / "b").read_bytes() == b"newer"
    assert not (folder / "weights" / "a").exists()
    assert (folder / "made here").read_bytes() == b"c", "what was made in the copy stays"
    (folder / "b").unlink()
    (folder / ".hidden.tmp").write_bytes(b"")
    upload(folder, place, last=["made here"])
    assert set(names(place)) - {".hidden.tmp"} == {"made here"}, "what was removed in the copy is removed"


def test_a_folder_is_uploaded_with_the_last_file_last(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    for name in ("a.json", "deep/b", "z"):
        (tmp_path / "made" / name).write_text(name)
    kind, put, order = type(place.store), type(place.store).put, []

    def noted(store: object, name: str, content: object) -> str:
        order.append(name)
        return str(put(store, name, content))  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "put", noted)
    upload(tmp_path / "made", place, last=["a.json"])
    assert order[-1] == "a.json"
    assert names(place) == ["a.json", "deep/b", "z"]


def _increase(place: Place, times: int) -> None:
    for _ in range(times):
        place.change("count", lambda before: str(int(before or b"0") + 1).encode())


def test_processes_that_change_one_file_lose_nothing(bucket: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for place in (Place.at(bucket), Place.at(tmp_path)):
        workers = [context.Process(target=_increase, args=(place, 10)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert place.read("count") == b"20"


# Stores that can't be used


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with nanio(tmp_path_factory.mktemp("nanio") / "data") as environment:
        yield environment


def test_a_server_that_ignores_conditional_puts_is_found_out(
    careless: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in careless.items():
        monkeypatch.setenv(name, value)
    problem = race_problem(Place.at(f"s3://{BUCKET}-careless/here"))
    assert problem is not None
    assert "ignores conditional puts (If-None-Match), so commits that are reported done would be lost" in problem


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with pytest.raises(PlaceError, match=r"s3://nowhere-at-all.*check the address, the network"):
        Place.at("s3://nowhere-at-all/x").read("a")
