"""Where a corpus may be: names of folders that Delta reads as something else, and folders of a group."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.corpus import LOCK, Corpus
from storage.files import locked
from storage.objects import Place, PlaceError
from storage.rows import CorpusError
from storage.work import WorkStore
from tests.storage.conftest import rows_of


@pytest.mark.parametrize("name", ["my talks", "2024:11", "a#b?c", "100%", "ünï", "a'b", "~mine", "{x}*"])
def test_a_corpus_can_be_in_a_folder_of_any_usual_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for location in (tmp_path / name, f"./{name}/relative"):
        Corpus.at(location).require_writable()
        corpus = Corpus.open(location, create=True)
        corpus.commit_source(**rows_of("e1", kept=1))
        corpus.commit_source(**rows_of("e1", kept=2, recipe="recipe-2"))
        assert Corpus.open(location).utterances(columns=["text"]).num_rows == 2
        assert (tmp_path / location / "utterances" / "_delta_log").is_dir()
        assert [path.name for path in corpus.folder.iterdir() if path.name.startswith(".try")] == []


@pytest.mark.parametrize("name", ["[2024] talks", "a%20b", "back\\slash", "a|b", "a^b", "new\nline", b"caf\xe9"])
def test_a_name_that_delta_reads_as_another_is_refused_in_a_sentence(name: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus can be in .*Choose one without") as caught:
        Corpus.at(tmp_path / os.fsdecode(name))
    assert str(caught.value).isprintable()


def test_the_home_of_the_user_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    corpus = Corpus.open("~/corpus", create=True)
    with corpus.lock():
        corpus.commit_source(**rows_of("e1", kept=1))
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == [LOCK, "rejects", "sources", "utterances"]
    with pytest.raises(CorpusError, match="no user of that name"):
        Corpus.at("~nobody-of-this-name/corpus")


def test_what_delta_panics_at_is_an_error_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus can be written to"):
        Corpus(str(tmp_path / "[unchecked]")).require_writable()
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="no corpus can be written to"):
        Corpus.at(tmp_path / "file").require_writable()


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_group_shares_the_lock_of_its_corpus(umask: int, mode: int, tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path, create=True)
    before = os.umask(umask)
    try:
        with corpus.lock():
            pass
        with locked(tmp_path / "machine", what="the CPU"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "machine").stat().st_mode) == 0o600, "the lock of a machine is this user's"


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can enter, as those that pytest makes are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_two_people_take_turns(reachable: Path) -> None:
    """The second has another uid; where the lock is the first one's alone, a sentence says so."""
    corpus = Corpus.open(reachable / "corpus", create=True)
    with corpus.lock():
        pass
    for mode, status in ((0o666, 0), (0o644, 0), (0o600, 1)):
        (corpus.folder / LOCK).chmod(mode)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                with corpus.lock():
                    os._exit(0)
            except CorpusError as error:
                os._exit(1 if "chmod g+rw" in str(error) else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status


@pytest.mark.parametrize("location", ["s3://bucket/work", "gs://bucket/x", Path("s3://bucket/work"), "abfs://a@b/c"])
def test_an_address_is_not_taken_for_a_folder(
    location: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not a folder of this machine: work files stay on a local disk"):
        WorkStore(location)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["ftp://host/x", "https://host/x", "s3://", "gs:///x"])
def test_an_address_of_no_object_store_is_refused(location: str) -> None:
    with pytest.raises(PlaceError, match=r"not a location|names a bucket"):
        Place.at(location)
    with pytest.raises(CorpusError, match=r"not a location|names a bucket"):
        Corpus.at(location)
