"""A small tree in the layout of the Debian packages, with recordings cut from the samples."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from samples.sources import ASTERISK, FILLETS, HEDGEWARS, LIBRIVOX, MUSIC, TRANSCRIPTS

SAMPLES = Path(__file__).parents[2] / "samples"
RATE = 22_050


def episode(name: str) -> tuple[np.ndarray, list[dict]]:
    series = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))["series"]
    turns = next(e["turns"] for s in series for e in s["episodes"] if e["file"] == name)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(SAMPLES / name)]
    sound = subprocess.run([*command, "-f", "f32le", "-ar", str(RATE), "-"], capture_output=True, check=True)
    return np.frombuffer(sound.stdout, dtype=np.float32), turns


def cast_as_fish(root: Path, language: str, names: Sequence[str]) -> None:
    """Put the turns of two speakers into a level, as the big and the small fish."""
    folder = root / FILLETS / "sound/city" / language
    folder.mkdir(parents=True)
    script = root / FILLETS / f"script/city/dialogs_{language}.lua"
    script.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (wave, turns) in enumerate(map(episode, names)):
        fonts = dict(zip(sorted({turn["speaker"] for turn in turns}), ("font_big", "font_small"), strict=False))
        for index, turn in enumerate(turns):
            if turn["speaker"] in fonts:
                name = f"line{number}-{index}"
                cut = wave[round(turn["start"] * RATE) : round(turn["end"] * RATE)]
                soundfile.write(folder / f"{name}.ogg", cut, RATE)
                entries.append(f'dialogId("{name}", "{fonts[turn["speaker"]]}", "-")\ndialogStr("line {name}")')
    script.write_text("\n\n".join(entries), encoding="utf-8")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree in the layout of the unpacked packages."""
    root = tmp_path_factory.mktemp("packages")
    cast_as_fish(root, "cs", ["dve-ryby/e03.mp4", "dve-ryby/e04.mp4"])
    cast_as_fish(root, "nl", ["crossed-lines/e03.mp4", "crossed-lines/e04.mp4"])
    for folder in (HEDGEWARS / "Sounds/voices", LIBRIVOX, *MUSIC):
        (root / folder).mkdir(parents=True)
    (root / LIBRIVOX / "transcription").write_text("")
    for line in TRANSCRIPTS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            path = root / ASTERISK / f"{line.partition(':')[0]}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(800))  # a tenth of a second: never long enough for a line
    for seed, name in enumerate(("one", "two", "three")):
        track = np.random.default_rng(seed).normal(scale=0.1, size=50 * RATE)
        soundfile.write(root / MUSIC[0] / f"{name}.ogg", track.astype(np.float32), RATE)
    return root
