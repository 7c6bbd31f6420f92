"""Link speakers across episodes and score it against the actors: `python -m bench.linking`.

Each half of the dialogues of `bench.dialogues` is a series and each dialogue an episode of it,
taken through diarization and Eq. 5, on clean speech and on vocals separated from music at 5 dB. A
diarized speaker is the actor whose speech most of its time is. The rows, at each threshold:

    persons         number of persons; the last lines give the number of actors
    precision       of a speaker's person, the share that is the speaker's actor; mean over speakers (B-cubed)
    recall          of the speakers of a speaker's actor, the share in the speaker's person; same mean
    actor_recall    recall, as the mean over actors, so that minor roles count as much as leads
    pairs_wrong     share of the linked pairs of speakers that are two actors

`free` rows let two speakers of one episode be one person. The threshold is chosen on dev, and test
reports it. The time of linking is measured on random centroids.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from bench import report
from bench.corpus_quality import DATA_HELP, Recording, dialogues
from bench.dialogues import HALVES
from bench.flow import EMBEDDED
from bench.thresholds import embedded, waves
from fsclap.clustering import mean_embeddings
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.recogniser import NO_WORDS
from fsclap.corpus.diarization.whisper_campplus import WhisperCAMPlusPlus, split, turn_parts, turns
from fsclap.corpus.filtering.consistency import ConsistencySettings, judge
from fsclap.corpus.linking import LinkingSettings, SpeakerCentroid, link
from fsclap.corpus.separation import load_separator
from fsclap.corpus.turns import Turn
from samples.timeline import TrueTurn

log = logging.getLogger(__name__)

THRESHOLDS = tuple(round(0.6 + 0.02 * step, 2) for step in range(18))


@dataclass(frozen=True, slots=True)
class Row:
    """One threshold in one condition."""

    half: str
    condition: str
    constraint: str
    threshold: float
    persons: int
    precision: float
    recall: float
    actor_recall: float
    pairs_wrong: float


@dataclass(frozen=True, slots=True)
class Cast:
    """The diarized speakers of a series, and the actor that each of them is."""

    half: str
    condition: str
    speakers: tuple[SpeakerCentroid, ...]
    actors: dict[str, str]


def casts(engine: WhisperCAMPlusPlus, half: str, recordings: Sequence[Recording]) -> Iterator[Cast]:
    """Build the series of one half in each condition."""
    for condition, recorded in waves(recordings, load_separator(EMBEDDED.separation)):
        yield cast(half, condition, recordings, [_turns(engine, wave) for wave in recorded])


def _turns(engine: WhisperCAMPlusPlus, wave: np.ndarray) -> list[Turn]:
    voiced = next(iter(engine.voiced([wave])))
    parts, _ = turn_parts(split(voiced, engine.settings), wave, engine.settings)
    return turns(parts, [NO_WORDS] * len(parts), voiced.frames, engine.settings)


def cast(half: str, condition: str, recordings: Sequence[Recording], found: Sequence[list[Turn]]) -> Cast:
    """Collect the speakers that Eq. 5 leaves clips of."""
    speakers, actors = [], {}
    for recording, all_turns in zip(recordings, found, strict=True):
        verdicts = judge(all_turns, ConsistencySettings(), engine=WhisperCAMPlusPlus.name)
        kept = [turn for turn, verdict in zip(all_turns, verdicts, strict=True) if verdict.kept]
        by_name: dict[str, list[Turn]] = defaultdict(list)
        for turn in kept:
            by_name[f"{half}/{recording.name}/S{turn.speaker:02d}"].append(turn)
        centroids = mean_embeddings((name, turn.embedding) for name, own in by_name.items() for turn in own)
        for name, own in by_name.items():
            seconds = sum(turn.duration for turn in own)
            speakers.append(
                SpeakerCentroid(
                    name, f"{half}/{recording.name}", half, recording.name, centroids[name], len(own), seconds
                )
            )
            actors[name] = _actor(own, recording.turns)
    return Cast(half, condition, tuple(speakers), actors)


def _actor(found: Sequence[Turn], truth: Sequence[TrueTurn]) -> str:
    spoken: Counter[str] = Counter()
    for turn in found:
        for true in truth:
            spoken[true.speaker] += max(0.0, min(turn.end, true.end) - max(turn.start, true.start))
    return spoken.most_common(1)[0][0]


def sweep(series: Cast) -> Iterator[Row]:
    """Yield a row for each threshold, with the constraint and without."""
    free = [replace(speaker, source=speaker.name) for speaker in series.speakers]
    for constraint, speakers in (("episode", series.speakers), ("free", free)):
        for threshold in THRESHOLDS:
            linked = link(speakers, LinkingSettings(threshold=threshold), engine=WhisperCAMPlusPlus.name)
            persons = {row.speaker: row.linked_speaker for row in linked}
            figures = score(persons, series.actors)
            yield Row(series.half, series.condition, constraint, threshold, len(set(persons.values())), *figures)


def score(persons: dict[str, str], actors: dict[str, str]) -> tuple[float, float, float, float]:
    """Precision, recall, recall by actor, share of linked pairs that are wrong."""
    both = Counter((persons[name], actors[name]) for name in persons)
    by_person, by_actor = Counter(persons.values()), Counter(actors.values())
    precision = sum(n * n / by_person[person] for (person, _), n in both.items()) / len(persons)
    recalls: Counter[str] = Counter()
    for (_, actor), n in both.items():
        recalls[actor] += n * n / by_actor[actor]
    recall = sum(recalls.values()) / len(persons)
    actor_recall = float(np.mean([recalls[actor] / size for actor, size in by_actor.items()]))
    linked = sum(n * (n - 1) for n in by_person.values())
    right = sum(n * (n - 1) for n in both.values())
    return precision, recall, actor_recall, 1 - right / linked if linked else 0.0


def seconds_to_link(series: int, episodes: int, speakers: int, *, dim: int = 256) -> float:
    """Time the linking of random centroids; each series has twice as many voices as speakers."""
    rng = np.random.default_rng(0)
    everyone = []
    for number in range(series):
        voices = rng.normal(size=(2 * speakers, dim))
        for episode in range(episodes):
            for label, voice in enumerate(rng.permutation(2 * speakers)[:speakers]):
                name = f"{number}/{episode}/S{label:02d}"
                centroid = voices[voice] + 0.3 * rng.normal(size=dim)
                everyone.append(
                    SpeakerCentroid(name, f"{number}/{episode}", str(number), str(episode), centroid, 10, 30.0)
                )
    start = time.perf_counter()
    link(everyone, LinkingSettings(), engine=WhisperCAMPlusPlus.name)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.linking", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument("--limit", type=int, help="read the first N dialogues of each half only")
    options = parser.parse_args(arguments)
    engine = embedded(load_diarizer(EMBEDDED.diarization))
    series = [one for half in HALVES for one in casts(engine, half, dialogues(options.data / half, options.limit))]
    rows = [row for one in series for row in sweep(one)]
    print("\n".join(report.table(rows)))
    for one in series:
        print(f"{one.half} {one.condition}: {len(one.speakers)} speakers, {len(set(one.actors.values()))} actors")
    seconds = {
        "50 episodes of 10 speakers": seconds_to_link(1, 50, 10),
        "333 series of 50 episodes of 10 speakers": seconds_to_link(333, 50, 10),
        "one series of 800 episodes of 10 speakers": seconds_to_link(1, 800, 10),
    }
    print("\n".join(report.name_values(seconds)))
    content = {"engine": engine.revision, "rows": [asdict(row) for row in rows], "seconds": seconds}
    report.write(options.json, content)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
