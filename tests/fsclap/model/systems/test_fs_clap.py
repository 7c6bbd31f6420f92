import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fsclap.model.encoders import EncoderError
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.tokens import pad
from tests.fsclap.model.systems import test_systems
from tests.fsclap.model.systems.test_systems import batch

TABLE_3: list[dict[str, Any]] = [
    {"fusion": "none", "separation": False, "pooling": "mean"},
    {"fusion": "shared", "separation": False},
    {"fusion": "none", "separation": True},
    {"fusion": "shared", "separation": True},
]


def make(encoders: Any, **settings: Any) -> FSCLAP:
    model = test_systems.make("fs_clap", encoders, **{"fusion": "shared", **settings})
    assert isinstance(model, FSCLAP)
    return model


@pytest.mark.parametrize("settings", TABLE_3)
def test_every_row_of_table_3_gives_unit_embeddings_and_gradients(
    settings: dict[str, Any], encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    model = make(encoders, **settings).train()
    audio, text = batch(model, waves, captions)
    embedded = model(audio, text)
    torch.testing.assert_close(embedded.audio.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(embedded.text.norm(dim=1), torch.ones(4))
    F.cross_entropy(model.logit_scale() * embedded.audio @ embedded.text.T, torch.arange(4)).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_clip_is_embedded_the_same_alone_and_beside_any_other(
    encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    model = make(encoders)
    audio, text = batch(model, waves, captions)
    together = model(audio, text).audio
    alone = torch.cat([model.encode_audio(pad([model.audio_encoder.features(wave)])) for wave in waves])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(model.embed_audio(waves), alone)
    torch.testing.assert_close(model.embed_text(captions), model(audio, text).text)


def test_of_a_long_wave_the_middle_is_heard(encoders: Any, waves: list[np.ndarray]) -> None:
    model = make(encoders)
    middle = waves[3]  # 100 frames, as many as the encoder takes
    long = np.concatenate([waves[0], middle, waves[0][::-1]])
    torch.testing.assert_close(model.embed_audio([long]), model.embed_audio([middle]))


def test_shared_fusion_never_sees_the_partner_and_paired_fusion_does(
    encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    for fusion, moves in (("shared", False), ("paired", True)):
        model = make(encoders, fusion=fusion)
        audio, text = batch(model, waves, captions)
        _, other = batch(model, waves, captions[::-1])
        moved = (model(audio, text).audio - model(audio, other).audio).norm(dim=1).max()
        assert (moved > 1e-2) == moves


def test_paired_fusion_is_refused_where_a_clip_is_alone(encoders: Any, waves: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="a clip has no embedding of its own"):
        make(encoders, fusion="paired").embed_audio(waves)


def test_both_modalities_share_the_fusion_blocks_but_not_the_separation(encoders: Any) -> None:
    names = {name.split(".")[0]: name for name, _ in make(encoders).named_parameters()}
    assert "fusion" in names
    model = make(encoders)
    assert not torch.equal(model.separation[0].layers[1].weight, model.separation[1].layers[1].weight)


def test_the_matching_head_depends_on_both_sides(encoders: Any, waves: list[np.ndarray], captions: list[str]) -> None:
    model = make(encoders, rerank=True)
    audio, text = batch(model, waves, captions)
    _, other = batch(model, waves, captions[::-1])
    assert model.match(audio, text).shape == (4,)
    assert not torch.allclose(model.match(audio, text), model.match(audio, other))
    assert not torch.allclose(model.match(audio, text), model.match(audio[torch.tensor([3, 2, 1, 0])], text))
    with pytest.raises(ValueError, match="rerank=true"):
        make(encoders).match(audio, text)


def test_the_logit_scale_is_held_in_its_range_and_comes_back(encoders: Any) -> None:
    model = make(encoders)
    assert FSCLAP(ModelSettings(), encoders=encoders).logit_scale().item() == pytest.approx(1 / 0.07)
    model.log_scale.data.fill_(50.0)
    scale = model.logit_scale()
    assert scale.item() == pytest.approx(100.0)
    scale.backward()
    assert model.log_scale.grad is not None
    assert model.log_scale.grad > 0


def test_parameter_groups(encoders: Any) -> None:
    model = make(encoders)
    groups = model.parameter_groups(encoder_lr=1.0, head_lr=2.0, weight_decay=0.5)
    place = {id(parameter): group for group in groups for parameter in group["params"]}
    names = dict(model.named_parameters())
    assert len(place) == len(names) == sum(len(group["params"]) for group in groups)
    assert place[id(names["audio_encoder.layer.weight"])]["lr"] == 1.0
    assert place[id(names["project.0.weight"])] | {"params": []} == {"params": [], "lr": 2.0, "weight_decay": 0.5}
    for name in ("log_scale", "modality", "project.0.bias", "joint.0.layers.0.weight"):
        assert place[id(names[name])]["weight_decay"] == 0.0


def test_a_saved_model_is_the_same_model(
    tmp_path: Path, encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    model = make(encoders, rerank=True)
    model.save_pretrained(tmp_path)
    again = FSCLAP.from_pretrained(tmp_path, encoders=tuple(type(encoder)() for encoder in encoders))
    assert again.settings == model.settings
    assert not again.training
    audio, text = batch(model, waves, captions)
    assert torch.equal(again(audio, text).audio, model(audio, text).audio)
    assert torch.equal(again.match(audio, text), model.match(audio, text))


def test_a_model_trained_on_other_features_is_refused(tmp_path: Path, encoders: Any) -> None:
    make(encoders).save_pretrained(tmp_path)
    (tmp_path / "encoders.json").write_text(json.dumps({"audio": "frames-0", "text": "bytes-1"}))
    with pytest.raises(EncoderError, match="frames-0"):
        FSCLAP.from_pretrained(tmp_path, encoders=encoders)


def test_a_pickle_is_never_loaded(tmp_path: Path, encoders: Any) -> None:
    make(encoders).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError):
        FSCLAP.from_pretrained(tmp_path, encoders=encoders)
    with pytest.raises(ValueError, match="only safetensors"):
        FSCLAP._load_as_pickle(make(encoders), str(tmp_path / "pytorch_model.bin"), "cpu", True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 20, "heads": 8}, "must be a multiple of heads"),
        ({"clap_weights": "somewhere"}, "only for encoders=clap"),
        ({"encoders": "clap", "speech_tokens": True}, "only for encoders=embedded"),
        ({"fusion": "both"}, "shared"),
        ({"depth": 3}, "depth"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSettings(**wrong)
