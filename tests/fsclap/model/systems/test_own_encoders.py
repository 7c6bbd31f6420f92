"""The encoders that the systems were published with, and their checkpoints: small, in the published layouts."""

import math
import re
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModel,
    BertConfig,
    ClapAudioConfig,
    ClapConfig,
    ClapModel,
    ClapTextConfig,
    CLIPTextConfig,
    GPT2Config,
    RobertaConfig,
    WavLMConfig,
)

from fsclap.model.clap import byte_tokenizer
from fsclap.model.encoders import EncoderError
from fsclap.model.losses import PairLabels
from fsclap.model.settings import LossSettings, ModelSettings, SystemName, paper_preset
from fsclap.model.systems import SYSTEMS, System, build_system, load_system
from fsclap.model.systems.audioclip import AudioClip
from fsclap.model.systems.esresnext import EsresnextTokens, Fbsp, Sizes
from fsclap.model.systems.htsat import HtsatTokens
from fsclap.model.systems.mga_clap import FRONT as MGA_FRONT
from fsclap.model.systems.speech import SpeechLayers
from fsclap.model.tokens import pad
from harness.models.clap import laion_state

WIDTH = 16
CAPTIONS = ["A low voice speaks slowly.", "Loud!"]
AUDIO = ClapAudioConfig(
    patch_embeds_hidden_size=8, hidden_size=64, depths=[2, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def htsat() -> dict[str, Tensor]:
    """A small HTSAT under LAION's names."""
    torch.manual_seed(0)
    text = ClapTextConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    clap = ClapModel(ClapConfig(audio_config=AUDIO.to_dict(), text_config=text.to_dict(), projection_dim=8))
    return {k.removeprefix("audio_branch."): x for k, x in laion_state(clap).items() if k.startswith("audio_branch.")}


def bank(rate: int) -> Tensor:
    return torch.tensor(librosa.filters.mel(sr=rate, n_fft=1024, n_mels=64, fmin=50, fmax=14_000).T)


def placed(prefix: str, state: Any) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def microsoft(htsat: dict[str, Tensor]) -> dict[str, Tensor]:
    text = AutoModel.from_config(GPT2Config(vocab_size=300, n_positions=80, n_embd=8, n_layer=2, n_head=1))
    head = {
        "linear1.weight": torch.randn(WIDTH, 64), "linear2.weight": torch.randn(WIDTH, WIDTH),
        "layer_norm.weight": torch.rand(WIDTH), "layer_norm.bias": torch.rand(WIDTH),
    }  # fmt: skip
    obsolete = {
        "caption_encoder.base.h.0.attn.bias": torch.ones(1),
        "caption_encoder.base.h.0.attn.masked_bias": torch.ones(1),
    }
    return {
        **placed("audio_encoder.base.htsat.", htsat | {"logmel_extractor.melW": bank(32_000)}),
        **placed("audio_encoder.projection.", head),
        **placed("caption_encoder.base.", text.state_dict()),
        **placed("caption_encoder.projection.", head | {"linear1.weight": torch.randn(WIDTH, 8)}),
        **obsolete,
        "logit_scale": torch.tensor(3.25),
    }  # fmt: skip


def mga(htsat: dict[str, Tensor]) -> dict[str, Tensor]:
    bert = BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=12)
    text = AutoModel.from_config(bert, add_pooling_layer=False)

    def projection(width: int) -> dict[str, Tensor]:
        shapes = {"0.weight": (width,), "0.bias": (width,), "1.weight": (WIDTH, width), "1.bias": (WIDTH,)}
        shapes |= {"3.weight": (WIDTH,), "3.bias": (WIDTH,), "4.weight": (WIDTH, WIDTH), "4.bias": (WIDTH,)}
        return {name: torch.randn(shape) for name, shape in shapes.items()}

    return {
        **placed("audio_encoder.audio_enc.", {k: x for k, x in htsat.items() if "melW" not in k}),
        **placed("text_encoder.text_encoder.", text.state_dict()),
        "text_encoder.text_encoder.embeddings.position_ids": torch.arange(512)[None],
        **placed("frame_proj.", projection(64)),
        **placed("word_proj.", projection(8)),
        "codebook": torch.randn(32, WIDTH),
        "temp": torch.tensor(0.05),
    }


SIZES = Sizes(bins=33, window=52, hop=20, stem=4, blocks=(1, 1, 1, 1), groups=2)


def audioclip(_: dict[str, Tensor]) -> dict[str, Tensor]:
    audio = EsresnextTokens(SIZES)
    clip = CLIPTextConfig(
        vocab_size=300, hidden_size=8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1, eos_token_id=2
    )
    state = dict(AutoModel.from_config(clip).state_dict())
    names = {
        "embeddings.token_embedding.": "token_embedding.",
        "embeddings.position_embedding.weight": "positional_embedding",
        "encoder.layers.": "transformer.resblocks.", ".self_attn.out_proj.": ".attn.out_proj.",
        ".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
        "final_layer_norm.": "ln_final.",
    }  # fmt: skip
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for ours, published in names.items():
            name = name.replace(ours, published)
        theirs[name] = tensor
    for name in [name for name in theirs if ".self_attn.q_proj." in name]:
        parts = [theirs.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        theirs[re.sub(r"\.self_attn\.q_proj\.", ".attn.in_proj_", name)] = torch.cat(parts)
    return {
        **placed("audio.", {k: x for k, x in audio.state_dict().items() if "num_batches" not in k}),
        "audio.fc.weight": torch.randn(WIDTH, audio.dim), "audio.fc.bias": torch.randn(WIDTH),
        **theirs,
        "text_projection": torch.randn(8, WIDTH), "visual.conv1.weight": torch.zeros(1),
        "logit_scale": torch.tensor(1.0), "logit_scale_ai": torch.tensor(2.0), "logit_scale_at": torch.tensor(4.0),
    }  # fmt: skip


LAYOUTS: dict[SystemName, Any] = {"clap_microsoft": microsoft, "mga_clap": mga, "audioclip": audioclip}
LAST = {
    "clap_microsoft": "caption_encoder.base.ln_f.weight",
    "mga_clap": "word_proj.4.bias",
    "audioclip": "ln_final.bias",
}


def settings(name: SystemName, file: Path | None, tokenizer: str) -> ModelSettings:
    systems = {"weights": None if file is None else str(file), "text_weights": tokenizer, "mga": {"codes": 32}}
    return ModelSettings(system=name, encoders="own", embedding=WIDTH, systems=systems)  # type: ignore[arg-type]


def waves(model: System) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, int(s * model.audio_encoder.sample_rate)).astype(np.float32) for s in (0.5, 1.2)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_checkpoint_is_read_whole_in_any_wrapper(
    name: SystemName, htsat: dict[str, Tensor], tokenizer: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    state, file = LAYOUTS[name](htsat), tmp_path / "published.pt"
    wrapped: list[Any] = [
        state, {"model": state, "optimizer": {"state": {}}, "epoch": 3}, {"state_dict": placed("module.", state)},
    ]  # fmt: skip
    found = []
    for content in wrapped:
        torch.save(content, file)
        model = build_system(settings(name, file, tokenizer)).eval()
        found.append((model.embed_audio(waves(model)), model.embed_text(CAPTIONS)))
    for audio, text in found[1:]:
        torch.testing.assert_close(audio, found[0][0])
        torch.testing.assert_close(text, found[0][1])
    ours = {key: tensor for key, tensor in model.state_dict().items() if key.endswith(LAST[name].rsplit(".", 1)[-1])}
    assert any(x.shape == state[LAST[name]].shape and torch.equal(x, state[LAST[name]]) for x in ours.values())
    scales = {"clap_microsoft": 3.25, "mga_clap": -math.log(0.05), "audioclip": 4.0}
    assert model.log_scale.item() == pytest.approx(scales[name])
    model.save_pretrained(tmp_path / "saved")
    loaded = load_system(tmp_path / "saved", "cpu")
    file.unlink()  # a saved model needs no checkpoint any more
    torch.testing.assert_close(loaded.embed_audio(waves(model)), found[2][0])
    torch.testing.assert_close(loaded.embed_text(CAPTIONS), found[2][1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_half_precision_is_taken_and_what_is_missing_is_named(
    name: SystemName, htsat: dict[str, Tensor], tokenizer: str, tmp_path: Path
) -> None:
    state, file = LAYOUTS[name](htsat), tmp_path / "published.pt"
    half = {k: x.half() if x.is_floating_point() and "melW" not in k else x for k, x in state.items()}
    torch.save(half, file)
    model = build_system(settings(name, file, tokenizer))
    assert next(model.parameters()).dtype == torch.float32
    missing = LAST[name]
    torch.save({k: x for k, x in state.items() if k != missing}, file)
    with pytest.raises(EncoderError, match=re.escape(missing)):
        build_system(settings(name, file, tokenizer))
    torch.save(state, file)
    with pytest.raises(EncoderError, match=r"model\.embedding"):
        build_system(settings(name, file, tokenizer).model_copy(update={"embedding": WIDTH + 1}))
    file.write_bytes(b"no checkpoint")
    with pytest.raises(EncoderError, match=r"published\.pt can't be read"):
        build_system(settings(name, file, tokenizer))


def test_weights_without_their_tokenizer_or_of_another_mel_bank_are_refused(
    htsat: dict[str, Tensor], tokenizer: str, tmp_path: Path
) -> None:
    file = tmp_path / "published.pt"
    torch.save(microsoft(htsat), file)
    whole = settings("clap_microsoft", file, tokenizer)
    without = whole.model_copy(update={"systems": whole.systems.model_copy(update={"text_weights": None})})
    with pytest.raises(EncoderError, match="the tokens of openai-community/gpt2"):
        build_system(without)
    torch.save(microsoft(htsat) | {"audio_encoder.base.htsat.logmel_extractor.melW": bank(44_100)}, file)
    with pytest.raises(EncoderError, match="its mel bank"):
        build_system(settings("clap_microsoft", file, tokenizer))


def test_clips_and_captions_do_not_depend_on_their_neighbours(
    htsat: dict[str, Tensor], tokenizer: str, tmp_path: Path
) -> None:
    for name, layout in LAYOUTS.items():
        torch.manual_seed(2)
        torch.save(layout(htsat), tmp_path / "published.pt")
        model = build_system(settings(name, tmp_path / "published.pt", tokenizer)).eval()
        together, alone = model.embed_text(CAPTIONS), [model.embed_text([caption])[0] for caption in CAPTIONS]
        torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-3)
        clips = waves(model)
        alone = [model.embed_audio([wave])[0] for wave in clips]
        torch.testing.assert_close(model.embed_audio(clips), torch.stack(alone), atol=1e-4, rtol=1e-3)


def test_the_locality_aware_block_is_the_published_equation_and_needs_no_query_or_key() -> None:
    torch.manual_seed(0)
    local, usual = HtsatTokens(AUDIO, MGA_FRONT, local=True).eval(), HtsatTokens(AUDIO, MGA_FRONT).eval()
    usual.load_state_dict(local.state_dict())
    features = pad([local.features(np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32))])
    assert features.values.shape == (1, 1001, 64)
    block: Any = local.network.audio_encoder.layers[-1].blocks[-1]
    seen: list[Tensor] = []
    block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    tokens = local(features).values
    assert not torch.allclose(tokens, usual(features).values, atol=1e-3)

    x = seen[0][0].double().detach().numpy()

    def norm(values: np.ndarray, layer: Any) -> np.ndarray:
        scaled = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + layer.eps)
        return np.asarray(scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy())

    def linear(values: np.ndarray, layer: Any) -> np.ndarray:
        return np.asarray(values @ layer.weight.detach().double().numpy().T + layer.bias.detach().numpy())

    v = x + linear(linear(norm(x, block.layernorm_before), block.attention.self.value), block.attention.output.dense)
    v = norm(v + norm(v, block.layernorm_after), local.network.audio_encoder.norm)  # (64 places, C)
    grid = v.reshape(2, 4, 8, 64)  # frequency halves of the image, each 4 x 8 places
    expected = np.concatenate([grid[half].reshape(4, 8, 64) for half in range(2)])
    assert tokens.shape == (1, 32, 64)
    order = expected.reshape(64, 64)
    np.testing.assert_allclose(tokens[0].detach().numpy().mean(axis=0), order.mean(axis=0), atol=1e-4)
    with torch.no_grad():
        block.attention.self.query.weight.add_(1.0)
    torch.testing.assert_close(local(features).values, tokens)


def wavelets(m: np.ndarray, fb: np.ndarray, fc: np.ndarray, length: int) -> np.ndarray:
    """(bins, length) complex128, term by term."""
    t = np.pi * np.linspace(-1, 1, length) + 1e-8
    rows = []
    for order, width, centre in zip(m, fb, fc, strict=True):
        x = width * t / (order + 1e-8)
        rows.append(
            np.sqrt(width) * (np.sin(x) / x).astype(complex) ** order * np.exp(-1j * centre * t) / np.sqrt(length)
        )
    return np.array(rows)


def test_fbsp_is_its_definition_with_gradients() -> None:
    bank_ = Fbsp(5).double()
    rng = np.random.default_rng(0)
    m, fb, fc = rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5), rng.uniform(0, 5, 5)
    with torch.no_grad():
        for parameter, values in ((bank_.m, m), (bank_.fb, fb), (bank_.fc, fc)):
            parameter.copy_(torch.tensor(values))
    frames = rng.normal(size=(3, 32))
    w = wavelets(m, fb, fc, 32)
    real, imaginary = bank_.wavelets(32)
    np.testing.assert_allclose(real.detach().numpy() + 1j * imaginary.detach().numpy(), w, atol=1e-12)
    found = bank_(torch.tensor(frames))
    np.testing.assert_allclose(found.detach().numpy(), np.abs(frames @ w.T) ** 2, atol=1e-10)
    energy = np.sqrt((np.abs(w) ** 2).sum(axis=1))
    assert bank_.loss(32).item() == pytest.approx(((energy - 1) ** 2).mean())

    def total(values: np.ndarray) -> float:
        return float((np.abs(frames @ wavelets(*values, 32).T) ** 2).sum())

    found.sum().backward()
    at = np.stack([m, fb, fc])
    for row, parameter in enumerate((bank_.m, bank_.fb, bank_.fc)):
        exact = np.zeros(5)
        for bin_ in range(5):
            step = np.zeros_like(at)
            step[row, bin_] = 1e-6
            exact[bin_] = (total(at + step) - total(at - step)) / 2e-6
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), exact / np.abs(exact).max(), atol=1e-4)


def test_fbsp_starts_as_a_fourier_transform_whose_wavelets_keep_the_energy() -> None:
    bank_ = Fbsp(1025)
    assert bank_.loss(2048).item() < 1e-6
    frame = torch.randn(1, 2048, dtype=torch.float64)
    power = bank_.double()(frame)[0, 1:64].detach()
    t = torch.pi * torch.linspace(-1, 1, 2048, dtype=torch.float64)
    waves_ = torch.exp(-1j * torch.arange(1, 64)[:, None] * t)
    torch.testing.assert_close(power, (frame.to(torch.complex128) @ waves_.T)[0].abs().square() / 2048)


def test_the_image_has_three_bands_of_341_bins_and_392_frames() -> None:
    audio = EsresnextTokens(Sizes(stem=4, blocks=(1, 1, 1, 1), groups=2))
    (features,) = [audio.features(np.zeros(1000, dtype=np.float32))]
    assert features.shape == (220_500, 1)
    with torch.no_grad():
        assert audio.spectrogram(torch.zeros(1, 220_500)).shape == (1, 3, 341, 392)


def test_speech_layers_are_a_learnt_mean_and_may_be_frozen() -> None:
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, conv_dim=[8] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    speech = SpeechLayers(config, layers=True, trained=True).eval()
    clips = [np.random.default_rng(at).normal(0, 0.1, n).astype(np.float32) for at, n in enumerate((8000, 16_000))]
    features = pad([speech.features(wave) for wave in clips])
    with torch.no_grad():
        assert speech.weights is not None
        speech.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
        tokens = speech(features)
        whole = F.pad(features.values[..., 0], (0, 160_000 - 16_000))
        mask = F.pad(features.mask, (0, 160_000 - 16_000)).long()
        states = speech.network(whole, attention_mask=mask, output_hidden_states=True).hidden_states
        share = np.exp([0.3, -1.0, 2.0]) / np.exp([0.3, -1.0, 2.0]).sum()
        expected = sum(float(a) * h for a, h in zip(share, states, strict=True))
        torch.testing.assert_close(tokens.values[tokens.mask], expected[tokens.mask])
        assert tokens.mask.sum(dim=1).tolist() == [24, 49]
        alone = speech(pad([speech.features(clips[0])]))
        torch.testing.assert_close(alone.values[0, :24], tokens.values[0, :24], atol=1e-5, rtol=1e-4)
    frozen = SpeechLayers(config, layers=False, trained=False).train()
    assert not any(parameter.requires_grad for parameter in frozen.network.parameters())
    assert not frozen(features).values.requires_grad


def test_a_speech_encoder_and_a_text_encoder_come_from_folders(tokenizer: str, tmp_path: Path) -> None:
    speech = WavLMConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, conv_dim=[8] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    roberta = RobertaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=90,
    )  # fmt: skip
    networks = [AutoModel.from_config(speech), AutoModel.from_config(roberta)]
    for network, folder in zip(networks, ("speech", "text"), strict=True):
        network.save_pretrained(tmp_path / folder)
    byte_tokenizer().save_pretrained(tmp_path / "text")
    for name in ("ra_clap", "emotion_rank_clap"):
        systems = {"weights": str(tmp_path / "speech"), "text_weights": str(tmp_path / "text")}
        model = build_system(ModelSettings(system=name, encoders="own", width=16, embedding=8, systems=systems))  # type: ignore[arg-type]
        ours: Any = model.audio_encoder
        theirs = networks[0].state_dict()
        assert all(torch.equal(x, theirs[key]) for key, x in ours.network.state_dict().items())
    systems = {"weights": str(tmp_path / "speech"), "text_weights": str(tmp_path / "nowhere")}
    with pytest.raises(EncoderError, match=r"text_weights=.*nowhere: no config"):
        build_system(ModelSettings(system="ra_clap", encoders="own", systems=systems))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_at_full_size(name: SystemName) -> None:
    torch.manual_seed(0)
    model = build_system(paper_preset(name)).train()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameter_groups(encoder_lr=4e-5, head_lr=1e-4, weight_decay=0.01))
    audio = pad([model.audio_encoder.features(wave) for wave in waves(model)])
    text = pad(model.text_encoder.features(CAPTIONS))
    embedded = model(audio, text)
    labels = PairLabels(torch.arange(2), levels=torch.tensor([[0.0], [1.0]]))
    loss = model.loss(embedded, model.logit_scale(), labels, LossSettings())
    penalty = model.penalty()
    (loss if penalty is None else loss + penalty).backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for side in ("audio_encoder.", "text_encoder."):
        moved = any(not torch.equal(x, before[key]) for key, x in model.state_dict().items() if key.startswith(side))
        assert moved or (name, side) == ("emotion_rank_clap", "audio_encoder."), side
    assert (penalty is None) == (not isinstance(model, AudioClip))
