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
from fsclap.media import Recording, decode_recording
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


Decoded = tuple[Recording | Refusal, Seconds]
"""Sound, or the reason why there is none; and the seconds that decoding took."""


def _separate_all(items: list[Item], store: WorkStore, settings: BuildSettings) -> Iterator[Product | Refusal]:
    separator = load_separator(settings.separation, settings.device)

    def seconds(decoded: Decoded) -> Seconds:
        recording, _ = decoded
        return 0.0 if isinstance(recording, Refusal) else recording.wave.shape[1] / separator.sample_rate

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
    mixtures = [recording.wave for recording, _ in decoded if not isinstance(recording, Refusal)]
    outputs = [new_map(scratch / f"vocals-{n}.f32", mixture.shape[1]) for n, mixture in enumerate(mixtures)]
    vocals = separate_vocals(separator, mixtures, outputs, settings.separation)
    for recording, decode_seconds in decoded:
        if isinstance(recording, Refusal):
            yield recording
            continue
        with Stopwatch() as watch:
            voice = next(vocals)
            gain = _gain(voice, separator.sample_rate, settings.loudness)
        sound = to_text(fingerprint(recording.wave, separator.sample_rate))
        seconds = {DECODE: decode_seconds, SEPARATION: watch.seconds}
        yield _product(recording, voice, separator.sample_rate, gain, sound, seconds)


def _decode(item: Item, destination: Path, store: WorkStore, settings: BuildSettings, sample_rate: Hertz) -> Decoded:
    media = folder(store, item.steps[DOWNLOAD]) / outcome(store, item.steps[DOWNLOAD]).facts["file"]
    with Stopwatch() as watch:
        try:
            recording: Recording | Refusal = decode_recording(
                media, destination, sample_rate=sample_rate, settings=settings.decode
            )
        except Refused as refused:
            recording = Refusal.of(DECODE, refused)
    return recording, watch.seconds


def _gain(voice: np.ndarray, sample_rate: Hertz, settings: LoudnessSettings) -> float:
    return 1.0 if settings.target_lufs is None else loudness.gain(loudness.measure(voice, sample_rate), settings)


def _product(
    recording: Recording, voice: np.ndarray, sample_rate: Hertz, gain: float, sound: str, seconds: dict[str, Seconds]
) -> Product:
    return Product(
        write=lambda target: write_flac(
            target / VOCALS, voice, sample_rate=sample_rate, to_rate=CORPUS_RATE, gain=gain
        ),
        seconds=seconds,
        facts={
            "duration": round(recording.timeline.sound, 3),
            "gain_db": round(20 * math.log10(gain), 2),
            "fingerprint": sound,
            "track": recording.track,
            "tracks": recording.tracks,
            "inverted_seconds": recording.inverted,
            "sections": recording.timeline.rows(),
        },
    )
