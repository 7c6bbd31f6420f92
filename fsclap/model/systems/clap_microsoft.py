"""CLAP-Microsoft, 2023 (Elizalde et al., arXiv 2309.05767; released code microsoft/CLAP, msclap 1.3.4).

    P(x) = LN(e_1 + drop_0.5(W_2 gelu(e_1))),   e_1 = W_1 x, no biases
    clip: P(mean_t(u_t))      text: P(last token), as GPT-2 reads from left to right
    loss = 1/2 [CE(S / tau) + CE(S^T / tau)]

The released encoders don't normalise; their similarity is the cosine, so unit rows rank alike. The
training code is not public: loss and temperature are CLAP's. Ours: on encoders that read both ways, such
as the embedded MiniLM, the last token is the final special token.

encoders=own: HTSAT-tiny and GPT-2. The released mel bank was built for 32 kHz and is fed 44.1 kHz; that is
kept, for the weights know no other. The released code crops a long clip at random, also when it is used;
here the middle counts, a shorter clip is repeated up to 7 s, and captions are cut after 77 tokens.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ClapAudioConfig, GPT2Config

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import MeanPooling
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.systems.htsat import FOLDER as AUDIO_FOLDER
from fsclap.model.systems.htsat import FrontEnd, HtsatTokens, config_of, fill_encoders, tiny_config
from fsclap.model.systems.published import count, fill, read_published, sized, under
from fsclap.model.systems.text import FOLDER as TEXT_FOLDER
from fsclap.model.systems.text import TextNetwork, heads_of, saved_config, saved_tokenizer, tokenizer_of
from fsclap.model.tokens import Tokens

DROPOUT = 0.5
FRONT = FrontEnd(sample_rate=44_100, bank_rate=32_000, seconds=7, repeat=True)
MAX_TOKENS = 77
AUDIO_KEYS, TEXT_KEYS = "audio_encoder.base.htsat.", "caption_encoder.base."


class MicrosoftProjection(nn.Module):
    """Two layers with a residual between them; the names are those of the released checkpoint."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, embedding, bias=False)
        self.linear2 = nn.Linear(embedding, embedding, bias=False)
        self.layer_norm = nn.LayerNorm(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, E)."""
        first = self.linear1(x)
        second = F.dropout(self.linear2(F.gelu(first)), DROPOUT, self.training)
        return torch.as_tensor(self.layer_norm(first + second))


def last_token(tokens: Tokens) -> Tensor:
    """Take the last token of each row: (B, T, D) -> (B, D)."""
    rows = torch.arange(len(tokens), device=tokens.mask.device)
    return tokens.values[rows, tokens.mask.sum(dim=1) - 1]


class ClapMicrosoft(System):
    """CLAP with Microsoft's projection, over the last token of the text."""

    system = "clap_microsoft"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        self.pooling = MeanPooling()
        self.audio_projection = MicrosoftProjection(self.audio_encoder.dim, settings.embedding)
        self.text_projection = MicrosoftProjection(self.text_encoder.dim, settings.embedding)
        self.log_scale = self.learnt_scale()

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        tokens = self.audio_encoder(features)
        return F.normalize(self.audio_projection(self.pooling(tokens.values, tokens.mask)), dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.text_projection(last_token(self.text_encoder(features))), dim=-1)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute InfoNCE in both directions."""
        return plain_loss(embedded, scale, labels, settings)

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build HTSAT-tiny and GPT-2, or what the checkpoint has."""
        file, audio, text = settings.systems.weights, tiny_config(), GPT2Config()
        tokenizer = tokenizer_of(settings.systems.text_weights, needed=file is not None, model="openai-community/gpt2")
        if file is not None:
            state = read_published(file)
            audio, text = (
                config_of(under(AUDIO_KEYS, state), file, prefix=AUDIO_KEYS),
                _gpt2_of(under(TEXT_KEYS, state), file),
            )
        return HtsatTokens(audio, FRONT), TextNetwork(text, tokenizer, max_tokens=MAX_TOKENS, end=True)

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        audio = ClapAudioConfig.from_pretrained(folder / AUDIO_FOLDER, local_files_only=True)
        text, tokenizer = saved_config(folder, TEXT_FOLDER), saved_tokenizer(folder)
        return HtsatTokens(audio, FRONT), TextNetwork(text, tokenizer, max_tokens=MAX_TOKENS, end=True)

    def load_published(self) -> None:
        """Load CLAP_weights_2023.pth: HTSAT, GPT-2, both projections, the temperature."""
        file = self.settings.systems.weights
        if file is None:
            return
        state = fill_encoders(self.audio_encoder, self.text_encoder, file, audio_keys=AUDIO_KEYS, text_keys=TEXT_KEYS)
        for head, prefix in ((self.audio_projection, "audio_encoder"), (self.text_projection, "caption_encoder")):
            fill(head, under(f"{prefix}.projection.", state), file, prefix=f"{prefix}.projection.")
        sized(state, "logit_scale", file)
        self.log_scale.data.copy_(state["logit_scale"])


def _gpt2_of(state: Mapping[str, Tensor], file: str) -> GPT2Config:
    vocabulary, width = sized(state, "wte.weight", file, prefix=TEXT_KEYS)
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=sized(state, "wpe.weight", file, prefix=TEXT_KEYS)[0],
        n_embd=width,
        n_layer=count(state, r"h\.(\d+)\."),
        n_head=heads_of(width),
    )
