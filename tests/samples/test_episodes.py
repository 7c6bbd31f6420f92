import itertools
import json
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from samples.timeline import speech_mask

SAMPLES = Path(__file__).parents[2] / "samples"
TRUTH = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))["series"]
EPISODES = [pytest.param(entry, id=entry["file"]) for series in TRUTH for entry in series["episodes"]]
RATE = 16_000


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def sound(path: Path) -> np.ndarray:
    result = ffmpeg("-v", "error", "-i", str(path), "-f", "f32le", "-ac", "1", "-ar", str(RATE), "-")
    assert result.returncode == 0, result.stderr
    return np.frombuffer(result.stdout, dtype=np.float32)


def test_two_series_of_four_episodes_within_ten_megabytes() -> None:
    files = sorted(SAMPLES.glob("*/*.mp4"))
    listed = sorted(entry["file"] for series in TRUTH for entry in series["episodes"])
    assert [str(path.relative_to(SAMPLES)) for path in files] == listed
    assert [len(series["episodes"]) for series in TRUTH] == [4, 4]
    assert max(path.stat().st_size for path in files) < 2_000_000
    assert sum(path.stat().st_size for path in files) <= 10_000_000


@pytest.mark.parametrize("episode", EPISODES)
def test_an_episode_is_h264_and_aac_with_its_title_and_licence(episode) -> None:
    result = ffmpeg("-i", str(SAMPLES / episode["file"]), "-f", "null", "-")
    report = result.stderr.decode()
    assert result.returncode == 0, report
    assert re.search(r"Video: h264.*320x180", report)
    assert re.search(r"Audio: aac.*44100 Hz, mono", report)
    assert re.search(rf"title\s+: {re.escape(episode['title'])}", report)
    assert re.search(rf"copyright\s+: {re.escape(episode['licence'])}", report)


@pytest.mark.parametrize("episode", EPISODES)
def test_the_truth_fits_the_sound(episode) -> None:
    wave = sound(SAMPLES / episode["file"])
    assert len(wave) / RATE == pytest.approx(episode["seconds"], abs=0.1)
    mask = speech_mask([(turn["start"], turn["end"]) for turn in episode["turns"]], len(wave), RATE)
    for stretch in episode["music"]:
        mask[round(stretch["start"] * RATE) : round(stretch["end"] * RATE)] = True
    assert np.mean(wave[~mask] ** 2) < 0.01 * np.mean(wave[mask] ** 2)


@pytest.mark.parametrize("episode", EPISODES)
def test_turns_are_in_order_and_everyone_speaks_three_lines(episode) -> None:
    turns = episode["turns"]
    assert len({turn["line"] for turn in turns}) >= 12
    assert all(a["end"] < b["start"] for a, b in itertools.pairwise(turns))
    assert turns[0]["start"] >= 0
    assert turns[-1]["end"] <= episode["seconds"]
    lines = {turn["line"]: turn["speaker"] for turn in turns}
    spoken = [list(lines.values()).count(speaker) for speaker in episode["speakers"]]
    assert set(lines.values()) == set(episode["speakers"])
    assert len(spoken) in (2, 3)
    assert min(spoken) >= 3


def test_each_licence_has_its_text() -> None:
    used = {entry["licence"] for series in TRUTH for entry in series["episodes"]}
    assert used == {"GFDL-1.3-only", "CC-BY-SA-3.0", "GPL-2.0-only"}
    for licence in used:
        text = SAMPLES / "licenses" / f"{licence.removesuffix('-only')}.txt"
        assert text.stat().st_size > 10_000
