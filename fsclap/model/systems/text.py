"""The text encoders of the systems: networks of transformers, with the tokens that each system reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from fsclap.model.clap import byte_tokenizer
from fsclap.model.encoders import EncoderError
from fsclap.model.systems.published import fill
from fsclap.model.tokens import Tokens

FOLDER = "text_network"


class TextNetwork(nn.Module):
    """The last hidden states of a transformer.

    Args:
        config: Sizes of the network; its vocabulary fits the tokenizer.
        tokenizer: Tokenizer.
        max_tokens: Longest caption, with its special tokens.
        end: Put a space and the end token after each caption, as CLAP-Microsoft does, in place of the
            tokenizer's own special tokens.
        drop_first: Leave out the first token, [CLS].
    """

    frozen = False

    def __init__(
        self,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_tokens: int,
        end: bool = False,
        drop_first: bool = False,
    ) -> None:
        super().__init__()
        self.network: Any = new_network(config)
        self.tokenizer, self.max_tokens, self.end, self.drop_first = tokenizer, max_tokens, end, drop_first
        self.padding: int = config.pad_token_id or 0
        self.dim: int = config.hidden_size
        self.revision = f"{config.model_type}-tokens-1"
        if len(tokenizer) > config.vocab_size:
            raise EncoderError(
                f"the tokenizer has {len(tokenizer)} tokens and the text network {config.vocab_size}: "
                "model.systems.text_weights names the tokenizer of another model"
            )

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Return (T,) int64 token ids for each caption."""
        texts = [f"{caption} " if self.end else caption for caption in captions]
        room = self.max_tokens - self.end
        ids = self.tokenizer(texts, truncation=True, max_length=room, add_special_tokens=not self.end)["input_ids"]
        after = [self.tokenizer.eos_token_id] if self.end else []
        return [np.array([*row, *after], dtype=np.int64) for row in ids]

    def forward(self, features: Tokens) -> Tokens:
        """(B, T) ids -> (B, T, C)."""
        ids = features.values.masked_fill(~features.mask, self.padding)
        states: Tensor = self.network(input_ids=ids, attention_mask=features.mask.long()).last_hidden_state
        return Tokens(states[:, 1:], features.mask[:, 1:]) if self.drop_first else Tokens(states, features.mask)

    def save_assets(self, folder: Path) -> None:
        """Save the tokenizer and the network's configuration next to the weights."""
        self.tokenizer.save_pretrained(folder)
        self.network.config.save_pretrained(folder / FOLDER)


def tokenizer_of(folder: str | None, *, needed: bool, model: str) -> PreTrainedTokenizerFast:
    """Read a tokenizer; for random weights, one for bytes.

    Args:
        folder: `model.systems.text_weights`: a folder with tokenizer.json.
        needed: Published weights are loaded, which fit one tokenizer only.
        model: Name of the model whose tokenizer is meant, for the message.

    Raises:
        EncoderError: It is needed and not named, or can't be read.
    """
    if folder is None:
        if needed:
            raise EncoderError(
                f"model.systems.text_weights is not set: these weights read the tokens of {model}. Name a folder with "
                f"its tokenizer.json (`fsclap models fetch {model} --hub huggingface --revision main`)"
            )
        return byte_tokenizer()
    try:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises Exception itself
        raise EncoderError(
            f"model.systems.text_weights={folder}: no tokenizer can be read there ({error}); name a folder with "
            f"tokenizer.json of {model}"
        ) from error
    return tokenizer


def saved_config(folder: Path, name: str) -> PretrainedConfig:
    """Read the configuration that an encoder saved next to the weights."""
    config: PretrainedConfig = AutoConfig.from_pretrained(folder / name, local_files_only=True)
    return config


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer that a text encoder saved next to the weights."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer


def new_network(config: PretrainedConfig) -> Any:
    """Build a network with random weights, without the pooler that no system uses."""
    pooler = {"add_pooling_layer": False} if config.model_type in ("bert", "roberta") else {}
    return AutoModel.from_config(config, **pooler)


def fill_from_folder(network: nn.Module, folder: str, *, setting: str) -> None:
    """Load the weights of a network of the same kind from a folder in transformers' layout, safetensors only.

    Raises:
        EncoderError: They can't be read, or do not fit.
    """
    try:
        loaded = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # damaged files: transformers raises all kinds
        raise EncoderError(f"{setting}={folder}: no model of transformers can be read there ({error})") from error
    fill(network, loaded.state_dict(), folder, prefix="", setting=setting)


def config_of_folder(folder: str | None, default: PretrainedConfig, *, setting: str) -> PretrainedConfig:
    """Read the configuration of a network of transformers; without a folder, the default.

    Raises:
        EncoderError: It can't be read.
    """
    if folder is None:
        return default
    try:
        return saved_config(Path(folder), "")
    except Exception as error:
        raise EncoderError(
            f"{setting}={folder}: no config.json of a model of transformers is there ({error})"
        ) from error


def heads_of(width: int) -> int:
    """Attention heads of a published text network: each is 64 wide, which no checkpoint says."""
    return max(1, width // 64)
