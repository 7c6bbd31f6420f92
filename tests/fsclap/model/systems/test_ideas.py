"""Each system's own idea: its equations read a second time in float64, and what plain CLAP lacks."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn import functional as F

from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossResearch, LossSettings
from fsclap.model.systems.audioclip import AudioClip
from fsclap.model.systems.clap_microsoft import ClapMicrosoft
from fsclap.model.systems.emotion_rank_clap import label_distances, rank_n_contrast
from fsclap.model.systems.mga_clap import MgaClap, sparsemax
from fsclap.model.systems.ra_clap import RaClap, distillation
from fsclap.model.tokens import pad
from tests.fsclap.model.systems.test_systems import batch, labels, make


def unit(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


# CLAP-Microsoft


def test_microsofts_projection_is_the_published_equation(encoders: Any, waves: list[np.ndarray]) -> None:
    model = make("clap_microsoft", encoders)
    assert isinstance(model, ClapMicrosoft)
    x, head = torch.randn(5, 12), model.audio_projection
    first = array(x) @ array(head.linear1.weight).T
    gelu = first * (0.5 * (1 + np.array([[float(torch.erf(torch.tensor(v / 2**0.5))) for v in row] for row in first])))
    second = first + gelu @ array(head.linear2.weight).T
    normal = (second - second.mean(1, keepdims=True)) / np.sqrt(second.var(1, keepdims=True) + 1e-5)
    expected = normal * array(head.layer_norm.weight) + array(head.layer_norm.bias)
    np.testing.assert_allclose(array(head(x)), expected, rtol=2e-4, atol=1e-5)


def test_microsofts_text_is_read_from_its_last_token(encoders: Any) -> None:
    model, plain = make("clap_microsoft", encoders), make("clap_laion", encoders)
    texts = ["abcd", "xyd", "xyzd", "abcz"]
    ours, theirs = model.embed_text(texts), plain.embed_text(texts)
    torch.testing.assert_close(ours[0], ours[2])  # the same last byte
    assert not torch.allclose(ours[0], ours[3], atol=1e-3)
    assert not torch.allclose(theirs[0], theirs[2], atol=1e-3)  # a mean of all bytes


# AudioCLIP


def test_audioclips_gate_is_the_published_equation(encoders: Any) -> None:
    model = make("audioclip", encoders).double()
    assert isinstance(model, AudioClip)
    layer: Any = model.layers[0]
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    mask = torch.ones(1, 6, dtype=torch.bool)

    def norm(values: np.ndarray, bn: Any) -> np.ndarray:
        scaled = (values - array(bn.running_mean)) / np.sqrt(array(bn.running_var) + bn.eps)
        return scaled * array(bn.weight) + array(bn.bias)

    def depthwise(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        half = weight.shape[-1] // 2
        padded = np.pad(values, ((half, half), (0, 0)))
        return sum(padded[k : k + len(values)] * weight[:, 0, k] for k in range(weight.shape[-1]))

    def grouped(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        size, padded = weight.shape[1], np.pad(values, ((1, 1), (0, 0)))
        out = np.zeros((len(values), len(weight)))
        for channel, k in itertools.product(range(len(weight)), range(3)):
            first = channel // size * size
            out[:, channel] += padded[k : k + len(values), first : first + size] @ weight[channel, :, k]
        return out

    values = array(x[0])
    inner = np.maximum(norm(values @ array(layer.narrow[0].weight).T, layer.narrow[1]), 0)
    inner = np.maximum(norm(grouped(inner, array(layer.grouped.weight)), layer.widen[0]), 0)
    main = np.maximum(values + norm(inner @ array(layer.widen[2].weight).T, layer.widen[3]), 0)
    gate = norm(
        depthwise(values, array(layer.gate_depth.weight)) @ array(layer.gate_point[0].weight).T, layer.gate_point[1]
    )
    np.testing.assert_allclose(array(layer(x, mask)[0]), main / (1 + np.exp(-gate)), atol=1e-10)


def test_audioclip_hears_the_order_of_frames_and_sums_both_directions(encoders: Any, waves: list[np.ndarray]) -> None:
    model, plain = make("audioclip", encoders), make("clap_laion", encoders)
    frames = model.audio_encoder.features(waves[0])
    for system, same in ((model, False), (plain, True)):
        forward, backward = (system.encode_audio(pad([rows])) for rows in (frames, frames[::-1].copy()))
        assert torch.allclose(forward, backward, atol=1e-4) == same
    embedded = Embeddings(unit(6, 8, 0), unit(6, 8, 1))
    known, scale = labels(6), torch.tensor(5.0)
    ours = model.loss(embedded, scale, known, LossSettings())
    logits = 5.0 * array(embedded.audio) @ array(embedded.text).T
    expected = sum(np.mean(logsumexp(s, axis=1) - np.diag(s)) for s in (logits, logits.T))
    assert ours.item() == pytest.approx(expected)
    fresh = AudioClip(model.settings, encoders=encoders)
    assert fresh.logit_scale().item() == pytest.approx(100.0)


# MGA-CLAP


def projected(z: np.ndarray) -> np.ndarray:
    """The simplex's nearest point, by a general solver."""
    bounds = [(0.0, None)] * len(z)
    found = minimize(
        lambda w: ((w - z) ** 2).sum(), np.full(len(z), 1 / len(z)), jac=lambda w: 2 * (w - z), bounds=bounds,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}, options={"ftol": 1e-14},
    )  # fmt: skip
    return np.asarray(found.x)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_sparsemax_is_the_projection_on_the_simplex(scale: float) -> None:
    z = scale * np.random.default_rng(0).normal(size=(4, 9))
    found = array(sparsemax(torch.tensor(z)))
    np.testing.assert_allclose(found, [projected(row) for row in z], atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_sparsemaxs_gradient_is_that_of_its_support() -> None:
    z = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(sparsemax, (z,))
    upstream = torch.randn(3, 7, dtype=torch.float64)
    w = sparsemax(z)
    (gradient,) = torch.autograd.grad(w, z, upstream)
    support = array(w) > 0
    mean = (array(upstream) * support).sum(1, keepdims=True) / support.sum(1, keepdims=True)
    np.testing.assert_allclose(array(gradient), support * (array(upstream) - mean), atol=1e-12)


def test_a_clip_of_mga_clap_is_a_sparse_mixture_of_codes_by_the_published_equations(
    encoders: Any, waves: list[np.ndarray]
) -> None:
    model = make("mga_clap", encoders, systems={"mga": {"codes": 64, "temperature": 10.0}})
    assert isinstance(model, MgaClap)
    u = model.audio_encoder(pad([model.audio_encoder.features(waves[1])])).values
    u, projection, codes = array(u[0]), model.frame_proj, array(model.codebook)

    def norm(x: np.ndarray, layer: Any) -> np.ndarray:
        scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return np.asarray(scaled * array(layer.weight) + array(layer.bias))

    first: Any = projection[1]
    hidden = norm(u, projection[0]) @ array(first.weight).T + array(first.bias)
    second: Any = projection[4]
    q = norm(array(F.gelu(torch.tensor(hidden))), projection[3]) @ array(second.weight).T + array(second.bias)
    w = projected((q @ codes.T / np.sqrt(8)).max(axis=0) / 10.0)
    g = w @ codes
    np.testing.assert_allclose(array(model.embed_audio([waves[1]])[0]), g / np.linalg.norm(g), atol=2e-4)
    weights = model.weights(model.frame_proj, model.audio_encoder(pad([model.audio_encoder.features(waves[1])])))
    assert weights.sum().item() == pytest.approx(1)
    assert 0 < int((weights == 0).sum()) < 64  # most plain mixtures have no exact zero


def test_mga_clap_takes_the_maximum_over_tokens_not_the_mean(encoders: Any) -> None:
    codebook = {"codes": 32, "temperature": 1.0}
    model, plain = make("mga_clap", encoders, systems={"mga": codebook}), make("clap_laion", encoders)
    texts = ["ab", "ba", "aab", "aaaab"]
    for system, same in ((model, True), (plain, False)):
        rows = system.embed_text(texts)
        assert torch.allclose(rows[0], rows[2], atol=1e-5) == same
        assert torch.allclose(rows[0], rows[3], atol=1e-5) == same
    torch.testing.assert_close(model.embed_text(texts)[0], model.embed_text(texts)[1])


def test_zero_padding_depends_on_the_batch_as_in_the_released_code(encoders: Any) -> None:
    model = make("mga_clap", encoders, systems={"mga": {"codes": 32, "temperature": 30.0, "zero_padding": True}})
    text = pad(model.text_encoder.features(["a", "a much longer caption"]))
    alone = model.encode_text(pad(model.text_encoder.features(["a"])))
    assert not torch.allclose(model.encode_text(text)[0], alone[0], atol=1e-4)


def test_mga_claps_loss_has_hard_negatives_and_the_regulariser(encoders: Any) -> None:
    model = make("mga_clap", encoders, systems={"mga": {"codes": 32}})
    audio, text = unit(6, 8, 0), unit(6, 8, 1)
    found = model.loss(Embeddings(audio, text), torch.tensor(3.0), labels(6), LossSettings())
    expected = 0.0
    for rows, columns in ((audio, text), (text, audio)):
        s = 3.0 * array(rows) @ array(columns).T
        weight = 6 * softmax(0.15 * s, axis=1)
        np.fill_diagonal(weight, 1.0)
        expected += np.mean(np.log((weight * np.exp(s)).sum(axis=1)) - np.diag(s)) / 2
        expected += np.abs(array(rows)).mean() / np.linalg.norm(array(rows))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    exact = LossSettings(research=LossResearch(compat="mga"))
    assert model.loss(Embeddings(audio, text), torch.tensor(3.0), labels(6), exact).item() != pytest.approx(expected)


# EmotionRankCLAP


def brute(s: np.ndarray, d: np.ndarray) -> float:
    """Rank-N-Contrast as it is written, term by term."""
    terms = [
        -s[i, j] + logsumexp([s[i, k] for k in range(s.shape[1]) if d[i, k] >= d[i, j]])
        for i in range(len(s))
        for j in range(s.shape[1])
    ]
    return float(np.mean(terms))


@pytest.mark.parametrize("ties", [False, True])
def test_rank_n_contrast_is_its_definition_with_gradients(ties: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    levels = torch.rand(7, 2, generator=generator, dtype=torch.float64)
    levels = (2 * levels).round() / 2 if ties else levels
    s = torch.randn(7, 7, generator=generator, dtype=torch.float64).requires_grad_()
    distances = label_distances(levels)
    exact = ((array(levels)[:, None] - array(levels)) ** 2).sum(axis=2).round(5)
    np.testing.assert_allclose(array(distances), exact)
    found = rank_n_contrast(s, distances)
    assert found.item() == pytest.approx(brute(array(s), exact), rel=1e-12)
    (gradient,) = torch.autograd.grad(found, s)
    step, base = 1e-6, array(s)
    for i, j in ((0, 0), (2, 5), (6, 1)):
        moved = base.copy()
        moved[i, j] += step
        back = base.copy()
        back[i, j] -= step
        assert gradient[i, j].item() == pytest.approx((brute(moved, exact) - brute(back, exact)) / (2 * step), abs=1e-8)


def test_rank_n_contrast_pulls_in_the_order_of_the_distances_where_plain_clap_does_not(encoders: Any) -> None:
    b = 10
    levels = torch.zeros(b, 13)
    levels[:, 0] = torch.linspace(0, 1, b) ** 2  # distinct distances from the first
    known = PairLabels(torch.arange(b), levels=levels)
    order = levels[:, 0].argsort()
    for name in ("emotion_rank_clap", "clap_laion"):
        model = make(name, encoders)
        columns = torch.eye(b)  # similarities are the audio's own coordinates
        rows = torch.zeros(b, b).requires_grad_()
        loss = model.loss(Embeddings(rows, columns), torch.tensor(1.0), known, LossSettings())
        (gradient,) = torch.autograd.grad(loss, rows)
        pulls = gradient[0][order]
        assert bool((pulls[1:].diff() > 1e-6).all()) == (name == "emotion_rank_clap"), pulls
    flat = rank_n_contrast(torch.zeros(1, b, dtype=torch.float64), torch.arange(b, dtype=torch.float64)[None])
    assert flat.item() == pytest.approx(1.51044, abs=1e-5)  # log(10!) / 10


def test_fitted_embeddings_come_in_the_order_of_a_one_dimensional_label() -> None:
    labels_ = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    distances = label_distances(labels_)
    s = torch.zeros(8, 8, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([s], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        rank_n_contrast(s, distances).backward()
        optimizer.step()
    assert (
        min(kendalltau(-array(distances)[0], array(s)[0])[0], kendalltau(-array(distances)[7], array(s)[7])[0]) > 0.99
    )


def test_emotion_alone_ranks_by_valence_and_arousal(encoders: Any) -> None:
    embedded, known = Embeddings(unit(6, 8, 0), unit(6, 8, 1)), labels(6)
    found = make("emotion_rank_clap", encoders, systems={"emotion_rank": {"axes": "emotion"}}).loss(
        embedded, torch.tensor(2.0), known, LossSettings()
    )
    assert known.levels is not None
    s, d = 2.0 * array(embedded.audio) @ array(embedded.text).T, array(known.levels)[:, :2]
    d = ((d[:, None] - d) ** 2).sum(axis=2)
    assert found.item() == pytest.approx((brute(s, d) + brute(s.T, d)) / 2, rel=1e-6)


# RA-CLAP


def test_distillation_is_the_published_equation_and_leaves_the_teacher_alone() -> None:
    student = Embeddings(unit(6, 8, 0).requires_grad_(), unit(6, 8, 1).requires_grad_())
    teacher = Embeddings(unit(6, 8, 2).requires_grad_(), unit(6, 8, 3).requires_grad_())
    scale = torch.tensor(4.0, dtype=torch.float64)
    found = distillation(student, teacher, scale)
    s, t = (4.0 * array(pair.audio) @ array(pair.text).T for pair in (student, teacher))
    expected = 0.0
    for logits, targets in ((s, softmax(t, axis=1)), (s.T, softmax(t.T, axis=1))):
        expected += -(targets * (logits - logsumexp(logits, axis=1, keepdims=True))).sum(axis=1).mean() / 2
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert student.audio.grad is not None
    assert teacher.audio.grad is None


def test_a_teacher_that_is_sure_teaches_info_nce_and_one_that_knows_nothing_costs_log_b() -> None:
    student = Embeddings(unit(6, 8, 0), unit(6, 8, 1))
    sure = Embeddings(torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64))
    scale = torch.tensor(60.0, dtype=torch.float64)
    info_nce = plain_loss(student, scale, labels(6), LossSettings())
    assert distillation(student, sure, scale).item() == pytest.approx(info_nce.item(), rel=1e-9)
    blank = Embeddings(torch.ones(6, 1, dtype=torch.float64), torch.ones(6, 1, dtype=torch.float64))
    assert distillation(blank, blank, scale).item() == pytest.approx(np.log(6))
    assert distillation(student, blank, scale).item() > np.log(6)


def test_ra_clap_becomes_its_own_teacher_half_way(
    encoders: Any, waves: list[np.ndarray], captions: list[str], tmp_path: Any
) -> None:
    model = make("ra_clap", encoders).train()
    assert isinstance(model, RaClap)
    audio, text = batch(model, waves, captions)
    model.begin_epoch(4, 10)
    assert model.teach(audio, text) is None
    model.begin_epoch(5, 10)
    taught = model.teach(audio, text)
    assert taught is not None
    torch.testing.assert_close(taught.audio, model.eval().encode_audio(audio))
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters()) if model.teacher else False
    embedded, known, scale = model(audio, text), labels(4)._replace(teacher=taught), model.logit_scale()
    both = model.loss(embedded, scale, known, LossSettings())
    plain = plain_loss(embedded, scale, known, LossSettings())
    torch.testing.assert_close(both, (plain + distillation(embedded, taught, scale)) / 2)
    with torch.no_grad():
        model.log_scale.add_(1.0)
    model.begin_epoch(6, 10)  # no new teacher
    assert model.teacher is not None
    assert model.teacher.log_scale.item() != model.log_scale.item()

    resumed = RaClap(model.settings, encoders=encoders)
    resumed.load_state_dict(model.state_dict())
    torch.testing.assert_close(resumed.teach(audio, text), taught)
    resumed.save_pretrained(tmp_path)
    assert resumed.teacher is not None
    assert RaClap.from_pretrained(tmp_path, encoders=encoders).teacher is None


def test_a_caption_that_occurs_twice_is_taught_like_its_twin_where_plain_clap_pushes_it_away() -> None:
    text = unit(5, 8, 1)
    text[1] = text[0]
    teacher = Embeddings(unit(5, 8, 2), text)
    for loss, same in (
        (lambda pair: distillation(pair, teacher, torch.tensor(5.0)), True),
        (lambda pair: plain_loss(pair, torch.tensor(5.0), labels(5), LossSettings()), False),
    ):
        rows = torch.zeros(5, 5, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(
            loss(Embeddings(rows, torch.eye(5, dtype=torch.float64))), rows
        )  # similarities are the rows' own coordinates, so columns 0 and 1 stand for the twins
        assert torch.allclose(gradient[2:, 0], gradient[2:, 1])
        assert torch.allclose(gradient[0, 0], gradient[0, 1], atol=0.05) == same
