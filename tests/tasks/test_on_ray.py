"""What a build asks of a Ray cluster, and what it makes of the answers; tests/faults/test_ray.py has a real one."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, State

from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from tasks import on_ray
from tasks.batches import Batch, Item
from tasks.handing_out import Books
from tasks.on_ray import ClusterError, Machine, asked_of_ray, found_wanting, hand_out_on_ray
from tests.tasks.world import World, world

NOBODY = "http://127.0.0.1:9/api"
HEAD, SMALL, LARGE = Machine("0", "head", 0, 0), Machine("1", "small", 8, 0), Machine("2", "large", 64, 8)


@pytest.fixture
def ray_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for Ray are settings wherever the tests run: no cluster is asked for anything."""
    monkeypatch.setattr("fsclap.corpus.settings.ray_is_installed", lambda: True)


@pytest.mark.usefixtures("ray_there")
@pytest.mark.parametrize(
    ("given", "machines", "cpus", "gpus"),
    [
        ({}, [SMALL], 4, 0),
        ({}, [HEAD, LARGE, SMALL], 4, 0),
        ({}, [Machine("3", "tiny", 1, 0)], 1, 0),
        ({"ray": {"cpus": 3}}, [SMALL], 3, 0),
        ({"device": "cuda"}, [HEAD, SMALL, LARGE], 8, 1),
        ({"device": "cuda", "ray": {"gpus": 0.5}}, [HEAD, SMALL, LARGE], 4, 0.5),
        ({"device": "cuda", "ray": {"gpus": 0.25, "cpus": 6}}, [LARGE], 6, 0.25),
    ],
)
def test_a_batch_asks_for_its_share_of_a_machine(
    given: dict[str, Any], machines: list[Machine], cpus: int, gpus: float
) -> None:
    settings = BuildSettings.model_validate({"fan_out": "ray", **given})
    assert asked_of_ray(settings, machines) == {"num_cpus": cpus, "num_gpus": gpus}


def test_what_no_machine_has_is_told_rather_than_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        ClusterError, match=r"has 4 cores and 1 GPUs.*\(head: 0 and 0; small: 8 and 0\): lower ray.cpus"
    ):
        on_ray._require_able([HEAD, SMALL], {"num_cpus": 4, "num_gpus": 1}, str(tmp_path), str(tmp_path), [])


@pytest.mark.usefixtures("ray_there")
def test_without_ray_or_without_a_server_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(settings=BuildSettings(fan_out="ray"))

    def refusal() -> str:
        with pytest.raises(ClusterError) as refused:
            hand_out_on_ray([], str(tmp_path), str(tmp_path), plan, lambda _: None)
        return str(refused.value)

    monkeypatch.setattr(on_ray, "ray_is_installed", lambda: False)
    assert "pip install 'fsclap[ray]'" in refusal()
    monkeypatch.setattr(on_ray, "ray_is_installed", lambda: True)
    with temporary_settings({PREFECT_API_URL: None}):
        assert "set PREFECT_API_URL" in refusal()


def test_a_machine_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.place.write("mark", b"1")
    (tmp_path / "file").touch()
    good = {
        "corpus": corpus.location,
        "mark": "mark",
        "work": str(tmp_path / "work"),
        "folders": [str(tmp_path)],
        "api": NOBODY,
        "results": str(tmp_path / "results"),
    }
    wanting: list[tuple[dict[str, Any], str]] = [
        ({"mark": "other"}, "is not the corpus of the build"),
        ({"corpus": str(tmp_path / "elsewhere")}, "is not the corpus of the build"),
        ({"folders": [str(tmp_path), "/no/such/folder"]}, "no folder /no/such/folder"),
        ({"work": str(tmp_path / "file" / "work")}, "set FSCLAP_WORK"),
        ({"results": str(tmp_path / "file" / "results")}, "set PREFECT_RESULTS_LOCAL_STORAGE_PATH"),
        ({}, "does not reach the Prefect server at http://127.0.0.1:9/api"),
    ]
    for other, problem in wanting:
        assert problem in found_wanting(**{**good, **other})
    monkeypatch.setenv("FSCLAP_WORK", str(tmp_path / "own"))
    found_wanting(**{**good, "work": str(tmp_path / "file" / "work")})
    assert (tmp_path / "own").is_dir(), "a machine's own folder goes before the build's"


def test_a_server_that_answers_is_reached(prefect_server: None, tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.place.write("mark", b"1")
    api = str(PREFECT_API_URL.value())
    assert found_wanting(corpus.location, "mark", str(tmp_path), [], api, str(tmp_path)) == ""


@pytest.mark.usefixtures("prefect_server")
class TestSettling:
    """What becomes of a batch whose task has ended."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Any:
        with world(tmp_path) as made:
            made.put("e0", "good talk")
            yield made

    def settled(self, made: World, *states: State) -> tuple[int, list[str], list[str]]:
        """Let the tasks of a batch end in these states; how many times it was tried, what is done, what is not."""
        batch = Batch(name="b", items=(Item(episode=made.episode("e0")),))
        books, parent = Books([batch], made.corpus.location), object.__new__(on_ray._Parent)
        parent.books = books
        for state in states:
            books.count(books.waiting.popleft())
            parent._settle(batch, SimpleNamespace(wait=lambda: None, state=state, task_run_id=uuid4()))
        handed = books.outcome()
        return len(books.waiting), [row.episode for row in handed.done], handed.undone

    def test_one_whose_worker_died_waits_again_and_is_given_up_after_three(self, made: World) -> None:
        died: State = Crashed(message="The worker died unexpectedly.\nCheck the logs")
        assert self.settled(made, died, died) == (1, [], [])
        assert self.settled(made, died, died, died) == (
            0,
            [],
            ["b: its Ray task crashed (The worker died unexpectedly.), in 3 tries"],
        )

    def test_one_that_failed_is_not_tried_again(self, made: World) -> None:
        assert self.settled(made, Failed(message="no disk left")) == (0, [], ["b: no disk left"])

    def test_one_that_completed_is_done_if_the_ledger_has_it(self, made: World) -> None:
        assert self.settled(made, Completed()) == (1, [], [])
        made.build()
        assert self.settled(made, Crashed(message="x"), Completed()) == (0, ["e0"], [])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("The worker died unexpectedly.\nCheck the logs.", "The worker died unexpectedly."),
        (
            "RayTaskError(ImportError): ray::f()\n  File x\nModuleNotFoundError: No module named 'y'",
            "ModuleNotFoundError: No module named 'y'",
        ),
        (None, "no reason is known"),
    ],
)
def test_an_error_of_ray_is_told_in_a_line(message: str | None, reason: str) -> None:
    assert on_ray._reason(message) == reason


def test_a_location_is_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert on_ray._absolute("data/corpus") == str(tmp_path / "data/corpus")
    assert on_ray._absolute("s3://bucket/corpus") == "s3://bucket/corpus"
    assert re.match(r"/.+/data", on_ray._absolute("data"))
