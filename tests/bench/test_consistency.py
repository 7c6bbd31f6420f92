import numpy as np

from bench.consistency import Clip, clips_of, contaminated, markdown, rules, score
from bench.corpus_quality import summarize
from fsclap.corpus.turns import Turn
from samples.timeline import TrueTurn


def clips(*counts: int) -> list[Clip]:
    """Clips of speakers whose voices are at right angles, by speaker."""
    rng, voices = np.random.default_rng(0), np.eye(len(counts), 16)
    return [
        Clip(label, f"speaker {label}", voices[label] + rng.normal(0, 0.05, 16))
        for label, count in enumerate(counts)
        for _ in range(count)
    ]


def test_wrong_clips_are_the_share_that_was_asked_for_and_another_speakers() -> None:
    given = clips(9, 6, 1)
    cases = list(contaminated(given, 0.25, np.random.default_rng(0)))
    assert [(right, len(vectors) - right) for vectors, right in cases] == [(9, 3), (6, 2)]
    for label, (vectors, right) in enumerate(cases):
        assert (np.argmax(vectors, axis=1) == label).tolist() == [True] * right + [False] * (len(vectors) - right)


def test_voices_at_right_angles_are_told_apart_by_every_threshold_between_them() -> None:
    figures = summarize([score(clips(9, 9), seed=0)])
    for rule in ("others 0.65", "core 0.65", "core 0.7"):
        assert figures[f"0.1/{rule}/lost"].value == 0
        assert figures[f"0.1/{rule}/removed"].value == 1
    assert figures["0.4/core 0.75/lost"].value == 0
    assert figures["found/core 0.7/kept"].value == figures["found/core 0.7/pure"].value == 1
    table = markdown({f"campplus/{name}": figure for name, figure in figures.items()})
    assert len(table.splitlines()) == 2 + len(rules())


def test_a_clip_of_two_voices_is_of_no_speaker() -> None:
    def turn(start: float, end: float) -> Turn:
        return Turn(start, end, 0, "", None, np.ones(2, dtype=np.float32))

    truth = [TrueTurn(0, 2, "a", None, "en", 0), TrueTurn(2, 4, "b", None, "en", 1)]
    found = clips_of([turn(0, 2), turn(1, 3), turn(2.1, 4)], truth, [np.ones(2), np.ones(2), None])
    assert [clip.speaker for clip in found] == ["a", None]
