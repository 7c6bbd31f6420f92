"""Weights of other people's models that come with this package; README.md says whose."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fsclap.files import sha256_file
from fsclap.weights import WeightsError

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """A model's weights.

    Attributes:
        tensors: Names of the network -> float32 tensors, integers as they are.
        revision: "{name}-{12 hexadecimal digits of the file's SHA-256}".
    """

    tensors: dict[str, Tensor]
    revision: str


def carried(name: str, *, setting: str) -> Carried:
    """Read weights of this package.

    Args:
        name: Name of the file, without its ending.
        setting: The choice that needs the weights, for the messages: "diarization.engine=...".

    Raises:
        WeightsError: The file is missing or damaged.
    """
    path = FOLDER / f"{name}.safetensors"
    try:
        tensors = load_file(path)
        digest = sha256_file(path)[:12]
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{setting}: {path} is missing or damaged ({error}): this package is installed without its weights. "
            "Install it again, or make the file with `python -m bench.carried_weights`"
        ) from error
    return Carried({key: _single(tensor) for key, tensor in tensors.items()}, f"{name}-{digest}")


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
