"""A person who was taken out of a recording stays out of it, whatever a later build makes of it again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsclap.corpus.download import Episode
from storage.left_out import LEFT_OUT
from storage.maintenance import forget
from storage.people import forget_speakers, one_speaker
from storage.verify import verify
from tasks import commit as commits
from tests.storage.conftest import flac, tone, utterance
from tests.tasks import test_importing as importing
from tests.tasks.world import World, ask, world

Row = dict[str, Any]


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path) as made, monkeypatch.context() as patch:
        patch.setattr(commits, "_rows", lambda item, _, plan: (said(item.episode, commits._identity(item, plan)), []))
        yield made


HERS, OTHERS = (0.0, 2.0), (6.0, 8.0)
"""When she speaks, and when the other one does."""
TURNS = [(HERS, 0), (OTHERS, 1)]


def said(episode: Episode, identity: Row) -> list[Row]:
    rows = []
    for number, ((start, end), label) in enumerate(TURNS):
        row = utterance(identity | {"title": episode.title}, number, emotion=None)
        place = {"start": start, "end": end, "duration": end - start}
        sound = {"audio": row["audio"] | {"bytes": flac(tone(number, seconds=end - start))}}
        rows.append(row | place | sound | {"speaker": f"{episode.name}#{episode.source_id}/S{label:02d}"})
    return rows


def spoken(show: World) -> list[tuple[str, float]]:
    rows = show.corpus.utterances(columns=["episode", "start"]).to_pylist()
    return [(row["episode"], row["start"]) for row in rows]


def take_out(show: World, name: str) -> None:
    forget_speakers(show.corpus, one_speaker(show.corpus, f"{name}#{show.id(name)}/S00"))


def test_who_was_taken_out_stays_out(show: World, monkeypatch: pytest.MonkeyPatch) -> None:
    show.put("a", "good talk|sound")
    show.build()
    assert len(spoken(show)) == 2
    take_out(show, "a")
    assert show.build() == [], "the recipe is the same: there is nothing to do"
    assert spoken(show) == [("a", OTHERS[0])]

    version = show.corpus.version()
    ask(show, "a", fetch=True)
    assert show.build() == ["a"]
    assert (spoken(show), show.corpus.version()) == ([("a", OTHERS[0])], version), "the same rows as after forgetting"

    # Another diarization counts otherwise, and hears her once more.
    monkeypatch.setitem(globals(), "TURNS", [(OTHERS, 0), ((0.2, 2.1), 1), ((3.0, 3.4), 1)])
    show.put("a", "good talk|video")  # the same sound in other bytes
    ask(show, "a", fetch=True)
    show.build()
    assert spoken(show) == [("a", OTHERS[0])]
    assert verify(show.corpus).problems == []


def test_another_recording_is_refused_and_the_same_one_known_by_its_bytes(show: World) -> None:
    show.put("a", "good talk")
    show.build()
    take_out(show, "a")
    show.put("b", "good talk")
    del show.files["a"]
    forget(show.corpus, [show.id("a")])
    show.build()
    assert spoken(show) == [("b", OTHERS[0])], "another address of the same recording"

    show.put("a", "good other talk")
    ask(show, "a", fetch=True)
    show.build()
    assert show.refused() == {"a": "recording_changed"}
    (detail,) = (detail for _, reason, detail in show.corpus.refusals().values() if reason == "recording_changed")
    assert "a person was taken out of this recording, and it is another file now" in detail
    assert show.build() == [], "that is final as long as the file is this one"
    assert verify(show.corpus).problems == []


def test_an_import_leaves_people_out_by_name(tmp_path: Path) -> None:
    corpus = importing.Corpus.open(tmp_path / "corpus", create=True)
    root = tmp_path / "set"
    importing.write(root, {"a": ["A low voice."], "b": ["A high voice."]})
    importing.imported(root, corpus)
    first, second = corpus.utterances(columns=["speaker"])["speaker"].to_pylist()
    assert forget_speakers(corpus, {first}).clips == 1
    importing.write(root, {"a": ["A low voice, again."], "b": ["A high voice."]})
    (again,) = importing.imported(root, corpus)
    assert again is not None
    assert (again.kept, again.found) == (1, 1)
    assert corpus.utterances(columns=["speaker"])["speaker"].to_pylist() == [second]
    assert first.encode() not in (corpus.place.read(LEFT_OUT) or b"")
