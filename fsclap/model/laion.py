"""Convert LAION's CLAP checkpoints for transformers' ClapModel, without LAION's code.

    python -m fsclap.model.laion 630k-audioset-best.pt data/weights/clap --tokenizer roberta-base

The two implementations have the same layers under different names; tests/laion checks that they
agree. What only LAION's has is left out: the spectrogram (fsclap.model.clap has one), the head that
names AudioSet's classes, and two small networks used in training only. Source:
https://github.com/LAION-AI/CLAP.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

from fsclap.model.clap import log_mel_extractor

AUDIO, TEXT = "audio_model.audio_encoder.", "text_model."
NAMES = (
    (r"^audio_branch\.", AUDIO),
    (r"^text_branch\.", TEXT),
    (r"^(audio|text)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(audio|text)_projection\.2\.", r"\1_projection.linear2."),
    (r"\.bn0\.", ".batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
"""LAION's names and transformers', applied in this order."""
QKV = re.compile(r"\.qkv\.")
UNUSED = re.compile(
    r"^audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|^(audio|text)_transform\."
    r"|\.attn_mask$|\.relative_position_index$|^text_branch\.embeddings\.(position_ids|token_type_ids)$"
)
"""LAION's tensors that no embedding depends on, and tables that follow from the sizes."""
TABLES = re.compile(r"\.relative_position_index$|\.embeddings\.(position_ids|token_type_ids)$")
"""Transformers' tables that follow from the sizes."""
FUSION = re.compile(r"\.(mel_conv[12]d|fusion_model)\.")
HEAD_WIDTH = 64
"""Width of a head of RoBERTa's attention, whatever its size; the file does not say."""


class ConversionError(ValueError):
    """A checkpoint that can't be converted. The message says why and what to use instead."""


def convert(checkpoint: Path, folder: Path, *, tokenizer: str) -> ClapModel:
    """Write config.json, model.safetensors, the tokenizer and the feature extractor's settings.

    Args:
        checkpoint: LAION's .pt of HTSAT (tiny, base or large) and RoBERTa, without fusion.
        folder: Destination; must not exist, or be empty.
        tokenizer: Folder or hub name of RoBERTa's tokenizer; the checkpoint has none.

    Returns:
        The model as saved.

    Raises:
        ConversionError: The file is damaged, contains code, or is of another kind of model; or the
            tokenizer doesn't fit.
        FileExistsError: The folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a folder that doesn't exist yet")
    model = build(read_state(checkpoint), checkpoint)
    pieces = _tokenizer(tokenizer, len(model.text_model.embeddings.word_embeddings.weight))
    folder.mkdir(parents=True, exist_ok=True)
    pieces.save_pretrained(folder)
    log_mel_extractor().save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def read_state(checkpoint: Path, *, wrappers: Sequence[str] = ("state_dict",)) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, by their names in it. Runs no code from the file.

    Args:
        checkpoint: A checkpoint of a training, or its weights alone.
        wrappers: Names under which it may hold its weights.

    Raises:
        ConversionError: There is no such file, it is damaged, or it contains code.
    """
    # Next to the weights are numbers from the training, some of them NumPy's, of NumPy 1 or 2.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    numbers += [np.dtype, *{type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)}]
    try:
        with torch.serialization.safe_globals(numbers):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConversionError(f"{checkpoint}: there is no such file") from error
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ConversionError(
            f"{checkpoint} can't be read as tensors: it is damaged, or contains Python code, which is never run. "
            f"Download it again from where LAION publishes it ({reason})"
        ) from error
    state = content if isinstance(content, dict) else {}
    state = next((state[name] for name in wrappers if isinstance(state.get(name), dict)), state)
    named = state.items() if isinstance(state, dict) else ()
    return {str(name).removeprefix("module."): value for name, value in named if isinstance(value, Tensor)}


def build(state: Mapping[str, Tensor], source: object) -> ClapModel:
    """Build the ClapModel of a checkpoint's tensors.

    Args:
        state: Tensors by LAION's names.
        source: Name of the checkpoint in messages.

    Raises:
        ConversionError: It is not HTSAT and RoBERTa without fusion.
    """
    if fused := next(filter(FUSION.search, state), None):
        raise ConversionError(
            f"{source} takes four crops of a clip (it has {fused}), which is not supported. Use a model "
            "without fusion, such as 630k-audioset-best.pt or music_speech_audioset_epoch_15_esc_89.98.pt"
        )
    try:
        config = configuration(state)
    except KeyError as error:
        raise ConversionError(
            f"{source} is not a CLAP of HTSAT and RoBERTa: it has no {error.args[0]}. Other encoders (PANN, BERT, "
            "BART, CLIP's) have no counterpart in transformers"
        ) from error
    model = ClapModel(config).eval()
    tensors = renamed(state)
    expected = {name: tensor for name, tensor in model.state_dict().items() if not TABLES.search(name)}
    wrong = sorted(tensors.keys() ^ expected.keys()) or [
        name for name, tensor in expected.items() if tensors[name].shape != tensor.shape
    ]
    if wrong:
        raise ConversionError(
            f"{source} does not fit HTSAT and RoBERTa of its sizes: {len(wrong)} of its tensors are missing, unknown "
            f"or of another shape, such as {wrong[0]}"
        )
    model.load_state_dict(tensors, strict=False)
    return model


def configuration(state: Mapping[str, Tensor]) -> ClapConfig:
    """Derive the sizes of a model from its tensors.

    Raises:
        KeyError: A tensor of HTSAT and RoBERTa is missing; carries its name.
    """
    width = state["audio_branch.patch_embed.proj.weight"].shape[0]
    depths: list[int] = []
    heads: list[int] = []
    while blocks := _count(state, rf"audio_branch\.layers\.{len(depths)}\.blocks\.(\d+)\."):
        table = state[f"audio_branch.layers.{len(depths)}.blocks.0.attn.relative_position_bias_table"]
        depths.append(blocks)
        heads.append(table.shape[1])
    if not depths:
        raise KeyError("audio_branch.layers.0")
    words = state["text_branch.embeddings.word_embeddings.weight"]
    if state["text_branch.embeddings.token_type_embeddings.weight"].shape[0] != 1:
        raise KeyError("text_branch.embeddings.token_type_embeddings.weight of RoBERTa, but BERT's")
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(depths) - 1),
        depths=depths,
        num_attention_heads=heads,
        num_hidden_layers=len(depths),
    )
    text = ClapTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=_count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        num_attention_heads=words.shape[1] // HEAD_WIDTH,
        intermediate_size=state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=state["text_branch.embeddings.position_embeddings.weight"].shape[0],
        # RoBERTa's; the default of ClapTextConfig is BERT's.
        layer_norm_eps=1e-5,
    )
    return ClapConfig(
        audio_config=audio.to_dict(),
        text_config=text.to_dict(),
        projection_dim=state["audio_projection.2.weight"].shape[0],
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors that ClapModel has; query, key and value become separate."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if UNUSED.search(name):
            continue
        for ours, theirs in NAMES:
            name = re.sub(ours, theirs, name)
        if QKV.search(name):
            parts = ("query", "key", "value")
            result |= {QKV.sub(f".{part}.", name): piece for part, piece in zip(parts, tensor.chunk(3), strict=True)}
        else:
            result[name] = tensor
    return result


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _tokenizer(name: str, vocabulary: int) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"--tokenizer {name}: no tokenizer can be read there ({str(error).splitlines()[0]}). Name a folder with "
            "RoBERTa's tokenizer.json, or its hub name, roberta-base"
        ) from error
    if len(tokenizer) > vocabulary:
        raise ConversionError(
            f"--tokenizer {name} has {len(tokenizer)} tokens and the checkpoint {vocabulary}: the model was "
            "trained with another one, roberta-base's"
        )
    return tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Convert a CLAP checkpoint of LAION's for transformers' ClapModel.")
    parser.add_argument("checkpoint", type=Path, help="LAION's .pt, without fusion")
    parser.add_argument("folder", type=Path, help="where to; then name it in model.clap_weights")
    parser.add_argument("--tokenizer", default="roberta-base", help="folder or hub name (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        model = convert(options.checkpoint, options.folder, tokenizer=options.tokenizer)
    except (ConversionError, FileExistsError) as error:
        raise SystemExit(f"not converted: {error}") from error
    print(f"{options.folder}: ClapModel of {model.num_parameters() / 1e6:.0f} million parameters")


if __name__ == "__main__":
    main()
