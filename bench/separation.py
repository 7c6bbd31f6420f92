"""Compare the speed of separation with the `demucs` command: `python -m bench.separation`.

Both run htdemucs at its full size with the same random weights on the same files (stretches of the
samples' speech, 44.1 kHz stereo) on the same device, without shifts, each as a command in a process
of its own. Files are taken in rounds, the command first and this project second in each, so that
what else the machine does meets both alike.

    command        `python -m demucs -n htdemucs --two-stems vocals --shifts 0 --float32 FILES`
    ours           the same files through our separation, written as float32 WAV too
    ratio          seconds of the command per second of ours, with one start and load each
    ratio_running  the same without starts and loads
    difference     largest difference of a sample from the mean of the command's channels

and for a fifth as many files whose second half is silent, with `speech_only` on:
`half_silent_ratio`, `..._running`.

A round that is in the folder --work is not run again, so that a run that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from bench import report
from bench.flow import ROOT, SAMPLES, sample_waves
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import DemucsSettings, SeparationSettings, separate
from fsclap.weights import WeightsSettings

SAMPLE_RATE = 44_100
MODEL = "htdemucs"


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round: of sound, and of both sides, with the part before the first file."""

    audio: float
    command: float
    command_load: float
    ours: float
    ours_load: float
    difference: float


def write_files(
    folder: Path, *, count: int, seconds: tuple[float, float], half_silent: bool, samples: Path
) -> list[Path]:
    """Stretches of the samples' episodes, drawn with a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    with sample_waves(SAMPLE_RATE, samples) as waves:
        for number in range(count):
            wave = waves[number % len(waves)]
            length = min(int(rng.uniform(*seconds) * SAMPLE_RATE), wave.shape[1])
            start = int(rng.integers(wave.shape[1] - length + 1))
            part = np.array(wave[:, start : start + length])
            if half_silent:
                part[:, length // 2 :] = 0
            paths.append(folder / f"{number:03d}.wav")
            soundfile.write(paths[-1], part.T, SAMPLE_RATE, subtype="FLOAT")
    return paths


def run_round(files: Sequence[Path], settings: SeparationSettings, work: Path, device: str = "cpu") -> Round:
    """Run the command on the files, then ours."""
    options = f"-n {MODEL} --two-stems vocals --shifts 0 --float32 --clip-mode none -d {device}".split()
    folders = ["--repo", str(settings.demucs.weights.folder), "-o", str(work / "command")]
    command = [sys.executable, "-m", "demucs", *options, *folders]
    command_load = _seconds([*command, str(work / "no such file")])
    command_seconds = _seconds([*command, *map(str, files)])
    order = {
        "settings": settings.model_dump(mode="json"),
        "device": device,
        "files": [str(path) for path in files],
        "out": str(work),
        "started": time.time(),  # so that the start of the process and its imports count as loading
    }
    ours_seconds = _seconds([sys.executable, "-m", "bench.separation", "--worker", json.dumps(order)])
    return Round(
        audio=sum(soundfile.info(path).duration for path in files),
        command=command_seconds,
        command_load=command_load,
        ours=ours_seconds,
        ours_load=json.loads((work / "load.json").read_text()),
        difference=max(_difference(path, work) for path in files),
    )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def _difference(path: Path, work: Path) -> float:
    theirs = soundfile.read(work / "command" / MODEL / path.stem / "vocals.wav", dtype="float32")[0].mean(axis=1)
    ours = soundfile.read(work / path.name, dtype="float32")[0]
    return float(np.abs(theirs - ours).max())


def work_on(order: dict) -> None:
    """Separate the files of a round in a process of its own, and note how long loading took."""
    settings = SeparationSettings.model_validate(order["settings"])
    separator = load_separator(settings, order["device"])
    loaded = time.time() - order["started"]
    waves = [np.ascontiguousarray(soundfile.read(path, dtype="float32")[0].T) for path in order["files"]]
    outputs = [np.zeros(wave.shape[1], dtype=np.float32) for wave in waves]
    for path, vocals in zip(order["files"], separate(separator, waves, outputs, settings), strict=True):
        soundfile.write(Path(order["out"]) / Path(path).name, vocals, SAMPLE_RATE, subtype="FLOAT")
    (Path(order["out"]) / "load.json").write_text(json.dumps(loaded))


def figures(rounds: Sequence[Round]) -> dict[str, float]:
    """Ratios over all rounds, one start and load each."""
    command, command_load, ours, ours_load, audio = (
        sum(getattr(each, name) for each in rounds)
        for name in ("command", "command_load", "ours", "ours_load", "audio")
    )
    running, our_running = command - command_load, ours - ours_load
    return {
        "audio_seconds": audio,
        "command_seconds": running + command_load / len(rounds),
        "ours_seconds": our_running + ours_load / len(rounds),
        "ratio": (running + command_load / len(rounds)) / (our_running + ours_load / len(rounds)),
        "ratio_running": running / our_running,
        "ours_real_time": audio / our_running,
        "difference": max(each.difference for each in rounds),
    }


def measure(
    files: Sequence[Path], settings: SeparationSettings, work: Path, *, rounds: int, device: str
) -> dict[str, float]:
    """Every figure of one set of files; rounds that were measured before are read."""
    work.mkdir(parents=True, exist_ok=True)
    measured = []
    for number in range(rounds):
        record = work / f"round-{number}.json"
        if not record.exists():
            record.write_text(json.dumps(asdict(run_round(files[number::rounds], settings, work, device))))
        measured.append(Round(**json.loads(record.read_text())))
        print(f"{work.name}: round {number + 1} of {rounds}: {measured[-1]}", file=sys.stderr, flush=True)
    return figures(measured)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("bench.separation", __doc__)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--seconds", type=float, nargs=2, default=(6.0, 20.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="default: 16 on a GPU, the number of cores on a CPU")
    parser.add_argument("--half", action="store_true", help="our side in half precision; GPU only")
    parser.add_argument(
        "--samples", type=report.absolute_path, default=str(SAMPLES), help="default: the samples of the project"
    )
    parser.add_argument(
        "--work", type=report.absolute_path, default="data/bench/separation", help="files, weights, rounds"
    )
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.worker:
        work_on(options.worker)
        return
    from harness.models.demucs import write_demucs

    repo = options.work / "repo"
    if not repo.exists():
        write_demucs(repo, model=MODEL, layout="repo", size="full")
    settings = SeparationSettings(
        engine="demucs",
        batch=options.batch or (os.cpu_count() or 1 if options.device == "cpu" else 16),
        demucs=DemucsSettings(weights=WeightsSettings(name=MODEL, folder=repo), model=MODEL, half=options.half),
    )
    found: dict[str, float] = {}
    for name, count, half_silent in (("full", options.files, False), ("half_silent", -(-options.files // 5), True)):
        work = options.work / name
        files = write_files(
            work / "in", count=count, seconds=tuple(options.seconds), half_silent=half_silent, samples=options.samples
        )
        wanted = settings.model_copy(update={"speech_only": half_silent})
        prefix = "half_silent_" if half_silent else ""
        values = measure(files, wanted, work, rounds=min(options.rounds, count), device=options.device)
        found |= {f"{prefix}{key}": value for key, value in values.items()}
    del found["half_silent_difference"]  # Two different things there.
    print("\n".join(report.name_values(found)))
    content = {
        "settings": settings.model_dump(mode="json"),
        "device": options.device,
        "files": options.files,
        "figures": found,
    }
    report.write(options.json, content)


if __name__ == "__main__":
    main()
