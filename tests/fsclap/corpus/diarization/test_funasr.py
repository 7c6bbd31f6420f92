"""The engine funasr, on small random-weight models of the published layout, against FunASR's own pipeline."""

import json
import logging
import os
import pickle
import random
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from funasr import AutoModel

from fsclap.corpus.diarization import funasr, load_diarizer
from fsclap.corpus.diarization.base import DiarizationSettings, FunASRSettings
from fsclap.corpus.diarization.funasr import (
    MIN_EMBEDDED,
    RATE,
    SEED,
    VAD_BLOCK,
    FunASRDiarizer,
)
from fsclap.corpus.diarization.paraformer import Segment, Transcript
from fsclap.corpus.diarization.sentences import Sentence, Stretch, parse_sentences, stretches
from fsclap.corpus.turns import NOISE, Diarized, Turn
from fsclap.devices import DeviceError
from fsclap.media import DecodeSettings, decode
from fsclap.weights import WeightsError, WeightsSettings
from harness.models.funasr import write_models

SAMPLES = Path(__file__).parents[4] / "samples"
PARTS = ("asr", "vad", "punc", "speaker")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four models, each under its setting's name."""
    models = tmp_path_factory.mktemp("models")
    write_models(models / "funasr")
    return models / "funasr"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def settings(folder: Path, **changed: Any) -> DiarizationSettings:
    weights = {part: WeightsSettings(name=f"iic/{part}", folder=folder / part) for part in PARTS}
    own = {name: changed.pop(name) for name in ("batch_seconds", "merge_threshold") if name in changed}
    return DiarizationSettings(engine="funasr", funasr=FunASRSettings(**weights, **own), **changed)


@pytest.fixture(scope="module")
def engine(folder: Path) -> FunASRDiarizer:
    loaded = load_diarizer(settings(folder))
    assert isinstance(loaded, FunASRDiarizer)
    return loaded


@pytest.fixture(scope="module")
def exact(folder: Path) -> FunASRDiarizer:
    """The engine, but what it clusters does not depend on the processor or the batch; see `in_double`."""
    return in_double(FunASRDiarizer(settings(folder)))


def in_double(engine: FunASRDiarizer) -> FunASRDiarizer:
    """Make its speaker network count with 64 bits; what goes in and comes out has 32.

    With random weights the windows of real speech have nearly equal neighbours. With 32 bits, the rounding of fifty
    layers would decide which of them share a cluster.
    """
    count_in_double(engine.speaker.network)
    return engine


def count_in_double(network: torch.nn.Module) -> None:
    forward = network.double().forward
    network.forward = lambda features: forward(features.double()).float()


@pytest.fixture(scope="module")
def reference(folder: Path) -> AutoModel:
    """FunASR's own pipeline over the same folders, weights loaded by itself; as exact as `exact`."""
    names = ("model", "vad_model", "punc_model", "spk_model")
    models = {name: str(folder / part) for name, part in zip(names, PARTS, strict=True)}
    loaded = AutoModel(**models, device="cpu", ncpu=torch.get_num_threads(), disable_update=True, disable_pbar=True)
    count_in_double(loaded.spk_model)
    return loaded


def wave_of(name: str, folder: Path) -> np.ndarray:
    stereo = decode(SAMPLES / name, folder / "wave", sample_rate=RATE, settings=DecodeSettings())
    return np.array(stereo.mean(axis=0), dtype=np.float32)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return wave_of("crossed-lines/e04.mp4", tmp_path_factory.mktemp("english"))[: 28 * RATE]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, english: np.ndarray) -> list[np.ndarray]:
    """Real speech of several lengths, with pauses, and a recording without any."""
    czech = wave_of("dve-ryby/e01.mp4", tmp_path_factory.mktemp("czech"))
    pause = np.zeros(3 * RATE, dtype=np.float32)
    paused = np.concatenate([czech[23 * RATE : 30 * RATE], pause, czech[30 * RATE : 34 * RATE]])
    return [english, np.zeros(3 * RATE, dtype=np.float32), paused, english[4 * RATE : 9 * RATE]]


@pytest.fixture(scope="module")
def sentences(exact: FunASRDiarizer, recordings: list[np.ndarray]) -> list[list[Sentence]]:
    return [own for own, _ in exact.heard(recordings)]


@pytest.fixture(scope="module")
def exact_turns(exact: FunASRDiarizer, recordings: list[np.ndarray]) -> list[list[Turn]]:
    return [found.turns for found in exact.diarize(recordings)]


@pytest.fixture(scope="module")
def turns(engine: FunASRDiarizer, recordings: list[np.ndarray]) -> list[list[Turn]]:
    return [found.turns for found in engine.diarize(recordings)]


@pytest.mark.slow
def test_sentences_are_those_of_funasr(
    reference: AutoModel, recordings: list[np.ndarray], sentences: list[list[Sentence]]
) -> None:
    assert [bool(found) for found in sentences] == [True, False, True, True]
    assert len(sentences[0]) > 5
    for wave, found in zip(recordings, sentences, strict=True):
        # What FunASR clusters with draws from the global generator.
        np.random.seed(SEED)
        (result,) = reference.generate(input=wave)
        expected = parse_sentences(result.get("sentence_info"), duration=len(wave) / RATE)
        assert found == expected
    assert len({sentence.speaker for sentence in sentences[0]}) > 1
    # A random model also speaks half words ("hel@@"), which FunASR times as it can.
    assert np.mean([bool(sentence.words) for found in sentences for sentence in found]) > 0.8


@pytest.mark.slow
def test_a_batch_changes_nothing(folder: Path, recordings: list[np.ndarray], exact_turns: list[list[Turn]]) -> None:
    one_by_one = in_double(FunASRDiarizer(settings(folder, batch_seconds=0.1)))
    for wave, together in zip(recordings, exact_turns, strict=True):
        (alone,) = one_by_one.diarize([wave])
        assert_same(alone.turns, together)


def assert_same(one: Sequence[Turn], other: Sequence[Turn]) -> None:
    plain = [[(t.start, t.end, t.speaker, t.text, t.language, t.overlap) for t in turns] for turns in (one, other)]
    assert plain[0] == plain[1]
    for a, b in zip(one, other, strict=True):
        assert (a.embedding is None) == (b.embedding is None)
        if a.embedding is not None and b.embedding is not None:
            # Rounding: fifty layers of random weights make it larger.
            assert a.embedding @ b.embedding > 0.9999


@pytest.mark.slow
def test_padding_changes_no_transcript(engine: FunASRDiarizer, english: np.ndarray) -> None:
    """FunASR's own batches do: its predictors look into the padding."""
    lengths = [0.5, 9.0, *(1 + 0.37 * number % 3 for number in range(24))]
    waves = [english[number * RATE :][: round(seconds * RATE)] for number, seconds in enumerate(lengths)]
    together = engine.recogniser.recognise(waves)
    assert together == [engine.recogniser.recognise([wave])[0] for wave in waves]
    assert len({len(transcript.times) for transcript in together}) > 5


def test_turns_have_every_field(turns: list[list[Turn]], recordings: list[np.ndarray]) -> None:
    assert turns[1] == []
    for wave, found in zip(recordings, turns, strict=True):
        assert all(before.end <= after.start for before, after in pairwise(found))
        for turn in found:
            assert 0 <= turn.start < turn.end <= len(wave) / RATE
            assert 0.4 <= turn.duration <= 15
            assert turn.text
            assert turn.overlap == 0.0
            assert (turn.embedding is None) == (turn.duration < MIN_EMBEDDED)
    vectors = np.stack([turn.embedding for found in turns for turn in found if turn.embedding is not None])
    assert (vectors.shape[1], vectors.dtype) == (192, np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors.std(axis=0).mean() > 0.01


def test_speakers_are_numbered_by_appearance(turns: list[list[Turn]]) -> None:
    for found in turns:
        labels = [turn.speaker for turn in found if turn.speaker != NOISE]
        assert list(dict.fromkeys(labels)) == list(range(len(set(labels))))


def test_the_language_is_what_the_settings_state(engine: FunASRDiarizer, english: np.ndarray) -> None:
    stated = object.__new__(FunASRDiarizer)
    stated.__dict__.update(engine.__dict__ | {"settings": engine.settings.model_copy(update={"language": "zh"})})
    (found,) = stated.diarize([english[: 5 * RATE]])
    assert {turn.language for turn in found.turns} == {"zh"}


@pytest.mark.slow
def test_the_same_recording_gives_the_same_turns_and_draws_nothing(
    exact: FunASRDiarizer, english: np.ndarray, exact_turns: list[list[Turn]], tmp_path: Path
) -> None:
    english.tofile(tmp_path / "wave")
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    (again,) = exact.diarize([np.memmap(tmp_path / "wave", dtype=np.float32, mode="r")])
    assert_same(again.turns, exact_turns[0])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]


def test_loading_leaves_the_process_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    root, threads = logging.getLogger(), torch.get_num_threads()
    level, handlers = root.level, list(root.handlers)
    FunASRDiarizer(settings(folder))
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    assert (torch.get_num_threads(), root.level, root.handlers) == (threads, level, handlers)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_speech_across_the_blocks_of_the_detector_is_as_funasr_hears_it(
    engine: FunASRDiarizer, reference: AutoModel, english: np.ndarray
) -> None:
    """Two and a half blocks; and one block exactly, behind which nothing follows."""
    paused = np.concatenate([english[: 11 * RATE], np.zeros(3 * RATE, dtype=np.float32)])
    long = np.tile(paused, 11)[: 5 * VAD_BLOCK // 2]
    for wave in (long, long[:VAD_BLOCK]):
        (result,) = reference.inference(wave, model=reference.vad_model, kwargs=reference.vad_kwargs)
        found = [[segment.start, segment.end] for segment in engine.detect(wave)]
        assert found == result["value"]
        assert len(found) > 1


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 3000, 16_000])
def test_short_and_silent_recordings_have_no_turn(engine: FunASRDiarizer, samples: int) -> None:
    assert list(engine.diarize([np.zeros(samples, dtype=np.float32)])) == [Diarized([], [])]


@pytest.mark.parametrize("samples", [1, 399, 400, 3000, 8000])
def test_short_recordings_of_noise_do_not_fail(engine: FunASRDiarizer, samples: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, samples).astype(np.float32)
    (found,) = engine.diarize([noise])
    assert all(turn.end <= samples / RATE for turn in found.turns)


def test_no_recordings_no_turns(engine: FunASRDiarizer) -> None:
    assert list(engine.diarize([])) == []


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 100), dtype=np.float32), r"recording 1 has shape \(2, 100\)"),
        (np.full(100, np.nan, dtype=np.float32), "recording 1 holds NaN"),
    ],
)
def test_refuses_what_is_not_a_recording(engine: FunASRDiarizer, wave: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(engine.diarize([np.zeros(100, dtype=np.float32), wave]))


@pytest.fixture
def altered(engine: FunASRDiarizer) -> Iterator[FunASRDiarizer]:
    """The engine, its networks to be changed; they are put back."""
    networks = [engine.recogniser.network, engine.vad.network, engine.punc.network]
    states = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    yield engine
    for network, state in zip(networks, states, strict=True):
        network.load_state_dict(state)


def test_silence_beyond_doubt_is_silence(altered: FunASRDiarizer, english: np.ndarray) -> None:
    """FunASR takes the logarithm of 1 - 1."""
    with torch.no_grad():
        output = altered.vad.network.encoder.out_linear2.linear
        output.weight *= 20
        output.bias *= 20
    silent = np.zeros(2 * RATE, dtype=np.float32)
    assert altered.detect(silent) == []
    assert altered.detect(np.concatenate([silent, english[: 4 * RATE], silent]))


def test_speech_without_a_token_is_dropped_with_its_times(
    altered: FunASRDiarizer, english: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FunASR fails with an IndexError, on a CPU."""
    with torch.no_grad():
        altered.recogniser.network.predictor.cif_output.bias.fill_(-50)
    speech = [(segment.start / 1000, segment.end / 1000) for segment in altered.detect(english)]
    (found,) = altered.diarize([english])
    assert found.turns == []
    assert [(one.start, one.end) for one in found.dropped] == speech
    assert {one.reason for one in found.dropped} == {"no_words"}
    monkeypatch.setattr(altered, "settings", altered.settings.model_copy(update={"events": True, "max_turn": 29.0}))
    (kept,) = altered.diarize([english])
    assert [(turn.start, turn.end) for turn in kept.turns] == speech
    assert {(turn.kind, turn.text) for turn in kept.turns} == {("event", "")}
    assert kept.dropped == []


def test_words_that_are_not_timed_are_left_out(
    altered: FunASRDiarizer, english: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.no_grad():
        altered.recogniser.network.predictor.cif_output2.bias.fill_(-50)
    with caplog.at_level(logging.INFO):
        assert altered.recogniser.recognise([english[: 3 * RATE]]) == [Transcript("", [])]
    assert "words are left out" in caplog.text


def test_when_the_punctuation_counts_otherwise_each_stretch_is_a_sentence(
    engine: FunASRDiarizer, caplog: pytest.LogCaptureFixture
) -> None:
    """FunASR makes one sentence of one speaker out of the whole recording."""
    heard = [Transcript("你 好", [[0, 300], [300, 900]]), Transcript("", []), Transcript("a% 你", [[0, 500]])]
    segments = [Segment(0, 1000, 2000), Segment(0, 3000, 4000), Segment(0, 5000, 6000)]
    info = engine.punctuate(list(zip(segments, heard, strict=True)))
    assert "each stretch of speech is a sentence" in caplog.text
    found = parse_sentences([one | {"spk": 0} for one in info], duration=10.0)
    assert [(s.start, s.end, s.text) for s in found] == [(1.0, 1.9, "你好"), (5.0, 5.5, "a% 你")]


def test_few_windows_are_one_speaker(engine: FunASRDiarizer) -> None:
    points = voices(2, 10, spread=0.3)
    assert set(engine.cluster(points[:19])) == {0}
    assert set(engine.cluster(points)) == {0, 1}


@pytest.mark.parametrize("each", [4, 40, 700])
def test_a_known_number_of_speakers_is_kept(engine: FunASRDiarizer, monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    points = voices(3, each, spread=0.3)
    for known in (1, 3, 5):
        monkeypatch.setattr(engine, "settings", engine.settings.model_copy(update={"speakers": known}))
        labels = engine.cluster(points)
        assert len(set(labels.tolist())) == known
        if known == 3:
            assert len({*zip(labels.tolist(), np.repeat(range(3), each).tolist(), strict=True)}) == 3


def voices(count: int, each: int, *, spread: float) -> np.ndarray:
    """(count * each, 192) embeddings around `count` directions."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.normal(size=(count, 192)), each, axis=0)
    return (centers + spread * rng.normal(size=centers.shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "each"),
    [
        pytest.param(3, 40, id="spectral"),
        pytest.param(3, 700, id="umap-hdbscan", marks=pytest.mark.slow),
    ],
)
def test_clusters_are_speakers_and_the_same_each_time(engine: FunASRDiarizer, count: int, each: int) -> None:
    points = voices(count, each, spread=0.3)
    labels = engine.cluster(points)
    assert len({(label, index // each) for index, label in enumerate(labels.tolist()) if label >= 0}) == count
    assert np.mean(labels >= 0) > 0.9
    np.random.seed(99)
    np.testing.assert_array_equal(engine.cluster(points), labels)


def test_noise_of_the_clustering_is_no_speaker(engine: FunASRDiarizer, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [(float(at), at + 1.5) for at in range(0, 20, 2)]
    labels = np.array([1] * 4 + [-1] * 3 + [0] * 3)
    monkeypatch.setattr(engine, "cluster", lambda points: labels)
    info = [{"text": "好", "start": 2000 * at, "end": 2000 * at + 1500} for at in range(10)]
    noise = engine.assign(info, spans, np.zeros((10, 192), np.float32))
    found = parse_sentences(info, duration=30.0, noise=noise)
    assert [sentence.speaker for sentence in found] == [0] * 4 + [NOISE] * 3 + [2] * 3


def test_all_noise_is_no_speaker(engine: FunASRDiarizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """FunASR's merging of clusters fails with an AssertionError."""
    monkeypatch.setattr(funasr, "SPECTRAL", 5)
    monkeypatch.setattr(funasr, "_umap_hdbscan", lambda points, like: np.full(len(points), -1))
    assert set(engine.cluster(np.ones((30, 192), np.float32))) == {-1}


@pytest.mark.slow
def test_a_turn_is_embedded_by_its_own_sound(engine: FunASRDiarizer, english: np.ndarray) -> None:
    found = [Stretch(1.0, 3.0, 0, ""), Stretch(3.0, 3.4, 0, ""), Stretch(3.4, 24.6, 0, "")]
    first, short, long = engine.embeddings([english], [found])
    assert short is None
    assert first is not None
    (alone,) = engine._embed([english[RATE : 3 * RATE]])
    np.testing.assert_allclose(first, alone / np.linalg.norm(alone), atol=1e-3)
    assert long is not None
    parts = [english[part.start : part.stop] for part in funasr._parts(found[2], len(english))]
    mean = sum(vector / np.linalg.norm(vector) for vector in engine._embed(parts))
    np.testing.assert_allclose(long, mean / np.linalg.norm(mean), atol=1e-3)


def test_long_turns_are_embedded_in_parts_of_bounded_length(engine: FunASRDiarizer) -> None:
    parts = funasr._parts(Stretch(2.0, 27.1, 0, ""), 100 * RATE)
    assert len(parts) == 3
    assert all(len(part) <= 10 * RATE and len(part) % (RATE // 4) == 0 for part in parts)
    assert all(before.stop <= after.start for before, after in pairwise(parts))
    assert parts[0].start >= 2 * RATE
    assert parts[-1].stop <= 27.1 * RATE


def test_no_more_than_a_batch_is_read_at_once(
    folder: Path, english: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes through the networks at once is bounded by the settings, or the longest stretch of speech."""
    bounded = FunASRDiarizer(settings(folder, batch_seconds=12.0))
    read: list[float] = []

    def counted(batches: Any) -> None:
        run = batches._run

        def counting(waves: list[np.ndarray]) -> Any:
            read.append(len(waves) * max(map(len, waves)) / RATE)
            return run(waves)

        monkeypatch.setattr(batches, "_run", counting)

    counted(bounded.recogniser._batches)
    counted(bounded._embedded)
    pause = np.zeros(3 * RATE, dtype=np.float32)
    cut = [english[at * RATE :][: 3 * RATE] for at in range(4, 24, 4)]
    wave = np.concatenate([part for speech in cut for part in (speech, pause)])
    longest = max(segment.seconds for segment in bounded.detect(wave))
    assert longest < 12
    assert list(bounded.diarize([wave, wave]))
    assert max(read) <= 12
    assert max(read) > longest
    assert len(read) > 10


def test_batches_that_do_not_fit_are_halved(
    folder: Path, recordings: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved down to one at a time, they give what one at a time gives."""
    small = FunASRDiarizer(settings(folder))
    refused: list[int] = []
    for batches in (small.recogniser._batches, small._embedded):
        run = batches._run

        def limited(waves: list[np.ndarray], run: Any = run) -> Any:
            if len(waves) > 1:
                refused.append(len(waves))
                raise torch.OutOfMemoryError("out of memory")
            return run(waves)

        monkeypatch.setattr(batches, "_run", limited)
    one_by_one = FunASRDiarizer(settings(folder, batch_seconds=0.1))
    several = recordings[1:]
    for halved, alone in zip(small.diarize(several), one_by_one.diarize(several), strict=True):
        assert_same(halved.turns, alone.turns)
        assert halved.dropped == alone.dropped
    assert refused


def test_the_revision_changes_with_any_of_the_weights(engine: FunASRDiarizer, copied: Path) -> None:
    (copied / "speaker" / "config.yaml").open("a").write("# changed\n")
    other = FunASRDiarizer(settings(copied))
    changed = [a != b for a, b in zip(engine.revision.split("+"), other.revision.split("+"), strict=True)]
    assert changed == [False, False, False, False, True]


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(DeviceError, match="device=cuda"):
        FunASRDiarizer(settings(folder), device="cuda")


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_state(path: Path, change: Any) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(change(state), path)


def without(state: dict[str, Any]) -> dict[str, Any]:
    return dict(list(state.items())[:-2])


def reshaped(state: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    return state | {name: state[name][:-1].clone()}


def set_config(folder: Path, **changed: Any) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changed, allow_unicode=True), encoding="utf-8")


def set_metas(folder: Path, metas: dict[str, Any]) -> None:
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("asr", lambda f: shutil.rmtree(f), r"funasr\.asr: the weights of iic/asr are not in"),
        ("asr", lambda f: (f / "model.pt").unlink(), r"funasr\.asr: .* has no model\.pt"),
        ("vad", lambda f: (f / "am.mvn").unlink(), r"funasr\.vad: .* has no am\.mvn"),
        ("punc", lambda f: (f / "jieba_usr_dict").unlink(), r"funasr\.punc: .* has no jieba_usr_dict"),
        ("speaker", lambda f: (f / "campplus_cn_common.bin").unlink(), r"has no campplus_cn_common\.bin"),
        ("speaker", lambda f: set_metas(f, {"config": "config.yaml"}), "names no file of weights"),
        ("speaker", lambda f: (f / "configuration.json").write_text("{"), r"configuration\.json is damaged"),
        ("speaker", lambda f: (f / "config.yaml").write_text("a: [b"), r"config\.yaml is damaged"),
        ("vad", lambda f: set_config(f, model="CTTransformer"), "holds the model CTTransformer, not FsmnVADStreaming"),
        ("vad", lambda f: set_config(f, encoder="Nothing"), "can't be read as a model of FunASR"),
        ("asr", lambda f: (f / "tokens.json").write_text('["a", "<unk>"]'), "another shape"),
        ("asr", lambda f: write_state(f / "model.pt", without), "2 are missing"),
        ("punc", lambda f: write_state(f / "model.pt", reshaped), "1 have another shape"),
        ("vad", lambda f: (f / "model.pt").write_bytes(b"no model"), "can't be read as tensors"),
        ("vad", lambda f: torch.save({"a": Payload(f / "ran")}, f / "model.pt"), "Python code, which is never run"),
        (
            "vad",
            lambda f: (f / "model.pt").write_bytes(pickle.dumps(Payload(f / "ran"))),
            "Python code, which is never",
        ),
    ],
)
def test_weights_that_will_not_do_are_refused(copied: Path, part: str, damage: Any, message: str) -> None:
    damage(copied / part)
    with pytest.raises(WeightsError, match=message):
        FunASRDiarizer(settings(copied))
    assert not (copied / part / "ran").exists()


def test_a_paraformer_without_timestamps_is_refused(copied: Path) -> None:
    config = yaml.safe_load((copied / "asr" / "config.yaml").read_text(encoding="utf-8"))
    set_config(copied / "asr", predictor_conf=config["predictor_conf"] | {"upsample_type": "cnn"})
    network = torch.load(copied / "asr" / "model.pt", weights_only=True)
    narrow = {"predictor.cif_output2.weight": network["predictor.cif_output2.weight"][:, :32].clone()}
    torch.save(network | narrow, copied / "asr" / "model.pt")
    with pytest.raises(WeightsError, match="iic/asr gives no timestamps"):
        FunASRDiarizer(settings(copied))


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state_dict"])
def test_weights_are_found_where_funasr_puts_them(
    engine: FunASRDiarizer, copied: Path, english: np.ndarray, wrap: str
) -> None:
    write_state(
        copied / "vad" / "model.pt",
        lambda state: {wrap: {f"module.{name}": t for name, t in state.items()}, "epoch": 3},
    )
    assert FunASRDiarizer(settings(copied)).detect(english) == engine.detect(english)


def test_weights_in_the_format_before_pytorch_1_6_are_read(
    engine: FunASRDiarizer, copied: Path, english: np.ndarray
) -> None:
    path = copied / "vad" / "model.pt"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert FunASRDiarizer(settings(copied)).detect(english) == engine.detect(english)


@pytest.mark.slow
def test_the_turns_come_from_the_sentences(
    exact: FunASRDiarizer, sentences: list[list[Sentence]], exact_turns: list[list[Turn]]
) -> None:
    for own, found in zip(sentences, exact_turns, strict=True):
        expected, _ = stretches(own, exact.settings)
        assert [(s.start, s.end, s.speaker, s.text) for s in expected] == [
            (t.start, t.end, t.speaker, t.text) for t in found
        ]
