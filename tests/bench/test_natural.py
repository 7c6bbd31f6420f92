from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bench.natural import (
    MEASURES,
    TOP,
    Query,
    content_words,
    load_queries,
    percentiles,
    read_by_words,
    score,
    style_of,
)
from fsclap.corpus.captioning.bins import SCALES
from fsclap.corpus.captioning.grammar import load_grammar
from fsclap.queries.wordings import load_wordings
from storage.schema import UTTERANCE


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
    known = set().union(*(content_words(text) for text in [*grammar, *(phrase for *_, phrase in load_wordings())]))
    assert len(known) > 1000
    assert {query.query: shared for query in load_queries() if (shared := content_words(query.query) & known)} == {}


def test_a_phrase_stands_for_one_word_of_the_style() -> None:
    wordings = load_wordings()
    assert len(wordings) > 4000
    assert len({phrase.lower() for *_, phrase in wordings}) == len(wordings)
    known = {(name, word) for name, scale in SCALES.items() for word in scale.words if word}
    known |= {("pauses", "none"), ("voice_quality", "whispered"), ("voice_quality", "inaudible")}
    known |= {(name, word) for name in ("emotion", "events") for word in load_grammar().phrases[name]}
    assert {(name, word) for name, word, *_ in wordings} == known


def rows(pitches: list[float | None]) -> list[dict[str, Any]]:
    return [{"attributes": {"pitch_hz": pitch, "pause_ratio": 0.1}, "speaker": "S00"} for pitch in pitches]


def test_a_query_scores_the_percentiles_of_its_best_clips() -> None:
    pitches = np.linspace(80, 400, 101)
    ranks = percentiles(rows([*pitches, None]))
    assert ranks["pitch_hz"][0] < 0.01
    assert ranks["pitch_hz"][100] > 0.99
    assert ranks["pitch_hz"][101] == ranks["pause_ratio"][0] == 0.5
    low = Query(query="a cellar", targets={"pitch_hz": -1}, kind="character")
    assert score(-np.arange(102.0), low, ranks) == pytest.approx(1 - TOP / 2 / 101)
    assert score(np.append(np.arange(101.0), -1.0), low, ranks) == pytest.approx(TOP / 2 / 101)
    assert score(np.zeros(102), low, ranks) == pytest.approx(0.5, abs=0.2)


def test_words_find_the_styles_that_a_query_means() -> None:
    table = pa.table(
        {
            "style": pa.array(
                [
                    [{"attribute": "pitch", "word": "very low"}],
                    [{"attribute": "pitch", "word": "very high"}],
                    [{"attribute": "speaking_rate", "word": "very fast"}],
                ],
                UTTERANCE.field("style").type,
            )
        }
    )
    styles = [style_of(row) for row in table.to_pylist()]
    assert styles[0] == {"pitch": "very low"}
    wordings = load_wordings()[::20]  # encoding all of them takes a quarter of a minute
    scores = read_by_words(["a bottomless bass", "chattering at a hundred miles an hour"], styles, wordings)
    assert scores.argmax(axis=1).tolist() == [0, 2]
    assert (scores >= 0).all()
    assert (scores <= 1).all()
