"""What every system must do, whatever its idea."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fsclap.model.losses import PairLabels, contrastive_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems import SYSTEMS, ModelError, System, build_system, load_system
from fsclap.model.systems.clap_laion import ClapLaion
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.tokens import Tokens, pad

SMALL: dict[str, Any] = {"width": 16, "heads": 4, "embedding": 8}
GLOBAL: dict[str, Any] = {"fusion": "none", "separation": False, "pooling": "mean"}


def make(name: str, encoders: Any, **settings: Any) -> System:
    """A system with weights as after some training."""
    torch.manual_seed(0)
    model = build_system(ModelSettings(system=name, **{**SMALL, **settings}), encoders=encoders)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        model.log_scale.fill_(2.0)
    return model.eval()


def batch(model: System, waves: list[np.ndarray], captions: list[str]) -> tuple[Tokens, Tokens]:
    audio = pad([model.audio_encoder.features(wave) for wave in waves])
    return audio, pad(model.text_encoder.features(captions))


def labels(pairs: int) -> PairLabels:
    return PairLabels(torch.arange(pairs), levels=torch.rand(pairs, 13, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(params=SYSTEMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_unit_rows_a_finite_loss_and_a_gradient_for_every_weight(
    name: str, encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    model = make(name, encoders).train()
    embedded = model(*batch(model, waves, captions))
    torch.testing.assert_close(embedded.audio.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(embedded.text.norm(dim=1), torch.ones(4))
    loss = model.loss(embedded, model.logit_scale(), labels(4), LossSettings())
    assert torch.isfinite(loss)
    (loss if (penalty := model.penalty()) is None else loss + penalty).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_padding_and_neighbours_change_nothing(
    name: str, encoders: Any, waves: list[np.ndarray], captions: list[str]
) -> None:
    model = make(name, encoders)
    audio, text = batch(model, waves, captions)
    alone = torch.cat([model.encode_audio(pad([model.audio_encoder.features(wave)])) for wave in waves])
    torch.testing.assert_close(model.encode_audio(audio), alone, atol=1e-5, rtol=1e-4)
    alone = torch.cat([model.encode_text(pad(model.text_encoder.features([caption]))) for caption in captions])
    torch.testing.assert_close(model.encode_text(text), alone, atol=1e-5, rtol=1e-4)


def test_a_saved_model_remembers_its_system(name: str, encoders: Any, waves: list[np.ndarray], tmp_path: Path) -> None:
    model = make(name, encoders)
    model.save_pretrained(tmp_path)
    loaded = load_system(tmp_path, "cpu", encoders=encoders)
    assert type(loaded) is SYSTEMS[name]
    torch.testing.assert_close(loaded.embed_audio(waves), model.embed_audio(waves))
    other = FSCLAP if name != "fs_clap" else ClapLaion
    with pytest.raises(ModelError, match=f"model.system={name}"):
        other.from_pretrained(tmp_path, encoders=encoders)


def test_a_model_saved_before_there_were_systems_is_fs_clap(encoders: Any, tmp_path: Path) -> None:
    make("fs_clap", encoders).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["settings"]["system"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert isinstance(load_system(tmp_path, "cpu", encoders=encoders), FSCLAP)
    config["settings"]["system"] = "clap_of_tomorrow"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a system that this version does not know"):
        load_system(tmp_path, "cpu", encoders=encoders)


def test_what_only_fs_clap_has_is_refused_for_the_others() -> None:
    with pytest.raises(ValidationError, match="fusion, rerank: only system=fs_clap"):
        ModelSettings(system="clap_laion", fusion="shared", rerank=True)


def test_clap_laion_is_the_base_row_of_table_3(encoders: Any, waves: list[np.ndarray], captions: list[str]) -> None:
    base, plain = make("fs_clap", encoders, **GLOBAL), make("clap_laion", encoders)
    with torch.no_grad():
        base.get_parameter("modality").zero_()  # where both add a bias of their own
    plain.load_state_dict({key: value for key, value in base.state_dict().items() if key != "modality"})
    audio, text = batch(base, waves, captions)
    ours, theirs = plain(audio, text), base(audio, text)
    torch.testing.assert_close(ours, theirs)
    info_nce = contrastive_loss(*theirs, base.logit_scale(), settings=LossSettings(gamma=0.0), groups=torch.arange(4))
    found = plain.loss(ours, plain.logit_scale(), labels(4), LossSettings())
    torch.testing.assert_close(found, info_nce)
    assert not torch.allclose(base.loss(theirs, base.logit_scale(), labels(4), LossSettings()), info_nce)
