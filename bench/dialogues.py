"""Build labelled dialogues from acted speech in Debian packages: `python -m bench.dialogues`.

Each dialogue is a folder with

    clean.flac   the speech, 44.1 kHz mono, digital silence between the lines
    music.flac   the music alone, 5 dB below the speech where somebody speaks
    truth.json   speakers, turns (samples.timeline.TrueTurn), music track

in one of two halves that share neither a speaker nor a music track: `dev` to choose settings on,
`test` to
report. The same seed gives the same bytes. What is not known is whether one role is always one
actor; the halves differ in language and source so that no actor can be in both.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from bench import report
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load, music_tracks
from samples.timeline import (
    TrueTurn,
    at_ratio,
    group_lines,
    lay,
    level_speakers,
    music_bed,
    speak,
    speech_mask,
)

log = logging.getLogger(__name__)

SAMPLE_RATE = 44_100
STEM_SNR_DB = 5.0
"""Speech-to-music ratio that clean.flac and music.flac give when they are added as they are."""
HALVES = ("dev", "test")
TEST_SPEAKERS = frozenset(
    {"fillets-nl/small-fish", "fillets-nl/big-fish", "asterisk/allison"}
    | {f"hedgewars/{pack}" for pack in ("British", "Mobster", "Pirate", "Russian")}
    | {f"hedgewars/{pack}" for pack in ("Russian_pl", "Default_pl", "Default_ru")}
)
FISH = ("small-fish", "big-fish")
LINE_SECONDS = (1.5, 8.0)
JOINED_SECONDS = 2.2
"""Exclamations are joined to a line until it is this long."""
LEAST_LINES = 4
"""A speaker with fewer lines left is not cast again."""


@dataclass(frozen=True, slots=True, eq=False)
class Dialogue:
    """A dialogue in memory: what its folder holds.

    Attributes:
        clean, music: (samples,) float32 at SAMPLE_RATE.
        turns: The truth.
        track: Path of the music track inside its package.
        offset: Sample of the track at which the music begins.
    """

    clean: np.ndarray
    music: np.ndarray
    turns: list[TrueTurn]
    track: str
    offset: int


def mix(clean: np.ndarray, music: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix speech with its music stem, stored at STEM_SNR_DB, at `snr_db`. Same shapes, float32."""
    return (clean + music * 10 ** ((STEM_SNR_DB - snr_db) / 20)).astype(np.float32)


def build(root: Path, *, out: Path, minutes: float, seed: int) -> dict[str, float]:
    """Write dialogues of `minutes` in all to `out`, half in dev and half in test.

    Args:
        root: Folder that holds the unpacked packages (`usr/share/...`).

    Returns:
        Minutes written by half.
    """
    clips = all_clips(root)
    tracks = _shuffled(music_tracks(root), np.random.default_rng([seed, 0]))
    written = {}
    for index, half in enumerate(HALVES):
        cast = [clip for clip in clips if (clip.speaker in TEST_SPEAKERS) == (half == "test")]
        rng = np.random.default_rng([seed, 1 + index])
        pool = pool_of_lines(cast, rng)
        written[half] = _build_half(
            pool, tracks[index :: len(HALVES)], root=root, out=out / half, seconds=minutes * 30, rng=rng
        )
    return written


def _build_half(
    pool: dict[str, list[list[Clip]]],
    tracks: Sequence[Path],
    *,
    root: Path,
    out: Path,
    seconds: float,
    rng: np.random.Generator,
) -> float:
    total, number = 0.0, 0
    while total < seconds:
        dialogue = next_dialogue(pool, tracks[number % len(tracks)], root=root, rng=rng)
        _write(dialogue, out / f"{out.name}-{number:03d}")
        total += len(dialogue.clean) / SAMPLE_RATE
        number += 1
        log.info("%s: %d dialogues, %.1f minutes", out.name, number, total / 60)
    return total / 60


def _shuffled(items: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    return [items[i] for i in rng.permutation(len(items))]


def pool_of_lines(clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, list[list[Clip]]]:
    """Group clips into lines to be spoken, by speaker: one clip, or several short ones."""
    by_speaker: dict[str, list[Clip]] = {}
    for clip in (clips[i] for i in rng.permutation(len(clips))):
        by_speaker.setdefault(clip.speaker, []).append(clip)
    return {who: list(group_lines(by_speaker[who], LINE_SECONDS, join=JOINED_SECONDS)) for who in sorted(by_speaker)}


def next_dialogue(pool: dict[str, list[list[Clip]]], track: Path, *, root: Path, rng: np.random.Generator) -> Dialogue:
    """Take the lines of one dialogue out of the pool; SourceError when it is used up."""
    cast = _cast(pool, rng)
    lines = [speak(group, SAMPLE_RATE, rng) for group in _script(pool, cast, rng)]
    levelled = level_speakers([line for line in lines if line], {who: rng.uniform(-1.5, 1.5) for who in cast})
    clean, turns = lay(levelled, sample_rate=SAMPLE_RATE, tail=rng.uniform(0.5, 1.5))
    wave = load(track, SAMPLE_RATE)
    offset = int(rng.integers(len(wave)))
    mask = speech_mask([(turn.start, turn.end) for turn in turns], len(clean), SAMPLE_RATE)
    bed = music_bed(wave, samples=len(clean), offset=offset)
    music = at_ratio(bed, clean, mask=mask, snr_db=STEM_SNR_DB)
    return Dialogue(clean, music, turns, str(track.relative_to(root)), offset)


def _cast(pool: dict[str, list[list[Clip]]], rng: np.random.Generator) -> list[str]:
    """Two to four speakers, those with more lines left more often; at most one minor role.

    Minor roles of Fish Fillets may share an actor, so two of them never meet.
    """
    able = [who for who, lines in pool.items() if len(lines) >= LEAST_LINES]
    size = min(int(rng.choice([2, 3, 3, 4])), len(able))
    if size < 2:
        raise SourceError("the recordings are used up: ask for fewer --minutes")
    weights = np.array([len(pool[who]) for who in able], dtype=float)
    order = rng.choice(len(able), size=len(able), replace=False, p=weights / weights.sum())
    cast: list[str] = []
    for who in (able[i] for i in order):
        minor = _is_minor(who) and any(map(_is_minor, cast))
        if len(cast) < size and not minor:
            cast.append(who)
    return cast


def _is_minor(speaker: str) -> bool:
    source, role = speaker.split("/")
    return source == "fillets-cs" and role not in FISH


def _script(pool: dict[str, list[list[Clip]]], cast: Sequence[str], rng: np.random.Generator) -> list[list[Clip]]:
    """Take lines out of the pool until the dialogue is long enough; mostly the speaker changes.

    Everyone speaks LEAST_LINES times before chance decides.
    """
    goal = rng.uniform(70, 105)
    chosen: list[list[Clip]] = []
    count = dict.fromkeys(cast, 0)
    last = ""
    while sum(clip.seconds for group in chosen for clip in group) < goal:
        able = [who for who in cast if pool[who]]
        others = [who for who in able if who != last or rng.random() < 0.15] or able
        if not others:
            break
        least = min(count[who] for who in others)
        due = [who for who in others if count[who] == least] if least < LEAST_LINES else others
        last = due[int(rng.integers(len(due)))]
        count[last] += 1
        chosen.append(pool[last].pop())
    return chosen


def _write(dialogue: Dialogue, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in (("clean", dialogue.clean), ("music", dialogue.music)):
        peak = float(np.abs(wave).max())
        if peak > 1:
            log.warning("%s/%s.flac: clipped, peak %.2f", folder, name, peak)
        soundfile.write(folder / f"{name}.flac", np.clip(wave, -1, 1), SAMPLE_RATE, subtype="PCM_16")
    truth = {
        "speakers": sorted({turn.speaker for turn in dialogue.turns}),
        "seconds": round(len(dialogue.clean) / SAMPLE_RATE, 3),
        "turns": [asdict(turn) for turn in dialogue.turns],
        "music": {"track": dialogue.track, "offset": dialogue.offset, "snr_db": STEM_SNR_DB},
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.dialogues", __doc__)
    parser.add_argument("--out", type=report.absolute_path, default="data/dialogues", help="default: %(default)s")
    add_packages(parser)
    parser.add_argument("--minutes", type=float, default=70.0, help="dev and test together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        written = build(packages(options), out=options.out, minutes=options.minutes, seed=options.seed)
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    report.write(options.json, {"minutes": written, "seed": options.seed})


if __name__ == "__main__":
    main()
