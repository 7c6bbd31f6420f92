"""What becomes of speech that makes no turn."""

import json
from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus.turns import Diarized, Dropped, Turn, too_short
from fsclap.timeline import Section, Timeline
from storage.schema import REJECT
from tasks import commit, diarization
from tasks.batches import Refusal
from tasks.outputs import DROPPED
from tasks.stages import Product

SHORT = too_short(7.0, 7.3, 0.4)
TURN = Turn(1.0, 3.0, 0, "", None, np.ones(2, dtype=np.float32))


def test_it_is_written_beside_the_turns(tmp_path: Path) -> None:
    product = diarization._product(Diarized([TURN], [SHORT]), 0.1)
    assert isinstance(product, Product)
    product.write(tmp_path)
    assert [Dropped(**row) for row in json.loads((tmp_path / DROPPED).read_text())] == [SHORT]
    assert product.facts == {"turns": 1, "speakers": 1, "dropped": 1}


def test_it_is_a_reject_with_the_seconds_of_a_player() -> None:
    late = Timeline((Section(0.0, 100.0, 60.0),))
    row = commit._dropped(SHORT, {"source_id": "0" * 8, "series": "", "episode": "", "url": "", "recipe": ""}, late)
    assert set(row) == set(REJECT.names)
    assert (row["stage"], row["reason"], row["start"]) == ("diarization", "too_short", 107.0)
    assert row["end"] - row["start"] == pytest.approx(0.3)
    assert row["detail"] == "0.30 s are less than the shortest turn, 0.4 s"


def test_silence_that_stands_for_a_hole_is_cut_off() -> None:
    hole = Timeline((Section(0.0, 0.0, 7.2), Section(8.2, 20.0, 10.0)))
    found = diarization._within_sound(Diarized([TURN], [SHORT]), hole)
    assert [(turn.start, turn.end) for turn in found.turns] == [(1.0, 3.0)]
    assert [(one.start, one.end) for one in found.dropped] == [(7.0, 7.2)]


def test_a_recording_whose_speech_is_all_too_short_is_refused_and_says_so() -> None:
    refusal = diarization._product(Diarized([], [SHORT, too_short(9.0, 9.35, 0.4)]), 0.1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "no_speech"
    assert "the longest of 2 stretches begins at 9.00 s: 0.35 s are less than the shortest turn" in refusal.detail
    silent = diarization._product(Diarized([], []), 0.1)
    assert isinstance(silent, Refusal)
    assert silent.detail.startswith("no speech in the vocals")
