import torch
from torch import nn

from fsclap.model.fusion_separation import AttentionPooling, Fusion, MeanPooling, Separation

WIDTH = 16


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights as after some training: every branch starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def tokens(batch: int = 3, length: int = 5) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(1))


def everything(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_blocks_start_as_the_identity_and_pooling_as_the_mean() -> None:
    x = tokens()
    mask = everything(x)
    assert torch.equal(Fusion(WIDTH, heads=4, dropout=0.5).eval()(x, mask), x)
    assert torch.equal(Separation(WIDTH, dropout=0.5).eval()(x), x)
    torch.testing.assert_close(AttentionPooling(WIDTH)(x, mask), x.mean(dim=1))


def test_attention_agrees_with_torchs_own_multi_head_attention() -> None:
    block = awake(Fusion(WIDTH, heads=4, dropout=0.1, blocks=1)).blocks[0]
    reference = nn.MultiheadAttention(WIDTH, 4, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(block.project_in.weight)
        reference.in_proj_bias.copy_(block.project_in.bias)
        reference.out_proj.weight.copy_(block.project_out.weight)
        reference.out_proj.bias.copy_(block.project_out.bias)
    x = tokens()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    normed = block.norm(x)
    expected = x + reference(normed, normed, normed, key_padding_mask=~mask)[0]
    torch.testing.assert_close(block(x, mask)[mask], expected[mask])


def test_padding_changes_nothing() -> None:
    fusion, pooling = awake(Fusion(WIDTH, heads=4, dropout=0.1)), awake(AttentionPooling(WIDTH))
    x = tokens(batch=2, length=4)
    mask = everything(x)
    padded = torch.cat([x, torch.full((2, 3, WIDTH), 7.0)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(fusion(padded, padded_mask)[:, :4], fusion(x, mask))
    for pool in (pooling, MeanPooling()):
        torch.testing.assert_close(pool(padded, padded_mask), pool(x, mask))


def test_attention_pooling_weighs_tokens_by_what_they_are() -> None:
    pooling, x = awake(AttentionPooling(WIDTH)), tokens()
    pooled = pooling(x, everything(x))
    assert (pooled - x.mean(dim=1)).abs().max() > 0.05
    # A weighted mean lies within the tokens.
    assert (pooled <= x.max(dim=1).values + 1e-6).all()
    assert (pooled >= x.min(dim=1).values - 1e-6).all()
