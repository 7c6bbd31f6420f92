from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fsclap.corpus.turns import NOISE, Turn, read_turns, write_turns

TURNS = [
    Turn(0.0, 1.5, 0, "你好。", "zh", np.array([0.6, 0.8], np.float32), 0.25, 0.9),
    Turn(1.5, 2.0, NOISE, "", None, None),
]


def same(one: Turn, other: Turn) -> bool:
    plain = ("start", "end", "speaker", "text", "language", "overlap", "confidence", "kind")
    vectors = one.embedding, other.embedding
    alike = all(v is None for v in vectors) or (
        vectors[0] is not None and vectors[1] is not None and np.array_equal(*vectors)
    )
    return alike and all(getattr(one, name) == getattr(other, name) for name in plain)


def test_turns_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_turns(tmp_path / "turns.parquet", TURNS)
    found = read_turns(tmp_path / "turns.parquet")
    assert all(same(one, other) for one, other in zip(found, TURNS, strict=True))
    assert found[0].embedding is not None
    assert found[0].embedding.dtype == np.float32


def test_a_file_from_before_there_was_a_column_has_none(tmp_path: Path) -> None:
    write_turns(tmp_path / "new.parquet", TURNS)
    pq.write_table(
        pq.read_table(tmp_path / "new.parquet").drop_columns(["overlap", "confidence", "kind"]),
        tmp_path / "old.parquet",
    )
    found = read_turns(tmp_path / "old.parquet")
    assert {(turn.overlap, turn.confidence, turn.kind) for turn in found} == {(None, None, "speech")}
