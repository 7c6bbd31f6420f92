"""Time every engine of the full profile at its published size, with its memory and its floor.

    python -m bench.full_profile --seconds 120 --device cpu --json data/bench/full_profile.json

The weights are random (they are written to --weights once, 4 GB): the arithmetic is the same, what
comes out means
nothing. Every stage runs in a process of its own over the same batch of episodes, cut from the
samples, and is timed on its second run; its peak memory is that process's. The floor of a stage is
what its floating-point operations in matrix products and convolutions, counted by PyTorch as they
run, would take at the rate at which this machine multiplies large float32 matrices, measured in the
same process.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import report
from bench.flow import ROOT, sample_waves
from fsclap.audio import resample
from fsclap.corpus.captioning import attributes, load_tagger
from fsclap.corpus.captioning.base import Tags
from fsclap.corpus.captioning.describe import describe
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import separate
from fsclap.corpus.settings import BuildSettings
from fsclap.weights import LIBRARY

EPISODE = 60.0
"""Seconds of a short drama's episode; the paper's are 144 at most."""
TURN = 5.0
"""Seconds of a turn, where turns are the input: random weights find none worth the name."""
RATE = 16_000
DIARIZATION = {
    "detect": "FSMN-VAD",
    "transcribe": "Paraformer",
    "punctuate": "ct-punc",
    "voices": "CAM++, windows",
    "assign": "clustering",
    "embeddings": "CAM++, turns",
}
"""Method of the diarizer -> what is timed by it."""

Seconds = dict[str, float]
Stage = Callable[[list[np.ndarray], BuildSettings], Callable[[], Seconds]]
"""Takes episodes, (2, samples) float32 at 44.1 kHz; returns a function that times the loaded engine."""


def separation(episodes: list[np.ndarray], settings: BuildSettings) -> Callable[[], Seconds]:
    separator = load_separator(settings.separation, settings.device)

    def run() -> Seconds:
        outputs = [np.zeros(episode.shape[1], np.float32) for episode in episodes]
        return timed("Demucs", lambda: list(separate(separator, episodes, outputs, settings.separation)))

    return run


def diarization(episodes: list[np.ndarray], settings: BuildSettings) -> Callable[[], Seconds]:
    diarizer: Any = load_diarizer(settings.diarization, settings.device)
    recordings = [mono(episode) for episode in episodes]
    spent: Seconds = defaultdict(float)
    for method, name in DIARIZATION.items():
        setattr(diarizer, method, clocked(getattr(diarizer, method), name, spent))

    def run() -> Seconds:
        spent.clear()
        list(diarizer.diarize(recordings))
        return dict(spent)

    return run


def tagging(episodes: list[np.ndarray], settings: BuildSettings) -> Callable[[], Seconds]:
    tagger = load_tagger(settings.captioning, settings.device)
    assert tagger is not None
    clips = [clip for episode in episodes for clip in turns(mono(episode))]
    return lambda: timed("SenseVoice", lambda: tagger.tag(clips))


def measuring(episodes: list[np.ndarray], settings: BuildSettings) -> Callable[[], Seconds]:
    clips = [clip for episode in episodes for clip in turns(mono(episode))]
    names = [f"{number:05d}" for number in range(len(clips))]

    def run() -> Seconds:
        measured: list[Any] = []
        spent = timed("attributes", lambda: measured.extend(attributes.measure(clip, RATE) for clip in clips))
        words = functools.partial(describe, measured, speakers=["S00"] * len(clips), ids=names)
        tags = [Tags()] * len(clips)
        return spent | timed("descriptions", lambda: words(tags=tags, settings=settings.captioning))

    return run


def embedding(episodes: list[np.ndarray], settings: BuildSettings) -> Callable[[], Seconds]:
    from fsclap.model.settings import PAPER
    from fsclap.model.systems.fs_clap import FSCLAP

    model = FSCLAP(PAPER).eval().to(settings.device)
    rate = model.audio_encoder.sample_rate
    clips = [clip for episode in episodes for clip in turns(resample(episode.mean(axis=0), 44_100, rate), rate)]
    return lambda: timed("HTSAT and FS-CLAP", lambda: model.embed_audio(clips))


STAGES: dict[str, Stage] = {
    "separation": separation,
    "diarization": diarization,
    "tagging": tagging,
    "measuring": measuring,
    "embedding": embedding,
}


def turns(wave: np.ndarray, rate: int = RATE) -> list[np.ndarray]:
    step = int(TURN * rate)
    return [wave[start : start + step] for start in range(0, len(wave) - step + 1, step)]


def mono(episode: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(resample(np.asarray(episode).mean(axis=0), 44_100, RATE))


def timed(name: str, work: Callable[[], object]) -> Seconds:
    start = time.perf_counter()
    work()
    return {name: time.perf_counter() - start}


def clocked(method: Callable[..., Any], name: str, spent: Seconds) -> Callable[..., Any]:
    """Wrap a method so that it adds its seconds to `spent`; a generator is run to its end within it."""

    def run(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        found = method(*arguments, **named)
        result = iter(list(found)) if hasattr(found, "__next__") else found
        spent[name] += time.perf_counter() - start
        return result

    return run


def cut_episodes(count: int, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`count` minutes of the samples, one after the other and again from the first."""
    step = int(EPISODE * 44_100)
    minutes = [wave[:, start : start + step] for wave in waves for start in range(0, wave.shape[1] - step + 1, step)]
    return [minutes[number % len(minutes)] for number in range(count)]


def peak_rate(device: str) -> float:
    """Measure floating-point operations per second of large float32 products: the best of five."""
    size = 2048 if device == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        (left @ right).sum().item()
        rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def one_stage(name: str, settings: BuildSettings, *, seconds: float) -> dict[str, Any]:
    """Measure one stage, in a process of its own."""
    audio = max(1, round(seconds / EPISODE)) * EPISODE
    with sample_waves(44_100) as waves:
        episodes = cut_episodes(round(audio / EPISODE), waves)
        start = time.perf_counter()
        run = STAGES[name](episodes, settings)
        loading = time.perf_counter() - start
        run()
        spent = run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # PyTorch counts on the calling thread, and Demucs uses several where there are cores
        with FlopCounterMode(display=False) as counter:
            run()
        torch.set_num_threads(threads)
    cuda = settings.device.startswith("cuda")
    return {
        "audio_s": audio,
        "load_s": loading,
        "seconds": spent,
        "peak_gib": peak,
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "operations": counter.get_total_flops(),
        "floor_s": counter.get_total_flops() / peak_rate(settings.device),
    }


def all_stages(arguments: argparse.Namespace) -> dict[str, Any]:
    environment = {**os.environ, LIBRARY: str(arguments.weights)}
    results = {}
    for name in STAGES:
        command = [sys.executable, "-m", "bench.full_profile", "--only", name, "--seconds", str(arguments.seconds)]
        command += ["--device", arguments.device, "--batch", str(arguments.batch)]
        command += ["--batch-seconds", str(arguments.batch_seconds)]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {results[name]}", file=sys.stderr)
    return results


def table(results: dict[str, Any]) -> str:
    corpus = {name: stage for name, stage in results.items() if name != "embedding"}
    audio = next(iter(results.values()))["audio_s"]
    total = sum(sum(stage["seconds"].values()) for stage in corpus.values())
    lines = [
        "| stage | model | real-time factor | share of the time | floor of the stage | peak memory of the stage |",
        "|---|---|---|---|---|---|",
    ]
    for name, stage in corpus.items():
        lines += rows(name, stage, total)
    lines.append(f"| corpus, all of it | | {total / audio:.4f}: {audio / total:.1f} times real time | 100 % | | |")
    return "\n".join([*lines, *rows("embedding", results["embedding"], None)])


def rows(name: str, stage: dict[str, Any], total: float | None) -> list[str]:
    """Make a line for each model of a stage; shares of `total`, if it is a part of it."""
    memory = f"{stage['peak_gib']:.1f} GiB"
    if stage["peak_gpu_gib"] is not None:
        memory += f", {stage['peak_gpu_gib']:.1f} GiB of the GPU"
    firsts = [(name, f"{stage['floor_s'] / stage['audio_s']:.4f}", memory)]
    lines = []
    for (model, seconds), (first, floor, held) in zip(
        stage["seconds"].items(), firsts + [("", "", "")] * (len(stage["seconds"]) - 1), strict=True
    ):
        share = "" if total is None else f"{seconds / total:.1%}"
        lines.append(f"| {first} | {model} | {seconds / stage['audio_s']:.4f} | {share} | {floor} | {held} |")
    return lines


def settings_of(arguments: argparse.Namespace) -> BuildSettings:
    return BuildSettings.model_validate(
        {
            "profile": "full",
            "device": arguments.device,
            "separation": {"batch": arguments.batch, "demucs": {"half": arguments.device.startswith("cuda")}},
            "diarization": {"funasr": {"batch_seconds": arguments.batch_seconds}},
            "captioning": {"sensevoice": {"batch_seconds": arguments.batch_seconds}},
        }
    ).resolved()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.full_profile", __doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio, in episodes of a minute")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2, help="segments in a batch of the separation")
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="of sound in a batch of the other engines")
    parser.add_argument(
        "--weights", type=report.absolute_path, default="data/bench/full_weights", help="default: %(default)s"
    )
    parser.add_argument("--only", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(one_stage(options.only, settings_of(options), seconds=options.seconds)))
        return
    from harness.models.full_profile import write_library

    os.environ[LIBRARY] = str(options.weights)
    write_library(size="full")
    results = all_stages(options)
    print(json.dumps(report.machine()), table(results), sep="\n")
    report.write(options.json, {"stages": results})


if __name__ == "__main__":
    main()
