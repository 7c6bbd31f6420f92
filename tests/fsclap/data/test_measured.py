import numpy as np
import pyarrow as pa
import pytest

from fsclap.data.measured import clip_measures, percentiles, speaker_context
from fsclap.model.embedded import ProsodicFrames
from fsclap.model.functionals import CONTEXT


def rows(*clips: tuple[str, str, float, float]) -> pa.Table:
    """(recording, speaker, pitch, level) each."""
    return pa.Table.from_pylist(
        [
            {"source_id": source, "speaker": speaker, "attributes": {"pitch_hz": pitch, "energy_db": level}}
            for source, speaker, pitch, level in clips
        ]
    )


def test_a_clip_is_compared_with_its_speaker_in_its_recording() -> None:
    quiet = [("a", "S0", 100.0, -30.0), ("a", "S0", 100.0, -30.0), ("a", "S0", 200.0, -24.0)]
    loud = [("b", "S0", 400.0, -10.0), ("b", "S0", 400.0, -10.0), ("b", "S0", 400.0, -10.0)]
    found = clip_measures(rows(*quiet, *loud))
    assert found["pitch"].tolist() == [100, 100, 200, 400, 400, 400]
    assert found["energy"].tolist() == pytest.approx([-2, -2, 4, 0, 0, 0])
    assert found["relative_pitch"].tolist() == pytest.approx([-4, -4, 8, 0, 0, 0])
    assert np.isnan(found["speaking_rate"]).all()


def test_a_speaker_of_two_clips_has_no_usual() -> None:
    found = clip_measures(rows(("a", "S0", 100.0, -30.0), ("a", "S0", 200.0, -20.0)))
    assert all(np.isnan(found[name]).all() for name in CONTEXT)


def test_an_encoder_is_told_only_what_it_takes() -> None:
    table = rows(*[("a", "S0", 100.0, -30.0)] * 3)
    context = speaker_context(table, ProsodicFrames("speaker"))
    assert context is not None
    assert context[:, list(CONTEXT).index("energy")].tolist() == [0, 0, 0]
    assert np.isnan(context[:, list(CONTEXT).index("relative_rate")]).all()
    assert speaker_context(table, ProsodicFrames("clip")) is None


def test_rows_without_measurements_have_none() -> None:
    found = clip_measures(pa.table({"utterance_id": ["a", "b"]}))
    assert all(np.isnan(column).all() and len(column) == 2 for column in found.values())


def test_percentiles_leave_the_unknown_in_the_middle() -> None:
    ranks = percentiles({"pitch": np.array([100.0, np.nan, 300.0, 200.0])})
    assert ranks["pitch"].tolist() == pytest.approx([1 / 6, 0.5, 5 / 6, 0.5])
    assert percentiles({"pitch": np.array([np.nan])})["pitch"].tolist() == [0.5]
