"""AudioCLIP (Guzhov et al. 2021, arXiv 2106.13043; released code AndreyGuzhov/AudioCLIP, MIT).

    gated layer:  y = layer(x) * sigmoid(BN(PW(DW(x))))     layer: a ResNeXt bottleneck, PW and DW: point-
                                                            and depthwise convolutions of the gate
    clip: W mean_t(y_t)       text: W LN(last token), as in CLIP
    loss = CE(S / tau) + CE(S^T / tau), without 1/2; 1 / tau = 100 at the start, between 1 and 100

The released network is a ResNeXt-50 over a learnt spectrogram (`fsclap.model.systems.esresnext`). Ours: on
encoders that give tokens, such as the embedded ones, two gated layers run over the tokens along time, with
the released gate's kernel of 5; the learnt spectrogram is left out, for it needs the wave.

encoders=own: ESResNeXt-FBSP over 5 s of 44.1 kHz, whose extra loss is L_ttf, and CLIP's text network (RN50).
The release takes waves of int16 range and lets the user see to it; here it is done. A long caption is cut.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, PretrainedConfig, PreTrainedTokenizerFast

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import MeanPooling, tokenwise
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.systems.clap_microsoft import last_token
from fsclap.model.systems.esresnext import FILE as AUDIO_FILE
from fsclap.model.systems.esresnext import EsresnextTokens, Sizes, saved_sizes, sizes_of
from fsclap.model.systems.published import count, fill, read_published, renamed, sized, under
from fsclap.model.systems.text import FOLDER as TEXT_FOLDER
from fsclap.model.systems.text import TextNetwork, heads_of, saved_config, saved_tokenizer, tokenizer_of
from fsclap.model.tokens import Tokens

TEMPERATURE = 0.01
GROUP = 4
"""Channels of a group of the bottleneck: the 4d of ResNeXt-50 32x4d."""
GATE = 5
"""Frames that the gate's depthwise convolution spans."""
LAYERS = 2
MAX_TOKENS, CLIP = 77, "openai/clip-vit-base-patch32"
BLOCKS = "transformer.resblocks."
CLIP_NAMES = (
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""CLIP's names and transformers', applied in this order."""


class GatedLayer(nn.Module):
    """A residual ResNeXt bottleneck over time, times an attention gate.

    Padding is set to 0 before each convolution, and norms see real tokens alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(GROUP, width // 2 // GROUP * GROUP)
        self.narrow = nn.Sequential(nn.Linear(width, inner, bias=False), nn.BatchNorm1d(inner), nn.ReLU())
        self.grouped = nn.Conv1d(inner, inner, 3, padding=1, groups=inner // GROUP, bias=False)
        self.widen = nn.Sequential(
            nn.BatchNorm1d(inner), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.BatchNorm1d(width)
        )
        self.gate_depth = nn.Conv1d(width, width, GATE, padding=GATE // 2, groups=width, bias=False)
        self.gate_point = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, T, C)."""
        branch = _along_time(self.grouped, _on_tokens(self.narrow, x, mask))
        layer = F.relu(x + _on_tokens(self.widen, branch, mask))
        depth = _along_time(self.gate_depth, x * mask[..., None])
        return layer * torch.sigmoid(_on_tokens(self.gate_point, depth, mask)) * mask[..., None]


def _on_tokens(layers: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Apply layers with batch norms to the real tokens; padding comes out as 0."""
    rows = mask.flatten().nonzero().squeeze(1)  # whole rows are copied several times faster than masked elements
    real = layers(x.flatten(0, 1).index_select(0, rows))  # (tokens, C')
    return real.new_zeros(mask.numel(), real.shape[-1]).index_copy(0, rows, real).unflatten(0, mask.shape)


def _along_time(convolution: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(convolution(x.transpose(1, 2))).transpose(1, 2)


class AudioClip(System):
    """Gated convolutions, CLIP's reading of the text, the sum of both directions."""

    system = "audioclip"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        own = settings.encoders == "own"
        width = self.audio_encoder.dim if own else settings.width
        self.project = nn.Identity() if own else nn.Linear(self.audio_encoder.dim, width)
        self.layers = nn.ModuleList(GatedLayer(width) for _ in range(0 if own else LAYERS))
        self.pooling = MeanPooling()
        self.fc = nn.Linear(width, settings.embedding)
        self.ln_final = nn.LayerNorm(self.text_encoder.dim)
        self.text_projection = nn.Linear(self.text_encoder.dim, settings.embedding, bias=False)
        self.log_scale = self.learnt_scale(TEMPERATURE)

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        tokens = self.audio_encoder(features)
        x = tokenwise(self.project, tokens.values, tokens.mask)
        for layer in self.layers:
            x = layer(x, tokens.mask)
        return F.normalize(self.fc(self.pooling(x, tokens.mask)), dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.text_projection(self.ln_final(last_token(self.text_encoder(features)))), dim=-1)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute the sum of the InfoNCE of both directions."""
        return 2 * plain_loss(embedded, scale, labels, settings)

    def penalty(self) -> Tensor | None:
        """Compute L_ttf, where the spectrogram is learnt."""
        audio = self.audio_encoder
        return audio.fbsp.loss(audio.sizes.fft) if isinstance(audio, EsresnextTokens) else None

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build ESResNeXt-FBSP and CLIP's text network, or what the checkpoint has."""
        file, sizes, text = settings.systems.weights, Sizes(), _clip(49_408, 512, 12, MAX_TOKENS)
        tokenizer = tokenizer_of(settings.systems.text_weights, needed=file is not None, model=CLIP)
        if file is not None:
            state = read_published(file)
            sizes, text = sizes_of(under("audio.", state), file), _clip_of(state, file)
        return EsresnextTokens(sizes), clip_text(text, tokenizer)

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        sizes = saved_sizes(json.loads((folder / AUDIO_FILE).read_text()))
        return EsresnextTokens(sizes), clip_text(saved_config(folder, TEXT_FOLDER), saved_tokenizer(folder))

    def load_published(self) -> None:
        """Load AudioCLIP-Full-Training.pt or -Partial-Training.pt; the images' part is left out."""
        file, audio, text = self.settings.systems.weights, self.audio_encoder, self.text_encoder
        if file is None:
            return
        assert isinstance(audio, EsresnextTokens)
        assert isinstance(text, TextNetwork)
        state = read_published(file)
        fill(audio, under("audio.", state), file, prefix="audio.", computed=r"num_batches_tracked$")
        fill(self.fc, under("audio.fc.", state), file, prefix="audio.fc.")
        named = renamed(_split_attention(state), CLIP_NAMES)
        fill(text.network, named, file, prefix="transformer: ")
        fill(self.ln_final, under("ln_final.", state), file, prefix="ln_final.")
        sized(state, "text_projection", file)
        fill(self.text_projection, {"weight": state["text_projection"].T}, file, prefix="text_projection.")
        sized(state, "logit_scale_at", file)
        self.log_scale.data.copy_(state["logit_scale_at"])


def clip_text(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> TextNetwork:
    """Build CLIP's text network without its final norm, which is applied to the last token alone."""
    encoder = TextNetwork(config, tokenizer, max_tokens=MAX_TOKENS)
    encoder.network.final_layer_norm = nn.Identity()
    return encoder


def _clip(vocabulary: int, width: int, layers: int, positions: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads_of(width),
        max_position_embeddings=positions,
        hidden_act="quick_gelu",
        bos_token_id=0,
        eos_token_id=vocabulary - 1,
    )


def _clip_of(state: Mapping[str, Tensor], file: str) -> CLIPTextConfig:
    vocabulary, width = sized(state, "token_embedding.weight", file)
    positions = sized(state, "positional_embedding", file)[0]
    return _clip(vocabulary, width, count(state, rf"{BLOCKS}(\d+)\."), positions)


def _split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make query, key and value of each block's in_proj."""
    result = dict(state)
    for name, tensor in state.items():
        if name.startswith(BLOCKS) and ".attn.in_proj_" in name:
            block, kind = name.split(".attn.in_proj_")
            parts = zip("qkv", tensor.chunk(3), strict=True)
            result |= {f"{block}.self_attn.{part}_proj.{kind}": third for part, third in parts}
    return result
