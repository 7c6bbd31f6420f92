from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fsclap.data.splits import PARTS, MixedEmbeddings, Split, SplitSettings, TooSmall, make_split
from tests.fsclap.training.conftest import voice

SMALL = SplitSettings(min_train_clips=4, min_eval_clips=2)


def table(rows: list[dict[str, object]]) -> pa.Table:
    """Clips with what a row does not say: its own caption, transcript and recording."""
    full = []
    for number, row in enumerate(rows):
        id_ = f"clip-{number:03d}"
        told = {"caption": f"caption {number}", "text": f"these are the words of {number}", "series": "A"}
        full.append({"utterance_id": id_, "audio_sha256": id_, "defect": None} | told | row)
    return pa.Table.from_pylist(full)


def clips(voices: list[int], *, each: int = 6, **row: object) -> list[dict[str, object]]:
    """Clips of voices, each a speaker of its own."""
    return [
        {"speaker": f"A/e01/S{number:02d}", "speaker_embedding": voice(number).tolist()} | row
        for number in voices
        for _ in range(each)
    ]


def part_of(split: Split, id_: str) -> str | None:
    return next((part for part in PARTS if id_ in split.ids(part)), None)


def test_a_voice_under_several_labels_is_in_one_part(corpus: pa.Table) -> None:
    speakers = dict(zip(corpus["utterance_id"].to_pylist(), corpus["speaker"].to_pylist(), strict=True))
    for seed in range(5):
        split = make_split(corpus, SplitSettings(seed=seed))
        heard = {part: {speakers[id_][-2:] for id_ in split.ids(part)} for part in PARTS}
        assert all(heard[a].isdisjoint(heard[b]) for a, b in combinations(PARTS, 2))
        assert all(len(v.speakers) == 2 and len({s[-2:] for s in v.speakers}) == 1 for v in split.voices)
        assert sum(len(split.ids(part)) for part in PARTS) + len(split.removed) == corpus.num_rows


def test_the_seed_decides(corpus: pa.Table) -> None:
    splits = [make_split(corpus, SplitSettings(seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len({tuple(split.test) for split in splits}) > 1
    assert splits[0].digest == splits[1].digest != splits[2].digest


def test_shares_are_met_where_voices_are_many() -> None:
    split = make_split(table(clips(list(range(40)))), SplitSettings(validation_share=0.2, test_share=0.1))
    assert [len(split.ids(part)) for part in PARTS] == [168, 48, 24]


def test_few_voices_still_fill_every_part() -> None:
    rows = clips([0], each=40) + clips([1, 2], each=2)
    split = make_split(table(rows), SMALL)
    assert sorted(len(split.ids(part)) for part in PARTS) == [2, 2, 40]


def test_series_by_pattern_without_voices_that_are_elsewhere() -> None:
    rows = clips([0, 1], series="Old show") + clips([2], series="New 1") + clips([3], series="New 2")
    rows += clips([2], each=3, series="Old show")  # a voice of the test series
    settings = SMALL.model_copy(update={"validation_series": ("New 1",), "test_series": ("New ?",)})
    with pytest.raises(TooSmall, match="validation 0"):
        make_split(table(rows), settings)  # New 1 matches both: test, the more protected, has it
    settings = settings.model_copy(update={"test_series": ("*2",)})
    split = make_split(table(rows), settings)
    assert [len(split.ids(part)) for part in PARTS] == [12, 6, 6]
    assert set(split.removed.values()) == {"its voice is in validation"}
    assert sorted(split.removed) == ["clip-024", "clip-025", "clip-026"]


def test_a_named_test_series_and_a_drawn_validation() -> None:
    rows = clips([0, 1, 2, 3], series="Old show") + clips([4], series="New")
    split = make_split(table(rows), SMALL.model_copy(update={"test_series": ("New",), "validation_share": 0.2}))
    assert split.test == [f"clip-{n:03d}" for n in range(24, 30)]
    assert (len(split.train), len(split.validation)) == (18, 6)


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"split\.test_series: 'Nwe' matches none of the series A"):
        make_split(table(clips([0, 1, 2])), SMALL.model_copy(update={"test_series": ("Nwe",)}))


@pytest.mark.parametrize(
    ("column", "text", "other", "what"),
    [
        ("caption", "A low voice.", "a LOW  voice. ", "caption"),
        ("text", "Come here at once", "come here at  once", "transcript"),
        ("audio_sha256", "same", "same", "recording"),
    ],
)
def test_what_a_more_protected_part_has_is_removed(column: str, text: str, other: str, what: str) -> None:
    rows = clips([0], each=20, series="train") + clips([1], series="valid") + clips([2], series="test")
    settings = SMALL.model_copy(update={"validation_series": ("valid",), "test_series": ("test",)})
    rows[3] |= {column: text}
    rows[22] |= {column: other}
    assert make_split(table(rows), settings).removed == {"clip-003": f"validation has its {what}"}
    rows[28] |= {column: text}
    expected = {"clip-003": f"test has its {what}", "clip-022": f"test has its {what}"}
    assert make_split(table(rows), settings).removed == expected


def test_what_may_be_in_several_parts() -> None:
    rows = clips([0], each=20, series="train") + clips([1], series="valid") + clips([2], series="test")
    for number in (0, 1, 22, 28):
        rows[number] |= {"text": "Oh, not again"}  # three words
    rows[4] |= {"caption": "twice in training"}
    rows[5] |= {"caption": "twice in training"}
    settings = SMALL.model_copy(update={"validation_series": ("valid",), "test_series": ("test",)})
    assert make_split(table(rows), settings).removed == {}


def test_defects_and_missing_captions_are_removed() -> None:
    rows = clips([0, 1, 2])
    rows[0] |= {"defect": "it cannot be read"}
    rows[7] |= {"caption": None}
    rows[8] |= {"caption": "  "}
    removed = make_split(table(rows), SMALL).removed
    assert removed == {
        "clip-000": "it cannot be read",
        "clip-007": "it has no caption",
        "clip-008": "it has no caption",
    }


def test_speakers_without_embedding_are_voices_of_their_own() -> None:
    rows = clips([0, 0, 1, 2])
    for row in rows:
        row["speaker_embedding"] = []
    rows[0]["speaker_embedding"] = [float("nan")] * 256
    split = make_split(table(rows), SMALL)
    assert len(split.voices) == 3
    assert split.nearest_training_speaker("test") is None


def test_voices_of_two_engines_are_not_compared() -> None:
    old = clips([0, 1, 2], diarization_engine="whisper-resemblyzer@1")
    new = clips([3, 4, 5], diarization_engine="whisper-campplus@2")
    with pytest.raises(MixedEmbeddings, match=r"whisper-campplus@2, whisper-resemblyzer@1.*Build its sources again"):
        make_split(table(old + new), SMALL)
    silent = [row | {"speaker_embedding": []} for row in old]
    assert make_split(table(silent + new), SMALL).train
    newer = clips([0, 1, 2], diarization_engine="whisper-campplus@3")
    assert make_split(table(newer + new), SMALL).train


def test_nearest_training_speaker_is_the_highest_cosine() -> None:
    rng = np.random.default_rng(0)
    rows = clips(list(range(6)), each=6)
    for row in rows:
        row["speaker_embedding"] = (np.array(row["speaker_embedding"]) + 0.03 * rng.normal(size=256)).tolist()
    corpus = table(rows)
    split = make_split(corpus, SMALL)
    means: dict[str, dict[str, list[np.ndarray]]] = {part: {} for part in PARTS}
    for row in corpus.to_pylist():
        part = part_of(split, row["utterance_id"])
        assert part is not None
        means[part].setdefault(row["speaker"], []).append(np.array(row["speaker_embedding"]))
    unit = {
        part: [np.mean(v, axis=0) / np.linalg.norm(np.mean(v, axis=0)) for v in speakers.values()]
        for part, speakers in means.items()
    }
    for part in PARTS[1:]:
        expected = max(a @ b for a in unit[part] for b in unit["train"])
        assert split.nearest_training_speaker(part) == pytest.approx(expected, abs=1e-6)


def test_a_later_version_keeps_every_part() -> None:
    rows = clips(list(range(12)))
    first = make_split(table(rows), SMALL)
    grown = table(rows + clips(list(range(20, 32)), each=20) + clips(list(range(12)), each=2))
    second = make_split(grown, SMALL.model_copy(update={"seed": 9}), first)
    for part in PARTS:
        assert set(first.ids(part)) <= set(second.ids(part))
        assert len(second.ids(part)) > len(first.ids(part))
    assert second.removed == {}
    unrelated = make_split(grown, SMALL.model_copy(update={"seed": 9}))
    assert any(not set(first.ids(part)) <= set(unrelated.ids(part)) for part in PARTS)


def test_voices_that_merge_take_the_protected_part_and_lose_what_was_trained_on() -> None:
    rows = clips(list(range(8)))
    first = make_split(table(rows), SMALL)
    trained, tested = (int(first.ids(part)[0][-3:]) // 6 for part in ("train", "test"))
    between = 0.5 * voice(trained) + voice(tested)
    merged = [dict(row) for row in rows]
    for row in merged[6 * trained : 6 * trained + 6]:
        row["speaker_embedding"] = between.tolist()
    second = make_split(table([*merged, *clips([tested], each=1)]), SMALL, first)
    moved = [f"clip-{6 * trained + n:03d}" for n in range(6)]
    assert second.removed == dict.fromkeys(moved, "voice moved: it was in train, its voice is now in test")
    assert set(first.test) <= set(second.test)
    third = make_split(table([*merged, *clips([40], each=9)]), SMALL, second)
    assert third.removed == second.removed  # not tested on in the version after, either


def test_too_small_says_what_there_is_and_what_is_needed() -> None:
    with pytest.raises(TooSmall, match=r"12 clips of 2 voices .* It needs 32 to train, 8 each .* three voices"):
        make_split(table(clips([0, 1])), SplitSettings())
    with pytest.raises(TooSmall, match="0 clips of 0 voices give train 0, validation 0, test 0"):
        make_split(table(clips([0])).slice(0, 0), SplitSettings())
    rows = [row | {"caption": "the same"} for row in clips([0, 1, 2], each=40)]
    with pytest.raises(TooSmall, match="80 as test has its caption"):
        make_split(table(rows), SplitSettings())


def test_survives_json(split: Split, tmp_path: Path) -> None:
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
