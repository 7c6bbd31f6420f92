"""The full profile: the real libraries on real speech, with small networks of random weights.

What the networks say means nothing; that each field of a row comes from the right one does.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.build_dataset import build_dataset
from fsclap.audio import decode_flac
from fsclap.corpus.captioning.grammar import load_grammar
from fsclap.corpus.settings import BuildSettings, weights_in_use
from fsclap.weights import LIBRARY, find_weights
from harness.models.full_profile import write_library
from harness.samples import cut, sample_episodes
from storage.corpus import Corpus
from storage.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ROOT = Path(__file__).parents[2]
FULL: dict[str, Any] = {
    "profile": "full",
    # Random voices are all alike, or not at all: the filter is not what this is about.
    "consistency": {"threshold": 0.0, "singletons": "keep"},
    "captioning": {"sensevoice": {"min_confidence": 0.0}},
    "quality": {"engine": "dnsmos"},
}


@dataclass(frozen=True)
class Built:
    corpus: str
    work: str
    episodes: Path

    def build(self, **settings: Any) -> Any:
        chosen = BuildSettings.model_validate(FULL | settings)
        return build_dataset([str(self.episodes)], self.corpus, self.work, chosen, return_state=True)

    def rows(self) -> list[dict[str, Any]]:
        return Corpus.open(self.corpus).utterances().to_pylist()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LIBRARY, str(folder))
        write_library()
        yield folder


@pytest.fixture(scope="module")
def built(library: Path, prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("full")
    episodes = sample_episodes()
    for number, episode in enumerate((episodes[0], episodes[-1]), start=1):
        cut(episode, folder / "series" / f"e{number:02d}.mp4", start=0, seconds=20)
    made = Built(str(folder / "corpus"), str(folder / "work"), folder / "series")
    assert made.build().is_completed()
    return made


def test_every_field_comes_from_the_library_that_makes_it(built: Built, library: Path) -> None:
    revisions = {
        setting: find_weights(weights, setting=setting).revision
        for setting, weights in weights_in_use(BuildSettings.model_validate(FULL)).items()
    }
    grammar = load_grammar()
    rows = built.rows()
    assert len(rows) >= 4
    for row in rows:
        assert row["separation_engine"].startswith("demucs@")
        assert revisions["separation.demucs.weights"] in row["separation_engine"]
        assert row["diarization_engine"].startswith("funasr@")
        assert all(revisions[f"diarization.funasr.{part}"] in row["diarization_engine"] for part in ("asr", "speaker"))
        assert row["captioning_engine"].startswith(f"sensevoice@{revisions['captioning.sensevoice.weights']}")
        assert np.linalg.norm(row["speaker_embedding"]) == pytest.approx(1, abs=1e-5)
        assert len(row["speaker_embedding"]) == 192
        assert row["emotion"] is None or row["emotion"] in grammar.phrases["emotion"]
        assert set(row["events"]) <= set(grammar.phrases["events"])
        assert row["language"] in (None, "zh", "en", "yue", "ja", "ko")
        assert "<|" not in row["text"] + row["tagger_text"]
        assert 1 <= row["quality"] <= 5
        assert 0 <= row["overlap"] <= 1
        wave, rate = decode_flac(row["audio"]["bytes"])
        assert rate == 24_000
        assert len(wave) == pytest.approx(row["duration"] * rate, abs=2)
    assert any(row["text"] for row in rows)
    assert any(row["tagger_text"] for row in rows)
    told = [row for row in rows if row["emotion"] is not None]
    assert told
    for row in told:
        assert 0 < row["emotion_confidence"] <= 1
        assert f"emotion={row['emotion']}" in row["style_key"]
        wordings = [phrase for _, phrase in grammar.wordings("emotion", row["emotion"])]
        assert any(phrase.lower() in row["caption"].lower() for phrase in wordings)


def test_every_turn_is_accounted_for_and_persons_are_linked(built: Built) -> None:
    corpus = Corpus.open(built.corpus)
    assert verify(corpus).problems == []
    for row in corpus.ledger().values():
        assert {"separation", "diarization", "tagging", "quality", "captioning"} <= set(row["stage_seconds"])
    speakers = corpus.speakers().to_pylist()
    assert {row["speaker"] for row in speakers} == {row["speaker"] for row in built.rows()}
    assert {row["linked_speaker"] for row in speakers} <= {row["speaker"] for row in speakers}


def test_a_second_run_computes_nothing(built: Built) -> None:
    version = Corpus.open(built.corpus).version()
    state = built.build()
    assert state.is_completed()
    assert Corpus.open(built.corpus).version() == version


def test_turns_in_another_language_or_of_low_quality_are_refused_with_the_reason(built: Built, tmp_path: Path) -> None:
    again = Built(str(tmp_path / "corpus"), built.work, built.episodes)
    state = again.build(selection={"languages": ["ko"], "min_quality": 4.9})
    assert state.is_failed()
    assert "other_language (turns)" in state.message
    rejects = [row for row in Corpus.open(again.corpus).rejects().to_pylist() if row["stage"] == "selection"]
    assert rejects
    assert {row["reason"] for row in rejects} <= {"other_language", "unknown_language", "low_quality"}
    assert all(re.search(r"selection\.(languages|min_quality)", row["detail"]) for row in rejects)


def test_a_run_without_weights_fails_before_anything_is_downloaded(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIBRARY, str(tmp_path / "empty"))
    # Other settings, since engines are loaded once in a process.
    state = Built(str(tmp_path / "corpus"), str(tmp_path / "work"), built.episodes).build(
        separation={"batch": 3}, diarization={"merge_gap": 0.4}
    )
    assert state.is_failed()
    assert "fsclap models fetch adefossez/HTDemucs --hub huggingface --revision main" in state.message
    assert not (tmp_path / "work").exists()


def test_a_device_that_is_not_there_fails_the_run(built: Built, tmp_path: Path) -> None:
    state = Built(str(tmp_path / "corpus"), str(tmp_path / "work"), built.episodes).build(device="cuda:77")
    assert state.is_failed()
    assert "device=cuda:77" in state.message


OFFLINE = """
import socket
import numpy as np
from pathlib import Path
from fsclap.corpus.captioning import load_tagger
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import separate
from fsclap.corpus.settings import BuildSettings

assert [name for _, name in socket.if_nameindex()] == ["lo"]
settings = BuildSettings(profile="full").resolved()
noise = np.random.default_rng(0).normal(0, 0.1, (2, 3 * 44_100)).astype(np.float32)
separator = load_separator(settings.separation)
list(separate(separator, [noise], [np.zeros(noise.shape[1], np.float32)], settings.separation))
clip = noise[0, : 3 * 16_000]
list(load_diarizer(settings.diarization).diarize([clip]))
print(list(load_tagger(settings.captioning).tag([clip])))
"""


def test_the_engines_load_and_run_with_the_network_cut(library: Path) -> None:
    """In a new network namespace a process has no interface to connect through."""
    cut_off = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    if cut_off.returncode != 0:
        pytest.skip("no right to make a network namespace here")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", OFFLINE],
        cwd=ROOT, env={**os.environ, LIBRARY: str(library)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Tags(" in done.stdout
