"""Folders of models, altered at random or made to do harm: loaded whole, or refused. No file of theirs is ever run."""

import ast
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

from fsclap.audio import decode_flac
from fsclap.corpus.funasr_weights import FunasrModel, load_model
from fsclap.corpus.separation.demucs_weights import Bag, load_bag
from fsclap.model.clap import byte_tokenizer, read_encoders
from fsclap.model.encoders import EncoderError
from fsclap.model.laion import ConversionError, read_state
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.base import ModelError
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.checkpoint import LAST, load_checkpoint
from fsclap.weights import WeightsError, WeightsSettings
from harness.models.demucs import package_of, write_demucs
from harness.models.funasr import write_fsmn_vad
from storage.corpus import Corpus
from storage.rows import CorpusError
from tests.fsclap.training.encoders import FrozenBytes, FrozenMel
from tests.fuzz.mutations import documents, flipped
from tests.properties import attempt, fewer, fuzzed

ROOT = Path(__file__).parents[2]
ENCODERS: Any = (FrozenMel(), FrozenBytes())
SETTINGS = ModelSettings(fusion="shared", width=8, heads=2, embedding=4)
CPU = torch.device("cpu")


def replaced(folder: Path, pristine: Path, name: str, content: bytes) -> Path:
    """A copy of a folder, one of its files being another."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder)
    (folder / name).write_bytes(content)
    return folder


# FS-CLAP's own


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    FSCLAP(SETTINGS, encoders=ENCODERS).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "encoders.json", "model.safetensors"])
def test_a_damaged_model_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    altered = flipped(content) if name == "model.safetensors" else documents(content)

    @fuzzed
    @given(altered=altered)
    def check(altered: bytes) -> None:
        folder = replaced(tmp_path / "model", saved, name, altered)
        model, told = attempt(lambda: FSCLAP.from_pretrained(folder, encoders=ENCODERS), ModelError, EncoderError)
        if told:
            assert str(folder) in told
        else:
            assert set(model.state_dict()) == set(FSCLAP(model.settings, encoders=ENCODERS).state_dict())

    check()


def test_a_model_whose_file_lacks_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_bytes())
    config["settings"]["rerank"] = True  # a head that was never trained
    folder = replaced(tmp_path / "model", saved, "config.json", json.dumps(config).encode())
    with pytest.raises(ModelError, match=r"matcher\.layers"):
        FSCLAP.from_pretrained(folder, encoders=ENCODERS)


# FunASR's


@pytest.fixture(scope="module")
def vad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("funasr") / "vad"
    write_fsmn_vad(folder)
    return folder


def load_vad(folder: Path) -> FunasrModel:
    options = WeightsSettings(name="iic/vad", folder=folder)
    return load_model(options, setting="diarization.funasr.vad", classes=["FsmnVADStreaming"], needs=[], device=CPU)


DEEP = b'{"file_path_metas":' * 3000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("configuration.json", b'{"file_path_metas": []}'),
        ("configuration.json", DEEP),
        ("config.yaml", b"model: 2026-99-99"),
        ("config.yaml", DEEP),
    ],
    ids=["list", "deep", "date", "deep"],
)
def test_a_damaged_model_of_funasr_is_refused(vad: Path, tmp_path: Path, name: str, known: bytes) -> None:
    content = (vad / name).read_bytes()
    document = content if name == "configuration.json" else json.dumps(yaml.safe_load(content)).encode()

    @fewer(6, fuzzed)
    @given(altered=documents(document, huge=False))
    @example(altered=known)
    def check(altered: bytes) -> None:
        folder = replaced(tmp_path / "vad", vad, name, altered)
        found, told = attempt(lambda: load_vad(folder), WeightsError)
        if told:
            assert "diarization.funasr.vad" in told
        else:
            assert not found.network.training

    check()


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_outside_the_folder_are_not_read(vad: Path, tmp_path: Path, absolute: bool) -> None:
    metas = json.loads((vad / "configuration.json").read_bytes())
    shutil.copy(vad / "model.pt", tmp_path / "other.pt")
    metas["file_path_metas"]["init_param"] = str(tmp_path / "other.pt") if absolute else "../other.pt"
    folder = replaced(tmp_path / "vad", vad, "configuration.json", json.dumps(metas).encode())
    with pytest.raises(WeightsError, match=r"other\.pt"):
        load_vad(folder)


# Demucs'


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demucs")
    write_demucs(folder, model="hdemucs_mmi", layout="huggingface", size="small")
    return folder


@pytest.mark.slow
def test_a_damaged_definition_of_a_demucs_model_is_refused(bag: Path, tmp_path: Path) -> None:
    (definition,) = bag.glob("*.yaml")
    content = json.dumps(yaml.safe_load(definition.read_bytes()) | {"weights": [[1.0] * 4]}).encode()

    @fewer(2, fuzzed)
    @given(altered=documents(content))
    @example(altered=content.replace(b"[[1.0, 1.0, 1.0, 1.0]]", b"5"))
    @example(altered=content.replace(b"1.0", b'"1"'))
    @example(altered=b"models: 2026-99-99")
    def check(altered: bytes) -> None:
        folder = replaced(tmp_path / "bag", bag, definition.name, altered)
        found, told = attempt(lambda: load_bag(folder, None, setting="separation.demucs"), WeightsError)
        if told:
            assert str(folder) in told
        else:
            assert isinstance(found, Bag)
            assert sum(share for _, share in found.vocals) == pytest.approx(1)

    check()


# Checkpoints of PyTorch's


class Trap:
    """What a pickle could run when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def zipped(path: Path, trap: Any) -> None:
    torch.save({"state_dict": {}, "args": trap}, path)


def bare(path: Path, trap: Any) -> None:
    path.write_bytes(pickle.dumps(trap))


def legacy(path: Path, trap: Any) -> None:
    torch.save({"state": trap}, path, _use_new_zipfile_serialization=False)


def of_numpy(path: Path, trap: Any) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)


def demucs_with(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    if write is zipped:
        torch.save(package_of("hdemucs_mmi", size="small", seed=0) | {"training_args": trap}, folder / "a.th")
    else:
        write(folder / "a.th", trap)


def in_demucs(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    demucs_with(folder, write, trap)
    load_bag(folder, None, setting="separation.demucs")


def in_funasr(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    write_fsmn_vad(folder / "vad")
    write(folder / "vad" / "model.pt", trap)
    load_vad(folder / "vad")


def in_laion(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    write(folder / "clap.pt", trap)
    read_state(folder / "clap.pt")


def in_a_clap_folder(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    (folder / "config.json").write_text('{"model_type": "clap"}')
    write(folder / "pytorch_model.bin", trap)
    read_encoders(str(folder))


def in_a_clap_folder_as_safetensors(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    (folder / "config.json").write_text('{"model_type": "clap"}')
    write(folder / "model.safetensors", trap)
    read_encoders(str(folder))


def in_fsclap(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    FSCLAP(SETTINGS, encoders=ENCODERS).save_pretrained(folder)
    write(folder / "model.safetensors", trap)
    FSCLAP.from_pretrained(folder, encoders=ENCODERS)


def in_a_checkpoint(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    model = FSCLAP(SETTINGS, encoders=ENCODERS)
    write(folder / LAST, trap)
    load_checkpoint(folder, model, torch.optim.AdamW(model.parameters()))


def in_a_clip(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    write(folder / "clip.flac", trap)
    decode_flac((folder / "clip.flac").read_bytes())


def in_a_corpus(folder: Path, write: Callable[[Path, Any], None], trap: Any) -> None:
    corpus = Corpus.open(folder / "corpus", create=True)
    write(next((folder / "corpus" / "sources" / "_delta_log").glob("*.json")), trap)
    Corpus.open(corpus.location).ledger()


@pytest.mark.parametrize("write", [zipped, bare, legacy, of_numpy])
@pytest.mark.parametrize(
    ("load", "errors"),
    [
        (in_demucs, WeightsError),
        (in_funasr, WeightsError),
        (in_laion, ConversionError),
        (in_a_clap_folder, EncoderError),
        (in_a_clap_folder_as_safetensors, EncoderError),
        (in_fsclap, ModelError),
        (in_a_checkpoint, ValueError),
        (in_a_clip, ValueError),
        (in_a_corpus, CorpusError),
    ],
)
def test_a_file_that_runs_code_when_loaded_is_not_run(
    load: Callable[..., None], errors: type[Exception], write: Callable[[Path, Any], None], tmp_path: Path
) -> None:
    with pytest.raises(errors):
        load(tmp_path, write, Trap(tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()
    bare(tmp_path / "trap", Trap(tmp_path / "ran"))
    pickle.loads((tmp_path / "trap").read_bytes())
    assert (tmp_path / "ran").exists(), "the trap is one"


def test_code_that_a_model_of_funasr_brings_along_is_not_run(vad: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((vad / "config.yaml").read_bytes())
    (tmp_path / "brought.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    config |= {"trust_remote_code": True, "remote_code": str(tmp_path / "brought.py")}
    folder = replaced(tmp_path / "vad", vad, "config.yaml", yaml.safe_dump(config).encode())
    try:
        load_vad(folder)
    finally:
        assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def checkpoints() -> list[bytes]:
    """Tensors as PyTorch writes them: in a zip file, and as it did before 1.6."""
    state = {"state_dict": {"module.a": torch.ones(2, 3), "module.b": torch.zeros(1)}, "epoch": 3}
    found = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return found


@pytest.mark.slow
@fuzzed
@given(data=st.data())
@example(data=None)
def test_any_bytes_of_a_checkpoint_are_tensors_or_refused(
    checkpoints: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject | None
) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "clap.pt"
    # The example is the opcode of a reference to something outside, on an empty stack.
    path.write_bytes(b"Q" if data is None else data.draw(flipped(data.draw(st.sampled_from(checkpoints)))))
    state, told = attempt(lambda: read_state(path), ConversionError)
    if told:
        assert str(path) in told
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    audio = ClapAudioConfig(patch_embeds_hidden_size=8, hidden_size=64, depths=[1, 1, 1, 1], num_hidden_layers=4,
                            num_attention_heads=[1, 1, 1, 1])  # fmt: skip
    text = ClapTextConfig(
        vocab_size=260, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    config = ClapConfig(audio_config=audio.to_dict(), text_config=text.to_dict(), projection_dim=8)
    ClapModel(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_clap_folder_is_refused(clap: Path, tmp_path: Path, name: str) -> None:
    read_encoders(str(clap))
    content = (clap / name).read_bytes()

    @fewer(6, fuzzed)
    @given(altered=flipped(content) if name == "model.safetensors" else documents(content, huge=False))
    def check(altered: bytes) -> None:
        folder = replaced(tmp_path / "clap", clap, name, altered)
        found, told = attempt(lambda: read_encoders(str(folder)), EncoderError)
        assert str(folder) in told if told else len(found) == 2

    check()


def test_a_clap_folder_that_lacks_weights_is_refused(clap: Path, tmp_path: Path) -> None:
    state = load_file(clap / "model.safetensors")
    lost = next(name for name in state if "text_model.encoder" in name)
    folder = replaced(tmp_path / "clap", clap, "model.safetensors", b"")
    save_file({name: tensor for name, tensor in state.items() if name != lost}, folder / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(EncoderError, match=f"lacks 1 weights of a ClapModel, such as {lost}"):
        read_encoders(str(folder))


# Every way to load

FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "dill.loads", "yaml.load",
    "yaml.full_load", "yaml.unsafe_load", "marshal.loads", "eval", "exec", "torch.hub.load", "np.fromfile",
    "importlib.import_module", "torch.jit.load",
}  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True)}
NEVER = {"allow_pickle": True, "trust_remote_code": True, "weights_only": False, "use_safetensors": False}


@pytest.mark.parametrize("package", ["fsclap", "storage", "tasks", "flows", "cli", "deployments"])
def test_no_loader_can_run_what_it_loads(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        check_loaders(path)


def check_loaders(path: Path) -> None:
    """Assert that no call in a file loads data in a way that could run it."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        name, where = ast.unparse(call.func), f"{path.relative_to(ROOT)}:{call.lineno}"
        given = {k.arg: getattr(k.value, "value", None) for k in call.keywords if k.arg}
        assert name not in FORBIDDEN, f"{where}: {name} can run what it reads"
        if name in NEEDED:
            option, value = NEEDED[name]
            assert given.get(option) is value, f"{where}: {name} without {option}={value}"
        assert not [option for option, value in NEVER.items() if option in given and given[option] is value], where
