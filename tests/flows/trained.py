"""A model that the real flow trained on clips of two real episodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.evaluate_fsclap import evaluate_fsclap
from flows.train_fsclap import train_fsclap
from fsclap.training.settings import TrainSettings
from storage.corpus import Corpus
from storage.schema import UTTERANCE
from tasks.outcomes import TrainedModel
from tests.fsclap.training.conftest import clip_table, tiny
from tests.sockets import Contact

Rows = list[dict[str, Any]]

COLUMNS = {
    "episode": "e01", "title": "Episode 1", "url": "https://example.org/e01.mp4", "language": "en", "similarity": 0.9,
    "text_confidence": None, "kind": "speech", "tagger_text": None, "quality": None, "overlap": 0.0,
    "events": [], "attributes": {}, "style": [], "caption_source": "grammar", "sample_rate": 24000, "recipe": "r",
    "separation_engine": "s@1", "diarization_engine": "d@1", "captioning_engine": "c@1", "start": 0.0,
    "emotion": None, "emotion_confidence": None,
}  # fmt: skip
"""What all clips of these corpora share."""


@dataclass(frozen=True)
class Place:
    """Where a corpus is, and where its models and work files go."""

    corpus: str
    models: str
    work: str

    @classmethod
    def within(cls, folder: Path) -> "Place":
        return cls(*(str(folder / name) for name in ("corpus", "models", "work")))

    def train(self, settings: TrainSettings, version: int | None = None) -> Any:
        """Run train-fsclap; its final state."""
        return train_fsclap(self.corpus, version, self.models, self.work, settings, return_state=True)

    def evaluate(self, trained: TrainedModel) -> Any:
        """Run evaluate-fsclap; its final state."""
        return evaluate_fsclap(trained.model, trained.corpus, trained.version, self.work, return_state=True)


@dataclass(frozen=True)
class Trained:
    """A trained model, the clips of its corpus by source, and whom the training asked for."""

    place: Place
    model: TrainedModel
    sources: dict[str, Rows]
    contacts: frozenset[Contact] = frozenset()


def train_once(folder: Path) -> Trained:
    """Commit 90 clips of two series as two sources, and train a small model on them."""
    sources: dict[str, Rows] = {}
    for row in clip_table(folder / "decoded").to_pylist():
        sources.setdefault("a" * 16 if row["series"] == "Lines" else "b" * 16, []).append(row)
    place = Place.within(folder)
    corpus = Corpus.open(place.corpus, create=True)
    for source_id, clips in sources.items():
        commit(corpus, clips, source_id)
    state = place.train(tiny())
    assert state.name == "Completed"
    return Trained(place, state.result(), sources)


def commit(corpus: Corpus, clips: Rows, source_id: str) -> None:
    """Commit clips as the kept utterances of one source."""
    rows = [
        COLUMNS | clip | {"source_id": source_id, "end": clip["duration"], "utterance_id": f"{source_id}-{number:05d}"}
        for number, clip in enumerate(clips)
    ]
    source = {name: COLUMNS[name] for name in ("episode", "title", "url", "recipe")} | {
        "source_id": source_id, "series": clips[0]["series"], "status": "kept", "media_sha256": "0" * 64,
        "duration": 60.0, "sound": None, "turns_found": len(rows), "turns_kept": len(rows), "turns_rejected": 0,
        "stage_seconds": {},
    }  # fmt: skip
    corpus.commit_source(source, utterances=pa.Table.from_pylist(rows, schema=UTTERANCE))
