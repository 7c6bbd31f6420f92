"""No word to strangers: a build, a training and a search talk to the source and the Prefect server."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prefect.settings import PREFECT_API_URL

from tests.flows.built import Built
from tests.flows.trained import Trained
from tests.sockets import traced

ROOT = Path(__file__).parents[2]
WORK = """
import sys
from flows.build_dataset import build_dataset
from flows.index_corpus import index_corpus
from flows.train_fsclap import train_fsclap
from fsclap.retrieval.index import index_location
from fsclap.retrieval.search import Searcher
from tests.flows.built import local_settings
from tests.fsclap.training.conftest import tiny

feed, clips, folder = sys.argv[1:]
build_dataset([feed], f"{folder}/corpus", f"{folder}/work", local_settings(quality={"engine": "dnsmos"}))
trained = train_fsclap(clips, None, f"{folder}/models", f"{folder}/work", tiny(epochs=1))
index = index_corpus(clips, None, f"{folder}/models", f"{folder}/index")
assert Searcher.open(f"{folder}/index").search("a low voice")
"""


def port_of(address: str) -> int:
    return urlsplit(address).port or 0


def test_python_asks_for_nobody_else(built_corpus: Built, trained: Trained) -> None:
    server = port_of(str(PREFECT_API_URL.value()))
    asked = built_corpus.contacts | trained.contacts
    assert {port for _, port in asked} == {server}, "a page is read by a process of its own"
    assert {host for host, _ in asked} <= {"127.0.0.1", "localhost"}


@pytest.mark.slow
def test_no_process_of_a_build_a_training_or_a_search_contacts_anybody_else(
    built_corpus: Built, trained: Trained, tmp_path: Path
) -> None:
    """Every process of it, compiled code included, has its system calls traced."""
    server, home = str(PREFECT_API_URL.value()), tmp_path / "home"
    home.mkdir()
    (tmp_path / "trace").mkdir()
    command = [sys.executable, "-c", WORK, built_corpus.feed, trained.place.corpus, str(tmp_path)]
    environment = {"PREFECT_API_URL": server, "HOME": str(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    found = traced(command, tmp_path / "trace" / "log", environment=environment)
    assert found == {("127.0.0.1", port_of(server)), ("127.0.0.1", port_of(built_corpus.feed))}
    assert [path for path in home.rglob("*") if path.is_file() and "Microsoft" in str(path)] == []
