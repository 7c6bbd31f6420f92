"""How far a text can be trusted: `python -m bench.transcripts`.

Lines of the Debian packages in English and in languages that the embedded recogniser does not know, in the halves of
bench.dialogues. Of each language and package EACH lines at most are transcribed, each as one turn; the lines of a
speaker are taken in groups of --group, as the turns of a recording.

    texts        share of the lines that get a text: those in other languages should get none
    wer          word error rate of the English texts, where the words are known (test half but for five lines)
    confidence   median over the lines, see `Recognition.confidence`

for values of `least_confidence`, 0 being the criteria of Whisper alone.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

import jiwer
import numpy as np
import torch
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from bench import report
from bench.dialogues import TEST_SPEAKERS
from fsclap.corpus.diarization.recogniser import Recogniser, Recognition
from fsclap.corpus.diarization.whisper_campplus import RATE, Part, understood
from fsclap.corpus.speech import Span
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load

EACH = 200
GROUP = 8
SECONDS = (1.0, 29.0)
LEAST = (0.0, 0.4, 0.45, 0.5, 0.55, 0.6)
ENGLISH = "en"


@dataclass(frozen=True)
class Share:
    """The texts of one half in English or in other languages, at one value of `least_confidence`.

    Attributes:
        wer: NaN where the words of no line are known.
    """

    half: str
    language: str
    least_confidence: float
    lines: int
    confidence: float
    texts: float
    wer: float


def chosen(root: Path, *, seed: int = 0) -> list[Clip]:
    """Draw the lines, those of a speaker one after the other."""
    rng = random.Random(seed)
    by_source: defaultdict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in all_clips(root):
        if SECONDS[0] < clip.seconds < SECONDS[1]:
            by_source[clip.language, clip.speaker.split("/")[0]].append(clip)
    drawn = [clip for own in by_source.values() for clip in rng.sample(own, min(EACH, len(own)))]
    return sorted(drawn, key=lambda clip: clip.speaker)


def recognised(clips: Sequence[Clip]) -> list[tuple[Clip, Part, Recognition]]:
    waves = [load(clip.path, RATE) for clip in clips]
    heard = Recogniser(torch.device("cpu")).transcribe(waves)
    parts = [Part(Span(0, len(wave)), 0, np.zeros(1)) for wave in waves]
    return list(zip(clips, parts, heard, strict=True))


def shares(lines: list[tuple[Clip, Part, Recognition]], group: int) -> Iterator[Share]:
    normalize = EnglishTextNormalizer({})
    for least in LEAST:
        found: defaultdict[tuple[str, str], list[tuple[Clip, Recognition, str]]] = defaultdict(list)
        for speaker, own in groupby(lines, key=lambda line: line[0].speaker):
            half = "test" if speaker in TEST_SPEAKERS else "dev"
            said = list(own)
            for start in range(0, len(said), group):
                clips, parts, heard = zip(*said[start : start + group], strict=True)
                trusted = bool(understood(list(zip(parts, heard, strict=True)), least))
                for clip, one in zip(clips, heard, strict=True):
                    kind = ENGLISH if clip.language == ENGLISH else "other"
                    found[half, kind].append((clip, one, one.text if trusted else ""))
        for (half, kind), texts in sorted(found.items()):
            known = [
                (normalize(clip.text), normalize(text))
                for clip, _, text in texts
                if kind == ENGLISH and clip.text and text and normalize(clip.text)
            ]
            yield Share(
                half,
                kind,
                least,
                len(texts),
                median(one.confidence or 0.0 for _, one, _ in texts),
                float(np.mean([bool(text) for *_, text in texts])),
                jiwer.wer(*map(list, zip(*known, strict=True))) if known else float("nan"),
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.transcripts", __doc__)
    add_packages(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the lines that are drawn")
    parser.add_argument("--group", type=int, default=GROUP, help="lines of a speaker that are judged together")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        rows = list(shares(recognised(chosen(packages(options), seed=options.seed)), options.group))
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    print("\n".join(report.table(rows)))
    report.write(options.json, {"shares": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
