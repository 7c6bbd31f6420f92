"""Models of the Demucs family with random weights, in both layouts that real ones come in."""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from demucs.demucs import LayerScale as TimeLayerScale
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.transformer import LayerScale
from safetensors.torch import save_file

Model = Literal["htdemucs", "htdemucs_ft", "hdemucs_mmi"]
Layout = Literal["huggingface", "repo"]
Size = Literal["small", "full"]

SOURCES = ["drums", "bass", "other", "vocals"]
SIGNATURES = {
    "htdemucs": ["955717e8"],
    "htdemucs_ft": ["f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d"],
    "hdemucs_mmi": ["75fc33f5"],
}
"""As published; so are the arguments below."""
ARGUMENTS: dict[tuple[type, Size], dict[str, Any]] = {
    (HTDemucs, "full"): {"bottom_channels": 512, "t_dropout": 0.02, "segment": Fraction(39, 5)},
    (HTDemucs, "small"): {
        "channels": 8,
        "bottom_channels": 32,
        "t_layers": 3,
        "t_heads": 4,
        "segment": Fraction(6, 5),
    },
    (HDemucs, "full"): {"segment": 44},
    (HDemucs, "small"): {"channels": 8, "segment": 2},
}
"""full: 41 million parameters (HTDemucs) and 83 million (HDemucs)."""


def write_demucs(
    folder: Path,
    *,
    model: Model = "htdemucs",
    layout: Layout = "huggingface",
    size: Size = "small",
    seed: int = 0,
    sources: list[str] = SOURCES,
    **arguments: Any,
) -> Path:
    """Write {model}.yaml and the networks that it lists.

    Args:
        folder: The folder to write to; it is created.
        model: The published model to imitate.
        layout: The file layout: of the hub, or of Demucs' own downloads.
        size: "full" for the published sizes, "small" for tests.
        seed: Seed of the first network's weights; each further network adds one.
        sources: Names of the sources that the networks separate.
        arguments: Arguments of the network's class that replace those of `size`.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bag: dict[str, Any] = {"models": SIGNATURES[model]}
    if model == "htdemucs_ft":
        bag["weights"] = torch.eye(len(SOURCES)).tolist()
    if model == "hdemucs_mmi":
        bag["segment"] = 44 if size == "full" else 2
    for number, signature in enumerate(SIGNATURES[model]):
        package = package_of(model, size=size, seed=seed + number, sources=sources, **arguments)
        write = write_safetensors if layout == "huggingface" else write_pickle
        write(folder, signature, package)
    (folder / f"{model}.yaml").write_text(yaml.safe_dump(bag))
    return folder


def package_of(model: Model, *, size: Size, seed: int, sources: list[str] = SOURCES, **arguments: Any) -> dict:
    """Build the package that `demucs.states.serialize_model` makes of a network."""
    klass = HDemucs if model == "hdemucs_mmi" else HTDemucs
    kwargs = {"sources": list(sources)} | ARGUMENTS[klass, size] | arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = klass(**kwargs)
        # Near 0 in a new network, so that nothing behind them would show in its output.
        for module in network.modules():
            if isinstance(module, LayerScale | TimeLayerScale):
                module.scale.data.uniform_(0.2, 0.5)
    state = {name: value.half() for name, value in network.state_dict().items()}
    return {"klass": klass, "args": (), "kwargs": kwargs, "state": state, "training_args": {"seed": seed}}


def write_pickle(folder: Path, signature: str, package: dict) -> Path:
    """{signature}-{checksum}.th, as `demucs.states.save_with_checksum` writes it."""
    buffer = io.BytesIO()
    torch.save(package, buffer)
    path = folder / f"{signature}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.th"
    path.write_bytes(buffer.getvalue())
    return path


def write_safetensors(folder: Path, signature: str, package: dict) -> Path:
    """{signature}.safetensors, with class and arguments as `demucs.hf` reads them."""
    klass = package["klass"]
    metadata = {
        "klass": f"{klass.__module__}.{klass.__qualname__}",
        "args": json.dumps(package["args"]),
        "kwargs": json.dumps(package["kwargs"], default=_encoded),
    }
    path = folder / f"{signature}.safetensors"
    save_file({name: value.contiguous() for name, value in package["state"].items()}, path, metadata)
    return path


def _encoded(value: Fraction) -> dict[str, Any]:
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
