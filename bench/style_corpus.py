"""A corpus of acted speech that is big enough to train and test on: `python -m bench.style_corpus`.

    python -m bench.style_corpus [--out data/style] [--packages DIR]

Lays the recordings of Debian packages (samples.sources) out as dialogues of about a minute and a
half, half of them with music 10 dB below the speech, in three series groups that share no speaker:

    train-*        Fish Fillets, the two Dutch fish
    validation-*   Asterisk, Hedgewars and the minor roles of Fish Fillets
    test-*         Fish Fillets, the two Czech fish

and takes them through `build-dataset` as they are: separation, diarization, the filter of Eq. 5,
captions, commit. The captions are worded twice: first with the reference bins, then with bins
fitted to the training series alone, so that each word is about as common as
`fsclap.corpus.captioning.bins.SCALES` says. Every stage but the last is reused.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench import report
from bench.dialogues import SAMPLE_RATE, Dialogue, mix, next_dialogue, pool_of_lines
from bench.flow import prefect_server
from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.base import CaptioningSettings
from fsclap.corpus.captioning.bins import fit_bins
from fsclap.corpus.settings import BuildSettings
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, music_tracks
from storage.corpus import Corpus

log = logging.getLogger(__name__)

PARTS = {
    "train": ("fillets-nl/small-fish", "fillets-nl/big-fish"),
    "test": ("fillets-cs/small-fish", "fillets-cs/big-fish"),
}
"""Who speaks in each part; everyone else speaks in validation."""
MUSIC_DB = 10.0


def part_of(speaker: str) -> str:
    """Return the part that a speaker of the recordings belongs to."""
    return next((part for part, cast in PARTS.items() if speaker in cast), "validation")


def write_episodes(root: Path, out: Path, *, seed: int = 0) -> dict[str, int]:
    """Write dialogues until the recordings are used up; reuse them if they are complete.

    The files are `out`/{part}-{group}/{part}{number}.flac.

    Returns:
        Number of episodes by part.
    """
    if (out / "complete.json").is_file():
        return dict(json.loads((out / "complete.json").read_text()))
    clips, tracks = all_clips(root), music_tracks(root)
    counts: Counter[str] = Counter()
    for index, part in enumerate(("train", "validation", "test")):
        cast = [clip for clip in clips if part_of(clip.speaker) == part]
        for number, dialogue in enumerate(_dialogues(cast, tracks[index::3], root, seed=(seed, index))):
            wave = mix(dialogue.clean, dialogue.music, MUSIC_DB) if number % 2 else dialogue.clean
            # A series of at most twelve episodes, as a batch of the pipeline is
            file = out / f"{part}-{number // 12:02d}" / f"{part}{number:03d}.flac"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, np.clip(wave, -1, 1), SAMPLE_RATE, subtype="PCM_16")
            counts[part] += 1
        log.info("%s: %d episodes", part, counts[part])
    (out / "complete.json").write_text(json.dumps(counts))
    return dict(counts)


def _dialogues(
    cast: Sequence[Clip], tracks: Sequence[Path], root: Path, *, seed: tuple[int, int]
) -> Iterator[Dialogue]:
    rng = np.random.default_rng(seed)
    pool = pool_of_lines(cast, rng)
    number = 0
    while True:
        try:
            yield next_dialogue(pool, tracks[number % len(tracks)], root=root, rng=rng)
        except SourceError:  # every line was spoken once
            return
        number += 1


def build_corpus(episodes: Path, out: Path) -> Corpus:
    """Build a corpus of the episodes, then caption it again with bins of the training series."""
    sources = [str(folder) for folder in sorted(episodes.iterdir()) if folder.is_dir()]
    bins = out / "bins.json"
    if not bins.is_file():
        run_flow(sources, out, BuildSettings())
        _fit_bins(Corpus.open(str(out / "corpus")), bins)
    run_flow(sources, out, BuildSettings(captioning=CaptioningSettings(bins=bins.resolve())))
    return Corpus.open(str(out / "corpus"))


def run_flow(sources: list[str], out: Path, settings: BuildSettings) -> None:
    """Run `build-dataset` on a Prefect server of its own: `out`/corpus, `out`/work."""
    from flows.build_dataset import build_dataset

    with prefect_server():
        build_dataset(sources, str(out / "corpus"), str(out / "work"), settings)


def _fit_bins(corpus: Corpus, file: Path) -> None:
    rows = corpus.utterances(columns=["series", "speaker", "attributes"]).to_pylist()
    rows = [row for row in rows if row["series"].startswith("train-")]
    attributes = [Attributes(**row["attributes"]) for row in rows]
    about: dict[str, str | int | list[str]] = {"sources": ["bench.style_corpus, series train-*"], "clips": len(rows)}
    fit_bins(attributes, [row["speaker"] for row in rows], about=about).save(file)


def summary(corpus: Corpus) -> dict[str, Any]:
    """Clips, speakers as diarized, minutes and captions of each part."""
    table = corpus.utterances(columns=["series", "speaker", "duration", "caption", "style_key"]).to_pylist()
    parts: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        rows = [row for row in table if row["series"].startswith(f"{part}-")]
        parts[part] = {
            "clips": len(rows),
            "minutes": round(sum(row["duration"] for row in rows) / 60, 1),
            "diarized_speakers": len({row["speaker"] for row in rows}),
            "captions": len({row["caption"] for row in rows}),
            "styles": len({row["style_key"] for row in rows}),
        }
    return {"clips": len(table), "version": corpus.version(), "parts": parts}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.style_corpus", __doc__)
    parser.add_argument("--out", type=report.absolute_path, default="data/style", help="default: %(default)s")
    add_packages(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        write_episodes(packages(options), options.out / "episodes")
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    figures = summary(build_corpus(options.out / "episodes", options.out))
    print(json.dumps(figures, indent=1))
    report.write(options.json or options.out / "summary.json", figures)


if __name__ == "__main__":
    main()
