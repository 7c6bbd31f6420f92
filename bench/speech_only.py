"""What `separation.speech_only` saves and what it costs: `python -m bench.speech_only`.

Recordings are made from the dialogues of bench.dialogues, with as much music alone as there is
dialogue: lines are kept together in passages of about 12 s, and between passages the music plays
on, or there is silence (`clean`), for as long as the last passage took. Each is separated whole and
with `speech_only`, by the embedded engine. Figures are named `{half}/{condition}/{figure}`; the
detector's thresholds were chosen on `dev`. Conditions are `clean` and speech-to-music ratios of 5,
0 and -5 dB.

    speech_lost       share of the true speech that lies outside what was separated, or in its fades
    separated         share of the recording that went through the network
    si_sdr_whole      dB over the true speech, all of the recording separated (Le Roux et al. 2019)
    si_sdr_speech     the same with speech_only
    rest_whole        level of what is left where nobody speaks, dB below the speech, all separated
    rest_speech       the same with speech_only
    time              seconds of speech_only, with detection, per second of separating everything

`speech_lost`, `separated` and `time` are ratios of sums over recordings, the others means.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch

from bench import report
from bench.corpus_quality import DATA_HELP, si_sdr
from bench.dialogues import HALVES, SAMPLE_RATE, STEM_SNR_DB, mix
from bench.flow import EMBEDDED
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import FADE, MARGIN, SeparationSettings, Separator, maybe_speech, separate
from samples.timeline import speech_mask

log = logging.getLogger(__name__)

CONDITIONS: dict[str, float | None] = {"clean": None, "5db": 5.0, "0db": 0.0, "-5db": -5.0}
MEANS = ("si_sdr_whole", "si_sdr_speech", "rest_whole", "rest_speech")
SPEECH_ONLY = SeparationSettings(speech_only=True)
PASSAGE = 12.0
"""Seconds of dialogue after which the next pause begins."""


def sparse(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretch a dialogue to about twice its length: speech, music, and where there is speech.

    Returns:
        (samples,) float32, (samples,) float32, (samples,) bool.
    """
    clean, music = (soundfile.read(folder / f"{name}.flac", dtype="float32")[0] for name in ("clean", "music"))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    spoken = speech_mask([(turn["start"], turn["end"]) for turn in truth["turns"]], len(clean), SAMPLE_RATE)
    bounds = [0, *_cuts(spoken), len(clean)]
    parts, masks = [], []
    for start, end in pairwise(bounds):
        parts += [clean[start:end], np.zeros(end - start, dtype=np.float32)]
        masks += [spoken[start:end], np.zeros(end - start, dtype=bool)]
    speech = np.concatenate(parts)
    return speech, np.resize(music, len(speech)), np.concatenate(masks)


def _cuts(spoken: np.ndarray) -> Iterator[int]:
    """Yield a sample in the middle of a pause, every PASSAGE seconds or a little more."""
    edges = np.flatnonzero(np.diff(spoken.astype(np.int8)))
    last = 0
    for ends, begins in zip(edges[1::2], edges[2::2], strict=False):
        middle = int(ends + begins) // 2
        if middle - last >= PASSAGE * SAMPLE_RATE:
            yield middle
            last = middle


def detected(speech: np.ndarray, mixture: np.ndarray, spoken: np.ndarray) -> dict[str, float]:
    """Count samples: true speech, what speech_only loses of it, what it separates, and all."""
    stretches = maybe_speech(mixture[np.newaxis], SAMPLE_RATE, margin=MARGIN)
    kept = np.zeros(len(mixture), dtype=bool)
    fade = round(FADE * SAMPLE_RATE)
    for span in stretches:
        kept[span.start + fade * (span.start > 0) : span.end - fade * (span.end < len(mixture))] = True
    return {
        "lost": float((spoken & ~kept).sum()),
        "true": float(spoken.sum()),
        "kept": float(sum(span.length for span in stretches)),
        "all": float(len(mixture)),
    }


def separated(separator: Separator, speech: np.ndarray, mixture: np.ndarray, spoken: np.ndarray) -> dict[str, float]:
    """Seconds of both ways to separate a recording, and the figures that are means."""
    whole, whole_seconds = _timed(separator, mixture, SeparationSettings())
    partly, partly_seconds = _timed(separator, mixture, SPEECH_ONLY)
    return {
        "seconds_whole": whole_seconds,
        "seconds_speech": partly_seconds,
        "si_sdr_whole": si_sdr(whole[spoken], speech[spoken]),
        "si_sdr_speech": si_sdr(partly[spoken], speech[spoken]),
        "rest_whole": _level(whole[~spoken]) - _level(speech[spoken]),
        "rest_speech": _level(partly[~spoken]) - _level(speech[spoken]),
    }


def _timed(separator: Separator, mixture: np.ndarray, settings: SeparationSettings) -> tuple[np.ndarray, float]:
    output = np.zeros(len(mixture), dtype=np.float32)
    start = time.perf_counter()
    (vocals,) = separate(separator, [mixture[np.newaxis]], [output], settings)
    return vocals, time.perf_counter() - start


def _level(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-20))


def summarize(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    total = {name: sum(score[name] for score in scores) for name in scores[0]}
    found = {"speech_lost": total["lost"] / total["true"], "separated": total["kept"] / total["all"]}
    if "seconds_whole" in total:
        found["time"] = total["seconds_speech"] / total["seconds_whole"]
        found |= {name: total[name] / len(scores) for name in MEANS}
    return found


def measure(data: Path, separator: Separator | None, *, limit: int | None) -> dict[str, float]:
    """Every figure, or what needs no separator, on the first dialogues of both halves.

    Raises:
        FileNotFoundError: There are none.
    """
    found = {}
    for half in HALVES:
        folders = [path.parent for path in sorted((data / half).glob("*/truth.json"))[:limit]]
        if not folders:
            raise FileNotFoundError(f"no dialogues in {data}: make them with `python -m bench.dialogues --out {data}`")
        scores = defaultdict(list)
        for folder in folders:
            speech, music, spoken = sparse(folder)
            for condition, snr in CONDITIONS.items():
                mixture = speech if snr is None else mix(speech, music, snr)
                score = detected(speech, mixture, spoken)
                scores[condition].append(score | (separated(separator, speech, mixture, spoken) if separator else {}))
            log.info("%s, %.0f s, scored", folder.name, len(speech) / SAMPLE_RATE)
        for condition in CONDITIONS:
            found |= {f"{half}/{condition}/{name}": value for name, value in summarize(scores[condition]).items()}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.speech_only", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument("--limit", type=int, help="dialogues of each half; default: all")
    parser.add_argument("--detector", action="store_true", help="speech_lost and separated alone: quick")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    separator = None if options.detector else load_separator(EMBEDDED.separation)
    try:
        figures = measure(options.data, separator, limit=options.limit)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    print("\n".join(report.name_values(figures)))
    content = {
        "threads": torch.get_num_threads(),
        "stem_snr_db": STEM_SNR_DB,
        "revision": separator.revision if separator else None,
        "settings": SPEECH_ONLY.model_dump(),
        "figures": figures,
    }
    report.write(options.json, content)


if __name__ == "__main__":
    main()
