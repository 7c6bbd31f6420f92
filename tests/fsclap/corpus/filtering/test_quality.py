import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from fsclap.corpus.filtering import dnsmos, load_scorer
from fsclap.corpus.filtering.quality import Quality, QualitySettings, Scorer
from fsclap.weights import WeightsError

RATE = 16_000


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    loaded = load_scorer(QualitySettings(engine="dnsmos"))
    assert loaded is not None
    return loaded


def score(scorer: Scorer, *clips: np.ndarray) -> list[Quality]:
    return list(scorer.score(clips))


@pytest.mark.parametrize("samples", [5_000, 72_080, 176_000, pytest.param(272_000, marks=pytest.mark.slow)])
def test_equals_the_package(scorer: Scorer, dry_mono: np.ndarray, samples: int) -> None:
    """One stretch of a clip repeated, one of a clip doubled, two; 17 s have one that the package leaves out."""
    reference = pytest.importorskip("speechmos.dnsmos").run(dry_mono[:samples], RATE)
    [found] = score(scorer, dry_mono[:samples])
    assert found.overall == pytest.approx(reference["ovrl_mos"], abs=1e-4)
    assert found.signal == pytest.approx(reference["sig_mos"], abs=1e-4)
    assert found.background == pytest.approx(reference["bak_mos"], abs=1e-4)


@pytest.mark.parametrize("samples", [1, 72_080, 144_160, 144_161, 16_000 * 16 + 160, 16_000 * 40])
def test_stretches_are_those_of_the_package(samples: int) -> None:
    length = samples
    while length < int(9.01 * RATE):
        length += length
    starts = []
    for second in range(int(np.floor(length / RATE) - 9.01) + 1):
        if len(range(int(second * RATE), min(int((second + 9.01) * RATE), length))) >= int(9.01 * RATE):
            starts.append(second * RATE)
    assert dnsmos._starts(samples) == starts


def band(samples: int) -> np.ndarray:
    """Chords of a plucked string every half second, with noise on every other: no voice."""
    rng = np.random.default_rng(0)
    beat, music = RATE // 2, np.zeros(samples)
    time = np.arange(beat) / RATE
    for number, at in enumerate(range(0, samples - beat, beat)):
        root = [110.0, 130.8, 98.0, 146.8][number // 4 % 4]
        for note in (root, root * 1.26, root * 1.5, root * 2):
            music[at : at + beat] += sum(np.sin(2 * np.pi * note * k * time) / k for k in range(1, 9)) * np.exp(
                -4 * time
            )
        music[at : at + beat] += (number % 2) * rng.normal(size=beat) * np.exp(-30 * time)
    return music


def test_music_lowers_the_scores_of_speech(scorer: Scorer, dry_mono: np.ndarray) -> None:
    voice = dry_mono[: 10 * RATE]
    music = band(len(voice)) * np.sqrt((voice @ voice) / np.square(band(len(voice))).sum())
    clips = [voice] + [(voice + music * 10 ** (-snr_db / 20)).astype(np.float32) for snr_db in (5, 0)]
    clean, some, much = score(scorer, *(clip / 2 for clip in clips))
    assert clean.overall - 0.1 > some.overall > much.overall + 0.1
    assert clean.background - 0.1 > some.background > much.background + 0.1


def test_a_clip_above_full_scale_is_rated_as_it_is_stored(scorer: Scorer, dry_mono: np.ndarray) -> None:
    voice = dry_mono[:40_000] / np.abs(dry_mono[:40_000]).max()
    loud, stored = score(scorer, 3 * voice, voice)
    assert loud.overall == pytest.approx(stored.overall, abs=1e-4)


@pytest.mark.parametrize(
    "clip", [np.zeros(0, np.float32), np.zeros((2, 9), np.float32), np.full(9, np.nan, np.float32)]
)
def test_refuses_what_has_no_quality(scorer: Scorer, clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="clip 1 of shape"):
        score(scorer, np.zeros(100, np.float32), clip)


def test_digital_silence_has_a_score(scorer: Scorer) -> None:
    [found] = score(scorer, np.zeros(5_000, np.float32))
    assert all(np.isfinite([found.overall, found.signal, found.background]))


def test_none_rates_nothing() -> None:
    assert load_scorer(QualitySettings()) is None


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"quality\.engine=dnsmos: .*speechmos.*requirements/weights\.txt"):
        dnsmos.DnsmosScorer(threads=1)


def test_settings_load_without_the_runtime() -> None:
    code = (
        "import sys; import fsclap.corpus.filtering.quality; "
        "sys.exit('onnxruntime' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
