"""What a build does again: every recording that is on the server is in the corpus once, whatever came before."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fsclap.corpus.download import Episode, source_id
from storage.maintenance import forget
from storage.sounds import SOUNDS, read_sounds
from storage.verify import verify
from tasks.batches import Item
from tasks.commit import _speaker
from tasks.plan import recognised
from tasks.verdict import nothing_kept
from tests.properties import fewer, fuzzed
from tests.storage.conftest import rows_of
from tests.tasks.world import World, ask, world


@pytest.fixture
def show(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


# Duplicates


@pytest.mark.parametrize("local", [True, False])
def test_a_duplicate_takes_the_place_of_its_twin(show: World, local: bool) -> None:
    """current.mp3 is each week's newest file, and week-N.mp3 the archive."""
    names = ("current", "week-1", "week-2")
    show.local |= set(names if local else ())
    show.put("current", "good one")
    show.put("week-1", "good one")
    show.build()
    assert (show.kept(), show.refused()) == ({"current": sha256("good one")}, {"week-1": "duplicate"})
    assert show.build() == []
    show.put("current", "good two")
    show.put("week-2", "good two")
    if not local:  # what is replaced under its address is seen when it is asked for
        ask(show, "current", fetch=True)
    show.build()
    assert show.kept() == {"current": sha256("good two"), "week-1": sha256("good one")}
    assert show.refused() == {"week-2": "duplicate"}
    assert show.build() == []
    assert verify(show.corpus).problems == []


def test_two_recordings_may_change_places(show: World) -> None:
    show.local = {"a", "b"}
    show.put("a", "good one")
    show.put("b", "good two")
    show.build()
    show.put("a", "good two")
    show.put("b", "good one")
    show.build()
    assert show.kept() == {"a": sha256("good two"), "b": sha256("good one")}


def test_a_duplicate_stays_when_its_twin_is_forgotten_and_gone(show: World) -> None:
    for name in ("a", "b"):
        show.put(name, "good one")
    show.build()
    forget(show.corpus, [show.id("a")])
    del show.files["a"]
    assert [problem.code for problem in verify(show.corpus).problems] == ["duplicate_alone"]
    show.build()
    assert (show.kept(), verify(show.corpus).problems) == ({"b": sha256("good one")}, [])


def test_a_talk_as_video_and_as_sound_is_told(show: World) -> None:
    show.put("talk.m4a", "good talk|sound")
    show.put("talk.mp4", "good talk|video")
    show.put("other.mp4", "good other talk")
    show.build()
    assert len(show.kept()) == 3
    report = verify(show.corpus)
    (note,) = report.notes
    assert report.problems == []
    assert "talk.mp4) and" in note
    assert "talk.m4a) sound alike" in note
    forget(show.corpus, [show.id("talk.mp4")])
    assert verify(show.corpus).notes == []


def test_a_record_that_was_cut_off_is_left_out(show: World) -> None:
    show.put("a", "good one")
    show.build()
    file = show.corpus.folder / SOUNDS
    with file.open("ab") as stream:
        stream.write(b"half a record")
    assert len(read_sounds(show.corpus)) == 1
    show.put("b", "good two")
    show.build()
    assert sorted(record["source_id"].decode() for record in read_sounds(show.corpus)) == sorted(map(show.id, "ab"))


def test_an_episode_keeps_the_id_of_an_earlier_version(show: World) -> None:
    """Known by its address, an episode of a feed would be built a second time now that its guid counts."""
    show.put("a", "good one")
    show.build()
    by_address = show.episode("a")
    by_guid = Item(episode=replace(by_address, source_id="ab" * 8, earlier_id=by_address.source_id))
    other = Item(episode=replace(by_address, source_id="cd" * 8, earlier_id="ef" * 8))
    assert recognised([by_guid, other], show.corpus.location) == [
        Item(episode=by_guid.episode).model_copy(
            update={"episode": replace(by_guid.episode, source_id=by_address.source_id)}
        ),
        other,
    ]


# Refusals


def test_half_an_upload_is_fetched_again_once_it_is_whole(show: World) -> None:
    show.put("a", "half of it")
    show.build()
    assert show.refused() == {"a": "truncated"}
    assert show.build() == [], "the same file would be refused again"
    assert show.fetched == ["a"]
    show.put("a", "good one")
    assert show.build() == ["a"]
    assert show.kept() == {"a": sha256("good one")}


def test_a_server_that_is_down_takes_nothing_away(show: World) -> None:
    show.put("a", "half of it")
    show.put("b", "good one")
    show.build()
    show.down = True
    assert show.build(fetch_again=True) == ["a", "b"]
    assert show.kept() == {"b": sha256("good one")}
    show.down = False
    show.put("a", "good two")
    assert show.build() == ["a", "b"], "they were asked for, and not done"
    assert set(show.kept()) == {"a", "b"}
    assert show.build() == []


def test_a_file_that_was_missing_is_asked_for_again_and_one_that_is_gone_stays(show: World) -> None:
    show.put("a", "good one")
    show.put("b", "good two")
    show.gone = {"b"}
    show.build()
    assert show.refused() == {"b": "http_404"}
    show.gone = set()
    assert show.build() == ["b"]
    show.gone = {"a"}
    show.build(fetch_again=True)
    assert set(show.kept()) == {"a", "b"}


def test_another_decoder_decides_again(show: World) -> None:
    """An old ffmpeg refused everything; a newer one takes what it can, and makes nothing again that was kept."""
    show.ffmpeg = "4"
    show.put("a", "new format")
    show.put("b", "good one")
    show.put("c", "broken")
    show.build()
    assert show.refused() == {"a": "truncated", "c": "truncated"}
    show.ffmpeg = "6"
    assert show.build() == ["a", "c"]
    assert set(show.kept()) == {"a", "b"}
    assert show.fetched == ["a", "b", "c"], "nothing was downloaded again"
    assert show.build() == []


def test_what_is_retried_is_decided_again(show: World) -> None:
    show.put("a", "broken")
    show.build()
    version = show.corpus.delta("sources").version()
    ask(show, "a", fetch=False)
    assert show.build() == ["a"]
    assert (show.fetched, show.build()) == (["a"], [])
    ask(show, "a", fetch=True)
    assert (show.build(), show.fetched) == (["a"], ["a", "a"])
    assert show.corpus.delta("sources").version() == version, "the same refusal is no new version"


def test_a_request_for_a_source_that_is_not_listed_waits(show: World) -> None:
    show.put("a", "good one")
    show.put("b", "good two")
    show.build()
    ask(show, "b", fetch=True)
    gone = show.files.pop("b")
    assert show.build() == []
    show.put("b", gone)
    assert show.build() == ["b"]


def test_a_build_of_which_nothing_is_kept_says_why(show: World) -> None:
    listed = [Item(episode=show.episode(name)) for name in ("a", "b")]
    show.put("a", "broken")
    show.put("b", "half")
    show.build()
    why = nothing_kept(listed, show.corpus.location)
    assert why == "Nothing was kept of 2 sources: 2 truncated. it ends early"
    show.put("b", "good one")
    show.build()
    assert nothing_kept(listed, show.corpus.location) == ""
    assert nothing_kept(listed[:1], show.corpus.location).startswith("Nothing was kept of 1 sources")


def test_one_sentence_to_a_file_is_explained(show: World) -> None:
    corpus = show.corpus
    for name in ("s1", "s2"):
        rows = rows_of(name, kept=0, rejected=1)
        rows["rejects"][0] |= {"stage": "consistency", "reason": "single_turn_speaker"}
        corpus.commit_source(**rows)
    listed = [Item(episode=Episode(row["source_id"], "", "", "", "")) for row in corpus.ledger().values()]
    why = nothing_kept(listed, corpus.location)
    assert why.startswith("Nothing was kept of 2 sources: 2 single_turn_speaker (turns). ")
    assert "--singletons keep" in why


# Any sequence

contents = st.sampled_from(["good one", "good one", "good two", "half"])
names = st.sampled_from("abc")


class Server(RuleBasedStateMachine):
    """Files of a folder and of a server come, change, go and are the same; sources are forgotten and retried."""

    @initialize(local=st.sampled_from(["", "ab", "abc"]))
    def a_server(self, local: str) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.stack = ExitStack()
        self.show = self.stack.enter_context(world(self.root))
        self.show.local = set(local)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.stack.callback(shutil.rmtree, self.root)
            with self.stack:  # closed whatever happens: what an example leaves patched is another test's trouble
                self.refresh()
                self._nothing_is_left_to_do()

    @rule(changes=st.dictionaries(names, st.none() | contents, min_size=1))
    def change(self, changes: dict[str, str | None]) -> None:
        """Add, replace and remove files, and refresh."""
        kept = self.show.kept()
        for name, content in changes.items():
            if content is None:
                self.show.files.pop(name, None)
                continue
            self.show.put(name, content)
            if name in kept and name not in self.show.local:
                ask(self.show, name, fetch=True)
        self.refresh()

    @rule(name=names)
    def forget(self, name: str) -> None:
        removed = forget(self.show.corpus, [self.show.id(name)])
        for _ in removed:
            ask(self.show, name, fetch=True)

    @rule()
    def an_hour_without_a_server(self) -> None:
        self.show.down = True
        self.show.build()
        self.show.down = False

    @rule()
    def refresh(self) -> None:
        self.show.build()
        kept = list(self.show.kept().values())
        assert len(kept) == len(set(kept)), "a recording is in the corpus twice"
        there = {sha256(content) for content in self.show.files.values() if content.startswith("good")}
        assert there <= set(kept), "a recording of the server is not in the corpus"

    def _nothing_is_left_to_do(self) -> None:
        assert self.show.build() == []
        gone = {self.show.id(name) for name in ("a", "b", "c") if name not in self.show.files}
        for problem in verify(self.show.corpus, audio=False).problems:
            # A duplicate that is gone from the server, as is the recording: nothing can bring it back.
            assert problem.code == "duplicate_alone"
            assert gone.issuperset(problem.sources)


TestServer = Server.TestCase
TestServer.settings = fewer(4, fuzzed, stateful_step_count=8)


# Names

texts = st.text("ab/#S0\u0661", max_size=6)


@fewer(1)
@given(texts, texts, texts, texts, st.text(max_size=5), st.text(max_size=5), st.integers(-1, 3), st.integers(-1, 3))
def test_two_sources_never_share_a_speaker(
    series: str, name: str, other_series: str, other_name: str, address: str, other: str, label: int, other_label: int
) -> None:
    assume(address != other)
    one = Item(episode=Episode(source_id(address), "", series, name, ""))
    two = Item(episode=Episode(source_id(other), "", other_series, other_name, ""))
    assert _speaker(one, label) != _speaker(two, other_label)
    assert _speaker(one, label) != _speaker(
        two.model_copy(update={"episode": replace(two.episode, series=series)}), label
    )
