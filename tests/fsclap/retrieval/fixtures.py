"""A corpus of clips cut from two real episodes, a small untrained model, and an index of both.

tests/conftest.py makes these fixtures available everywhere, so each is built once per session.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsclap.audio import encode_flac
from fsclap.data.splits import Split, SplitSettings
from fsclap.media import DecodeSettings, decode
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.retrieval.build import build_index
from fsclap.retrieval.search import Searcher
from storage.corpus import Corpus
from storage.versions import CorpusVersion
from tests.fsclap.conftest import SAMPLES

RATE = 24_000
CLIPS = 20
"""Of each of the two episodes."""
HOSTILE = "A <b>bold</b> voice <img src=x onerror=\"document.title='hit'\"> speaking slowly."
"""The caption of the first clip of the first episode."""
PITCHES, PACES = ("low", "high", "deep", "bright"), ("slowly", "fast", "evenly")
EPISODES = {"Crossed Lines": "crossed-lines/e01.mp4", "Dvě ryby": "dve-ryby/e01.mp4"}


@pytest.fixture(scope="session")
def waves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Series -> the sound of its episode, (samples,) float32 at RATE."""
    folder = tmp_path_factory.mktemp("decoded")
    return {
        series: decode(SAMPLES / media, folder / series, sample_rate=RATE, settings=DecodeSettings()).mean(axis=0)
        for series, media in EPISODES.items()
    }


@pytest.fixture(scope="session")
def corpus_folder(waves: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips; no test may change it."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus = Corpus.open(folder, create=True)
    for series, wave in waves.items():
        commit(corpus, series, wave)
    return folder


@pytest.fixture(scope="session")
def small_corpus(waves: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 20 of the 40 clips; no test may change it."""
    folder = tmp_path_factory.mktemp("small-corpus")
    commit(Corpus.open(folder, create=True), "Crossed Lines", waves["Crossed Lines"])
    return folder


@pytest.fixture(scope="session")
def version(corpus_folder: Path) -> CorpusVersion:
    return CorpusVersion.open(str(corpus_folder))


@pytest.fixture(scope="session")
def model_folder(version: CorpusVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "small", version)


@pytest.fixture(scope="session")
def index_folder(version: CorpusVersion, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the 40 clips; no test may change it."""
    folder = tmp_path_factory.mktemp("index")
    build_index(folder, model_folder, version, device="cpu", progress=False)
    return folder


@pytest.fixture(scope="session")
def small_index(small_corpus: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the 20 clips; no test may change it."""
    folder = tmp_path_factory.mktemp("small-index")
    build_index(folder, model_folder, CorpusVersion.open(str(small_corpus)), device="cpu", progress=False)
    return folder


@pytest.fixture(scope="session")
def searcher(index_folder: Path, version: CorpusVersion) -> Searcher:
    return Searcher.open(index_folder, sound=version.audio, device="cpu")


def make_model(folder: Path, version: CorpusVersion, *, seed: int = 0, **changes: Any) -> Path:
    """Save an untrained model as training does: random weights, with a split."""
    torch.manual_seed(seed)
    model = FSCLAP(ModelSettings(functionals="clip", width=16, heads=2, embedding=16).model_copy(update=changes))
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    ids = version.rows()["utterance_id"].to_pylist()
    split = Split(
        settings=SplitSettings(),
        train=ids[:20],
        validation=ids[20:24],
        test=ids[24:],
        removed={},
        voices=[],
        nearest={},
    )
    split.save(folder / "split.json")
    return folder


def commit(corpus: Corpus, series: str, wave: np.ndarray, *, clips: int = CLIPS, recipe: str = "recipe-1") -> str:
    """Commit an episode of a series; the id of the source."""
    source_id = hashlib.sha256(series.encode()).hexdigest()[:16]
    source = {
        "source_id": source_id,
        "series": series,
        "episode": "e01",
        "title": f"{series}, the first",
        "url": f"https://example.org/{source_id}.mp4",
        "recipe": recipe,
    }
    rows = [utterance(source, number, wave) for number in range(clips)]
    corpus.commit_source(
        {
            **source,
            "status": "kept",
            "media_sha256": hashlib.sha256(source_id.encode()).hexdigest(),
            "duration": len(wave) / RATE,
            "turns_found": clips,
            "turns_kept": clips,
            "turns_rejected": 0,
            "sound": None,
            "stage_seconds": {"decode": 0.1},
        },
        utterances=rows,
    )
    return source_id


def utterance(source: dict[str, Any], number: int, wave: np.ndarray) -> dict[str, Any]:
    first = source["series"] == "Crossed Lines"
    start, seconds = 1.3 * number, 0.6 + 0.1 * (number % 10)
    pitch, pace = PITCHES[number % 4], PACES[number % 3]
    caption = f"A {pitch} voice speaking {pace}, as {'one' if first else 'another'} person does."
    return {
        **source,
        "utterance_id": f"{source['source_id']}-{number:05d}",
        "start": start,
        "end": start + seconds,
        "duration": seconds,
        "speaker": f"{source['series']}/e01/S{number % 3:02d}",
        "similarity": 0.8,
        "text": f"sentence {number} of {source['series']}",
        "language": "en" if first else "cs",
        "text_confidence": None,
        "kind": "speech",
        "tagger_text": None,
        "emotion": ("sad", "happy", None)[number % 3],
        "emotion_confidence": (0.8, 0.9, None)[number % 3],
        "events": ["laughter"] if number % 4 == 0 else [],
        "quality": None,
        "overlap": 0.0,
        "attributes": {
            "pitch_hz": 100.0 + 5 * number,
            "pitch_range_st": 6.0,
            "pitch_slope_st": None,
            "energy_db": -24.0,
            "energy_range_db": 12.0,
            "speaking_rate": 4.0,
            "pause_ratio": 0.1,
            "voiced_ratio": 0.7,
            "spectral_tilt_db": 9.0,
            "aperiodicity": 0.2,
        },
        "style": [{"attribute": "pitch", "word": pitch}, {"attribute": "rate", "word": pace}],
        "style_key": f"pitch={pitch};rate={pace}",
        "caption": HOSTILE if first and number == 0 else caption,
        "caption_source": "grammar",
        "audio": {
            "bytes": encode_flac(wave[int(start * RATE) : int((start + seconds) * RATE)], RATE),
            "path": f"{number:05d}.flac",
        },
        "sample_rate": RATE,
        "speaker_embedding": np.eye(8, dtype=np.float32)[number % 3].tolist(),
        "separation_engine": "spleeter@1",
        "diarization_engine": "whisper-campplus@1",
        "captioning_engine": "acoustic@1",
    }
