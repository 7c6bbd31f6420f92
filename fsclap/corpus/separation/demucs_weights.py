"""Read models of the Demucs family from a folder, without running code in a file.

    Hugging Face       {name}.yaml, and {signature}.safetensors for each network it lists `demucs
    --repo`    {name}.yaml, and {signature}.th or {signature}-{checksum}.th; or .th files alone

A .th file is a pickle, which may call anything. It is read by PyTorch's restricted unpickler, which
here knows Demucs' network classes and Fraction, all that `demucs.states.serialize_model` writes
besides plain values and tensors. A safetensors file names its class in its metadata; only the same
classes are made.
"""

import math
import pickle
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from demucs.apply import BagOfModels, Model
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.hf import load_safetensors_model
from demucs.htdemucs import HTDemucs
from demucs.repo import ModelLoadingError, check_checksum
from demucs.states import load_model
from safetensors import SafetensorError, safe_open

from fsclap import Hertz, Seconds
from fsclap.weights import WeightsError

SAMPLE_RATE: Hertz = 44_100
VOCALS = "vocals"
CLASSES = (Demucs, HDemucs, HTDemucs)
TRUSTED: list[Any] = [*CLASSES, (HDemucs, "demucs.wdemucs.WDemucs"), Fraction]
QUANTIZED = "__quantized"


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """A model: one network or several.

    Attributes:
        vocals: The networks that count towards the vocals, and each one's share of them; the shares
            add up to 1.
        segment: What the networks take at once.
    """

    vocals: list[tuple[Model, float]]
    segment: Seconds | Fraction


def load_bag(folder: Path, model: str | None, *, setting: str) -> Bag:
    """Load a model from a folder.

    Args:
        folder: Where the model's files are.
        model: Name of a bag (a .yaml file) or signature of a network; None: the only bag, or the
            only network.
        setting: The settings that say so, for the messages: "separation.demucs".

    Raises:
        WeightsError: There is no such model, a file of it is missing, damaged or unsafe, or it does
            not separate vocals at SAMPLE_RATE.
    """
    bags = {path.stem: path for path in folder.glob("*.yaml")}
    networks = {_signature(path): path for path in [*folder.glob("*.th"), *folder.glob("*.safetensors")]}
    name = model or _only(bags or networks, folder, setting=setting)
    if name in networks:
        bag = BagOfModels([_network(networks[name])])
    elif name in bags:
        bag = _bag(bags[name], networks)
    else:
        raise WeightsError(
            f"{setting}.model: {folder} has no model {name}; it has {_listed([*bags, *networks])}. Name one of these, "
            f"or the folder that has it in {setting}.weights.folder"
        )
    return _vocal_part(bag.eval(), f"{folder / name}")


def _signature(path: Path) -> str:
    return path.stem.rsplit("-", 1)[0] if path.suffix == ".th" else path.stem


def _only(models: dict[str, Path], folder: Path, *, setting: str) -> str:
    if not models:
        raise WeightsError(
            f"{setting}.weights: {folder} holds no model of Demucs (no .yaml, .safetensors or .th file). Run "
            f"`fsclap models fetch`, or name the folder with the model's files in {setting}.weights.folder"
        )
    if len(models) > 1:
        raise WeightsError(f"{setting}.model: {folder} holds {_listed(models)}: name one of them")
    return next(iter(models))


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _bag(path: Path, networks: dict[str, Path]) -> BagOfModels:
    try:
        definition = yaml.safe_load(path.read_text())
        signatures = [str(signature) for signature in definition["models"]]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path} is not the definition of a Demucs model (models: [...]): fetch it again") from error
    if missing := set(signatures) - set(networks):
        raise WeightsError(
            f"{path} lists {_listed(missing)}, of which {path.parent} has no .safetensors or .th file: an incomplete "
            "copy; fetch it again"
        )
    modules = [_network(networks[signature]) for signature in signatures]
    try:
        return BagOfModels(modules, _shares(definition.get("weights")), _segment(definition.get("segment")))
    except (AssertionError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: its networks, its weights for them or its segment do not fit together: fetch it again "
            f"({_brief(error)})"
        ) from error


def _shares(weights: Any) -> list[list[float]] | None:
    if weights is None:
        return None
    shares = np.array(weights, dtype=np.float64)
    if not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError(f"weights {weights}")
    return shares.tolist()


def _segment(segment: Any) -> Any:
    if segment is not None and not 0 < float(segment) < math.inf:
        raise ValueError(f"segment {segment}")
    return segment


def _network(path: Path) -> Model:
    """One network, in float32.

    Raises:
        WeightsError: See `load_bag`.
    """
    try:
        return _from_safetensors(path) if path.suffix == ".safetensors" else _from_pickle(path)
    except WeightsError:
        raise
    except ModelLoadingError as error:
        raise WeightsError(f"{path} is damaged: its checksum is not the one in its name; fetch it again") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it is damaged, or holds more than the weights of a Demucs model, and loading it "
            f"could run what it says. Fetch it again, from its publisher ({_brief(error)})"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged, or no network of Demucs: fetch it again ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _from_pickle(path: Path) -> Model:
    if "-" in path.stem:
        check_checksum(path, path.stem.rsplit("-", 1)[1])
    with torch.serialization.safe_globals(TRUSTED):
        package = torch.load(path, map_location="cpu", weights_only=True)
    if package["klass"] not in CLASSES:
        raise WeightsError(f"{path} holds {package['klass']}, not a network of Demucs")
    _refuse_quantized(QUANTIZED in package["state"], path)
    return load_model(package)


def _from_safetensors(path: Path) -> Model:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("klass") not in {f"{known.__module__}.{known.__qualname__}" for known in CLASSES}:
        raise WeightsError(f"{path} holds {metadata.get('klass')}, not a network of Demucs: fetch it again")
    # Only the packed state of quantised networks has a structure, and that too can name classes.
    _refuse_quantized("structure" in metadata, path)
    return load_safetensors_model(path)


def _refuse_quantized(quantized: bool, path: Path) -> None:
    if quantized:
        raise WeightsError(f"{path} holds quantised weights, which are not read here: use the model without _q")


def _vocal_part(bag: BagOfModels, name: str) -> Bag:
    if VOCALS not in bag.sources:
        raise WeightsError(f"{name} separates {_listed(bag.sources)}, no vocals: use another model")
    if bag.samplerate != SAMPLE_RATE or bag.audio_channels != 2:
        raise WeightsError(
            f"{name} takes {bag.audio_channels} channels at {bag.samplerate} Hz; this engine runs models for "
            f"2 channels at {SAMPLE_RATE} Hz: use another model"
        )
    source = bag.sources.index(VOCALS)
    weights = [weight[source] for weight in bag.weights]
    if not sum(weights) > 0:
        raise WeightsError(f"{name}: by its weights, no network of it makes the vocals: fetch it again")
    modules: list[Any] = list(bag.models)
    counting = [(module, weight / sum(weights)) for module, weight in zip(modules, weights, strict=True) if weight]
    segments = {module.segment for module, _ in counting}
    if len(segments) != 1:
        raise WeightsError(
            f"{name}: the networks that make its vocals take segments of {_listed(map(str, segments))} s"
        )
    return Bag(counting, segments.pop())
