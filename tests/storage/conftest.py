import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from storage.corpus import Corpus

RATE = 24_000
Rows = dict[str, Any]


def tone(seed: int, *, seconds: float) -> np.ndarray:
    """(samples,) int16: a glide and some noise, another one for each seed."""
    noise = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (120 + seed % 200 + 40 * t) * t) + 0.01 * noise.standard_normal(len(t))
    return (wave * 32767).astype(np.int16)


def flac(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def source_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def utterance(source: Rows, index: int, *, emotion: str | None) -> Rows:
    seed = int(source["source_id"][:6], 16) + index
    noise = np.random.default_rng(seed)
    seconds = float(np.round(noise.uniform(0.6, 1.6), 3))
    slow = index % 2 == 0
    style = {"pitch": "low" if index % 3 else "high", "rate": "slow" if slow else "fast"}
    return {
        **{key: source[key] for key in ("source_id", "series", "episode", "title", "url", "recipe")},
        "utterance_id": f"{source['source_id']}-{index:05d}",
        "start": 2.0 * index,
        "end": 2.0 * index + seconds,
        "duration": seconds,
        "speaker": f"{source['series']}/{source['episode']}/S{index % 2:02d}",
        "similarity": float(noise.uniform(0.7, 0.95)),
        "text": f"line {index}",
        "language": "en",
        "text_confidence": None,
        "kind": "speech",
        "tagger_text": None if emotion is None else f"Line {index}.",
        "emotion": emotion,
        "emotion_confidence": None if emotion is None else 0.8,
        "events": ["laughter"] if index % 4 == 0 else [],
        "quality": None if emotion is None else 3.2,
        "overlap": 0.0,
        "attributes": {
            "pitch_hz": float(noise.normal(180, 40)),
            "pitch_range_st": float(noise.uniform(2, 12)),
            "pitch_slope_st": None,
            "energy_db": float(noise.normal(-24, 3)),
            "energy_range_db": 12.0,
            "speaking_rate": float(noise.normal(4, 1)),
            "pause_ratio": 0.1,
            "voiced_ratio": 0.7,
            "spectral_tilt_db": 9.0,
            "aperiodicity": 0.2,
        },
        "style": style,
        "style_key": ";".join(f"{key}={word}" for key, word in style.items()),
        "caption": f"A {style['pitch']} voice speaking {'slowly' if slow else 'fast'}.",
        "caption_source": "grammar",
        "audio": {"bytes": flac(tone(seed, seconds=seconds)), "path": f"{index:05d}.flac"},
        "sample_rate": RATE,
        "speaker_embedding": noise.standard_normal(8).astype(np.float32).tolist(),
        "separation_engine": "spleeter@1",
        "diarization_engine": "whisper-campplus@1",
        "captioning_engine": "acoustic@1",
    }


def reject(source: Rows, index: int | None, *, stage: str, reason: str) -> Rows:
    turn = index is not None
    return {
        **{key: source[key] for key in ("source_id", "series", "episode", "url", "recipe")},
        "stage": stage,
        "reason": reason,
        "detail": f"refused: {reason}",
        "start": 100.0 + index if turn else None,
        "end": 101.0 + index if turn else None,
        "speaker": f"{source['series']}/{source['episode']}/S00" if turn else None,
        "similarity": 0.3 + 0.01 * index if turn else None,
        "text": "hm" if turn else None,
    }


def sound() -> Rows:
    """What the ledger says of a file with one track and no fault."""
    counts = {"track": 1, "tracks": 1, "holes": 0}
    return counts | {"start": 0.0, "missing_seconds": 0.0, "inverted_seconds": 0.0}


def rows_of(
    name: str,
    *,
    kept: int = 3,
    rejected: int = 2,
    status: str = "kept",
    recipe: str = "recipe-1",
    series: str = "series-a",
    emotion: str | None = None,
) -> Rows:
    source = {
        "source_id": source_id(name),
        "series": series,
        "episode": name,
        "title": f"Episode {name}",
        "url": f"https://example.org/{name}.mp4",
        "status": status,
        "recipe": recipe,
        "media_sha256": None if status == "failed" else hashlib.sha256(name.encode()).hexdigest(),
        "duration": None if status == "failed" else 60.0,
        "turns_found": kept + rejected,
        "turns_kept": kept,
        "turns_rejected": rejected,
        "sound": None if status == "failed" else sound(),
        "stage_seconds": {"decode": 0.4, "separation": 3.5, "diarization": 5.0},
    }
    rejects = [reject(source, index, stage="consistency", reason="below_threshold") for index in range(rejected)]
    if status != "kept":
        rejects.append(reject(source, None, stage="download", reason="http_404"))
    return {
        "source": source,
        "utterances": [utterance(source, index, emotion=emotion) for index in range(kept)],
        "rejects": rejects,
    }


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., Rows]:
    """Valid arguments of `Corpus.commit_source` for the episode of a name."""
    return rows_of


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.open(tmp_path / "corpus", create=True)


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports without a card: drawing its plots takes longer than everything else."""
    monkeypatch.setattr("storage.export.write_card", lambda *_, **__: None)
