"""Texts where nobody says a word: `python -m bench.no_words`.

Music, laughter, cries and game sounds of the Debian packages: each is given to the recogniser of the embedded profile
as if diarization had taken all of it for a turn, the worst case, and goes through the whole diarization. Every text
is a hallucination, and is printed; "Ha ha ha" for laughter, which is none, too.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import report
from bench.flow import EMBEDDED
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.recogniser import Recogniser
from fsclap.corpus.speech import RATE
from samples.arguments import add_packages, packages
from samples.sources import HEDGEWARS, SourceError, hedgewars, load, music_tracks

EACH = 30
"""Sounds of a kind at most."""
MUSIC_SECONDS = (3.0, 12.0)
LAUGHTER = re.compile("Laugh")
CRY = re.compile(r"(Ow|Ooff|Ouch|Jump|Hmm|Poison)\w*$")
"""Not Firepunch: some packs say words with it."""
EFFECT = re.compile(
    r"(airmine|baseballbat|bee|beewater|blowtorch|bump|cake|drillgun|egg|explosion|firepunch_hit|flamethrower|frozen|grave"
    r"|grenade|gun|hammer|hog_freeze|ice_beam|invulnerable|jetpack|knife|landgun|melon|mine|molotov|mortar|parachute|pick"
    r"|plane|portal|Droplet|beep)\w*$"
)
"""Sounds without a voice."""
LONGEST = 12


@dataclass(frozen=True)
class Kind:
    """What was found on one kind of sound.

    Attributes:
        sounds: How many.
        alone: Texts of the recogniser alone.
        turns: In how many the diarization found a turn.
        diarized: Texts of its turns, by sound.
    """

    kind: str
    sounds: int
    alone: list[str]
    turns: int
    diarized: list[str]


def sounds(root: Path, *, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Return waves at RATE, (samples,), by kind."""
    rng = np.random.default_rng(seed)
    cries = list(hedgewars(root, wordless=True))
    files = {
        "laughter": [clip.path for clip in cries if LAUGHTER.match(clip.path.stem)],
        "cries": [clip.path for clip in cries if CRY.match(clip.path.stem)],
        "effects": [path for path in sorted((root / HEDGEWARS / "Sounds").glob("*.ogg")) if EFFECT.match(path.stem)],
    }
    found = {
        kind: [load(paths[i], RATE)[: LONGEST * RATE] for i in sorted(rng.permutation(len(paths))[:EACH])]
        for kind, paths in files.items()
    }
    tracks = music_tracks(root)
    return {"music": [_stretch(load(tracks[i], RATE), rng) for i in rng.permutation(len(tracks))[:EACH]], **found}


def _stretch(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    samples = round(rng.uniform(*MUSIC_SECONDS) * RATE)
    start = int(rng.integers(max(1, len(wave) - samples)))
    return wave[start : start + samples]


def measure(root: Path) -> list[Kind]:
    """One row per kind of sound."""
    recogniser, diarizer = Recogniser(torch.device("cpu")), load_diarizer(EMBEDDED.diarization)
    rows = []
    for kind, waves in sounds(root).items():
        texts = [heard.text for heard in recogniser.transcribe(waves) if heard.text]
        turns = [found.turns for found in diarizer.diarize(waves)]
        made_up = [text for found in turns if (text := " / ".join(turn.text for turn in found if turn.text))]
        rows.append(Kind(kind, len(waves), texts, sum(map(bool, turns)), made_up))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.no_words", __doc__)
    add_packages(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        rows = measure(packages(options))
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    for row in rows:
        print(f"{row.kind:9} {row.sounds:3d} sounds, {row.turns} with a turn")
        print(f"          recogniser alone: {len(row.alone)} texts {row.alone}")
        print(f"          diarization:      {len(row.diarized)} texts {row.diarized}")
    report.write(options.json, {"kinds": [vars(row) for row in rows]})


if __name__ == "__main__":
    main()
