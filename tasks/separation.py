"""Vocal separation (section 3.3): the voices of an episode without the music and noise under them."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prefect import task

from fsclap import Hertz, Seconds
from fsclap.audio import new_map, write_flac
from fsclap.corpus.fingerprint import fingerprint, to_text
from fsclap.corpus.separation import load_separator, loudness
from fsclap.corpus.separation.base import Separator
from fsclap.corpus.separation.base import separate as separate_vocals
from fsclap.corpus.separation.loudness import LoudnessSettings
from fsclap.corpus.settings import BuildSettings
from fsclap.media import decode
from fsclap.refusal import Refused
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import CORPUS_RATE, Plan
from tasks.outputs import DECODE, DOWNLOAD, SEPARATION, VOCALS
from tasks.stages import Product, Stage, Stopwatch, folder, outcome, pieces, run_stage, stage_cache_key


def separation_stage(store: WorkStore, plan: Plan) -> Stage:
    return Stage(
        name=SEPARATION,
        declared=plan.stages[SEPARATION],
        inputs=lambda item: [outcome(store, item.steps[DOWNLOAD]).facts["sha256"]],
        produce=lambda items: _separate_all(items, store, plan.settings),
    )


@task(
    task_run_name="separate {batch.name}",
    cache_key_fn=stage_cache_key(separation_stage),
    persist_result=True,
    timeout_seconds=12 * 3600,
)
def separate(batch: Batch, work: str, plan: Plan) -> Batch:
    """Decode the media of a batch and keep the vocals, 24 kHz mono."""
    store = WorkStore(work)
    return run_stage(separation_stage(store, plan), batch, store)


Decoded = tuple[np.ndarray | Refusal, Seconds]
"""(channels, samples) of sound, or the reason why there is none; and the seconds that decoding took."""


def _separate_all(items: list[Item], store: WorkStore, settings: BuildSettings) -> Iterator[Product | Refusal]:
    separator = load_separator(settings.separation, settings.device)

    def seconds(decoded: Decoded) -> Seconds:
        wave, _ = decoded
        return 0.0 if isinstance(wave, Refusal) else wave.shape[1] / separator.sample_rate

    with store.scratch() as scratch:
        decoded = (
            _decode(item, scratch / f"{number}.f32", store, settings, separator.sample_rate)
            for number, item in enumerate(items)
        )
        for piece in pieces(decoded, seconds):
            yield from _separate(piece, scratch, separator, settings)
            del piece  # a file that is still mapped keeps its room, and hours of video would fill the disk
            for file in scratch.iterdir():
                file.unlink()


def _separate(
    decoded: list[Decoded], scratch: Path, separator: Separator, settings: BuildSettings
) -> Iterator[Product | Refusal]:
    """Separate everything that could be decoded in one call: engines batch across files."""
    mixtures = [wave for wave, _ in decoded if not isinstance(wave, Refusal)]
    outputs = [new_map(scratch / f"vocals-{n}.f32", mixture.shape[1]) for n, mixture in enumerate(mixtures)]
    vocals = separate_vocals(separator, mixtures, outputs, settings.separation)
    for wave, decode_seconds in decoded:
        if isinstance(wave, Refusal):
            yield wave
            continue
        with Stopwatch() as watch:
            voice = next(vocals)
            gain = _gain(voice, separator.sample_rate, settings.loudness)
        sound = to_text(fingerprint(wave, separator.sample_rate))
        yield _product(voice, separator.sample_rate, gain, sound, decode_seconds, watch.seconds)


def _decode(item: Item, destination: Path, store: WorkStore, settings: BuildSettings, sample_rate: Hertz) -> Decoded:
    media = folder(store, item.steps[DOWNLOAD]) / outcome(store, item.steps[DOWNLOAD]).facts["file"]
    with Stopwatch() as watch:
        try:
            wave: np.ndarray | Refusal = decode(media, destination, sample_rate=sample_rate, settings=settings.decode)
        except Refused as refused:
            wave = Refusal.of(DECODE, refused)
    return wave, watch.seconds


def _gain(voice: np.ndarray, sample_rate: Hertz, settings: LoudnessSettings) -> float:
    return 1.0 if settings.target_lufs is None else loudness.gain(loudness.measure(voice, sample_rate), settings)


def _product(
    voice: np.ndarray, sample_rate: Hertz, gain: float, sound: str, decode_seconds: Seconds, seconds: Seconds
) -> Product:
    return Product(
        write=lambda target: write_flac(
            target / VOCALS, voice, sample_rate=sample_rate, to_rate=CORPUS_RATE, gain=gain
        ),
        seconds={DECODE: decode_seconds, SEPARATION: seconds},
        facts={
            "duration": round(len(voice) / sample_rate, 3),
            "gain_db": round(20 * math.log10(gain), 2),
            "sound": sound,
        },
    )
