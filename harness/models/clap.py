"""A checkpoint in LAION's form, made from a ClapModel: for tests without LAION's code."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ClapModel

BACK = (
    (r"^audio_model\.audio_encoder\.", "audio_branch."),
    (r"^text_model\.", "text_branch."),
    (r"_projection\.linear1\.", "_projection.0."),
    (r"_projection\.linear2\.", "_projection.2."),
)
BACK_AUDIO = (
    (r"\.batch_norm\.", ".bn0."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def laion_state(clap: ClapModel) -> dict[str, Tensor]:
    """Return a ClapModel's tensors under LAION's names, plus those that only LAION has."""
    state: dict[str, Tensor] = {}
    for name, tensor in clap.state_dict().items():
        for theirs, ours in (*BACK, *(BACK_AUDIO if "audio_encoder" in name else ())):
            name = re.sub(theirs, ours, name)
        state[name] = tensor
    for name in [name for name in state if ".attn.query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        state[name.replace("query", "qkv")] = torch.cat(parts)
    state["audio_branch.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 64, 64)
    state["audio_branch.logmel_extractor.melW"] = torch.zeros(513, 64)
    state["audio_branch.spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(513, 1, 1024)
    state["audio_branch.tscam_conv.weight"] = torch.zeros(527, 768, 2, 3)
    state["audio_branch.head.weight"] = torch.zeros(527, 527)
    state["audio_transform.sequential.0.weight"] = torch.zeros(16, 16)
    return state


def write_laion_checkpoint(path: Path, state: dict[str, Tensor]) -> None:
    """Save as LAION's training does: weights of a DistributedDataParallel, and its state."""
    content: dict[str, Any] = {"epoch": 45, "name": "2022-12-18", "best": np.float64(0.5), "optimizer": {"state": {}}}
    torch.save(content | {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
