"""The blocks of the model, in the order in which a sequence passes them (section 3.1 of the paper).

    SelfAttention -> Fusion -> Separation -> pooling -> Projection (joint space) or Matcher
    (re-ranking)

Notation for shapes:
    B       sequences in a batch
    T       tokens of the longest sequence; masks (B, T) are true where there is a token
    C       features of a token (`width`)
    H       attention heads
    E       width of the joint space (`embedding`)

Every residual branch starts at zero (its last layer is initialised so), hence each block starts as
the identity: with few clips to learn from, training starts from the pooled encoder features instead
of having to recover them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Set the weights and bias of a layer to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def tokenwise(layer: Callable[[Tensor], Tensor], x: Tensor, mask: Tensor) -> Tensor:
    """Apply a layer that treats each token by itself: (B, T, C) and mask (B, T) -> (B, T, C').

    On a CPU only the real tokens go through it, and padding comes out as 0: a batch of captions and
    short queries is mostly padding. A GPU would wait for the count of tokens longer than it saves.
    """
    if x.device.type != "cpu":
        return torch.as_tensor(layer(x))
    rows = mask.flatten().nonzero().squeeze(1)  # whole rows are copied several times faster than masked elements
    real = layer(x.flatten(0, 1).index_select(0, rows))  # (tokens, C')
    return real.new_zeros(mask.numel(), real.shape[-1]).index_copy(0, rows, real).unflatten(0, mask.shape)


class SelfAttention(nn.Module):
    """A pre-norm, multi-head, residual self-attention block: x + W_o attention(norm(x))."""

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, T, C). Padding is never attended to."""
        batch, length, width = x.shape
        heads = tokenwise(nn.Sequential(self.norm, self.project_in), x, mask)
        heads = heads.view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, C / H)
        # No dropout of the attention weights: torch would fall back to its slow kernel.
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        mixed = tokenwise(self.project_out, mixed.transpose(1, 2).reshape(batch, length, width), mask)  # (B, T, C)
        return x + F.dropout(mixed, self.dropout, self.training)


class Fusion(nn.Module):
    """Two self-attention blocks over the tokens of one modality, or of both concatenated."""

    def __init__(self, width: int, *, heads: int, dropout: float, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SelfAttention(width, heads=heads, dropout=dropout) for _ in range(blocks))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, T, C)."""
        for block in self.blocks:
            x = block(x, mask)
        return x


class Separation(nn.Module):
    """A residual feed-forward network for one modality: x + W_2 gelu(W_1 norm(x)), 2 C wide.

    The paper gives no width. A step spends most of its time here, and 4 C retrieves no better.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            zeroed(nn.Linear(2 * width, width)),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return x + self.layers(x)


class AttentionPooling(nn.Module):
    """A weighted mean of the tokens; the weights are softmax(v . tanh(W norm(x))) over the tokens.

    v starts at zero, so the pooling starts as the plain mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), zeroed(nn.Linear(width, 1, bias=False))
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, C)."""
        scores = tokenwise(self.score, x, mask).squeeze(-1).masked_fill(~mask, float("-inf"))  # (B, T)
        return torch.einsum("bt,btc->bc", scores.softmax(dim=1), x)


class MeanPooling(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, C)."""
        weights = mask.to(x.dtype)
        return torch.einsum("bt,btc->bc", weights, x) / weights.sum(dim=1, keepdim=True)


class Projection(nn.Module):
    """From a pooled vector to the joint space: a norm, then two layers as in LAION CLAP."""

    def __init__(self, width: int, embedding: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, embedding),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(embedding, embedding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, E)."""
        projected: Tensor = self.layers(x)
        return projected


class Matcher(nn.Module):
    """From the pooled halves of a fused pair to the logit that they belong together."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, 2 C) -> (B,)."""
        logits: Tensor = self.layers(pooled)  # (B, 1)
        return logits.squeeze(-1)
