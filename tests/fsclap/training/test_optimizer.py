import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fsclap.data.batches import Batch, Pairs, batches_of, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.model.encoders import Encoders
from fsclap.model.losses import contrastive_loss, hard_negatives
from fsclap.model.settings import LossResearch, LossSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.optimizer import Objective, Stepper, lr_factor, make_optimizer, step_seed
from fsclap.training.ranks import Ranks
from fsclap.training.settings import TrainSettings
from tests.fsclap.training.conftest import TINY, tiny
from tests.fsclap.training.encoders import frozen, trained


@pytest.fixture(scope="module")
def pairs(store: ClipStore, cache: Path) -> Pairs:
    return load_pairs(store, store.table["utterance_id"].to_pylist(), frozen(), folder=cache, progress=False)


@pytest.fixture(scope="module")
def heard(store: ClipStore, cache: Path) -> Pairs:
    return load_pairs(store, store.table["utterance_id"].to_pylist(), trained(), folder=cache, progress=False)


def stepper(settings: TrainSettings, encoders: Encoders) -> Stepper:
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    model = FSCLAP(settings.model, encoders=encoders)
    objective, optimizer = fabric.setup(
        Objective(model, settings, Ranks(fabric)), make_optimizer(model, settings, fused=True)
    )
    return Stepper(fabric, objective, optimizer, settings)


def batches(pairs: Pairs, *sizes: int) -> list[Batch]:
    ends = np.cumsum(sizes)
    return list(batches_of(pairs, np.split(np.arange(ends[-1]), ends[:-1]), epoch=None, workers=0))


def gradients(stepper: Stepper) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in stepper.objective.named_parameters() if p.grad is not None}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=tolerance, atol=tolerance), name


def test_grad_cache_is_one_big_batch(pairs: Pairs) -> None:
    small, big = stepper(tiny(grad_cache=True), frozen()), stepper(tiny(), frozen())
    losses = small.backward(batches(pairs, 9, 8, 5), number=0)
    expected = big.backward(batches(pairs, 22), number=0)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    assert_close(gradients(small), gradients(big), 1e-5)
    assert sum(name.endswith("log_scale") for name in gradients(small)) == 1


def test_grad_cache_drops_the_same_units_twice(pairs: Pairs) -> None:
    settings = tiny(grad_cache=True, model=TINY.model_copy(update={"dropout": 0.3}))
    cached, plain = stepper(settings, frozen()), stepper(settings, frozen())
    loaded = batches(pairs, 9, 8, 5)
    loss = cached.backward(loaded, number=7)[0]
    torch.manual_seed(step_seed(settings.seed, 7, 0))
    found = [plain.objective(batch) for batch in loaded]
    audio, text = (torch.cat([out[k] for out in found]) for k in (0, 1))
    groups = torch.cat([batch.groups for batch in loaded])
    expected = contrastive_loss(audio, text, found[0].scale, settings=settings.loss, groups=groups)
    plain.fabric.backward(expected)
    torch.testing.assert_close(loss, expected.detach())
    assert_close(gradients(cached), gradients(plain), 1e-5)


def test_accumulated_gradients_are_the_mean_of_the_batches(pairs: Pairs) -> None:
    together = stepper(tiny(), frozen())
    together.backward(batches(pairs, 9, 8), number=0)
    parts = []
    for batch in batches(pairs, 9, 8):
        alone = stepper(tiny(), frozen())
        alone.backward([batch], number=0)
        parts.append(gradients(alone))
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
    assert_close(gradients(together), mean, 1e-6)


def test_equal_captions_are_no_negatives(pairs: Pairs) -> None:
    (batch,) = batches(pairs, 8)
    alike = Batch(batch.audio, batch.text, torch.zeros(8, dtype=torch.int64), batch.positions)
    assert stepper(tiny(), frozen()).backward([alike], number=0)[0] == 0  # nothing is left to tell apart
    loss = LossSettings(research=LossResearch(mask_same_caption=False))
    assert stepper(tiny(loss=loss), frozen()).backward([alike], number=0)[0] > 1


def test_the_matching_head_sees_pairs_and_hard_negatives(pairs: Pairs) -> None:
    settings = tiny(model=TINY.model_copy(update={"rerank": True, "dropout": 0.0}))
    runner = stepper(settings, frozen())
    (batch,) = batches(pairs, 6)
    batch.groups[1] = batch.groups[0]
    torch.manual_seed(5)
    found = runner.objective(batch)
    torch.manual_seed(5)
    drawn = hard_negatives(found.audio, found.text, found.scale, gamma=settings.loss.gamma, groups=batch.groups)
    scored = [(row, row, 1.0) for row in range(6)]
    scored += [(row, int(other), 0.0) for row, other in enumerate(drawn.text)]
    scored += [(int(other), row, 0.0) for row, other in enumerate(drawn.audio)]
    assert all(audio != text and {audio, text} != {0, 1} for audio, text, label in scored if not label)
    match = runner.objective.module.model.match
    logits = [match(batch.audio[audio : audio + 1], batch.text[text : text + 1])[0] for audio, text, _ in scored]
    entropies = [
        -math.log(torch.sigmoid(logit if label else -logit).item())
        for logit, (_, _, label) in zip(logits, scored, strict=True)
    ]
    assert found.matching.item() == pytest.approx(np.mean(entropies), rel=1e-5)


def test_the_matching_head_learns_the_same_with_a_grad_cache(pairs: Pairs) -> None:
    model = TINY.model_copy(update={"rerank": True, "dropout": 0.0})
    found = []
    for grad_cache in (False, True):
        runner = stepper(tiny(model=model, grad_cache=grad_cache), frozen())
        # One batch, so that both contrast the same pairs.
        found.append((runner.backward(batches(pairs, 12), number=4), gradients(runner)))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert_close(found[0][1], found[1][1], 1e-5)
    assert any("matcher" in name and grad.abs().sum() > 0 for name, grad in found[0][1].items())


def poisoned(batch: Batch) -> Batch:
    values = batch.audio.values.clone()
    values[2, 1, 3] = math.nan
    return Batch(type(batch.audio)(values, batch.audio.mask), batch.text, batch.groups, batch.positions)


def test_a_nan_in_a_batch_changes_nothing(heard: Pairs) -> None:
    runner, other = stepper(tiny(), trained()), stepper(tiny(), trained())
    first, second = batches(heard, 8, 8)
    for some in (runner, other):
        some.set_learning_rate(1.0)
        assert not some.step([first], number=0).skipped
    result = runner.step([poisoned(second), first], number=1)
    assert result.skipped
    assert math.isnan(result.loss)
    for some in (runner, other):
        some.step([second], number=2)
    for name, value in runner.objective.state_dict().items():  # weights and running statistics
        assert torch.equal(value, other.objective.state_dict()[name]), name


def test_long_gradients_are_clipped(pairs: Pairs) -> None:
    runner = stepper(tiny(clip_norm=1e-3), frozen())
    before = runner.backward(batches(pairs, 8), number=0)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients(runner).values()))
    result = runner.step(batches(pairs, 8), number=0)
    assert result.loss == pytest.approx(float(before[0]))
    assert result.grad_norm == pytest.approx(2 * norm, rel=1e-4)  # on top of those of `before`, and before clipping


def test_learning_rates_rise_and_fall(pairs: Pairs) -> None:
    factors = [lr_factor(step, warmup=4, total=14) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[9] == pytest.approx(0.5)
    assert factors[13] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))
    assert lr_factor(0, warmup=0, total=5) == 1
    runner = stepper(tiny(encoder_lr=1e-3, head_lr=1e-2), trained())
    runner.set_learning_rate(0.5)
    rates = {group["lr"] for group in runner.optimizer.param_groups}
    assert rates == {5e-4, 5e-3}
