from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from fsclap.clustering import mean_embeddings
from fsclap.corpus import linking
from fsclap.corpus.linking import (
    LinkedSpeaker,
    LinkingSettings,
    SpeakerCentroid,
    effective_threshold,
    link,
    speakers_of,
)

ENGINE = "whisper-campplus"
SETTINGS = LinkingSettings(threshold=0.7)
DIM = 64


def voice(number: int, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    own = np.random.default_rng([9, number]).normal(size=DIM)
    return own + noise * np.random.default_rng([7, number, seed]).normal(size=DIM)


def speaker(episode: str, label: int, centroid: np.ndarray | None, series: str = "A") -> SpeakerCentroid:
    source = f"{series}/{episode}"
    return SpeakerCentroid(f"{source}/S{label:02d}", source, series, episode, centroid, clips=3, seconds=9.5)


def show(episodes: int = 6, cast: int = 4) -> tuple[list[SpeakerCentroid], dict[str, int]]:
    """A series whose speakers have other labels in each episode, and who they are."""
    rng = np.random.default_rng(0)
    speakers, actors = [], {}
    for number in range(1, episodes + 1):
        for label, actor in enumerate(rng.permutation(cast)[:3].tolist()):
            speakers.append(speaker(f"e{number}", label, voice(actor, noise=0.4, seed=number)))
            actors[speakers[-1].name] = actor
    return speakers, actors


def persons(rows: list[LinkedSpeaker]) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.linked_speaker, set()).add(row.speaker)
    return {frozenset(members) for members in found.values()}


def test_a_person_is_found_under_every_label() -> None:
    speakers, actors = show()
    expected = {frozenset(name for name, actor in actors.items() if actor == who) for who in range(4)}
    assert persons(link(speakers, SETTINGS, engine=ENGINE)) == expected


def test_rows_are_what_came_in_by_episode_in_natural_order() -> None:
    speakers = [speaker("e10", 0, voice(1)), speaker("e2", 1, voice(0)), speaker("e2", 0, voice(1))]
    rows = link(speakers, SETTINGS, engine=ENGINE)
    assert [row.speaker for row in rows] == ["A/e2/S00", "A/e2/S01", "A/e10/S00"]
    assert [row.linked_speaker for row in rows] == ["A/e2/S00", "A/e2/S01", "A/e2/S00"]
    assert asdict(rows[2]) == {
        "speaker": "A/e10/S00",
        "linked_speaker": "A/e2/S00",
        "series": "A",
        "episode": "e10",
        "clips": 3,
        "seconds": 9.5,
        "similarity": pytest.approx(1.0),
    }
    assert rows[1].similarity is None


def test_similarity_is_the_mean_cosine_to_the_others_of_the_person() -> None:
    speakers = [speaker(f"e{n}", 0, voice(0, noise=0.3, seed=n)) for n in range(4)]
    units = [s.centroid / np.linalg.norm(s.centroid) for s in speakers if s.centroid is not None]
    for number, row in enumerate(link(speakers, SETTINGS, engine=ENGINE)):
        others = [unit for other, unit in enumerate(units) if other != number]
        assert row.similarity == pytest.approx(np.mean([units[number] @ unit for unit in others]))


def test_two_speakers_of_one_episode_are_never_one_person() -> None:
    speakers = [speaker("e1", 0, voice(0)), speaker("e1", 1, voice(0, noise=0.3))]
    speakers += [speaker("e2", 0, voice(0, noise=0.02)), speaker("e3", 0, voice(0, noise=0.02, seed=1))]
    rows = link(speakers, LinkingSettings(threshold=0.01), engine=ENGINE)
    assert {len(members) for members in persons(rows)} == {3, 1}
    assert rows[0].linked_speaker != rows[1].linked_speaker


def by_definition(speakers: list[SpeakerCentroid], threshold: float) -> set[frozenset[str]]:
    """Average link with constraints as it is written: always the nearest two clusters that may be joined."""
    units = {s.name: s.centroid / np.linalg.norm(s.centroid) for s in speakers if s.centroid is not None}
    episodes = {s.name: s.episode for s in speakers}
    clusters = [frozenset([name]) for name in units]
    while True:
        able = [
            (float(np.mean([units[a] @ units[b] for a in one for b in other])), one, other)
            for one, other in combinations(clusters, 2)
            if not {episodes[name] for name in one} & {episodes[name] for name in other}
        ]
        best = max(able, key=lambda candidate: candidate[0], default=None)
        if best is None or best[0] < threshold:
            return set(clusters)
        clusters = [c for c in clusters if c not in best[1:]] + [best[1] | best[2]]


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.4, 0.6, 0.8])
def test_equals_the_definition(threshold: float) -> None:
    rng = np.random.default_rng(int(100 * threshold))
    speakers = [
        speaker(f"e{episode}", label, voice(int(rng.integers(8)), noise=0.8, seed=4 * episode + label))
        for episode in range(12)
        for label in range(4)
    ]
    rows = link(speakers, LinkingSettings(threshold=threshold), engine=ENGINE)
    assert persons(rows) == by_definition(speakers, threshold)


def test_order_does_not_matter() -> None:
    speakers, _ = show()
    expected = link(speakers, SETTINGS, engine=ENGINE)
    for seed in range(5):
        shuffled = [speakers[n] for n in np.random.default_rng(seed).permutation(len(speakers))]
        assert link(shuffled, SETTINGS, engine=ENGINE) == expected


def test_persons_keep_their_names_when_later_episodes_come() -> None:
    speakers, _ = show(episodes=12)
    early = [s for s in speakers if int(s.episode[1:]) <= 5]
    before = {row.speaker: row.linked_speaker for row in link(early, SETTINGS, engine=ENGINE)}
    after = {row.speaker: row.linked_speaker for row in link(speakers, SETTINGS, engine=ENGINE)}
    assert before.items() <= after.items()


def test_series_have_nothing_to_do_with_each_other() -> None:
    speakers = [speaker("e1", 0, voice(0)), speaker("e2", 0, voice(0), series="B")]
    speakers.append(speaker("e3", 0, np.ones(5), series="C"))  # of another length: another engine
    rows = link(speakers, LinkingSettings(threshold=0.01), engine=ENGINE)
    assert [row.linked_speaker for row in rows] == [row.speaker for row in rows]


def test_a_speaker_without_embedding_is_a_person_alone() -> None:
    speakers = [speaker("e1", 0, None), speaker("e2", 0, voice(0)), speaker("e3", 0, voice(0)), speaker("e4", 0, None)]
    rows = link(speakers, SETTINGS, engine=ENGINE)
    assert [row.linked_speaker for row in rows] == ["A/e1/S00", "A/e2/S00", "A/e2/S00", "A/e4/S00"]
    assert [row.similarity is None for row in rows] == [True, False, False, True]
    assert link([], SETTINGS, engine=ENGINE) == []


def test_a_series_that_is_too_large_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linking, "MAX_SPEAKERS", 4)
    speakers = [speaker(f"e{n}", 0, voice(0)) for n in range(5)]
    rows = link(
        [*speakers, *(replace(s, name=f"B{s.name}", series="B") for s in speakers[:4])], SETTINGS, engine=ENGINE
    )
    assert len(persons([row for row in rows if row.series == "A"])) == 5
    assert len(persons([row for row in rows if row.series == "B"])) == 1
    assert "series A has 5 speakers" in caplog.text


@pytest.mark.parametrize(
    ("speakers", "message"),
    [
        ([speaker("e1", 0, voice(0))] * 2, r"'A/e1/S00' is given twice"),
        ([speaker("e1", 0, np.ones(4)), speaker("e2", 0, np.ones(5))], r"'A/e1/S00', \(4,\), and 'A/e2/S00', \(5,\)"),
        ([speaker("e1", 0, np.zeros(4))], r"'A/e1/S00' has norm 0\.0"),
        ([speaker("e1", 0, np.full(4, np.nan))], r"has norm nan"),
    ],
)
def test_what_cannot_be_linked(speakers: list[SpeakerCentroid], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        link(speakers, SETTINGS, engine=ENGINE)


def test_the_threshold_is_the_engines_unless_it_is_set() -> None:
    assert effective_threshold(LinkingSettings(), ENGINE) == 0.75
    assert effective_threshold(LinkingSettings(), "funasr") == 0.75
    assert effective_threshold(SETTINGS, "nemo") == 0.7
    with pytest.raises(ValueError, match=r"'nemo'.*linking\.threshold"):
        effective_threshold(LinkingSettings(), "nemo")


def test_mean_embeddings_are_directions_of_what_is_finite() -> None:
    clips = [("b", np.array([3.0, 0.0])), ("a", None), ("b", np.array([0.0, 3.0])), ("b", np.array([np.nan, 1.0]))]
    means = mean_embeddings([*clips, ("c", np.zeros(2))])
    assert list(means) == ["b", "a", "c"]
    np.testing.assert_allclose(means["b"], [0.5**0.5] * 2)
    assert means["a"] is None
    assert means["c"] is None


def test_speakers_of_a_corpus() -> None:
    row = {"source_id": "1", "series": "A", "episode": "e1", "speaker": "A/e1/S00", "duration": 1.5}
    row["speaker_embedding"] = [1.0, 0.0]
    rows = [row, row | {"duration": 2.0, "speaker_embedding": [0.0, 1.0]}]
    rows += [row | {"speaker": "A/e1/S01", "speaker_embedding": []}]
    first, second = speakers_of(pa.Table.from_pylist(rows))
    np.testing.assert_allclose(first.centroid, [0.5**0.5] * 2)
    assert (first.name, first.series, first.episode, first.clips, first.seconds) == ("A/e1/S00", "A", "e1", 2, 3.5)
    assert (second.name, second.centroid, second.clips) == ("A/e1/S01", None, 1)


def test_recordings_of_one_title_are_two_recordings() -> None:
    """Every episode of the feed is called media.mp3: one voice in two of them is one person."""
    one = SpeakerCentroid("A/media#1/S00", "1", "A", "media", voice(0), clips=3, seconds=9.5)
    two = SpeakerCentroid("A/media#2/S00", "2", "A", "media", voice(0, noise=0.1), clips=3, seconds=9.5)
    assert persons(link([one, two], SETTINGS, engine="x")) == {frozenset({one.name, two.name})}


def test_a_speaker_of_two_sources_is_left_out() -> None:
    """Rows of an earlier version, which named speakers after the title alone."""
    row = {"source_id": "1", "series": "A", "episode": "media", "speaker": "A/media/S00", "duration": 1.5}
    row["speaker_embedding"] = [1.0, 0.0]
    rows = [row, row | {"source_id": "2"}, row | {"speaker": "A/media/S01"}]
    assert [speaker.name for speaker in speakers_of(pa.Table.from_pylist(rows))] == ["A/media/S01"]
