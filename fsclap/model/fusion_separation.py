"""The fusion-separation module (section 3.1 of the paper): attention blocks, feed-forward networks, pooling.

Notation for shapes:
    batch   sequences in a batch
    length  tokens of the longest sequence; masks are true where there is a token
    width   features of a token

Every branch starts at zero (its last layer is initialised so), hence each residual block starts as the identity:
with few clips to learn from, training then departs from the pooled encoder features instead of having to find
its way back to them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """A multi-head residual self-attention block, normalised first: x + W_o attention(norm(x))."""

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width) and (batch, length) -> (batch, length, width). Padding is never attended to."""
        batch, length, width = x.shape
        heads = self.project_in(self.norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # 3 x (batch, heads, length, width / heads)
        # No dropout of the attention weights: with it torch falls back to its slow kernel.
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        mixed = self.project_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + F.dropout(mixed, self.dropout, self.training)


class Fusion(nn.Module):
    """Two self-attention blocks: over one modality's tokens, or over two modalities' put one after the other."""

    def __init__(self, width: int, *, heads: int, dropout: float, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SelfAttention(width, heads=heads, dropout=dropout) for _ in range(blocks))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width) and (batch, length) -> (batch, length, width)."""
        for block in self.blocks:
            x = block(x, mask)
        return x


class Separation(nn.Module):
    """A residual feed-forward network for one modality: x + W_2 gelu(W_1 norm(x)), four times as wide inside."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            zeroed(nn.Linear(4 * width, width)),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
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
        """(batch, length, width) and (batch, length) -> (batch, width)."""
        scores = self.score(x).squeeze(-1).masked_fill(~mask, float("-inf"))
        return torch.einsum("bl,blw->bw", scores.softmax(dim=1), x)


class MeanPooling(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width) and (batch, length) -> (batch, width)."""
        weights = mask.to(x.dtype)
        return torch.einsum("bl,blw->bw", weights, x) / weights.sum(dim=1, keepdim=True)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and bias of zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Projection(nn.Module):
    """From a pooled vector to the joint space: two layers, as LAION CLAP's, after a norm."""

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
        """(batch, width) -> (batch, embedding)."""
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
        """(batch, 2 width) -> (batch,)."""
        logits: Tensor = self.layers(pooled)
        return logits.squeeze(-1)
