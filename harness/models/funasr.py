"""Random-weight FunASR models, each a folder as ModelScope lays it out.

The networks are FunASR's own classes: `full` has the sizes of the published models (seaco
Paraformer-large 8404, FSMN-VAD, ct-punc cn-en 471067, CAM++ common), `small` the same parts of a
few thousand parameters. The files are those that FunASR reads: config.yaml, configuration.json with
its file_path_metas, weights, am.mvn, tokens.json, seg_dict, jieba_usr_dict.

So that every field downstream is filled, a few weights are set instead of drawn:

- FSMN-VAD: one unit of each layer carries the mean log-mel energy to the unit of silence, so that
  what is louder than a quiet room is speech.
- Paraformer: the bias of the predictor fires a token about every 240 ms of anything; special tokens
  never win.
- ct-punc: the biases of its output put a mark after about every eighth word.
- CAM++: its batch norms are calibrated on synthetic voices, or all sounds would have one embedding.
"""

import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec

import numpy as np
import torch
import yaml
from funasr.models.campplus.utils import extract_feature
from funasr.register import tables
from torch import nn

Size = Literal["small", "full"]

RATE = 16_000
MELS = 80
HANZI = "我你他她们的是了在有不人这个上来到时大地为子中说生国年着就那和要出也得里后自以会家可下而过天去能对小多然于心学"
WORDS = ("hello", "world", "you", "know", "why", "don't", "me", "a", "b", "c")
PIECES = ("hel@@", "lo", "wor@@", "ld", "you", "know", "why", "don't", "me", "a", "b", "c")
COMPOUNDS = ("我们", "你们", "中国", "自学")
"""Words of two characters that ct-punc knows as one."""

PARAFORMER_VOCABULARY = 8404
PUNC_VOCABULARY = 471_067


def write_models(folder: Path, *, size: Size = "small", seed: int = 0) -> dict[str, Path]:
    """Write all four models; return their folders under the names of `FunASRSettings`."""
    writers = {"asr": write_paraformer, "vad": write_fsmn_vad, "punc": write_ct_punc, "speaker": write_campplus}
    for name, write in writers.items():
        write(folder / name, size=size, seed=seed)
    return {name: folder / name for name in writers}


P = ParamSpec("P")


def seeded(write: Callable[P, None]) -> Callable[P, None]:
    """Make a function draw from its keyword `seed`, and leave PyTorch's generator as it was."""

    @functools.wraps(write)
    def inside(*args: P.args, **kwargs: P.kwargs) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(kwargs.get("seed", 0))
            write(*args, **kwargs)

    return inside


@seeded
def write_paraformer(folder: Path, *, size: Size = "small", seed: int = 0) -> None:
    """Write a SeacoParaformer: timestamps, hotword bias encoder. Full: 238 M parameters."""
    full = size == "full"
    dim, units, blocks = (512, 2048, (50, 16, 6)) if full else (32, 64, (2, 2, 1))
    hanzi = [chr(0x4E00 + index) for index in range(PARAFORMER_VOCABULARY - len(PIECES) - 4)] if full else list(HANZI)
    tokens = ["<blank>", "<s>", "</s>", *hanzi, *PIECES, "<unk>"]
    dropout = dict.fromkeys(("dropout_rate", "positional_dropout_rate", "attention_dropout_rate"), 0.1)
    attentions = ("self_attention_dropout_rate", "src_attention_dropout_rate")
    decoder_dropout = dict.fromkeys(("dropout_rate", "positional_dropout_rate", *attentions), 0.1)
    config: dict[str, Any] = {
        "model": "SeacoParaformer",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
            "inner_dim": dim,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": False,
            "seaco_lsm_weight": 0.1,
            "seaco_length_normal": True,
            "train_decoder": True,
            "NO_BIAS": len(tokens) - 27 if full else 0,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": dim,
            "attention_heads": 4,
            "linear_units": units,
            "num_blocks": blocks[0],
            **dropout,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": 4,
            "linear_units": units,
            "num_blocks": blocks[1],
            **decoder_dropout,
            "att_layer_num": blocks[1],
            "kernel_size": 11,
            "sanm_shfit": 0,
        },
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": {
            "attention_heads": 4,
            "linear_units": units // 2,
            "num_blocks": blocks[2],
            **decoder_dropout,
            "kernel_size": 21,
            "sanm_shfit": 0,
            "use_output_layer": False,
            "wo_input_layer": True,
            "att_layer_num": blocks[2],
        },
        "predictor": "CifPredictorV3",
        "predictor_conf": {
            "idim": dim,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        },
        "frontend": "WavFrontend",
        "frontend_conf": _frontend(lfr_m=7, lfr_n=6),
        "specaug": "SpecAugLFR",
        "specaug_conf": {
            "apply_time_warp": False,
            "time_warp_window": 5,
            "time_warp_mode": "bicubic",
            "apply_freq_mask": True,
            "freq_mask_width_range": [0, 30],
            "lfr_rate": 6,
            "num_freq_mask": 1,
            "apply_time_mask": True,
            "time_mask_width_range": [0, 12],
            "num_time_mask": 1,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    network = _network(config, vocab_size=len(tokens), input_size=7 * MELS)
    with torch.no_grad():
        network.predictor.cif_output.bias.fill_(math.log(0.25 / 0.75))  # a quarter of a token a frame of 60 ms
        network.decoder.output_layer.weight.normal_(std=1 / math.sqrt(dim))
        network.decoder.output_layer.bias.zero_()
        network.decoder.output_layer.bias[[0, 1, 2, len(tokens) - 1]] = -100.0
    _write(folder, network, config, task="auto-speech-recognition", seg_dict="seg_dict")
    _write_tokens(folder, tokens)
    _write_cmvn(folder, 7 * MELS)
    (folder / "seg_dict").write_text("\n".join(f"{character} {character}" for character in hanzi), encoding="utf-8")


@seeded
def write_fsmn_vad(folder: Path, *, size: Size = "small", seed: int = 0) -> None:
    """Write an FSMN-VAD: all that is louder than a quiet room is speech. Full: 0.4 M."""
    affine, linear, projection, output = (140, 250, 128, 248) if size == "full" else (12, 16, 8, 8)
    config: dict[str, Any] = {
        "frontend": "WavFrontendOnline",
        "frontend_conf": _frontend(lfr_m=5, lfr_n=1),
        "model": "FsmnVADStreaming",
        "model_conf": {
            "sample_rate": RATE,
            "detect_mode": 1,
            "snr_mode": 0,
            "max_end_silence_time": 800,
            "max_start_silence_time": 3000,
            "do_start_point_detection": True,
            "do_end_point_detection": True,
            "window_size_ms": 200,
            "sil_to_speech_time_thres": 150,
            "speech_to_sil_time_thres": 150,
            "speech_2_noise_ratio": 1.0,
            "do_extend": 1,
            "lookback_time_start_point": 200,
            "lookahead_time_end_point": 100,
            "max_single_segment_time": 60_000,
            "snr_thres": -100.0,
            "noise_frame_num_used_for_snr": 100,
            "decibel_thres": -100.0,
            "speech_noise_thres": 0.6,
            "fe_prior_thres": 0.0001,
            "silence_pdf_num": 1,
            "sil_pdf_ids": [0],
            "speech_noise_thresh_low": -0.1,
            "speech_noise_thresh_high": 0.3,
            "output_frame_probs": False,
            "frame_in_ms": 10,
            "frame_length_ms": 25,
        },
        "encoder": "FSMN",
        "encoder_conf": {
            "input_dim": 5 * MELS,
            "input_affine_dim": affine,
            "fsmn_layers": 4,
            "linear_dim": linear,
            "proj_dim": projection,
            "lorder": 20,
            "rorder": 0,
            "lstride": 1,
            "rstride": 0,
            "output_affine_dim": affine,
            "output_dim": output,
        },
    }
    network = _network(config)
    _carry_energy(network.encoder)
    _write(folder, network, config, task="voice-activity-detection")
    _write_cmvn(folder, 5 * MELS)


ENERGY_SHIFT, ENERGY_SCALE = -12.0, 0.25
"""What am.mvn adds to a log-mel feature of 16-bit samples, and multiplies it by; speech is around
12."""
ENERGY_OFFSET = 8.0
"""Added inside the network, so that the energy of digital silence passes its ReLUs."""

SILENCE = 0.2
"""Probability of silence below which FunASR takes a frame for speech: 1 - p >= p +
speech_noise_thres."""


def _carry_energy(encoder: nn.Module, *, threshold: float = 9.0, steepness: float = 1.5) -> None:
    """Make unit 0 of each layer the mean log-mel energy, and the first output its opposite.

    Steeper, and the probability of silence rounds to 1, of whose complement FunASR takes the
    logarithm.
    """

    def only(linear: nn.Linear, weights: torch.Tensor | float, bias: float = 0.0) -> None:
        linear.weight[0] = 0.0
        linear.weight[0] += weights
        if linear.bias is not None:
            linear.bias[0] = bias

    def first(linear: nn.Linear) -> torch.Tensor:
        return nn.functional.one_hot(torch.tensor(0), linear.in_features)

    with torch.no_grad():
        only(encoder.in_linear1.linear, 1 / encoder.in_linear1.linear.in_features, ENERGY_OFFSET)
        only(encoder.in_linear2.linear, first(encoder.in_linear2.linear))
        for block in encoder.fsmn:
            only(block.linear.linear, first(block.linear.linear))
            block.fsmn_block.conv_left.weight[0] = 0.0
            only(block.affine.linear, first(block.affine.linear))
        only(encoder.out_linear1.linear, first(encoder.out_linear1.linear))
        output = encoder.out_linear2.linear
        output.weight *= 0.0
        output.bias *= 0.0
        border = (threshold + ENERGY_SHIFT) * ENERGY_SCALE + ENERGY_OFFSET
        silence = math.log(output.out_features - 1) + steepness * border + math.log(SILENCE / (1 - SILENCE))
        only(output, -steepness * first(output), silence)


@seeded
def write_ct_punc(folder: Path, *, size: Size = "small", seed: int = 0) -> None:
    """Write a CT-Transformer over words. Full: 290 M parameters, most of them the embedding."""
    full = size == "full"
    dim, units, blocks, heads = (516, 2048, 12, 12) if full else (24, 48, 2, 4)
    words = [*HANZI, *WORDS, *COMPOUNDS]
    padding = [f"word{index}" for index in range(PUNC_VOCABULARY - len(words) - 2)] if full else []
    tokens = ["<blank>", *words, *padding, "<unk>"]
    config: dict[str, Any] = {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": dim,
            "att_unit": dim,
            "dropout_rate": 0.1,
            "punc_list": ["<unk>", "_", "，", "。", "？", "、"],
            "punc_weight": [1.0] * 6,
            "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "input_size": dim,
            "output_size": dim,
            "attention_heads": heads,
            "linear_units": units,
            "num_blocks": blocks,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
            "padding_idx": 0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }
    network = _network(config, vocab_size=len(tokens))
    _punctuate_some(network, len(tokens))
    _write(folder, network, config, task="punctuation", jieba_usr_dict="jieba_usr_dict")
    _write_tokens(folder, tokens)
    (folder / "jieba_usr_dict").write_text("\n".join(f"{word} 1000" for word in COMPOUNDS), encoding="utf-8")


@torch.no_grad()
def _punctuate_some(network: Any, words: int, *, share: float = 1 / 8) -> None:
    """Set the output's biases so that a share of words is followed by a mark, and all occur."""
    length = 20
    text = torch.randint(1, words, (64, length))
    network.decoder.weight *= 3
    logits = network.punc_forward(text, torch.full((64,), length))[0].flatten(0, 1)
    network.decoder.bias -= logits.mean(dim=0)
    logits -= logits.mean(dim=0)
    network.decoder.bias[0] = -100.0
    network.decoder.bias[1] += torch.quantile(logits[:, 2:].amax(dim=1) - logits[:, 1], 1 - share)


@seeded
def write_campplus(folder: Path, *, size: Size = "small", seed: int = 0) -> None:
    """Write a CAM++ with embeddings of 192. Full: 7 M parameters."""
    growth, channels = (32, 128) if size == "full" else (8, 32)
    config: dict[str, Any] = {
        "model": "CAMPPlus",
        "model_conf": {
            "feat_dim": MELS,
            "embedding_size": 192,
            "growth_rate": growth,
            "bn_size": 4,
            "init_channels": channels,
            "config_str": "batchnorm-relu",
            "memory_efficient": True,
            "output_level": "segment",
        },
    }
    network = _network(config)
    _calibrate(network, seed)
    _write(folder, network, config, task="speaker-verification", weights="campplus_cn_common.bin")


def _calibrate(network: nn.Module, seed: int) -> None:
    """Set the statistics of the batch norms to those of synthetic voices."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    features, _, _ = extract_feature([torch.from_numpy(voice) for voice in _voices(48, seed)])
    network.train()
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of the checkpoints that save memory in training
        network(features)
    for norm in norms:
        norm.momentum = 0.1
        # A unit that hardly moved here may elsewhere, and would then blow rounding up to something
        # that is heard.
        norm.running_var.clamp_(min=0.3 * norm.running_var.mean().item())
    network.eval()


def _voices(count: int, seed: int) -> list[np.ndarray]:
    """1.5 s each of pulses at a pitch of its own in breath noise, through a filter of its own."""
    rng, samples = np.random.default_rng(seed), RATE * 3 // 2
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    waves = []
    for _ in range(count):
        pulses = rng.normal(0, 0.02, samples)
        pulses[:: int(RATE / rng.uniform(80, 320))] += 1
        formants, widths = rng.uniform(200, 5000, 4), rng.uniform(80, 400, 4)
        gains = 0.01 + np.exp(-0.5 * ((frequencies[:, None] - formants) / widths) ** 2).sum(axis=1)
        waves.append(0.1 * np.fft.irfft(np.fft.rfft(pulses) * gains, samples).astype(np.float32))
    return waves


def _frontend(*, lfr_m: int, lfr_n: int) -> dict[str, Any]:
    return {
        "fs": RATE,
        "window": "hamming",
        "n_mels": MELS,
        "frame_length": 25,
        "frame_shift": 10,
        "dither": 0.0,
        "lfr_m": lfr_m,
        "lfr_n": lfr_n,
    }


def _network(config: Mapping[str, Any], **sizes: int) -> Any:
    """Build the network of a configuration as FunASR does: from all its keys."""
    return tables.model_classes[config["model"]](**config["model_conf"], **config, **sizes).eval()


def _write(
    folder: Path, network: nn.Module, config: Mapping[str, Any], *, task: str, weights: str = "model.pt", **files: str
) -> None:
    """Write weights, config.yaml and configuration.json; the latter also names `files`."""
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / weights)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), allow_unicode=True), encoding="utf-8")
    metas: dict[str, Any] = {"init_param": weights, "config": "config.yaml"}
    if "tokenizer" in config:
        metas["tokenizer_conf"] = {"token_list": "tokens.json"}
    if "frontend" in config:
        metas["frontend_conf"] = {"cmvn_file": "am.mvn"}
    if "seg_dict" in files:
        metas["tokenizer_conf"]["seg_dict_file"] = files.pop("seg_dict")
    described = {"framework": "pytorch", "task": task, "model": {"type": "funasr"}, "file_path_metas": metas | files}
    (folder / "configuration.json").write_text(json.dumps(described, indent=2))


def _write_tokens(folder: Path, tokens: Sequence[str]) -> None:
    (folder / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")


def _write_cmvn(folder: Path, dim: int) -> None:
    """Kaldi's text format: what is added to each feature, and what it is then multiplied by."""

    def component(name: str, value: float) -> str:
        return f"<{name}> {dim} {dim}\n<LearnRateCoef> 0 [ {' '.join([str(value)] * dim)} ]"

    parts = ["<Nnet>", component("AddShift", ENERGY_SHIFT), component("Rescale", ENERGY_SCALE), "</Nnet>"]
    (folder / "am.mvn").write_text("\n".join(parts) + "\n")
