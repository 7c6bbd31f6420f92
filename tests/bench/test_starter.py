from pathlib import Path

import pytest

from bench import starter
from bench.style_corpus import PARTS
from fsclap.training.initial import STARTER
from samples.sources import Clip


def line(speaker: str, text: str | None, name: str = "a", seconds: float = 2.0) -> Clip:
    return Clip(Path(f"{name}.ogg"), speaker, "en", text, seconds)


def test_the_samples_and_the_test_part_are_kept_out() -> None:
    speakers, texts = starter.kept_out()
    assert set(PARTS["test"]) < speakers
    assert {"hedgewars/Pirate", "hedgewars/HillBilly", "fillets-cs/small-fish"} <= speakers
    assert len(texts) > 20


def test_no_line_of_theirs_is_trained_on_whoever_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    speakers, texts = starter.kept_out()
    theirs, ours = sorted(speakers)[0], "fillets-nl/big-fish"
    clips = [
        line(theirs, "What a mess."),
        line(ours, "What a mess."),
        line(ours, sorted(texts)[0]),
        line(ours, "Something else."),
        line(ours, None),
        line(ours, "Too short.", seconds=0.3),
    ]
    monkeypatch.setattr(starter, "all_clips", lambda root: clips)
    assert [clip.text for clip in starter.training_lines(Path())] == ["Something else.", None]


def test_the_shipped_model_was_trained_on_none_of_them() -> None:
    readme = (STARTER / "README.md").read_text()
    trained = {row.split("|")[1].strip() for row in readme.splitlines() if row.startswith("| ") and "/" in row}
    assert len(trained) >= 6
    assert not trained & starter.kept_out()[0]


def test_validation_is_of_other_speakers_and_only_as_they_are() -> None:
    said = [
        starter.Said(line(speaker, None, name), way, b"", starter.Attributes())
        for speaker, name in (("fillets-nl/big-fish", "a"), (starter.VALIDATION[0], "b"))
        for way in ("", "x0.82")
    ]
    split = starter.split_of(said)
    assert len(split.train) == 2
    assert [starter.VALIDATION[0] in id_ for id_ in split.validation] == [True]
