"""LAION's checkpoints are converted, or refused with the reason. That the numbers are LAION's: tests/laion."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

from fsclap.model.clap import byte_tokenizer, read_encoders
from fsclap.model.encoders import EncoderError
from fsclap.model.laion import ConversionError, build, convert, main, read_state
from harness.models.clap import laion_state, write_laion_checkpoint


@pytest.fixture(scope="module")
def original() -> ClapModel:
    torch.manual_seed(0)
    audio = ClapAudioConfig(patch_embeds_hidden_size=16, hidden_size=128, depths=[2, 2, 3, 2])
    text = ClapTextConfig(
        vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96
    )
    config = ClapConfig(audio_config=audio.to_dict(), text_config=text.to_dict(), projection_dim=24)
    return ClapModel(config).eval()


@pytest.fixture
def state(original: ClapModel) -> dict[str, Tensor]:
    return laion_state(original)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "laion.pt"


def test_every_tensor_comes_to_its_place(
    original: ClapModel, state: dict[str, Tensor], checkpoint: Path, tokenizer: str, tmp_path: Path
) -> None:
    write_laion_checkpoint(checkpoint, state)
    convert(checkpoint, tmp_path / "clap", tokenizer=tokenizer)
    names = {path.name for path in (tmp_path / "clap").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"}
    converted = ClapModel.from_pretrained(tmp_path / "clap", use_safetensors=True)
    expected = original.state_dict()
    assert converted.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in converted.state_dict().items())
    assert converted.config.audio_config.depths == [2, 2, 3, 2]
    assert converted.config.text_config.layer_norm_eps == 1e-5
    assert ClapFeatureExtractor.from_pretrained(tmp_path / "clap").frequency_min == 50
    audio, text = read_encoders(str(tmp_path / "clap"))
    assert (audio.dim, text.dim) == (128, 128)


def test_weights_without_a_training_around_them_and_of_any_transformers(
    original: ClapModel, state: dict[str, Tensor], checkpoint: Path
) -> None:
    """Later ones of transformers leave RoBERTa's numbering of positions out of the state."""
    for bare in (state, without("_ids", state)):
        torch.save(bare, checkpoint)
        found = build(read_state(checkpoint), checkpoint).state_dict()
        assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in found.items())


def without(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"audio_branch.patch_embed.mel_conv2d.weight": torch.zeros(1)}, "four crops of a clip"),
        (lambda s: s | {"audio_branch.patch_embed.fusion_model.x": torch.zeros(1)}, r"without fusion, such as 630k"),
        (lambda s: without("audio_branch.", s) | {"audio_branch.fc1.weight": torch.zeros(1)}, "not a CLAP of HTSAT"),
        (lambda s: without("text_branch.", s), "it has no text_branch.embeddings.word_embeddings.weight"),
        (lambda s: without(".blocks.", s), "it has no audio_branch.layers.0"),
        (
            lambda s: s | {"text_branch.embeddings.token_type_embeddings.weight": torch.zeros(2, 128)},
            r"of RoBERTa, but BERT's",
        ),
        (lambda s: without("audio_branch.norm.bias", s), "1 of its tensors .* audio_model.audio_encoder.norm.bias"),
        (lambda s: s | {"audio_branch.extra": torch.zeros(1)}, "unknown .* audio_model.audio_encoder.extra"),
        (lambda s: s | {"audio_branch.bn0.weight": torch.zeros(128)}, "another shape, such as .*batch_norm.weight"),
    ],
)
def test_other_models_are_refused(
    change: Any, message: str, state: dict[str, Tensor], checkpoint: Path, tokenizer: str, tmp_path: Path
) -> None:
    write_laion_checkpoint(checkpoint, change(state))
    with pytest.raises(ConversionError, match=message):
        convert(checkpoint, tmp_path / "clap", tokenizer=tokenizer)
    assert not (tmp_path / "clap").exists()


class Trap:
    """What a pickle could run."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Trap(tmp_path / "proof")}, checkpoint)
    with pytest.raises(ConversionError, match="Python code, which is never run"):
        read_state(checkpoint)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_file_is_refused(content: bytes | None, state: dict[str, Tensor], checkpoint: Path) -> None:
    torch.save(state, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:50_000] if content is None else content)
    with pytest.raises(ConversionError, match=r"laion.pt can't be read as tensors"):
        read_state(checkpoint)


def test_the_command(
    state: dict[str, Tensor], checkpoint: Path, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_laion_checkpoint(checkpoint, state)
    arguments = [str(checkpoint), str(tmp_path / "clap"), "--tokenizer", tokenizer]
    main(arguments)
    assert "ClapModel of 1 million parameters" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"not converted: .*clap is not empty"):
        main(arguments)
    arguments[1] += "2"
    with pytest.raises(SystemExit, match=r"not converted: .*no such file"):
        main([str(tmp_path / "none.pt"), *arguments[1:]])
    with pytest.raises(SystemExit, match="no tokenizer can be read there"):
        main([*arguments[:3], str(tmp_path / "nothing")])


def test_a_tokenizer_of_another_model_is_refused(state: dict[str, Tensor], checkpoint: Path, tmp_path: Path) -> None:
    larger = byte_tokenizer()
    larger.add_tokens([f"token{number}" for number in range(50)])
    larger.save_pretrained(tmp_path / "larger")
    write_laion_checkpoint(checkpoint, state)
    with pytest.raises(ConversionError, match="has 310 tokens and the checkpoint 300"):
        convert(checkpoint, tmp_path / "clap", tokenizer=str(tmp_path / "larger"))


def test_a_checkpoint_as_weights_says_how_to_convert_it() -> None:
    with pytest.raises(EncoderError, match=r"python -m fsclap\.model\.laion 630k-audioset-best\.pt FOLDER"):
        read_encoders("630k-audioset-best.pt")


def test_nothing_of_laions_code_is_needed() -> None:
    assert "laion_clap" not in sys.modules
