"""Demucs with random weights of the real architectures, against what the `demucs` package itself computes."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demucs.apply import apply_model
from demucs.pretrained import get_model

from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import DemucsSettings, SeparationSettings
from fsclap.corpus.separation.demucs import DemucsSeparator, level, vocals_only
from fsclap.corpus.separation.demucs_weights import load_bag
from fsclap.devices import DeviceError
from fsclap.weights import WeightsError, WeightsSettings
from harness.models.demucs import SOURCES, Model, package_of, write_demucs, write_pickle, write_safetensors
from harness.separation import in_memory

RATE = 44_100


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks are too small to gain from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demucs(tmp_path_factory.mktemp("htdemucs"), layout="repo")


@pytest.fixture(scope="module")
def separator(folder: Path) -> DemucsSeparator:
    return engine(folder, batch=3)


def settings(folder: Path, **others: Any) -> DemucsSettings:
    return DemucsSettings(weights=WeightsSettings(name="adefossez/HTDemucs", folder=folder), **others)


def engine(folder: Path, *, batch: int = 2, **others: Any) -> DemucsSeparator:
    return DemucsSeparator(settings(folder, **others), device="cpu", batch=batch)


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.1, (channels, samples)).astype(np.float32)


def reference(model: Any, mixture: np.ndarray, *, overlap: float = 0.25) -> np.ndarray:
    """The mean of the channels' vocals as `demucs.api.Separator.separate_tensor` makes them, without shifts."""
    wave = torch.from_numpy(np.broadcast_to(mixture, (2, mixture.shape[1])).copy())
    mono = wave.mean(0)
    mean, spread = mono.mean(), mono.std() + 1e-8
    found = apply_model(model, ((wave - mean) / spread)[None], shifts=0, split=True, overlap=overlap) * spread + mean
    return found[0, model.sources.index("vocals")].mean(dim=0).numpy()


@pytest.mark.parametrize("model", ["htdemucs", "htdemucs_ft", "hdemucs_mmi"])
def test_vocals_are_those_of_the_library(model: Model, tmp_path: Path) -> None:
    separator = engine(write_demucs(tmp_path, model=model, layout="repo"), batch=3)
    segment, stride = separator._segment, separator._stride
    lengths = [segment + 1, stride // 3]
    if model == "htdemucs":
        lengths += [segment, stride, stride + 1, 4 * segment + 77]
    mixtures = [noise(2, length, seed) for seed, length in enumerate(lengths)]
    bag = get_model(model, repo=tmp_path)
    for mixture, found in zip(mixtures, in_memory(separator, mixtures), strict=True):
        expected = reference(bag, mixture)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.6])
def test_vocals_are_those_of_the_library_at_any_overlap(folder: Path, overlap: float) -> None:
    separator = engine(folder, overlap=overlap)
    mixture = noise(2, 3 * separator._segment + 5)
    (found,) = in_memory(separator, [mixture])
    expected = reference(get_model("htdemucs", repo=folder), mixture, overlap=overlap)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_both_layouts_give_the_same(separator: DemucsSeparator, tmp_path: Path) -> None:
    other = engine(write_demucs(tmp_path, layout="huggingface"))
    mixture = noise(2, RATE)
    (found,), (expected,) = in_memory(other, [mixture]), in_memory(separator, [mixture])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert other.revision != separator.revision  # They are other files.


def test_mono_is_doubled(separator: DemucsSeparator) -> None:
    mono = noise(1, 2 * RATE)
    one, two = in_memory(separator, [mono, np.concatenate([mono, mono])])
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_batches_across_files_change_nothing(folder: Path, separator: DemucsSeparator) -> None:
    mixtures = [noise(2, length, seed) for seed, length in enumerate([RATE, 3 * RATE, 100, 1, 2 * RATE])]
    together = list(in_memory(separator, mixtures))
    alone = engine(folder, batch=1)
    for mixture, found in zip(mixtures, together, strict=True):
        (expected,) = in_memory(alone, [mixture])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.isfinite(found).all()


def test_silence_stays_silent(separator: DemucsSeparator) -> None:
    (found,) = in_memory(separator, [np.zeros((2, RATE), np.float32)])
    assert np.abs(found).max() < 1e-6


def test_a_file_is_yielded_before_the_next_is_begun(folder: Path) -> None:
    mixtures = [noise(2, RATE), noise(2, 3 * RATE)]
    outputs = [np.zeros(mixture.shape[1], dtype=np.float32) for mixture in mixtures]
    assert next(engine(folder, batch=1).separate(mixtures, outputs)) is outputs[0]
    assert outputs[0].any()
    assert not outputs[1].any()


def test_side_by_side_on_several_cores_gives_the_same(separator: DemucsSeparator) -> None:
    mixture = noise(2, 4 * RATE)
    (expected,) = in_memory(separator, [mixture])
    torch.set_num_threads(2)
    try:
        (found,) = in_memory(separator, [mixture])
        with ThreadPoolExecutor(1) as pool:  # What a new thread begins with is set for the whole process.
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("model", ["htdemucs", "hdemucs_mmi"])
def test_a_network_cut_down_to_the_vocals_computes_their_mean(model: Model, tmp_path: Path) -> None:
    folder = write_demucs(tmp_path, model=model)
    ((whole, _),) = load_bag(folder, None, setting="demucs").vocals
    ((cut, _),) = load_bag(folder, None, setting="demucs").vocals
    vocals_only(cut)
    assert (cut.decoder[-1].conv_tr.weight.shape[1], cut.tdecoder[-1].conv_tr.weight.shape[1]) == (2, 1)
    mixture = torch.from_numpy(noise(2, RATE))[None]
    with torch.inference_mode():
        expected = whole(mixture)[:, SOURCES.index("vocals")].mean(dim=1)
        torch.testing.assert_close(cut(mixture)[:, 0, 0], expected, atol=1e-6, rtol=1e-5)


def test_of_four_specialists_only_that_for_vocals_runs(tmp_path: Path) -> None:
    folder = write_demucs(tmp_path, model="htdemucs_ft", layout="repo")
    ((network, share),) = load_bag(folder, "htdemucs_ft", setting="demucs").vocals
    specialist = get_model("04573f0d", repo=folder)
    assert share == 1
    torch.testing.assert_close(network.state_dict(), specialist.state_dict())


def test_networks_that_share_the_vocals_are_averaged(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_pickle(tmp_path, "second", package_of("htdemucs", size="small", seed=7))
    weights = [[1.0] * 4, [1.0, 1.0, 1.0, 3.0]]
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"models": ["955717e8", "second"], "weights": weights}))
    mixture = noise(2, 2 * RATE)
    (found,) = in_memory(engine(tmp_path, model="two"), [mixture])
    np.testing.assert_allclose(found, reference(get_model("two", repo=tmp_path), mixture), atol=1e-6)


def test_the_level_of_a_mixture_is_that_of_its_channels_mean() -> None:
    mixture = noise(2, 5 << 20)  # More than a block.
    mono = mixture.mean(axis=0, dtype=np.float64)
    mean, spread = level(mixture)
    np.testing.assert_allclose([mean, spread], [mono.mean(), mono.std(ddof=1) + 1e-8], rtol=1e-6)


def test_too_little_memory_halves_the_batch(
    separator: DemucsSeparator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, mixture = engine(folder, batch=4), noise(2, 5 * RATE)
    forward, tried = small._side_by_side, []

    def fits_two(segments: list) -> list[np.ndarray]:
        tried.append(len(segments))
        if len(segments) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(segments)

    monkeypatch.setattr(small, "_side_by_side", fits_two)
    (found,), (expected,) = in_memory(small, [mixture]), in_memory(separator, [mixture])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert tried[:2] == [4, 2]


def test_what_half_precision_cannot_hold_is_computed_in_full(
    separator: DemucsSeparator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def overflows(segments: list, *, half: bool) -> list[np.ndarray]:
        asked.append(half)
        return [np.full(4, np.inf if half else 1, np.float32) for _ in segments]

    monkeypatch.setattr(separator, "_device", torch.device("cuda"))
    monkeypatch.setattr(separator, "_half", True)
    monkeypatch.setattr(separator, "_forward", overflows)
    (found,) = separator._vocals([None])  # type: ignore[list-item]
    assert asked == [True, False]
    assert found.tolist() == [1] * 4
    assert "half precision" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 1e-2)])
def test_a_gpu_gives_the_same(folder: Path, separator: DemucsSeparator, half: bool, tolerance: float) -> None:
    mixtures = [noise(2, 3 * RATE), noise(1, RATE, seed=1)]
    other = DemucsSeparator(settings(folder, half=half), device="cuda", batch=8)
    for found, expected in zip(in_memory(other, mixtures), in_memory(separator, mixtures), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_the_engine_is_loaded_by_the_settings(folder: Path) -> None:
    wanted = SeparationSettings(engine="demucs", batch=1, demucs=settings(folder))
    loaded = load_separator(wanted)
    assert (loaded.name, loaded.sample_rate) == ("demucs", RATE)
    assert loaded.revision.startswith("HTDemucs-")


def test_half_precision_on_a_cpu_is_refused(folder: Path) -> None:
    with pytest.raises(DeviceError, match=r"separation\.demucs\.half is for GPUs: set it to false"):
        engine(folder, half=True)


def test_a_device_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(DeviceError, match="device=cuda:77"):
        DemucsSeparator(settings(folder), device="cuda:77", batch=1)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"separation\.demucs\.weights.*absent"):
        engine(tmp_path / "absent")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no model of Demucs.*fsclap models fetch"):
        engine(tmp_path)


def test_one_of_several_models_has_to_be_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "other.yaml").write_text("models: ['955717e8']")
    with pytest.raises(WeightsError, match="holds htdemucs, other: name one of them"):
        engine(tmp_path)
    with pytest.raises(WeightsError, match=r"no model htdemucs_ft; it has 955717e8, htdemucs, other\."):
        engine(tmp_path, model="htdemucs_ft")
    assert engine(tmp_path, model="955717e8")._segment == engine(tmp_path, model="other")._segment


@pytest.mark.parametrize("text", ["- just\n- a list", "models: 3", "{", "segment: 4"])
def test_a_broken_definition_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "htdemucs.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"htdemucs\.yaml is not the definition of a Demucs model"):
        engine(tmp_path)


def test_a_network_that_a_bag_lists_but_the_folder_lacks_is_an_error(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "htdemucs.yaml", tmp_path)
    with pytest.raises(WeightsError, match=r"lists 955717e8, of which .* has no \.safetensors or \.th file"):
        engine(tmp_path)


def test_weights_that_do_not_fit_the_networks_are_an_error(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "htdemucs.yaml").write_text(yaml.safe_dump({"models": ["955717e8"], "weights": [[1.0, 1.0]]}))
    with pytest.raises(WeightsError, match="do not fit together"):
        engine(tmp_path)


def test_a_wrong_checksum_is_an_error(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("*.th")
    path.rename(tmp_path / "955717e8-00000000.th")
    with pytest.raises(WeightsError, match=r"955717e8-00000000\.th is damaged: its checksum"):
        engine(tmp_path)


@pytest.mark.parametrize("layout", ["repo", "huggingface"])
def test_a_truncated_file_is_an_error(layout: Any, tmp_path: Path) -> None:
    write_demucs(tmp_path, layout=layout)
    (path,) = [*tmp_path.glob("*.th"), *tmp_path.glob("*.safetensors")]
    cut = tmp_path / f"955717e8{path.suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if path != cut:
        path.unlink()
    with pytest.raises(WeightsError, match=r"955717e8\.(th|safetensors) is damaged.* fetch it again"):
        engine(tmp_path)


class Harmful:
    """Unpickling one runs code."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(__file__).parent / "harm",))


@pytest.mark.parametrize("field", ["kwargs", "training_args"])
def test_a_pickle_that_runs_code_is_refused_unread(field: str, tmp_path: Path) -> None:
    package = package_of("htdemucs", size="small", seed=0)
    write_pickle(tmp_path, "955717e8", package | {field: {"x": Harmful()}})
    with pytest.raises(WeightsError, match=r"955717e8.*was refused: .* loading it could run what it says"):
        engine(tmp_path)
    assert not (Path(__file__).parent / "harm").exists()


@pytest.mark.parametrize("write", [write_pickle, write_safetensors])
def test_a_class_that_is_no_network_of_demucs_is_refused(write: Any, tmp_path: Path) -> None:
    package = package_of("htdemucs", size="small", seed=0) | {"klass": torch.nn.Linear}
    write(tmp_path, "955717e8", package)
    with pytest.raises(WeightsError, match=r"955717e8.*(was refused|not a network of Demucs)"):
        engine(tmp_path)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    package = package_of("htdemucs", size="small", seed=0)
    write_pickle(tmp_path, "955717e8", package | {"state": {"__quantized": True}})
    with pytest.raises(WeightsError, match="quantised"):
        engine(tmp_path)


def test_weights_of_another_size_are_an_error(tmp_path: Path) -> None:
    package = package_of("htdemucs", size="small", seed=0)
    write_pickle(tmp_path, "955717e8", package | {"kwargs": package["kwargs"] | {"channels": 12}})
    with pytest.raises(WeightsError, match=r"955717e8.*size mismatch"):
        engine(tmp_path)


def test_a_model_without_vocals_is_an_error(tmp_path: Path) -> None:
    write_demucs(tmp_path, sources=["drums", "other"])
    with pytest.raises(WeightsError, match="separates drums, other, no vocals"):
        engine(tmp_path)


def test_a_model_at_another_rate_is_an_error(tmp_path: Path) -> None:
    write_demucs(tmp_path, samplerate=16_000)
    with pytest.raises(
        WeightsError, match="2 channels at 16000 Hz; this engine runs models for 2 channels at 44100 Hz"
    ):
        engine(tmp_path)
