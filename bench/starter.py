"""Train the starter model of the package: `python -m bench.starter`.

    python -m bench.starter [--out data/starter] [--packages DIR] [--variants N] [--epochs N]

Takes the recordings of the Debian packages (samples.sources), less every speaker that the samples or
the test part of `bench.style_corpus` have, and every line that these say. Each line is used as it is,
faster and slower (so that pitch, rate and size of the voice change together), and `--variants` times
as WORLD says it another way (bench.synthetic_corpus); the level of each is changed by up to 6 dB. All
is measured again, described with the reference bins and trained on as any corpus is. The model is
written to `fsclap/starter`, in half precision, with a README that says what it was trained on.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soxr
import torch
from safetensors.torch import load_file, save_file

from bench import report
from bench.style_corpus import PARTS
from bench.synthetic_corpus import FACTORS, resynthesize
from fsclap.audio import encode_flac
from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.base import CaptioningSettings, Tags
from fsclap.corpus.captioning.describe import describe
from fsclap.data.clips import MIN_CLIP, ClipStore
from fsclap.data.splits import Split, SplitSettings
from fsclap.files import written_aside
from fsclap.training.initial import STARTER
from fsclap.training.loop import train
from fsclap.training.record import Trained
from fsclap.training.settings import TrainSettings
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load

log = logging.getLogger(__name__)

TRUTH = Path(__file__).parents[1] / "samples/truth.json"
RATE = 24_000
SPEEDS = (0.82, 1.22)
GAIN_DB = 6.0
VALIDATION = ("hedgewars/Russian", "hedgewars/Default_uk", "hedgewars/Default_pl")
"""Speakers that the training doesn't see; their figures are those of the README."""
SHORTEST, LONGEST = 0.6, 15.0
"""Seconds of a line: what the encoder takes at once."""


@dataclass(frozen=True, slots=True)
class Said:
    """One line, said one way."""

    clip: Clip
    way: str
    flac: bytes
    attributes: Attributes

    @property
    def speaker(self) -> str:
        """The speaker as a voice: one that is sped up is another."""
        return f"{self.clip.speaker} {self.way}".strip()

    @property
    def id(self) -> str:
        return f"{self.clip.speaker}/{self.clip.path.parent.name}/{self.clip.path.stem} {self.way}".strip()


def kept_out() -> tuple[set[str], set[str]]:
    """Return the speakers of the samples and of the test part, and the lines that the samples say."""
    episodes = [episode for series in json.loads(TRUTH.read_text())["series"] for episode in series["episodes"]]
    turns = [turn for episode in episodes for turn in episode["turns"]]
    return {turn["speaker"] for turn in turns} | set(PARTS["test"]), {turn["text"] for turn in turns if turn["text"]}


def training_lines(root: Path) -> list[Clip]:
    """List the lines that may be trained on."""
    speakers, texts = kept_out()
    clips = [clip for clip in all_clips(root) if clip.speaker not in speakers and SHORTEST <= clip.seconds <= LONGEST]
    said = texts | {clip.text for clip in all_clips(root) if clip.speaker in speakers and clip.text}
    return [clip for clip in clips if clip.text not in said]


def ways(clip: Clip, variants: int, seed: int) -> list[Said]:
    """Say a line as it is, faster, slower, and in WORLD's ways."""
    rng = np.random.default_rng([seed, *clip.path.as_posix().encode()])
    wave = load(clip.path, RATE)
    said = {"": wave}
    said |= {f"x{speed:g}": soxr.resample(wave, RATE * speed, RATE).astype(np.float32) for speed in SPEEDS}
    for number in range(variants):
        controls = {name: int(rng.integers(-1, 2)) for name in FACTORS}
        name = "".join("-0+"[step + 1] for step in controls.values())
        said[f"world{number} {name}"] = resynthesize(wave, controls).astype(np.float32)
    return [one for way, wave in said.items() if (one := _said(clip, way, wave, rng)) is not None]


def _said(clip: Clip, way: str, wave: np.ndarray, rng: np.random.Generator) -> Said | None:
    gain = 10 ** (rng.uniform(-GAIN_DB, 0) / 20)
    wave = (gain * wave).astype(np.float32)
    attributes = measure(wave, RATE)
    if attributes.voiced_ratio is None or len(wave) < MIN_CLIP * RATE:
        return None
    return Said(clip, way, encode_flac(wave, RATE), attributes)


def rows_of(said: Sequence[Said]) -> Iterator[pa.RecordBatch]:
    """Describe the lines, each against its speaker's others, as rows of a corpus."""
    descriptions = describe(
        [one.attributes for one in said],
        speakers=[one.speaker for one in said],
        tags=[Tags()] * len(said),
        ids=[one.id for one in said],
        settings=CaptioningSettings(),
    )
    for start in range(0, len(said), 256):
        rows = [
            {
                "utterance_id": one.id,
                "source_id": "packages",
                "speaker": one.speaker,
                "language": one.clip.language,
                "attributes": asdict(one.attributes),
                "style_key": description.style_key,
                "caption": description.caption,
                "audio": {"bytes": one.flac},
            }
            for one, description in zip(said[start : start + 256], descriptions[start : start + 256], strict=True)
        ]
        yield pa.RecordBatch.from_pylist(rows)


def split_of(said: Sequence[Said]) -> Split:
    """Hold out the VALIDATION speakers as they are, and leave out their other ways."""
    train_ids = sorted(one.id for one in said if one.clip.speaker not in VALIDATION)
    validation = sorted(one.id for one in said if one.clip.speaker in VALIDATION and not one.way)
    nearest: dict[Any, float | None] = {"validation": None, "test": None}
    return Split(
        settings=SplitSettings(),
        train=train_ids,
        validation=validation,
        test=[],
        removed={},
        voices=[],
        nearest=nearest,
    )


def ship(trained: Trained, said: Sequence[Said], folder: Path = STARTER) -> None:
    """Write the trained model to the package, with its README."""
    folder.mkdir(exist_ok=True)
    weights = {name: x.to(torch.float16) for name, x in load_file(trained.folder / "model.safetensors").items()}
    with written_aside(folder / "model.safetensors") as part:
        save_file(weights, part)
    for name in ("config.json", "encoders.json"):
        shutil.copy(trained.folder / name, folder / name)
    voices = Counter(one.clip.speaker for one in said if not one.way)
    lines = "\n".join(f"| {speaker} | {count:,} |" for speaker, count in sorted(voices.items()))
    (folder / "README.md").write_text(
        f"""# The starter model

What `train-fsclap` starts from where its settings say nothing else: the embedded encoders of FS-CLAP,
trained by `python -m bench.starter` on {report.machine()["date"]}: {trained.clips["train"]:,} clips,
{trained.steps:,} steps. Validation mAP@10 (mean of both directions, {trained.clips["validation"]} clips of
three speakers that it never heard): {100 * trained.validation:.1f} %.

The recordings are those of the free Debian packages below, each as it is, faster, slower and
resynthesised. No speaker and no line of `samples/` or of the test part of `bench.style_corpus` is among
them. Their captions come from measurements (fsclap.corpus.captioning), as do the functionals that the
model hears, so it knows words for pitch, level, rate, pauses and voice quality; it knows none for emotion.
The weights are under the licence of FS-CLAP.

| speaker | lines |
|---|---|
{lines}
"""
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.starter", __doc__)
    parser.add_argument("--out", type=report.absolute_path, default="data/starter", help="default: %(default)s")
    parser.add_argument("--variants", type=int, default=1, help="WORLD's ways to say a line; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    add_packages(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        clips = training_lines(packages(options))
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    with ProcessPoolExecutor() as pool:
        found = pool.map(ways, clips, [options.variants] * len(clips), [options.seed] * len(clips), chunksize=16)
        said = [one for ones in found for one in ones]
    log.info("%d lines, %d clips, %d speakers", len(clips), len(said), len({clip.speaker for clip in clips}))
    key = f"starter, {options.variants} variants, seed {options.seed}, {len(said)} clips"
    store = ClipStore.create(options.out / f"clips-{options.variants}", rows_of(said), key=key)
    settings = TrainSettings(
        init="none", epochs=options.epochs, batch=96, accumulate=1, head_lr=1e-3, seed=options.seed
    )
    folder = options.out / f"model-{options.variants}-{options.epochs}-{options.seed}"
    trained = train(store, split_of(said), settings, folder, cache=options.out / "features", corpus="starter")
    ship(trained, said)
    report.write(options.json, {"validation": trained.validation, "clips": trained.clips, "steps": trained.steps})


if __name__ == "__main__":
    main()
