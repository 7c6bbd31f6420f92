"""What a training step costs: its parts, the data path, and a plain loop for comparison.

    python -m bench.training [--corpus data/corpus] [--batch 24] [--steps 4] [--json FILE]
    python -m bench.training --preset embedded --batch 96 --steps 14    steps a second, no comparison

1. Steps of `fsclap.training.loop.train` at the `clap` preset (HTSAT-tiny and RoBERTa-base with
   random weights): the share of the step that is neither forward nor backward pass.
2. The data path alone, from the rows of the corpus to batches, against what the model takes: clips
a second of both.
3. The same pairs through `transformers.ClapModel` in a plain eager loop (its own loss, the same
   AdamW), and through this project's step: seconds a step, one after the other in one run. On a GPU
   both in bf16, and ours compiled; model FLOP utilisation needs the card's peak (--peak-tflops).
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

from bench import report
from fsclap.data.batches import Batch, Pairs, batches_of, epoch_batches, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.data.splits import SplitSettings, make_split
from fsclap.model.clap import BYTES, SPECIAL
from fsclap.model.losses import contrastive_loss
from fsclap.model.settings import PAPER, LossSettings, ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.loop import train
from fsclap.training.settings import ComputeSettings, Precision, TrainSettings
from storage.corpus import Corpus

PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
"""Of the embedded preset; a CPU gains by the second only if it computes with bfloat16 (AVX512-BF16, AMX)."""


def open_clips(corpus: str, folder: Path) -> ClipStore:
    opened = Corpus.open(corpus)
    return ClipStore.create(folder, opened.dataset().to_batches(batch_size=256), key="bench", progress=False)


def all_pairs(clips: ClipStore, model: FSCLAP, folder: Path) -> Pairs:
    ids = clips.table["utterance_id"].to_pylist()
    return load_pairs(clips, ids, (model.audio_encoder, model.text_encoder), folder=folder, progress=False)


def step_shares(
    clips: ClipStore,
    folder: Path,
    *,
    batch: int,
    steps: int,
    model: ModelSettings = PAPER,
    precision: Precision = "auto",
) -> dict[str, float]:
    """Seconds of the parts of a step, medians over the steps of one epoch but the first."""
    split = make_split(clips.table, SplitSettings(min_train_clips=2, min_eval_clips=2))
    compute = ComputeSettings(precision=precision)
    settings = TrainSettings(model=model, batch=batch, accumulate=1, epochs=1, split=split.settings, compute=compute)
    few = split.model_copy(update={"train": split.train[: batch * steps], "validation": split.validation[:8]})
    run = folder / f"run-{precision}"
    train(clips, few, settings, run, cache=folder, progress=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    taken = [line for line in lines if "compute_s" in line][1:]
    parts = {name: float(np.median([line[name] for line in taken])) for name in ("data_s", "compute_s", "optimizer_s")}
    return parts | {"share_outside": 1 - parts["compute_s"] / sum(parts.values()), "pairs": float(taken[0]["pairs"])}


def data_rate(pairs: Pairs, batch: int, seconds: float = 20.0) -> float:
    """Clips a second from Parquet's bytes to padded batches: decoded, resampled, as log-mel."""
    plan = cycle(epoch_batches(pairs.audio.lengths, batch, seed=0, epoch=0))
    loaded = batches_of(pairs, list(islice(plan, 1000)), epoch=0)
    next(loaded)  # the workers are up
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(loaded))
    return count / (time.perf_counter() - start)


def plain_clap() -> ClapModel:
    """ClapModel of the same sizes."""
    text = ClapTextConfig(vocab_size=BYTES + len(SPECIAL))
    return ClapModel(ClapConfig(audio_config=ClapAudioConfig().to_dict(), text_config=text.to_dict()))


def plain_step(model: ClapModel, batch: Batch) -> torch.Tensor:
    out = model(
        input_ids=batch.text.values.masked_fill(~batch.text.mask, 1),
        attention_mask=batch.text.mask.long(),
        input_features=batch.audio.values[:, None],
        return_loss=True,
    )
    loss: torch.Tensor = out.loss
    return loss


def our_step(model: FSCLAP, batch: Batch) -> torch.Tensor:
    embedded = model(batch.audio, batch.text)
    return contrastive_loss(
        embedded.audio, embedded.text, model.logit_scale(), settings=LossSettings(), groups=batch.groups
    )


def timed(
    model: torch.nn.Module, step: Callable[[Any, Batch], torch.Tensor], batches: list[Batch], *, compiled: bool
) -> dict[str, float]:
    """Seconds a step (median, without the first two) and floating-point operations of one."""
    device = batches[0].groups.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")
    with FlopCounterMode(display=False) as counter:
        step(model, batches[0]).backward()
    if compiled:
        model.compile(dynamic=False)
    seconds = []
    for batch in batches:
        start = _now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = step(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seconds.append(_now(device) - start)
    return {"seconds": float(np.median(seconds[2:])), "tflop": counter.get_total_flops() / 1e12}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def resident(pairs: Pairs, batch: int, steps: int, device: torch.device) -> Iterator[Batch]:
    """Batches on the device, all of one shape, so that only the step is timed."""
    rows = np.resize(np.argsort(pairs.text.lengths, kind="stable"), batch)
    for loaded in batches_of(pairs, [rows], epoch=0, workers=0):
        yield from [loaded.to(device)] * steps


def measure(corpus: str, *, batch: int, steps: int, peak_tflops: float | None) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = open_clips(corpus, folder / "clips")
        shares = step_shares(clips, folder, batch=batch, steps=steps)
        ours = FSCLAP(PAPER)
        pairs = all_pairs(clips, ours, folder)
        rate = data_rate(pairs, batch)
        model_rate = shares["pairs"] / shares["compute_s"]
        batches = list(resident(pairs, batch, max(steps, 3), device))
        on_gpu = device.type == "cuda"
        plain = timed(plain_clap().train().to(device), plain_step, batches, compiled=False)
        mine = timed(ours.to(device).train(), our_step, batches, compiled=on_gpu)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "batch": batch,
        "step": shares,
        "data_clips_a_second": rate,
        "model_clips_a_second": model_rate,
        "data_over_model": rate / model_rate,
        "plain_eager": plain,
        "this_project": mine,
        "times_faster": plain["seconds"] / mine["seconds"],
    }
    if peak_tflops:
        for side in (plain, mine):
            side["utilisation"] = side["tflop"] / side["seconds"] / peak_tflops
    return found


def embedded_speed(corpus: str, *, batch: int, steps: int) -> dict[str, Any]:
    """Steps a second of the embedded preset, with features from the cache, by precision."""
    figures: dict[str, Any] = {"batch": batch}
    with tempfile.TemporaryDirectory() as name:
        clips = open_clips(corpus, Path(name) / "clips")
        for precision in PRECISIONS:
            shares = step_shares(
                clips, Path(name), batch=batch, steps=steps, model=ModelSettings(), precision=precision
            )
            seconds = shares["data_s"] + shares["compute_s"] + shares["optimizer_s"]
            figures[precision] = {
                "step": shares,
                "steps_a_second": 1 / seconds,
                "minutes_for_2000_steps": 2000 * seconds / 60,
            }
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.training", __doc__)
    parser.add_argument("--corpus", default="data/corpus")
    parser.add_argument("--preset", choices=("clap", "embedded"), default="clap")
    parser.add_argument("--batch", type=int, default=24, help="the paper's is 96; a CPU takes a minute a step for it")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--peak-tflops", type=float, help="of the card, dense bf16")
    options = parser.parse_args(arguments)
    if options.preset == "embedded":
        figures = embedded_speed(options.corpus, batch=options.batch, steps=options.steps)
    else:
        figures = measure(options.corpus, batch=options.batch, steps=options.steps, peak_tflops=options.peak_tflops)
    print(json.dumps(figures, indent=1))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
