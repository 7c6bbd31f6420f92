"""Queries as people type them: the set itself, what a query scores, and the rankings that are compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fsclap.corpus.captioning.bins import SCALES
from fsclap.corpus.captioning.grammar import load_grammar
from fsclap.data.measured import percentiles
from fsclap.evaluation.natural import (
    FEWEST,
    MEASURES,
    TOP,
    Query,
    Searched,
    content_words,
    load_queries,
    score,
    score_queries,
)
from fsclap.evaluation.results import Natural
from fsclap.evaluation.run import reading
from fsclap.evaluation.words import natural_meaning
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.wordings import held_out_wordings, load_wordings
from fsclap.weights import WeightsError
from tests.fsclap.evaluation import examples
from tests.fsclap.evaluation.test_report import words, write

LOW = Query(query="a cellar", targets={"pitch_hz": -1}, kind="character")
CLIPS = 60
PITCHES = ("very low", "low", "medium", "high", "very high")


def test_the_queries_are_a_test_set_of_every_measure() -> None:
    queries = load_queries()
    assert len(queries) >= 60
    assert len({query.query.lower() for query in queries}) == len(queries)
    assert {name for query in queries for name in query.targets} == set(MEASURES)
    assert set(MEASURES.values()) <= set(SCALES)


def test_no_content_word_of_a_query_is_in_the_grammar_or_the_wordings() -> None:
    phrases = load_grammar().phrases
    grammar = [word for words in phrases.values() for word in words]
    grammar += [p for words in phrases.values() for slots in words.values() for ps in slots.values() for p in ps]
    known = set().union(*(content_words(text) for text in [*grammar, *(w.phrase for w in load_wordings())]))
    assert len(known) > 1000
    assert {query.query: shared for query in load_queries() if (shared := content_words(query.query) & known)} == {}


def test_a_wording_is_held_out_because_of_a_query() -> None:
    tested = set().union(*(content_words(query.query) for query in load_queries()))
    assert [wording.phrase for wording in held_out_wordings() if not content_words(wording.phrase) & tested] == []


def test_a_phrase_stands_for_one_word_of_the_style() -> None:
    wordings = load_wordings() + held_out_wordings()
    assert len(wordings) > 7000
    assert len({wording.phrase.lower() for wording in wordings}) == len(wordings)
    known = {(name, word) for name, scale in SCALES.items() for word in scale.words if word}
    known |= {("pauses", "none"), ("voice_quality", "whispered"), ("voice_quality", "inaudible")}
    known |= {(name, word) for name in ("emotion", "events") for word in load_grammar().phrases[name]}
    assert {wording[:2] for wording in wordings} == known


def test_a_query_scores_the_percentiles_of_its_best_clips() -> None:
    pitches = np.append(np.linspace(80, 400, 101), np.nan)
    ranks = percentiles({"pitch": pitches})
    assert score(-np.arange(102.0), LOW, ranks) == pytest.approx(1 - TOP / 2 / 101)
    assert score(np.append(np.arange(101.0), -1.0), LOW, ranks) == pytest.approx(TOP / 2 / 101)
    assert score(np.append(np.zeros(101), 1.0), LOW, ranks) == pytest.approx(0.5, abs=0.2)  # unknown counts 0.5


def test_equal_scores_are_ordered_at_random() -> None:
    ranks = percentiles({"pitch": np.linspace(80, 400, 400)})
    reached = [score(np.zeros(400), LOW, ranks, seed=seed) for seed in range(40)]
    assert np.mean(reached) == pytest.approx(0.5, abs=0.05)
    assert len(set(reached)) == 40


def corpus(clips: int = CLIPS, **changes: list[object]) -> pa.Table:
    """Clips of one speaker whose pitch and rate rise, with the styles that belong to them."""
    attributes: list[object] = [
        {"pitch_hz": 80.0 + 4 * row, "speaking_rate": 2 + 0.1 * (row * 7 % clips)} for row in range(clips)
    ]
    keys = [
        f"pitch={('very low', 'low', 'medium', 'high', 'very high')[5 * row // clips]}"
        + (";speaking_rate=slow" * (row % 2))
        for row in range(clips)
    ]
    columns = {"attributes": attributes, "style_key": keys, "speaker": ["S00"] * clips, "source_id": ["e01"] * clips}
    return pa.table(columns | changes)


def searched(table: pa.Table, directions: int = 2) -> Searched:
    """Clips whose one vector says how high they are; a query that asks for high clips is embedded alike."""
    heights = np.linspace(-1, 1, len(table))
    vectors = np.stack([heights, np.sqrt(1 - heights**2)], axis=1)[:, :directions]
    return Searched.of(table, np.arange(len(table)), vectors)


def by_pitch(texts: Sequence[str]) -> np.ndarray:
    """A model that knows of each query whether it asks for high or low clips."""
    wanted = {query.query: query.targets.get("pitch_hz", 0) for query in load_queries()}
    return np.array([[wanted[text], 0.0] for text in texts])


def test_a_model_that_hears_pitch_is_near_the_ideal_where_pitch_is_asked_for_and_at_chance_elsewhere() -> None:
    found = score_queries(searched(corpus()), by_pitch, None, seed=0)
    assert (found.clips, found.left_out) == (CLIPS, "")
    assert set(found.rankings) == {"model", "ideal"}
    targets = {query.query: set(query.targets) for query in load_queries()}
    # Only what was measured is asked for, and every query of it.
    known = {"pitch_hz", "speaking_rate"}
    assert {query.query for query in found.queries} == {text for text, names in targets.items() if names <= known}
    pitched = [query.scores for query in found.queries if targets[query.query] == {"pitch_hz"}]
    assert len(pitched) >= 5
    best = 1 - TOP / 2 / CLIPS
    assert all(scores == {"model": pytest.approx(best), "ideal": pytest.approx(best)} for scores in pitched)
    others = [query.scores["model"] for query in found.queries if targets[query.query] == {"speaking_rate"}]
    assert np.mean(others) == pytest.approx(0.5, abs=0.15)
    scores = [query.scores["model"] for query in found.queries]
    ranking = found.rankings["model"]
    assert ranking.percentile.value == pytest.approx(np.mean(scores))
    assert ranking.percentile.low < ranking.percentile.value < ranking.percentile.high
    assert ranking.good == pytest.approx(np.mean(np.array(scores) > 0.7))
    assert [query.scores["model"] for query in found.worst(3)] == sorted(scores)[:3]


def test_the_words_of_the_clips_find_what_a_model_without_ears_does_not() -> None:
    def deaf(texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 2))

    clips = searched(corpus())
    read = reading(clips.style_keys)
    found = score_queries(clips, deaf, read, seed=0)
    assert set(found.rankings) == {"model", "words", "both", "ideal"}
    figures = {name: ranking.percentile.value for name, ranking in found.rankings.items()}
    assert figures["words"] > 0.65
    # A model that is indifferent leaves the order of the words as it is.
    assert figures["both"] == pytest.approx(figures["words"], abs=0.01)
    assert figures["words"] < figures["ideal"]
    # And one that hears pitch helps the words.
    helped = score_queries(clips, by_pitch, read, seed=0)
    assert helped.rankings["both"].percentile.value > figures["words"]


def test_without_styles_or_without_their_encoder_there_is_no_ranking_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = searched(corpus(style_key=[None] * CLIPS))
    read = reading(silent.style_keys)
    assert read is not None
    assert read("deep").asked(), "a model may hear the words that no clip has"
    assert set(score_queries(silent, by_pitch, read, seed=0).rankings) == {"model", "ideal"}

    def missing(self: SentenceTokens) -> None:
        raise WeightsError("pip install them")

    monkeypatch.setattr(SentenceTokens, "__init__", missing)
    assert reading(silent.style_keys) is None


def test_what_cannot_be_scored_is_left_out_with_the_reason() -> None:
    few = score_queries(searched(corpus(FEWEST - 1)), by_pitch, None, seed=0)
    assert (few.rankings, few.queries) == ({}, [])
    assert "19 clips are too few" in few.left_out
    assert score_queries(searched(corpus(FEWEST)), by_pitch, None, seed=0).left_out == ""
    unmeasured = corpus().drop_columns(["attributes"])
    assert "measured attributes" in score_queries(searched(unmeasured), by_pitch, None, seed=0).left_out
    same: list[object] = [{"pitch_hz": 100.0} for _ in range(CLIPS)]
    assert "measured attributes" in score_queries(searched(corpus(attributes=same)), by_pitch, None, seed=0).left_out
    nulls: list[object] = [{"pitch_hz": 100.0 + row} if row < FEWEST - 1 else None for row in range(CLIPS)]
    assert "measured attributes" in score_queries(searched(corpus(attributes=nulls)), by_pitch, None, seed=0).left_out


def test_what_is_usual_is_known_from_the_whole_corpus() -> None:
    levels: list[object] = [{"energy_db": -30.0 + row} for row in range(CLIPS)]
    table = corpus(attributes=levels)
    part = Searched.of(table, np.arange(0, CLIPS, 2), np.zeros((CLIPS // 2, 2)))
    whole = Searched.of(table, np.arange(CLIPS), np.zeros((CLIPS, 2)))
    assert part.measured["energy"].tolist() == whole.measured["energy"][::2].tolist()
    assert part.style_keys == whole.style_keys[::2]


# On the page and in words


def test_the_report_has_the_rankings_and_the_queries_that_fared_worst(tmp_path: Path) -> None:
    natural = examples.natural(*np.linspace(0.2, 0.95, 16))
    said = words(write(tmp_path, examples.evaluation(natural=natural)))
    assert natural_meaning(natural) in said
    assert "chance 50.0 %" in said
    assert "the words of the clips, no trained model 71.0 % (66.0 to 75.0) 55.0 %" in said
    assert "the best possible 92.0 % (91.0 to 93.0) 94.0 %" in said
    assert "query 0 20.0 % 71.2 % 72.3 % 93.4 % query 1 25.0 %" in said
    assert "query 9" in said
    assert "query 10" not in said


def test_the_report_says_why_nothing_was_scored_and_nothing_of_a_leaking_model(tmp_path: Path) -> None:
    left_out = Natural(clips=12, rankings={}, queries=[], left_out="12 clips are too few")
    said = words(write(tmp_path, examples.evaluation(natural=left_out)))
    assert "Queries as people type them were not scored: 12 clips are too few." in said
    assert "fared worst" not in said
    leaking = examples.evaluation(natural=examples.natural(0.6, 0.7), leak=examples.LEAKING)
    assert "Queries as people type them" not in words(write(tmp_path, leaking))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.6, "at 60.0 % (55.0 to 66.0) of the way to the far end on average; clips at random lie at 50 %, and the"),
        (0.52, "cannot tell the model from guessing"),
        (0.4, "the opposite of what is asked for"),
    ],
)
def test_the_words_say_no_more_than_the_figures(score: float, said: str) -> None:
    assert said in natural_meaning(examples.natural(score))
