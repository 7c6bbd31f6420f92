import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from fsclap.model.losses import Meets, contrastive_loss, hard_negatives, matching_loss
from fsclap.model.settings import LossResearch, LossSettings

GROUPS = torch.tensor([0, 1, 0, 2, 1, 3, 0, 4])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def loss_settings(*, gamma: float = 0.15, **research: Any) -> LossSettings:
    return LossSettings(gamma=gamma, research=LossResearch(**research))


def pairs(size: int, *, dim: int = 16, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit rows whose partners are somewhat alike."""
    generator = torch.Generator().manual_seed(seed)
    audio, noise = torch.randn(2, size, dim, generator=generator, dtype=torch.float64)
    text = 0.5 * audio + noise
    return F.normalize(audio, dim=1).to(dtype), F.normalize(text, dim=1).to(dtype)


def equation_1(
    audio: np.ndarray,
    text: np.ndarray,
    scale: float,
    gamma: float,
    *,
    groups: list[int] | None = None,
    negatives_only: bool = False,
) -> float:
    """Eq. 1 and 2 as they are printed, one number at a time."""
    size = len(audio)
    groups = list(range(size)) if groups is None else groups
    total = 0.0
    for p, q in ((audio, text), (text, audio)):
        for i in range(size):
            negatives = [j for j in range(size) if j != i and groups[j] != groups[i]]
            over = negatives if negatives_only else [i, *negatives]
            exponentials = [math.exp(float(np.dot(p[i], q[k])) * scale) for k in range(size)]
            normaliser = sum(exponentials[k] ** gamma for k in over)
            denominator = exponentials[i]
            for j in negatives:
                alpha = len(over) * exponentials[j] ** gamma / normaliser
                denominator += alpha * exponentials[j]
            total -= math.log(exponentials[i] / denominator)
    return total


def vectorised_equation_1(audio: np.ndarray, text: np.ndarray, scale: float, gamma: float) -> float:
    """The same for large batches: plain exponentials of the whole matrix."""
    total = 0.0
    for p, q in ((audio, text), (text, audio)):
        exponentials = np.exp(p @ q.T * scale)
        hard = exponentials**gamma
        weights = len(p) * hard / hard.sum(axis=1, keepdims=True)
        np.fill_diagonal(weights, 1.0)
        total += -np.log(np.diag(exponentials) / (weights * exponentials).sum(axis=1)).sum()
    return total


def info_nce(audio: Tensor, text: Tensor, scale: float, groups: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of both directions, with same-caption pairs taken out."""
    logits = scale * audio @ text.T
    if groups is not None:
        same = (groups[:, None] == groups) & ~torch.eye(len(audio), dtype=torch.bool)
        logits = logits.masked_fill(same, -torch.inf)
    labels = torch.arange(len(audio))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def mga_clap(audio: Tensor, text: Tensor, scale: float, gamma: float, targets: Tensor) -> Tensor:
    """The arithmetic of MGA-CLAP's released loss, an element at a time."""
    size, total = len(audio), torch.zeros((), dtype=audio.dtype)
    for p, q in ((audio, text), (text, audio)):
        s = scale * p @ q.T
        s = s - torch.stack([row.max().detach() for row in s])[:, None]
        sums = [(gamma * s[j]).exp().sum() for j in range(size)]
        for i in range(size):
            within = torch.tensor(1e-7, dtype=audio.dtype)
            for j in range(size):
                e = (gamma * s[i, j]).exp()
                # The sum of row j, where Eq. 2 has that of row i.
                w = 1.0 if targets[i, j] > 0 else (size - 1) * e / (sums[j] - e)
                within = within + w * s[i, j].exp()
            total = total - (targets[i] * (s[i] - within.log())).sum()
    return total / size / 2


SIZES, GAMMAS, SCALES = (2, 3, 17, 64), (0.0, 0.15, 1.0), (0.5, 1 / 0.07, 100.0)
PAIRWISE = [
    (size, gamma, SCALES[(row + column) % 3]) for row, size in enumerate(SIZES) for column, gamma in enumerate(GAMMAS)
]
"""Every pair of a size, a gamma and a scale occurs."""


@pytest.mark.parametrize(("size", "gamma", "scale"), PAIRWISE)
def test_equals_equations_1_and_2(size: int, gamma: float, scale: float) -> None:
    audio, text = pairs(size)
    loss = contrastive_loss(audio, text, scale, settings=loss_settings(gamma=gamma, reduction="sum"))
    assert loss.item() == pytest.approx(equation_1(audio.numpy(), text.numpy(), scale, gamma), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("size", [96, 1000, pytest.param(4096, marks=pytest.mark.slow)])
def test_equals_equations_1_and_2_on_large_batches(size: int) -> None:
    audio, text = pairs(size, dim=64)
    expected = vectorised_equation_1(audio.numpy(), text.numpy(), 1 / 0.07, 0.15)
    loss = contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings(reduction="sum"))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    single = contrastive_loss(audio.float(), text.float(), 1 / 0.07, settings=loss_settings(reduction="sum"))
    assert single.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("negatives_only", [False, True])
def test_same_captions_are_neither_negatives_nor_in_the_weights(negatives_only: bool) -> None:
    audio, text = pairs(len(GROUPS))
    settings = loss_settings(reduction="sum", denominator="negatives" if negatives_only else "all")
    expected = equation_1(
        audio.numpy(), text.numpy(), 10.0, 0.15, groups=GROUPS.tolist(), negatives_only=negatives_only
    )
    assert contrastive_loss(audio, text, 10.0, settings=settings, groups=GROUPS).item() == pytest.approx(expected)


def meets_of(true: list[list[int]]) -> Meets:
    """Texts that are true of these clips: one bit for each clip, in one attribute."""
    words = torch.tensor([[1 << at] for at in range(len(true))])
    return Meets(asked=torch.tensor([[sum(1 << clip for clip in clips)] for clips in true]), words=words)


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_text_is_no_negative_of_a_clip_that_it_is_true_of(chunk: int | None) -> None:
    """Text 0 is true of clip 2, which says nothing about text 2 and clip 0."""
    audio, text = pairs(4)
    settings = loss_settings(gamma=0.0)
    found = contrastive_loss(audio, text, 5.0, settings=settings, meets=meets_of([[2], [], [], []]), chunk=chunk)
    logits = 5.0 * audio @ text.T  # (clips, texts)
    logits[2, 0] = -torch.inf
    own = torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(found, expected)


def test_texts_that_are_true_of_a_clip_mask_like_equal_captions() -> None:
    audio, text = pairs(6)
    groups = torch.tensor([0, 1, 0, 2, 3, 3])
    same = [[j for j in range(6) if groups[j] == groups[i]] for i in range(6)]
    for settings in (loss_settings(), loss_settings(denominator="negatives")):
        by_group = contrastive_loss(audio, text, 5.0, settings=settings, groups=groups)
        by_words = contrastive_loss(audio, text, 5.0, settings=settings, meets=meets_of(same))
        torch.testing.assert_close(by_words, by_group)


def test_no_negative_is_drawn_that_is_true() -> None:
    audio, text = pairs(3)
    for _ in range(20):
        drawn = hard_negatives(audio, text, 1.0, gamma=0.0, meets=meets_of([[1], [], []]))
        assert drawn.audio[0] == 2  # a clip for text 0: not clip 1, of which it is true
        assert drawn.text[1] == 2


def test_the_mask_can_be_left_off() -> None:
    audio, text = pairs(len(GROUPS))
    unmasked = loss_settings(mask_same_caption=False)
    expected = contrastive_loss(audio, text, 10.0, settings=loss_settings())
    assert contrastive_loss(audio, text, 10.0, settings=unmasked, groups=GROUPS) == expected
    assert contrastive_loss(audio, text, 10.0, settings=loss_settings(), groups=GROUPS) < expected


@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["unmasked", "masked"])
@pytest.mark.parametrize("scale", [0.5, 1 / 0.07, 100.0])
def test_gamma_of_zero_is_info_nce(denominator: str, groups: Tensor | None, scale: float) -> None:
    audio, text = pairs(len(GROUPS))
    settings = loss_settings(gamma=0, denominator=denominator)
    loss = contrastive_loss(audio, text, scale, settings=settings, groups=groups)
    assert loss.item() == pytest.approx(info_nce(audio, text, scale, groups).item(), abs=1e-12, rel=1e-12)


def test_gamma_of_zero_is_info_nce_on_a_large_batch() -> None:
    audio, text = pairs(2048, dim=64)
    loss = contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings(gamma=0))
    assert abs(loss.item() - info_nce(audio, text, 1 / 0.07).item()) < 1e-12


def test_the_gradient_of_detached_weights_is_that_of_constants() -> None:
    """By hand: d/ds_ij of logsumexp(s + log w) - s_ii with w held fixed is softmax(s + log w) - [i = j]."""
    audio, text = pairs(12)
    audio.requires_grad_()
    contrastive_loss(audio, text, 10.0, settings=loss_settings(reduction="sum")).backward()
    logits = (10.0 * audio @ text.T).detach()
    gradient = torch.zeros_like(logits)
    for transposed in (False, True):
        s = logits.T if transposed else logits
        w = 12 * (0.15 * s).softmax(dim=1)
        w.fill_diagonal_(1.0)
        share = w * s.exp() / (w * s.exp()).sum(dim=1, keepdim=True) - torch.eye(12)
        gradient += share.T if transposed else share
    assert audio.grad is not None
    torch.testing.assert_close(audio.grad, 10.0 * gradient @ text, rtol=1e-10, atol=1e-10)


def test_attached_weights_have_another_gradient() -> None:
    gradients = []
    for detach in (True, False):
        audio, text = pairs(12)
        audio.requires_grad_()
        contrastive_loss(audio, text, 10.0, settings=loss_settings(detach_weights=detach)).backward()
        gradients.append(audio.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize(
    "settings",
    [
        loss_settings(detach_weights=False),
        loss_settings(detach_weights=False, denominator="negatives", reduction="sum"),
        loss_settings(detach_weights=False, regularization="sample", regularization_weight=2.0),
        loss_settings(detach_weights=False, regularization="batch"),
        loss_settings(gamma=0),
    ],
    ids=lambda settings: f"{settings.research.denominator}-{settings.research.regularization}-{settings.gamma}",
)
def test_gradients_are_those_of_finite_differences(settings: LossSettings, chunk: int | None) -> None:
    """Weights that are constants for the gradient have no finite difference; their gradient is tested by hand."""
    audio, text = pairs(len(GROUPS), dim=3)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)

    def loss(audio: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        return contrastive_loss(audio, text, scale, settings=settings, groups=GROUPS, chunk=chunk)

    assert torch.autograd.gradcheck(loss, (audio.requires_grad_(), text.requires_grad_(), scale))


def test_a_row_without_negatives_loses_nothing() -> None:
    for denominator in ("all", "negatives"):
        audio, text = pairs(4)
        audio.requires_grad_()
        settings = loss_settings(denominator=denominator, detach_weights=False)
        with torch.autograd.set_detect_anomaly(True):
            loss = contrastive_loss(audio, text, 10.0, settings=settings, groups=torch.zeros(4, dtype=torch.long))
            loss.backward()
        assert loss.item() == pytest.approx(0.0, abs=1e-12)
        assert audio.grad is not None
        assert audio.grad.abs().max() < 1e-12
        assert contrastive_loss(*pairs(1), 10.0, settings=settings).item() == pytest.approx(0.0, abs=1e-12)


def test_weights_do_not_change_when_a_row_gains_a_constant() -> None:
    """A coordinate that all texts share adds the same to every logit of a row, and nothing to the loss of that row."""
    audio, text = pairs(6)
    settings = loss_settings(reduction="sum")
    wide = torch.cat([text, torch.ones(6, 1, dtype=torch.float64)], dim=1)
    shifted = torch.cat([audio, torch.full((6, 1), 3.0, dtype=torch.float64)], dim=1)
    plain = torch.cat([audio, torch.zeros(6, 1, dtype=torch.float64)], dim=1)
    assert contrastive_loss(shifted, wide, 4.0, settings=settings).item() == pytest.approx(
        contrastive_loss(plain, wide, 4.0, settings=settings).item(), rel=1e-12
    )


def test_the_mean_weight_of_a_row_is_one() -> None:
    from fsclap.model.losses import _log_weights

    own = torch.arange(8)[:, None]
    masked = (GROUPS[:, None] == GROUPS) & ~torch.eye(8, dtype=torch.bool)
    logits = 20 * torch.randn(8, 8, dtype=torch.float64)
    weights = _log_weights(logits, own, masked, loss_settings(gamma=0.7)).exp()
    for row, left_out in zip(weights, masked, strict=True):
        assert row[~left_out].mean().item() == pytest.approx(1.0, rel=1e-12)
    without_own = _log_weights(logits, own, None, loss_settings(denominator="negatives")).exp()
    assert without_own[~torch.eye(8, dtype=torch.bool)].view(8, 7).mean(dim=1).tolist() == pytest.approx([1.0] * 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("detach", [True, False])
def test_is_finite_in_any_precision_and_at_any_temperature(dtype: torch.dtype, scale: float, detach: bool) -> None:
    audio, text = (x.requires_grad_() for x in pairs(32, dtype=dtype))
    logit_scale = torch.tensor(scale, requires_grad=True)
    settings = loss_settings(detach_weights=detach, regularization="sample")
    groups = torch.arange(32) // 2
    loss = contrastive_loss(audio, text, logit_scale, settings=settings, groups=groups)
    loss.backward()
    reference = contrastive_loss(audio.double(), text.double(), scale, settings=settings, groups=groups)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=1e-4)
    for tensor in (audio, text, logit_scale):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_orthogonal_and_identical_embeddings_are_finite_at_extreme_temperatures() -> None:
    for embeddings in (torch.eye(16), torch.eye(1, 16).expand(16, 16)):
        for scale in (1e-3, 1e4):
            audio = embeddings.clone().requires_grad_()
            loss = contrastive_loss(audio, embeddings, scale, settings=loss_settings(detach_weights=False))
            loss.backward()
            assert audio.grad is not None
            assert audio.grad.isfinite().all()
            if embeddings[1, 0] == 1:
                assert loss.item() == pytest.approx(math.log(16), rel=1e-5)


def test_autocast_does_not_lower_the_precision() -> None:
    audio, text = pairs(32, dtype=torch.float32)
    expected = contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings()) == expected


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_chunks_change_neither_value_nor_gradient(chunk: int, reduction: str) -> None:
    results = []
    for size in (None, chunk):
        audio, text = (x.requires_grad_() for x in pairs(100))
        settings = loss_settings(reduction=reduction, detach_weights=False)
        groups = torch.arange(100) // 3
        loss = contrastive_loss(audio, text, 1 / 0.07, settings=settings, groups=groups, chunk=size)
        loss.backward()
        results.append((loss.detach(), audio.grad, text.grad))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_large_batches_are_chunked_of_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    loss = sys.modules["fsclap.model.losses"]
    original: Callable[..., Tensor] = loss._rows_loss  # type: ignore[attr-defined]

    def watched(*args: object) -> Tensor:
        rows.append(len(args[0]))  # type: ignore[arg-type]
        return original(*args)

    monkeypatch.setattr(loss, "_rows_loss", watched)
    audio, text = pairs(4200, dim=2, dtype=torch.float32)
    contrastive_loss(audio, text, 1.0, settings=loss_settings())
    assert max(rows) * 4200 <= 2**24
    assert sum(rows) == 2 * 4200


def test_the_mean_does_not_grow_with_the_batch() -> None:
    audio, text = pairs(10)
    total = contrastive_loss(audio, text, 10.0, settings=loss_settings(reduction="sum"))
    assert contrastive_loss(audio, text, 10.0, settings=loss_settings()).item() == pytest.approx(total.item() / 20)


@pytest.mark.parametrize("form", ["sample", "batch"])
def test_equation_3(form: str) -> None:
    audio, text = pairs(9)
    expected = 0.0
    for h in (audio.numpy(), text.numpy()):
        if form == "sample":
            expected += sum(sum(abs(v) for v in row) / len(row) / math.sqrt(sum(v * v for v in row)) for row in h) / 9
        else:
            expected += np.abs(h).mean() / np.sqrt((h**2).sum())
    settings = loss_settings(regularization=form, regularization_weight=0.5)
    plain = contrastive_loss(audio, text, 10.0, settings=loss_settings())
    assert (contrastive_loss(audio, text, 10.0, settings=settings) - plain).item() == pytest.approx(expected / 2)


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["pairs", "groups"])
def test_mga_is_what_its_code_computes(groups: Tensor | None) -> None:
    same = torch.eye(8) if groups is None else (groups[:, None] == groups).double()
    targets = same / same.sum(dim=1, keepdim=True)
    results = []
    for compute in (
        lambda a, t: contrastive_loss(a, t, 1 / 0.07, settings=loss_settings(compat="mga"), groups=groups),
        lambda a, t: mga_clap(a, t, 1 / 0.07, 0.15, targets),
    ):
        audio, text = (x.requires_grad_() for x in pairs(8))
        loss = compute(audio, text)
        loss.backward()
        results.append((loss.detach(), audio.grad, text.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_mga_is_not_equation_2() -> None:
    audio, text = pairs(96, dim=512)
    mga = contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings(compat="mga"))
    assert abs(mga - contrastive_loss(audio, text, 1 / 0.07, settings=loss_settings())) > 1e-3


@pytest.mark.parametrize("option", [{"reduction": "sum"}, {"denominator": "negatives"}, {"detach_weights": False}])
def test_mga_leaves_no_choice(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"fixes {next(iter(option))}"):
        LossResearch.model_validate({"compat": "mga", **option})
    settings = loss_settings(compat="mga")
    assert LossSettings.model_validate_json(settings.model_dump_json()) == settings


def test_refuses_what_does_not_fit() -> None:
    audio, text = pairs(4)
    with pytest.raises(ValueError, match="the same shape"):
        contrastive_loss(audio, text[:3], 1.0, settings=loss_settings())
    with pytest.raises(ValueError, match="the same shape"):
        contrastive_loss(audio[:0], text[:0], 1.0, settings=loss_settings())
    with pytest.raises(ValueError, match="one number per pair"):
        contrastive_loss(audio, text, 1.0, settings=loss_settings(), groups=torch.zeros(3))
    with pytest.raises(ValueError, match="labels and logits differ"):
        matching_loss(torch.zeros(3), torch.zeros(2))


def test_matching_loss_is_binary_cross_entropy() -> None:
    logits, labels = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1, 0, 0])
    expected = np.mean([math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5))])
    assert matching_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    half = matching_loss(torch.tensor([3e4, -3e4], dtype=torch.float16), torch.tensor([True, False]))
    assert half.dtype == torch.float32
    assert half.item() == 0.0


def test_hard_negatives_are_drawn_with_the_weights_of_equation_2() -> None:
    audio, text = pairs(5)
    groups = torch.tensor([0, 0, 1, 2, 3])
    generator = torch.Generator().manual_seed(0)
    draws = 4_000
    counts = torch.zeros(2, 5, 5)
    for _ in range(draws):
        drawn = hard_negatives(audio, text, 4.0, gamma=0.5, groups=groups, generator=generator)
        for direction, indices in enumerate((drawn.text, drawn.audio)):
            counts[direction, torch.arange(5), indices] += 1
    for found, logits in zip(counts / draws, (4.0 * audio @ text.T, 4.0 * text @ audio.T), strict=True):
        weights = (0.5 * logits).exp() * (groups[:, None] != groups)
        torch.testing.assert_close(found.double(), weights / weights.sum(dim=1, keepdim=True), atol=0.035, rtol=0)


def test_hard_negatives_are_never_of_the_same_caption() -> None:
    audio, text = pairs(40, dtype=torch.bfloat16)
    groups = torch.arange(40) // 13
    drawn = hard_negatives(audio, text, 1e4, gamma=1.0, groups=groups, generator=torch.Generator().manual_seed(1))
    for indices in drawn:
        assert (groups[indices] != groups).all()
    again = hard_negatives(audio, text, 1e4, gamma=1.0, groups=groups, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(*two) for two in zip(drawn, again, strict=True))


def test_without_a_negative_there_is_none() -> None:
    audio, text = pairs(3)
    everything = hard_negatives(audio, text, 10.0, gamma=1.0, groups=torch.zeros(3, dtype=torch.long))
    assert everything.text.tolist() == everything.audio.tolist() == [-1, -1, -1]
    assert hard_negatives(audio[:1], text[:1], 10.0, gamma=1.0).text.tolist() == [-1]
    text_of = hard_negatives(audio, text, 10.0, gamma=1.0, groups=torch.tensor([0, 0, 1])).text
    assert text_of.tolist()[:2] == [2, 2]


LARGE = """
import torch
from torch.nn import functional as F
from fsclap.model.losses import contrastive_loss
from fsclap.model.settings import LossResearch, LossSettings

def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 2**20  # ru_maxrss would count the process that this one was forked from

torch.set_num_threads(2)
torch.manual_seed(0)
audio, text = (F.normalize(torch.randn(20_000, 64), dim=1).requires_grad_() for _ in range(2))
contrastive_loss(audio[:64], text[:64], 14.0, settings=LossSettings()).backward()
before = peak()
groups = torch.arange(20_000) // 2
settings = LossSettings(research=LossResearch(detach_weights=False))
contrastive_loss(audio, text, 14.0, settings=settings, groups=groups).backward()
assert audio.grad.isfinite().all() and audio.grad.abs().max() > 0
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_twenty_thousand_pairs_fit_in_four_gibibytes() -> None:
    """Without chunks, one matrix of logits alone is 1.5 GiB, and the graph holds some ten of them."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert 0.05 < float(done.stdout) < 2.0
