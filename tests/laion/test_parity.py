"""A converted checkpoint gives the numbers of LAION's own code.

In an environment of its own (`make test-laion`), since laion-clap pins NumPy 1; skipped where it is not installed.
Its networks run as they are. Three things around them are kept away: the package's first file, which downloads
three tokenizers, by importing `clap_module` from inside it; torchvision, which it doesn't declare and needs for
images alone; and the download of RoBERTa's weights, whose place random ones take.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

LAION = importlib.util.find_spec("laion_clap")
if LAION is None or LAION.origin is None:
    pytest.skip("laion-clap is not installed here: `make test-laion`", allow_module_level=True)

from transformers import ClapModel, RobertaConfig, RobertaModel  # noqa: E402

from fsclap.model.clap import HTSATTokens, byte_tokenizer, log_mel_extractor  # noqa: E402
from fsclap.model.laion import convert  # noqa: E402
from fsclap.model.tokens import pad  # noqa: E402
from harness.models.clap import write_laion_checkpoint  # noqa: E402

RATE = 48_000
CAPTIONS = ["a weary woman speaks slowly, close to tears", "someone shouts", ""]


@pytest.fixture(scope="module")
def networks() -> types.ModuleType:
    """LAION's clap_module.model."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.misc"):
        stand_in = types.ModuleType(name)
        stand_in.__getattr__ = lambda _: object  # type: ignore[method-assign]
        sys.modules.setdefault(name, stand_in)
    assert LAION is not None
    assert LAION.origin is not None
    sys.path.append(str(Path(LAION.origin).parent))
    return importlib.import_module("clap_module.model")


@pytest.fixture(scope="module", params=["tiny", "base"])
def pair(
    request: pytest.FixtureRequest, networks: types.ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, ClapModel]:
    """LAION's model with random weights, and the ClapModel that its checkpoint was converted to."""
    folder = tmp_path_factory.mktemp(f"laion-{request.param}")
    torch.manual_seed(1)
    theirs = laions(networks, request.param)
    write_laion_checkpoint(folder / "laion.pt", theirs.state_dict())
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    convert(folder / "laion.pt", folder / "clap", tokenizer=str(folder / "tokenizer"))
    return theirs, ClapModel.from_pretrained(folder / "clap", use_safetensors=True).eval()


def laions(networks: types.ModuleType, htsat: str) -> Any:
    """HTSAT of the published size and two layers of RoBERTa-base, no parameter left at its start value."""
    roberta = RobertaConfig(
        vocab_size=260, max_position_embeddings=514, type_vocab_size=1, num_hidden_layers=2, layer_norm_eps=1e-5
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.RobertaModel, "from_pretrained", lambda _: RobertaModel(roberta))
        audio = networks.CLAPAudioCfp(model_type="HTSAT", model_name=htsat, hop_size=480)
        text = networks.CLAPTextCfg(77, 49408, 512, 8, 12, model_type="roberta")
        model = networks.CLAP({"tiny": 768, "base": 1024}[htsat], audio, text).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("audio_branch.logmel") and "spectrogram" not in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
        model.audio_branch.bn0.running_mean.uniform_(-40, -20)
        model.audio_branch.bn0.running_var.uniform_(100, 300)
        model.logit_scale_t.add_(0.3)
    return model


@pytest.fixture(scope="module")
def waves() -> torch.Tensor:
    """(3, 480000): 10 s of noise, of a chirp, of a soft voice-like buzz."""
    time = torch.arange(10 * RATE) / RATE
    noise = 0.1 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    chirp = 0.3 * torch.sin(2 * torch.pi * (100 + 400 * time) * time) + 0.01 * noise
    buzz = 0.05 * torch.sign(torch.sin(2 * torch.pi * 140 * time)) * torch.sin(3 * time).abs() + 0.01 * noise
    return torch.stack([noise, chirp, buzz])


def features(waves: torch.Tensor) -> torch.Tensor:
    inputs = log_mel_extractor()([wave.numpy() for wave in waves], sampling_rate=RATE, return_tensors="pt")
    return inputs["input_features"]


@torch.inference_mode()
def test_audio_embeddings(pair: tuple[Any, ClapModel], waves: torch.Tensor) -> None:
    theirs, ours = pair
    expected = theirs.get_audio_embedding([{"waveform": wave} for wave in waves])
    pooled = ours.audio_model(input_features=features(waves)).pooler_output
    found = torch.nn.functional.normalize(ours.audio_projection(pooled), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-2, "the clips are told apart"


@torch.inference_mode()
def test_text_embeddings(pair: tuple[Any, ClapModel]) -> None:
    theirs, ours = pair
    inputs = byte_tokenizer()(CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = theirs.get_text_embedding(dict(inputs))
    found = torch.nn.functional.normalize(ours.text_projection(ours.text_model(**inputs).pooler_output), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-2, "the captions are told apart"


@torch.inference_mode()
def test_fine_grained_tokens(pair: tuple[Any, ClapModel], waves: torch.Tensor) -> None:
    """LAION repeats each of the 32 tokens 32 times."""
    theirs, ours = pair
    expected = theirs.audio_branch({"waveform": waves}, device="cpu")["fine_grained_embedding"]
    assert expected.shape[1] == 1024
    assert torch.equal(expected[:, ::32].repeat_interleave(32, dim=1), expected)
    encoder = HTSATTokens(ours.audio_model)
    found = encoder(pad([encoder.features(wave.numpy()) for wave in waves])).values
    torch.testing.assert_close(found, expected[:, ::32], atol=1e-4, rtol=1e-4)


def test_logit_scales(pair: tuple[Any, ClapModel]) -> None:
    theirs, ours = pair
    expected = theirs.get_logit_scale()
    torch.testing.assert_close((ours.logit_scale_a.exp(), ours.logit_scale_t.exp()), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(*expected)


@torch.inference_mode()
def test_similarities_as_in_training(pair: tuple[Any, ClapModel], waves: torch.Tensor) -> None:
    """The whole model at once, scale included."""
    theirs, ours = pair
    inputs = byte_tokenizer()(CAPTIONS, padding=True, return_tensors="pt")
    audio, text, _, _, scale_a, scale_t = theirs({"waveform": waves}, inputs, device=torch.device("cpu"))
    found = ours(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], input_features=features(waves))
    torch.testing.assert_close(found.logits_per_audio, scale_a * audio @ text.T, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.logits_per_text, scale_t * text @ audio.T, atol=1e-3, rtol=0)
