"""SenseVoice-Small with random weights: the real classes, tokens, configuration and layout.

Random weights would answer any token anywhere. These are arranged so that the output has the real
one's form: at the four queries a tag of the right kind, which differs from clip to clip;
EMO_UNKNOWN for most clips unless it is banned; behind them text of syllables and ideographs with
blanks between. For that, directions that tell the queries apart are fitted on the random encoder's
own states, and only the last layer is set.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from funasr.frontends.wav_frontend import WavFrontend
from funasr.models.sense_voice.model import SenseVoiceSmall
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[import-untyped]
from torch import Tensor

from fsclap.corpus.captioning.sensevoice import MEANS, QUERIES, TOKENIZER

CONFIG, CHECKPOINT = "config.yaml", "model.pt"
VOCABULARY = 25_055
FEATURES = 560
TAGS = {"zh": 24884, "en": 24885, "yue": 24888, "ja": 24892, "ko": 24896, "nospeech": 24992}
TAGS |= {"Speech": 24993, "BGM": 24995, "Laughter": 24997, "Applause": 24999}
TAGS |= {"HAPPY": 25001, "SAD": 25002, "ANGRY": 25003, "NEUTRAL": 25004, "FEARFUL": 25005, "DISGUSTED": 25006}
TAGS |= {"SURPRISED": 25007, "OTHER": 25008, "EMO_UNKNOWN": 25009, "Cry": 25010, "Sneeze": 25011, "Breath": 25012}
TAGS |= {"Cough": 25013, "Sing": 25014, "Speech_Noise": 25015, "withitn": 25016, "woitn": 25017}
TAGS |= {"GBG": 25018, "Event_UNK": 25019}
"""The ids of SenseVoice-Small's own tokenizer; some of them are written into the network's class
too."""
ANSWERS = (
    ("zh", "en", "yue", "ja", "ko"),
    ("HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED", "EMO_UNKNOWN"),
    ("Speech", "BGM", "Laughter", "Applause", "Cry", "Sneeze", "Breath", "Cough"),
    ("withitn",),
)
"""Query -> its possible answers."""
TEXT = range(3, 24_884)

Size = Literal["small", "full"]
ENCODERS: dict[Size, dict[str, Any]] = {
    "small": {"output_size": 64, "attention_heads": 4, "linear_units": 128, "num_blocks": 3, "tp_blocks": 2},
    "full": {"output_size": 512, "attention_heads": 4, "linear_units": 2048, "num_blocks": 50, "tp_blocks": 20},
}
"""full: the published one, 234 million parameters."""


def write_sensevoice(folder: Path, *, size: Size = "small", seed: int = 0) -> Path:
    """Write config.yaml, configuration.json, model.pt, am.mvn and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(size)
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "configuration.json").write_text(json.dumps(HUB_CONFIGURATION, indent=2))
    (folder / MEANS).write_text(_means())
    (folder / TOKENIZER).write_bytes(_tokenizer().SerializeToString())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SenseVoiceSmall(
            encoder=config["encoder"],
            encoder_conf=config["encoder_conf"],
            input_size=FEATURES,
            vocab_size=VOCABULARY,
            **config["model_conf"],
        ).eval()
        front = WavFrontend(**{**config["frontend_conf"], "cmvn_file": str(folder / MEANS), "dither": 0.0})
        _arrange(network, [front(torch.from_numpy(wave(4.0, seed=clip))[None], [64_000])[0] for clip in range(12)])
        torch.save(network.state_dict(), folder / CHECKPOINT)
    return folder


def configuration(size: Size) -> dict[str, Any]:
    """Return the published config.yaml, without what only training reads."""
    encoder = {
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    }
    front = {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    return {
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": ENCODERS[size] | encoder,
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": front | {"lfr_m": 7, "lfr_n": 6, "cmvn_file": None},
    }


HUB_CONFIGURATION = {
    "framework": "pytorch",
    "task": "auto-speech-recognition",
    "model": {"type": "funasr"},
    "pipeline": {"type": "funasr-pipeline"},
    "file_path_metas": {
        "init_param": CHECKPOINT,
        "config": CONFIG,
        "tokenizer_conf": {"bpemodel": TOKENIZER},
        "frontend_conf": {"cmvn_file": MEANS},
    },
}


def _means() -> str:
    """Kaldi's text format; a log-mel of 16-bit samples is some 13 +- 4."""
    lines = ["<Nnet>"]
    for layer, value in (("<AddShift>", -13.0), ("<Rescale>", 0.25)):
        numbers = " ".join([f"{value}"] * FEATURES)
        lines += [f"{layer} {FEATURES} {FEATURES}", f"<LearnRateCoef> 0 [ {numbers} ]"]
    return "\n".join([*lines, "</Nnet>", ""])


def _tokenizer() -> ModelProto:
    """Write a sentencepiece model with the real number of pieces, and tags at their ids."""
    pieces = {0: "<unk>", 1: "<s>", 2: "</s>"} | {number: f"<|{tag}|>" for tag, number in TAGS.items()}
    letters = "bcdfghjklmnpqrstvwyz"
    syllables = [f"{start}{c}{v}{end}" for start in ("▁", "") for c in letters for v in "aeiou" for end in letters]
    ideographs = [chr(0x4E00 + number) for number in range(len(TEXT) - len(syllables))]
    pieces |= dict(zip(TEXT, syllables + ideographs, strict=True))
    model = ModelProto()
    model.trainer_spec.model_type = 1  # unigram
    model.trainer_spec.vocab_size = VOCABULARY
    model.normalizer_spec.add_dummy_prefix = True
    kinds = {0: ModelProto.SentencePiece.UNKNOWN, 1: ModelProto.SentencePiece.CONTROL}
    kinds |= {2: ModelProto.SentencePiece.CONTROL}
    kinds |= dict.fromkeys(TAGS.values(), ModelProto.SentencePiece.USER_DEFINED)
    for number in range(VOCABULARY):
        piece = pieces.get(number, f"<|unused {number}|>")
        kind = kinds.get(number, ModelProto.SentencePiece.NORMAL)
        model.pieces.add(piece=piece, score=-float(number), type=kind)
    return model


@torch.inference_mode()
def _arrange(network: SenseVoiceSmall, clips: list[Tensor]) -> None:
    """Set the CTC layer so that the four queries get tags, and the rest text and blanks."""
    states = torch.cat([_states(network, clip) for clip in clips])  # (clips, queries + frames, dim)
    layer = network.ctc.ctc_lo
    layer.weight.normal_(0, 1 / states.shape[2] ** 0.5)  # text: logits of about +-1
    layer.bias.zero_()
    text = (states[:, QUERIES:] @ layer.weight[TEXT.start : TEXT.stop].T).amax(dim=2)
    layer.bias[:] = -100.0
    layer.bias[TEXT.start : TEXT.stop] = 0.0
    layer.weight[network.blank_id] = 0.0
    layer.bias[network.blank_id] = float(text.median())
    pointers = _pointers(states)
    for query, answers in enumerate(ANSWERS):
        for tag in answers:
            layer.weight[TAGS[tag]], layer.bias[TAGS[tag]] = _answer(states[:, query], pointers[query])
    layer.bias[TAGS["EMO_UNKNOWN"]] += 1.0


def _states(network: SenseVoiceSmall, features: Tensor) -> Tensor:
    """(1, frames, 560) -> (1, queries + frames, dim)."""
    queries = network.embed(torch.tensor([[0, 1, 2, network.textnorm_dict["withitn"]]]))
    inputs = torch.cat([queries, features], dim=1)
    return network.encoder(inputs, torch.tensor([inputs.shape[1]]))[0]


def _pointers(states: Tensor) -> list[tuple[Tensor, float]]:
    """Fit, by ridge regression, a weight and bias per query: +1 on its states, -1 on others."""
    clips, length, dim = states.shape
    flat = torch.cat([states.reshape(-1, dim), torch.ones(clips * length, 1)], dim=1).double()
    wanted = -torch.ones(clips, length, QUERIES)
    wanted[:, range(QUERIES), range(QUERIES)] = 1.0
    # There are many frames to a query: each query weighs as much as they all do.
    weight = torch.ones(length, 1)
    weight[:QUERIES] = length - QUERIES
    root = weight.sqrt().repeat(clips, 1).double()
    gram = (flat * root).T @ (flat * root) + 1e-3 * torch.eye(dim + 1)
    solution = torch.linalg.solve(gram, (flat * root).T @ (wanted.reshape(-1, QUERIES).double() * root)).float()
    return [(solution[:-1, query], float(solution[-1, query])) for query in range(QUERIES)]


def _answer(states: Tensor, pointer: tuple[Tensor, float], strength: float = 40.0) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a tag: far up at its query, far down elsewhere, +-1 by clip."""
    mean = states.mean(dim=0)
    directions = torch.linalg.svd(states - mean, full_matrices=False)[2][:6]
    weight = directions.T @ torch.randn(len(directions))
    weight = weight / ((states - mean) @ weight).std()
    point, bias = pointer
    return weight + strength * point, strength * bias - weight @ mean


def wave(seconds: float, *, seed: int) -> np.ndarray:
    """Synthesise a voice-like buzz, (samples,) float32 at 16 kHz; the seed sets its pitch."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    pitch = rng.uniform(90, 300) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * time))
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / 16_000)) + rng.normal(0, 0.3, len(time))
    loudness = np.abs(np.sin(2 * np.pi * rng.uniform(1, 3) * time))
    return (0.1 * loudness * buzz).astype(np.float32)
