"""MGA-CLAP (Li et al., ACM MM 2024; released code Ming-er/MGA-CLAP): a codebook that both sides share.

    q_l = W_2 LN(gelu(W_1 LN(u_l)))         tokens u_l of one modality
    z_k = max_l(q_l . c_k / sqrt(E)) / T    codes c_k, K of them; T a constant
    w   = sparsemax(z)                      sum_k w_k = 1, most of them 0
    e   = normalise(sum_k w_k c_k)
    loss = hard negatives (Eq. 1 and 2) + mean|e| / ||e||_F of each side's batch (WavCaps)

Released: K = 4096, T = 1000, codes drawn from N(0, 1). The released code counts padding as 0 in the
maximum, so a caption's embedding depends on the longest of its batch; ours leaves padding out
(`model.systems.mga.zero_padding`). Its loss differs from Eq. 2 (`loss.research.compat`). The locality-aware block
changes the last attention layer of a trained HTSAT; frozen encoders have none, so there it is left out.

encoders=own: HTSAT-tiny at 32 kHz, 10 s, and BERT without [CLS]; captions in lower case without
punctuation. The release cuts captions after 30 tokens, in the middle of a style caption; ours after 77.
"""

import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, ClapAudioConfig

from fsclap.model.encoders import EncoderError, Encoders
from fsclap.model.fusion_separation import tokenwise
from fsclap.model.losses import Embeddings, PairLabels, contrastive_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.systems.htsat import FOLDER as AUDIO_FOLDER
from fsclap.model.systems.htsat import FrontEnd, HtsatTokens, config_of, fill_encoders, tiny_config
from fsclap.model.systems.published import count, fill, read_published, sized, under
from fsclap.model.systems.text import FOLDER as TEXT_FOLDER
from fsclap.model.systems.text import TextNetwork, heads_of, saved_config, saved_tokenizer, tokenizer_of
from fsclap.model.tokens import Tokens

FRONT = FrontEnd(sample_rate=32_000, bank_rate=32_000, seconds=10, repeat=False)
MAX_TOKENS = 77
AUDIO_KEYS, TEXT_KEYS = "audio_encoder.audio_enc.", "text_encoder.text_encoder."
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def sparsemax(z: Tensor) -> Tensor:
    """Project on the simplex (Martins & Astudillo 2016): (..., K) -> (..., K), w = max(z - kappa, 0), sum 1."""
    ordered = z.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - 1
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    support = (count * ordered > excess).sum(dim=-1, keepdim=True)
    kappa = excess.gather(-1, support - 1) / support
    return (z - kappa).clamp(min=0)


def token_projection(width: int, embedding: int) -> nn.Sequential:
    """Build W_2 LN(gelu(W_1 LN(u))); the numbers of the layers are those of the released checkpoint."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, embedding),
        nn.GELU(),
        nn.LayerNorm(embedding),
        nn.Linear(embedding, embedding),
    )


class MgaClap(System):
    """Clips and captions as sparse mixtures of the same codes."""

    system = "mga_clap"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        self.frame_proj = token_projection(self.audio_encoder.dim, settings.embedding)
        self.word_proj = token_projection(self.text_encoder.dim, settings.embedding)
        self.codebook = nn.Parameter(torch.randn(settings.systems.mga.codes, settings.embedding))
        self.log_scale = self.learnt_scale()

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        return F.normalize(self.weights(self.frame_proj, self.audio_encoder(features)) @ self.codebook, dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.weights(self.word_proj, self.text_encoder(features)) @ self.codebook, dim=-1)

    def weights(self, projection: nn.Module, tokens: Tokens) -> Tensor:
        """Compute how much of each code a clip or caption has: (B, T, D) -> (B, K), rows of sum 1."""
        queries = tokenwise(projection, tokens.values, tokens.mask)  # (B, T, E)
        likeness = queries @ self.codebook.T / math.sqrt(self.codebook.shape[1])  # (B, T, K)
        fill = 0.0 if self.settings.systems.mga.zero_padding else -torch.inf
        nearest = likeness.masked_fill(~tokens.mask[..., None], fill).amax(dim=1)
        return sparsemax(nearest.float() / self.settings.systems.mga.temperature).to(queries.dtype)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute Eq. 1 and 2 with the regulariser of WavCaps, unless Eq. 3 is set otherwise."""
        if settings.research.regularization == "none":
            research = settings.research.model_copy(update={"regularization": "batch"})
            settings = settings.model_copy(update={"research": research})
        return contrastive_loss(*embedded, scale, settings=settings, groups=labels.groups, meets=labels.meets)

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build HTSAT-tiny with the locality-aware block, and BERT; or what the checkpoint has."""
        file, audio, text = settings.systems.weights, tiny_config(), BertConfig()
        tokenizer = tokenizer_of(settings.systems.text_weights, needed=file is not None, model="bert-base-uncased")
        if file is not None:
            state = read_published(file)
            audio = config_of(under(AUDIO_KEYS, state), file, prefix=AUDIO_KEYS)
            text = _bert_of(under(TEXT_KEYS, state), file)
        return _encoders(audio, text, tokenizer)

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        audio = ClapAudioConfig.from_pretrained(folder / AUDIO_FOLDER, local_files_only=True)
        text, tokenizer = saved_config(folder, TEXT_FOLDER), saved_tokenizer(folder)
        return _encoders(audio, text, tokenizer)

    def load_published(self) -> None:
        """Load model.pt: HTSAT, BERT, both projections, the codebook, the temperature."""
        file = self.settings.systems.weights
        if file is None:
            return
        state = fill_encoders(self.audio_encoder, self.text_encoder, file, audio_keys=AUDIO_KEYS, text_keys=TEXT_KEYS)
        fill(self.frame_proj, under("frame_proj.", state), file, prefix="frame_proj.")
        fill(self.word_proj, under("word_proj.", state), file, prefix="word_proj.")
        if sized(state, "codebook", file) != self.codebook.shape:
            raise EncoderError(
                f"{file} has a codebook of {tuple(state['codebook'].shape)} and the settings one of "
                f"{tuple(self.codebook.shape)}: set model.systems.mga.codes and model.embedding to its sizes"
            )
        self.codebook.data.copy_(state["codebook"])
        sized(state, "temp", file)
        self.log_scale.data.copy_(-state["temp"].log().squeeze())  # a divisor there


def _encoders(audio: ClapAudioConfig, text: Any, tokenizer: Any) -> Encoders:
    words = PlainWords(text, tokenizer, max_tokens=MAX_TOKENS, drop_first=True)
    return HtsatTokens(audio, FRONT, local=True), words


class PlainWords(TextNetwork):
    """Captions in lower case without punctuation."""

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Return (T,) int64 token ids for each caption."""
        return super().features([caption.lower().translate(_PUNCTUATION) for caption in captions])


def _bert_of(state: Mapping[str, Tensor], file: str) -> BertConfig:
    vocabulary, width = sized(state, "embeddings.word_embeddings.weight", file, prefix=TEXT_KEYS)
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=count(state, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=heads_of(width),
        intermediate_size=sized(state, "encoder.layer.0.intermediate.dense.weight", file, prefix=TEXT_KEYS)[0],
        max_position_embeddings=sized(state, "embeddings.position_embeddings.weight", file, prefix=TEXT_KEYS)[0],
    )
