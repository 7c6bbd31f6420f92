"""Read checkpoints in the layouts in which the systems were published, without running code from them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsclap.model.encoders import EncoderError
from fsclap.model.laion import ConversionError, read_state

SETTING = "model.systems.weights"
WRAPPERS = ("model", "state_dict")
"""Names under which a checkpoint may hold its tensors, next to its optimiser and its configuration."""


def read_published(file: str) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by their published names: a flat one, or one under a wrapper.

    Half precision becomes float32; a prefix `module.` is dropped.

    Raises:
        EncoderError: There is no such file, it is damaged, contains code, or holds no tensors.
    """
    try:
        state = read_state(Path(file), wrappers=WRAPPERS)
    except ConversionError as error:
        raise EncoderError(f"{SETTING}: {error}") from error
    if not state:
        raise EncoderError(f"{SETTING}={file} holds no tensors; name the checkpoint as it was published")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def sized(state: Mapping[str, Tensor], name: str, file: str, *, prefix: str = "") -> torch.Size:
    """Return the shape of a tensor that the sizes of a network are derived from.

    Raises:
        EncoderError: The checkpoint lacks it.
    """
    if name not in state:
        raise EncoderError(f"{SETTING}={file} lacks {prefix}{name}: it is damaged, or of another system or version")
    return state[name].shape


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    file: str,
    *,
    prefix: str,
    computed: str = "$^",
    setting: str = SETTING,
) -> None:
    """Load tensors into a module, all of them.

    Args:
        module: Module whose names the tensors have.
        state: Tensors; those that the module doesn't know are obsolete, and left out.
        file: Name of the checkpoint, for messages.
        prefix: Where these tensors are in the checkpoint, for messages.
        setting: Setting that names it, for messages.
        computed: Pattern of tensors that follow from the sizes, so need not be in the checkpoint.

    Raises:
        EncoderError: A tensor is missing, or of another size.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and not re.search(computed, name)]
    if missing:
        raise EncoderError(
            f"{setting}={file} lacks {len(missing)} weights, such as {prefix}{missing[0]}: it is damaged, or of "
            "another system or version. Download it again from where it is published"
        )
    wrong = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if wrong:
        raise EncoderError(
            f"{setting}={file}: {prefix}{wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, and the model needs "
            f"{tuple(wanted[wrong[0]].shape)}. Choose model.embedding as in the checkpoint"
        )
    module.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def count(names: Iterable[str], pattern: str) -> int:
    """Count the different numbers that a pattern with one group finds in names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def renamed(state: Mapping[str, Tensor], names: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename tensors by patterns, applied in their order."""
    result: dict[str, Any] = {}
    for name, tensor in state.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result
