from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fsclap.evaluation.leak import LeakError, probe, require_no_leak
from fsclap.evaluation.metrics import paper_metrics
from fsclap.evaluation.results import LeakProbe
from fsclap.model.losses import contrastive_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.tokens import Tokens

STYLES, WIDTH = 64, 32


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@dataclass(frozen=True)
class Given:
    """An encoder of what already are tokens."""

    dim: int = WIDTH
    frozen: bool = True
    revision: str = "toy"
    sample_rate: int = 16_000
    max_frames: int = 8
    context: tuple[str, ...] = ()
    max_tokens: int = 6

    def features(self, given: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(given)

    def __call__(self, tokens: Tokens) -> Tokens:
        return tokens


def toy(pairs: int, seed: int) -> tuple[Tokens, Tokens]:
    """Pairs of a style at random: eight audio and up to six text tokens of that style, in noise."""
    styles = torch.randn(2, STYLES, WIDTH, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    style = torch.randint(STYLES, (pairs,), generator=generator)
    audio, text = (
        mean[style][:, None] + torch.randn(pairs, length, WIDTH, generator=generator)
        for mean, length in zip(styles, (8, 6), strict=True)
    )
    length = torch.randint(3, 7, (pairs, 1), generator=generator)
    read = torch.arange(6) < length
    return Tokens(audio, torch.ones(pairs, 8, dtype=torch.bool)), Tokens(text * read[..., None], read)


def trained(fusion: Literal["shared", "paired"], epochs: int) -> FSCLAP:
    torch.manual_seed(0)
    audio, text = toy(4000, seed=1)
    settings = ModelSettings(width=WIDTH, heads=4, embedding=WIDTH, fusion=fusion, dropout=0.0)
    model = FSCLAP(settings, encoders=(Given(), Given()))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(4000).split(100):
            clips, captions = model(audio[rows], text[rows])
            optimizer.zero_grad()
            contrastive_loss(clips, captions, model.logit_scale(), settings=LossSettings()).backward()
            optimizer.step()
    return model.eval()


def retrieval(model: FSCLAP, audio: Tokens, text: Tokens) -> float:
    with torch.no_grad():
        clips, captions = model(audio, text)
    return float(paper_metrics(clips.numpy(), captions.numpy())["R@1"].mean())


@pytest.mark.slow
def test_fusing_each_clip_with_its_own_caption_is_caught() -> None:
    """Its "R@1" is as good as perfect, on captions of pure noise as well."""
    model = trained("paired", epochs=10)
    audio, text = toy(200, seed=2)
    found = probe(model, audio, text, seed=0)
    assert retrieval(model, audio, text) >= 0.99
    assert found.noise_r1 >= 0.99
    assert found.shuffled_r1 >= 0.99
    assert found.moved > 0.1
    assert found.leaks
    with pytest.raises(LeakError, match=r"noise as captions .*captions of other clips .*moves by .*fusion="):
        require_no_leak(found)


@pytest.mark.slow
def test_shared_blocks_stay_at_chance() -> None:
    """Even though the model has learnt: on the captions themselves it is far above chance."""
    model = trained("shared", epochs=4)
    audio, text = toy(200, seed=2)
    found = probe(model, audio, text, seed=0)
    assert retrieval(model, audio, text) > 0.1
    assert found.noise_r1 <= found.limit == pytest.approx(6 / 200)
    assert found.shuffled_r1 <= found.limit
    assert found.moved == 0.0
    assert not found.leaks
    require_no_leak(found)


def mean_of(tokens: Tokens) -> Tensor:
    weights = tokens.mask.float()[..., None]
    return (tokens.values * weights).sum(dim=1) / weights.sum(dim=1)


def dual(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
    return F.normalize(mean_of(audio), dim=1), F.normalize(mean_of(text), dim=1)


def test_a_dual_encoder_passes() -> None:
    found = probe(dual, *toy(100, seed=3), seed=0)
    assert found.moved == 0.0
    assert not found.leaks
    assert found.pairs == 100
    assert found.chance == 0.01


def test_a_caption_that_has_heard_its_clip_is_caught() -> None:
    """Nothing of the caption gets into the clip's embedding, so that does not move."""

    def heard(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        clips, captions = dual(audio, text)
        return clips, F.normalize(captions + 3 * clips, dim=1)

    found = probe(heard, *toy(100, seed=3), seed=0)
    assert found.moved == 0.0
    assert found.noise_r1 > 0.9
    with pytest.raises(LeakError, match="noise as captions"):
        require_no_leak(found)


def test_a_small_trace_of_the_caption_is_caught() -> None:
    def traced(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        clips, captions = dual(audio, text)
        return F.normalize(clips + 0.02 * captions, dim=1), captions

    found = probe(traced, *toy(100, seed=3), seed=0)
    assert found.noise_r1 <= found.limit
    assert found.leaks
    with pytest.raises(LeakError, match="moves by"):
        require_no_leak(found)


@pytest.mark.parametrize("beyond", [0, 1])
def test_one_clip_beyond_the_limit_is_a_leak(beyond: int) -> None:
    """The first clips find their partner, whatever it is; the captions of all others point away from theirs."""
    pairs = 200
    embeddings = F.normalize(torch.randn(pairs, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    tokens = Tokens(embeddings[:, None], torch.ones(pairs, 1, dtype=torch.bool))

    def encode(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        clips = audio.values[:, 0]
        number = (clips @ embeddings.T).argmax(dim=1)
        return clips, torch.where((number < found)[:, None], clips, -clips)

    found = 0
    limit = probe(encode, tokens, tokens, seed=0).limit
    found = round(limit * pairs) + beyond
    leak = probe(encode, tokens, tokens, seed=0)
    assert leak.noise_r1 == leak.shuffled_r1 == pytest.approx(found / pairs)
    assert leak.leaks == bool(beyond)


def test_a_model_that_is_not_in_evaluation_mode_is_told_so() -> None:
    generator = torch.Generator().manual_seed(0)

    def dropping(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        clips, captions = dual(audio, text)
        return F.normalize(clips * (torch.rand(clips.shape, generator=generator) > 0.1), dim=1), captions

    with pytest.raises(LeakError, match="evaluation mode"):
        require_no_leak(probe(dropping, *toy(100, seed=3), seed=0))


def test_the_length_of_a_caption_is_not_taken_for_a_leak() -> None:
    """A model that knows nothing but lengths, on captions as long as their clips: noise must be of other lengths."""
    length = torch.arange(1, 65)
    tokens = Tokens(torch.randn(64, 64, 4), torch.arange(64) < length[:, None])

    def of_length(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        clips, captions = (F.one_hot(part.mask.sum(dim=1) - 1, 64).float() for part in (audio, text))
        return clips, captions

    with torch.no_grad():
        assert paper_metrics(*(part.numpy() for part in of_length(tokens, tokens)))["R@1"].mean() == 1.0
    assert not probe(of_length, tokens, tokens, seed=0).leaks


def test_noise_is_like_the_captions_and_nothing_of_them() -> None:
    given: list[Tokens] = []

    def keeping(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        given.append(text)
        return dual(audio, text)

    audio, _ = toy(300, seed=3)
    scale, shift = torch.linspace(0.1, 5, WIDTH), torch.linspace(-3, 3, WIDTH)
    mask = toy(300, seed=4)[1].mask
    text = Tokens((torch.randn(300, 6, WIDTH) * scale + shift) * mask[..., None], mask)
    probe(keeping, audio, text, seed=0, batch=300)
    noise, shuffled = given[1], given[2]
    assert noise.values.shape == text.values.shape
    torch.testing.assert_close(noise.values[noise.mask].std(dim=0), scale, rtol=0.1, atol=0)
    torch.testing.assert_close(noise.values[noise.mask].mean(dim=0), shift, rtol=0, atol=0.5)
    assert (noise.values[~noise.mask] == 0).all()
    assert noise.mask.sum() == mask.sum()
    same = (shuffled.values[:, None, 0] == text.values[None, :, 0]).all(dim=2)
    assert (same.sum(dim=0) == 1).all()
    assert not same.diagonal().any()


def test_noise_of_token_ids_is_of_ids_that_occur() -> None:
    ids = torch.tensor([101, 7, 2001, 102])[torch.randint(4, (50, 5))]
    text = Tokens(ids, torch.ones(50, 5, dtype=torch.bool))
    table = torch.randn(3000, WIDTH)
    seen: set[int] = set()

    def embedding(audio: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        seen.update(text.values.unique().tolist())
        return dual(audio, Tokens(table[text.values], text.mask))

    found = probe(embedding, toy(50, seed=3)[0], text, seed=0)
    assert not found.leaks
    assert seen == {101, 7, 2001, 102}


def test_batches_do_not_matter_and_seeds_repeat() -> None:
    pairs = toy(70, seed=3)
    assert probe(dual, *pairs, seed=0, batch=7) == probe(dual, *pairs, seed=0, batch=1000)


def test_refuses_what_cannot_be_probed() -> None:
    audio, text = toy(4, seed=0)
    with pytest.raises(ValueError, match="as many clips as captions"):
        probe(dual, audio, text[:3], seed=0)
    with pytest.raises(ValueError, match="at least 2"):
        probe(dual, audio[:1], text[:1], seed=0)
    with pytest.raises(ValueError, match="NaN"):
        probe(lambda audio, text: (mean_of(audio) * torch.nan, mean_of(text)), audio, text, seed=0)


def test_only_a_leak_stops() -> None:
    clean = LeakProbe(pairs=200, noise_r1=0.005, shuffled_r1=0.01, moved=0.0, chance=0.005, limit=0.03, leaks=False)
    require_no_leak(clean)
    with pytest.raises(LeakError, match=r"R@1 is 5.0% among 200 clips encoded with noise as captions"):
        require_no_leak(clean.model_copy(update={"noise_r1": 0.05, "leaks": True}))
