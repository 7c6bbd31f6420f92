"""FunASR models from local folders: every weight from the file, none left at random.

FunASR's `AutoModel.build_model` makes the network, the tokenizer and the front end that a folder
describes. Its own
loading of weights is left out: it keeps random weights for what a file lacks or holds in another
shape, and prints a line. It also seeds every random generator, changes PyTorch's number of threads,
turns on the log of the whole process, and moves to the CPU where the device is missing; all of that
is undone or refused here.
"""

import contextlib
import io
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from fsclap.weights import Weights, WeightsError, WeightsSettings, find_weights

CONFIG, METAS = "config.yaml", "configuration.json"
METAS_KEY = "file_path_metas"
USED_METAS = ("init_param", "config", "token_list", "cmvn_file", "jieba_usr_dict")
"""Files named by configuration.json that change what a model says; FunASR goes on without one that
is not there."""


@dataclass(frozen=True, slots=True)
class FunasrModel:
    """A network that is ready, and what FunASR built with it.

    Attributes:
        network: In evaluation mode, on its device.
        options: What its `inference` takes by keyword: `tokenizer`, `frontend`, `device` and the
            configuration.
        revision: Of the weights.
    """

    network: Any
    options: dict[str, Any]
    revision: str


def load_model(
    settings: WeightsSettings, *, setting: str, classes: Sequence[str], needs: Sequence[str], device: torch.device
) -> FunasrModel:
    """Load a model of FunASR.

    Args:
        settings: Which weights.
        setting: Where they are set, for the messages: "diarization.funasr.asr".
        classes: The networks that will do, as config.yaml names them.
        needs: Files that must be there besides config.yaml and configuration.json.
        device: Where it runs.

    Raises:
        WeightsError: The folder is missing, incomplete, damaged, or of another model.
    """
    weights = find_weights(settings, setting=setting, needs=(CONFIG, METAS, *needs))
    _check_class(weights.folder, setting=setting, classes=classes)
    checkpoint = _checkpoint(weights.folder, setting=setting)
    state = _state(checkpoint, setting=setting)
    network, options = _build(weights, setting=setting, device=device)
    _fill(network, state, checkpoint=checkpoint, setting=setting)
    return FunasrModel(network.eval(), options, weights.revision)


def _build(weights: Weights, *, setting: str, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    with quiet(), undisturbed():
        from funasr import AutoModel

        logging.getLogger("jieba").setLevel(logging.WARNING)
        try:
            # init_param: the weights; None, since they are filled in here.
            return AutoModel.build_model(
                model=str(weights.folder),
                init_param=None,
                device=str(device),
                ncpu=torch.get_num_threads(),
                # Said here, or config.yaml could ask for the code that it brings along to be run.
                trust_remote_code=False,
            )
        except Exception as error:  # FunASR raises whatever a damaged file leads it to
            raise WeightsError(
                f"{setting}: {weights.folder} can't be read as a model of FunASR ({type(error).__name__}: {error}): "
                f"one of the files next to {CONFIG} is damaged or another model's. Fetch the folder again"
            ) from error


def _check_class(folder: Path, *, setting: str, classes: Sequence[str]) -> None:
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WeightsError(f"{setting}: {folder / CONFIG} is damaged ({error}). Fetch it again") from error
    found = config.get("model") if isinstance(config, dict) else None
    if found not in classes:
        raise WeightsError(
            f"{setting}: {folder} holds the model {found}, not {' or '.join(classes)}. Correct {setting}.name or "
            f"{setting}.folder"
        )


def _checkpoint(folder: Path, *, setting: str) -> Path:
    """Find the file of weights that configuration.json names; check that all its files exist."""
    try:
        metas = json.loads((folder / METAS).read_text(encoding="utf-8")).get(METAS_KEY, {})
        named = dict(_named_files(metas))
    except (ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{setting}: {folder / METAS} is damaged ({error}). Fetch it again") from error
    if "init_param" not in named:
        raise WeightsError(f"{setting}: {folder / METAS} names no file of weights ({METAS_KEY}.init_param)")
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in named.values():
        if name not in held:  # nor is what lies outside the folder one of its files
            raise WeightsError(
                f"{setting}: {folder} has no {name}, which its {METAS} names: an incomplete copy. Fetch it again"
            )
    return folder / named["init_param"]


def _named_files(metas: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in metas.items():
        if isinstance(value, dict):
            yield from _named_files(value)
        elif key in USED_METAS and isinstance(value, str):
            yield key, value


def _state(checkpoint: Path, *, setting: str) -> dict[str, Tensor]:
    """Read the tensors of a file, wherever FunASR may have put them; no code in it is run."""
    try:
        try:
            # Mapped, so that a model's weights are in memory once.
            state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before PyTorch 1.6
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{setting}: {checkpoint} can't be read as tensors: it is damaged, or holds Python code, which is never "
            f"run. Fetch it again ({reason})"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        state = state.get(key, state)
    return {name.removeprefix("module."): value for name, value in state.items()}


def _fill(network: nn.Module, state: Mapping[str, Tensor], *, checkpoint: Path, setting: str) -> None:
    """Give a network its weights, every one of them from the file."""
    # The count of batches that a batch norm saw in training is of no use after it.
    expected = {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    missing = [name for name in expected if name not in state]
    other = [name for name, tensor in expected.items() if name in state and state[name].shape != tensor.shape]
    if missing or other:
        first = (missing + other)[0]
        found = tuple(state[first].shape) if first in state else "nothing"
        raise WeightsError(
            f"{setting}: {checkpoint} doesn't fit the network of the {CONFIG} next to it: of {len(expected)} tensors "
            f"{len(missing)} are missing and {len(other)} have another shape, such as {first}: expected "
            f"{tuple(expected[first].shape)}, found {found}. The folder mixes two models: fetch it again"
        )
    network.load_state_dict({name: state[name] for name in expected}, strict=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what FunASR prints, and undo what it does to the log of the process."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.addFilter(_not_funasr)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_not_funasr)
        root.setLevel(level)
        root.handlers[:] = handlers


def _not_funasr(record: logging.LogRecord) -> bool:
    return "funasr" not in Path(record.pathname).parts or record.levelno >= logging.ERROR


@contextlib.contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Restore the random generators and PyTorch's number of threads on leaving.

    Args:
        seed: Of NumPy's generator inside.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads = torch.get_num_threads()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    if seed is not None:
        np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
