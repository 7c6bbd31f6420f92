"""Dialogues built from a small tree in the packages' layout, with recordings of the samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.dialogues import HALVES, SAMPLE_RATE, STEM_SNR_DB, build, main, mix
from samples.timeline import speech_mask


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dialogues")
    build(packages, out=out, minutes=0.5, seed=0)
    return out


def truths(out: Path, half: str) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / half).glob("*/truth.json"))]


def test_the_halves_share_neither_speakers_nor_music(built) -> None:
    speakers = [{s for truth in truths(built, half) for s in truth["speakers"]} for half in HALVES]
    tracks = [{truth["music"]["track"] for truth in truths(built, half)} for half in HALVES]
    assert speakers == [{f"fillets-{c}/{fish}-fish" for fish in ("big", "small")} for c in ("cs", "nl")]
    assert all(tracks)
    assert not tracks[0] & tracks[1]


@pytest.mark.parametrize("half", HALVES)
def test_sound_lies_where_the_truth_says(built, half) -> None:
    for folder in sorted((built / half).iterdir()):
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        clean, music = (soundfile.read(folder / f"{name}.flac")[0] for name in ("clean", "music"))
        assert len(clean) == len(music)
        assert len(clean) / SAMPLE_RATE == pytest.approx(truth["seconds"], abs=1e-3)
        mask = speech_mask([(t["start"], t["end"]) for t in truth["turns"]], len(clean), SAMPLE_RATE)
        assert np.sum(clean[~mask] ** 2) < 1e-3 * np.sum(clean[mask] ** 2)
        ratio = 10 * np.log10(np.mean(clean[mask] ** 2) / np.mean(music[mask] ** 2))
        assert ratio == pytest.approx(STEM_SNR_DB, abs=0.05)
        ordered = [time for turn in truth["turns"] for time in (turn["start"], turn["end"])]
        assert ordered == sorted(ordered)
        assert all(turn["text"].startswith("line ") or turn["text"] == "" for turn in truth["turns"])


def test_the_same_seed_gives_the_same_files_and_another_others(packages, built, tmp_path) -> None:
    build(packages, out=tmp_path / "same", minutes=0.5, seed=0)
    build(packages, out=tmp_path / "other", minutes=0.5, seed=1)
    files = sorted(path.relative_to(built) for path in built.rglob("*.*"))
    assert len(files) >= 6
    assert all((built / path).read_bytes() == (tmp_path / "same" / path).read_bytes() for path in files)
    assert truths(tmp_path / "other", "dev") != truths(built, "dev")


def test_music_is_mixed_at_the_ratio_asked_for() -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=10_000)
    music = rng.normal(size=10_000) * 10 ** (-STEM_SNR_DB / 20)
    for snr in (0.0, 5.0, 10.0):
        added = mix(clean, music, snr) - clean
        assert 10 * np.log10(np.mean(clean**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.2)


def test_more_than_there_is_to_say_is_refused(packages, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path), "--packages", str(packages), "--minutes", "60"])
    assert stop.value.code == 1
    assert "used up" in capsys.readouterr().err
