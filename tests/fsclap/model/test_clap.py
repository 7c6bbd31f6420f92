import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

from fsclap.model.clap import byte_tokenizer, read_encoders
from fsclap.model.encoders import EncoderError
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.base import build_encoders
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.tokens import pad
from fsclap.weights import write_manifest

RATE = 48_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ClapModel of the real architecture, narrow, with random weights, in the hub's layout."""
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    save_clap(folder)
    return folder


def save_clap(folder: Path, **audio: object) -> None:
    audio_config = ClapAudioConfig(
        patch_embeds_hidden_size=16, hidden_size=128, num_attention_heads=[2, 2, 4, 4], **audio
    )
    text_config = ClapTextConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config = ClapConfig(audio_config=audio_config.to_dict(), text_config=text_config.to_dict(), projection_dim=16)
    ClapModel(config).eval().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def clip(seconds: float) -> np.ndarray:
    return np.random.default_rng(int(seconds * 100)).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 1000, 3 * RATE + 17, 10 * RATE, 12 * RATE])
def test_the_log_mel_is_that_of_transformers(samples: int, weights: Path) -> None:
    wave = clip(20)[:samples]
    features = read_encoders(str(weights))[0].features(wave)
    extractor = ClapFeatureExtractor(
        frequency_min=50, truncation="rand_trunc", padding="repeatpad", max_length_s=max(10, samples // RATE)
    )
    expected = extractor(wave, sampling_rate=RATE, return_tensors="np")["input_features"][0, 0]
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_audio_tokens_average_to_laions_global_embedding(weights: Path) -> None:
    encoder, _ = read_encoders(str(weights))
    features = pad([encoder.features(clip(seconds)) for seconds in (2, 10)])
    with torch.inference_mode():
        tokens = encoder.eval()(features)
        pooled = encoder.network.audio_encoder(features.values[:, None]).pooler_output
    assert tokens.values.shape == (2, 32, 128)
    assert tokens.mask.all()
    torch.testing.assert_close(tokens.values.mean(dim=1), pooled)
    # 32 distinct moments, not one repeated.
    assert (tokens.values[1, 1:] - tokens.values[1, :-1]).abs().amax(dim=1).min() > 1e-4


def test_text_tokens_do_not_depend_on_the_padding(weights: Path) -> None:
    _, encoder = read_encoders(str(weights))
    captions = ["a low voice", "somebody speaks very slowly and without any movement in pitch"]
    features = encoder.features(captions)
    assert len(encoder.features(["x" * 10_000])[0]) == encoder.max_tokens
    with torch.inference_mode():
        together = encoder.eval()(pad(features)).values[0, : len(features[0])]
        alone = encoder(pad(features[:1])).values[0]
    torch.testing.assert_close(together, alone)


def test_a_model_starts_from_the_weights_and_is_saved_without_them(weights: Path, tmp_path: Path) -> None:
    settings = ModelSettings(encoders="clap", clap_weights=str(weights), width=32, heads=4, embedding=16)
    model = FSCLAP(settings).eval()
    original = ClapModel.from_pretrained(weights)
    for name, value in original.audio_model.state_dict().items():
        assert torch.equal(model.audio_encoder.network.state_dict()[name], value)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(
        (tmp_path / "model/config.json").read_text().replace(str(weights), "/nowhere")
    )
    again = FSCLAP.from_pretrained(tmp_path / "model")
    waves, captions = [clip(1), clip(2)], ["a low voice", "slowly"]
    assert torch.equal(again.embed_audio(waves), model.embed_audio(waves))
    assert torch.equal(again.embed_text(captions), model.embed_text(captions))


def test_weights_that_are_not_there_or_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "owner/nothing"):
        with pytest.raises(EncoderError, match=rf"model.clap_weights={name} .*`fsclap models fetch {name} --hub"):
            build_encoders(ModelSettings(encoders="clap", clap_weights=name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"no ClapModel can be read in .*config\.json, model\.safetensors"):
        build_encoders(ModelSettings(encoders="clap", clap_weights=str(tmp_path / "empty")))
    save_clap(tmp_path, enable_fusion=True)
    with pytest.raises(EncoderError, match="name an unfused model"):
        build_encoders(ModelSettings(encoders="clap", clap_weights=str(tmp_path)))


def test_weights_that_were_fetched_go_by_their_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path))
    place = tmp_path / "huggingface" / "laion" / "clap-htsat-unfused" / "main"
    shutil.copytree(weights, place)
    write_manifest(place, name="laion/clap-htsat-unfused", hub="huggingface", revision="main", licence="apache-2.0")
    by_name, by_folder = read_encoders("laion/clap-htsat-unfused"), read_encoders(str(weights))
    ours, theirs = by_name[0].network.state_dict(), by_folder[0].network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_random_weights_have_the_sizes_of_laions() -> None:
    audio, text = build_encoders(ModelSettings(encoders="clap"))
    assert sum(p.numel() for p in audio.parameters()) == pytest.approx(27.5e6, rel=0.01)  # type: ignore[attr-defined]
    assert (audio.dim, text.dim) == (768, 768)
