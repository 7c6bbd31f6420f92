"""Try ffmpeg and the engines on a second of made-up sound, before anything is downloaded.

Loading an engine shows only that its files are there. A folder that can't be written to, an ffmpeg that describes
files in other words or a library of another version show when it runs: and then every source would be refused for it.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from fsclap import Hertz
from fsclap.corpus import captioning, diarization, filtering, separation
from fsclap.corpus.captioning import attributes
from fsclap.corpus.settings import BuildSettings
from fsclap.ffmpeg import ffmpeg_binary, ffmpeg_version
from fsclap.media import decode
from tasks.declared import Plan

RATE: Hertz = 44_100
FORMANTS = ((700, 150), (1200, 200), (2600, 300))
"""Centre and width in hertz: an "a"."""


class TrialError(RuntimeError):
    """A program or an engine doesn't work here. The message names it, and what it said."""


def try_out(plan: Plan) -> None:
    """Take a second of made-up sound through the decoder and every engine; once per process and settings.

    Raises:
        TrialError: One of them fails.
    """
    _tried(plan.settings)


def made_up_speech() -> np.ndarray:
    """Make a second of sound that a speech detector takes for speech: (samples,) float32 at RATE."""
    t = np.arange(RATE) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(6 * np.pi * t)) / RATE
    wave = np.zeros(RATE)
    for harmonic in range(1, 40):
        gain = 0.02 + sum(np.exp(-(((120 * harmonic - centre) / width) ** 2)) for centre, width in FORMANTS)
        wave += gain * np.sin(harmonic * phase)
    wave *= np.clip(np.sin(8 * np.pi * t) + 0.4, 0, 1)  # four syllables
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


@lru_cache(maxsize=8)
def _tried(settings: BuildSettings) -> None:
    speech = made_up_speech()

    def at(rate: Hertz) -> np.ndarray:
        return soxr.resample(speech, RATE, rate).astype(np.float32)

    with _explained(f"ffmpeg ({ffmpeg_binary()}, version {ffmpeg_version()})", "install another, or name none on PATH"):
        _decode(speech, settings)
    with _explained(f"the separation engine {settings.engine('separation')}"):
        separator = separation.load_separator(settings.separation, settings.device)
        mixture = np.stack([at(separator.sample_rate)] * 2)
        list(separator.separate([mixture], [np.zeros(mixture.shape[1], np.float32)]))
    with _explained(f"the diarization engine {settings.engine('diarization')}"):
        diarizer = diarization.load_diarizer(settings.diarization, settings.device)
        list(diarizer.diarize([at(diarizer.sample_rate)]))
    with _explained("the measurement of attributes"):
        attributes.measure(at(24_000), 24_000)
    _try_clips(captioning.load_tagger(settings.captioning, settings.device), "tag", at)
    _try_clips(filtering.load_scorer(settings.quality), "score", at)


def _try_clips(engine: object, method: str, at: Callable[[Hertz], np.ndarray]) -> None:
    if engine is not None:
        with _explained(f"the engine {getattr(engine, 'name', engine)}"):
            list(getattr(engine, method)([at(getattr(engine, "sample_rate"))]))  # noqa: B009 (a protocol each)


def _decode(speech: np.ndarray, settings: BuildSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "made-up.wav"
        soundfile.write(media, speech, RATE)
        limits = {"min_duration": 0.1, "max_duration": 60.0, "silence_dbfs": -60.0, "track": None}
        wave = decode(
            media, Path(folder) / "made-up.f32", sample_rate=RATE, settings=settings.decode.model_copy(update=limits)
        )
        if abs(wave.shape[1] - RATE) > RATE // 100:
            raise ValueError(f"it decoded {wave.shape[1]} samples of {RATE}")


@contextmanager
def _explained(what: str, remedy: str = "see the traceback in the log") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TrialError(
            f"{what} fails on a second of made-up sound ({type(error).__name__}: {error}). Nothing was downloaded; "
            f"{remedy}, then start the build again"
        ) from error
