"""Make the sample episodes from the recordings in Debian packages: `python -m samples.make`.

Two series of four episodes of about a minute, as H.264 and AAC in mp4, with samples/truth.json.
Every episode is made of recordings under one licence; samples/README.md says which. The same seed
gives the same episodes.
"""

import argparse
import json
import logging
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import imageio_ffmpeg
import matplotlib
import numpy as np
import soundfile
from PIL import Image, ImageDraw, ImageFont

from samples.arguments import absolute_path, add_packages, packages
from samples.sources import FILLETS, Clip, SourceError, all_clips, horizons, load
from samples.timeline import Line, at_ratio, group_lines, lay, level_speakers, music_bed, speak, speech_mask

log = logging.getLogger(__name__)

SAMPLE_RATE = 44_100
LINE_SECONDS = (1.5, 7.5)
JOINED_SECONDS = 2.4
"""Exclamations are joined to a line until it is this long."""
EPISODE_SECONDS = (57.0, 65.0)
"""Shortest and longest episode: lines are added up to the first, and never beyond the second."""
MUSIC_DB = 8.0
"""Speech-to-music ratio where there is music, over the speech there."""
HORIZONS_MUSIC = "usr/share/unknown-horizons/content/audio/music"


@dataclass(frozen=True, slots=True)
class Episode:
    """What an episode is made of.

    Attributes:
        title: In the file's metadata and on its title card.
        speakers: Who speaks.
        licence: SPDX identifier of the licence of every recording in it.
        music: Track inside the packages, or None.
        stretch: Share of the episode under music: from, to.
        levels: Levels of Fish Fillets whose lines are used; empty for any clip of the speakers.
    """

    title: str
    speakers: tuple[str, ...]
    licence: str
    music: str | None = None
    stretch: tuple[float, float] = (0.0, 0.0)
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """A series: its folder, title and episodes; `language` is that of every line."""

    slug: str
    title: str
    language: str
    episodes: tuple[Episode, ...]


BRITISH, HILLBILLY, MOBSTER, PIRATE, SURFER = (
    f"hedgewars/{pack}" for pack in ("British", "HillBilly", "Mobster", "Pirate", "Surfer")
)
ALLISON, READER, NARRATOR = "asterisk/allison", "librivox/austen", "horizons/narrator"
SMALL, BIG = "fillets-cs/small-fish", "fillets-cs/big-fish"

SERIES = (
    Series(
        "crossed-lines",
        "Crossed Lines",
        "en",
        (
            Episode("Sleeping with the Fishes", (MOBSTER, HILLBILLY, PIRATE), "GFDL-1.3-only"),
            Episode("Good Day to You, Sir", (BRITISH, HILLBILLY, SURFER), "GFDL-1.3-only"),
            Episode(
                "Mister Dashwood Leaves a Message",
                (ALLISON, READER),
                "CC-BY-SA-3.0",
                f"{HORIZONS_MUSIC}/nightdream.ogg",
                (0.0, 0.45),
            ),
            Episode(
                "A New World",
                (NARRATOR, ALLISON),
                "CC-BY-SA-3.0",
                f"{HORIZONS_MUSIC}/goldenvalley.ogg",
                (0.5, 1.0),
            ),
        ),
    ),
    Series(
        "dve-ryby",
        "Dvě ryby",
        "cs",
        (
            Episode(
                "Město",
                ("fillets-cs/city-statue", BIG, SMALL),
                "GPL-2.0-only",
                f"{FILLETS}/music/rybky04.ogg",
                (0.0, 0.4),
                ("city",),
            ),
            Episode(
                "Bohové",
                ("fillets-cs/god", BIG, SMALL),
                "GPL-2.0-only",
                f"{FILLETS}/music/rybky05.ogg",
                (0.6, 1.0),
                ("gods",),
            ),
            Episode(
                "Vikingové",
                (SMALL, BIG, "fillets-cs/viking"),
                "GPL-2.0-only",
                f"{FILLETS}/music/rybky07.ogg",
                (0.3, 0.7),
                ("viking1", "viking2", "wreck"),
            ),
            Episode(
                "Dlažba",
                (BIG, "fillets-cs/pavement-statue", SMALL),
                "GPL-2.0-only",
                f"{FILLETS}/music/rybky13.ogg",
                (0.0, 0.5),
                ("pavement",),
            ),
        ),
    ),
)


def make(root: Path, out: Path, *, seed: int) -> None:
    """Write every episode and truth.json to `out`.

    Args:
        root: Folder that holds the unpacked packages (`usr/share/...`).
    """
    clips = [*all_clips(root), *horizons(root)]
    used: set[Path] = set()
    truth = []
    for series in SERIES:
        episodes = []
        for number, episode in enumerate(series.episodes, start=1):
            rng = np.random.default_rng([seed, number])
            lines = _script([clip for clip in clips if clip.path not in used], episode, rng)
            used |= {phrase.clip.path for line in lines for phrase in line.phrases}
            path = out / series.slug / f"e{number:02d}.mp4"
            episodes.append(_episode(series, episode, lines, root=root, path=path, rng=rng))
        truth.append({"slug": series.slug, "title": series.title, "language": series.language, "episodes": episodes})
    text = json.dumps({"series": truth}, indent=1, ensure_ascii=False)
    (out / "truth.json").write_text(text + "\n", encoding="utf-8")


def _script(clips: Sequence[Clip], episode: Episode, rng: np.random.Generator) -> list[Line]:
    """Choose lines until the episode is long enough; spread the lines of speakers with few."""
    queues = {
        who: list(group_lines(_ordered(clips, who, episode, rng), LINE_SECONDS, join=JOINED_SECONDS))
        for who in episode.speakers
    }
    goals = {who: min(len(queue), 8) for who, queue in queues.items()}
    lines: list[Line] = []
    seconds = 0.0
    while seconds < EPISODE_SECONDS[0]:
        able = {who: goals[who] for who in episode.speakers if queues[who]}
        if not able:
            raise SourceError(f"{episode.title}: too few lines for {EPISODE_SECONDS[0]:.0f} s")
        who = _next(able, [line.phrases[0].clip.speaker for line in lines], rng)
        line = speak(queues[who].pop(0), SAMPLE_RATE, rng)
        length = _length(line) if line else 0.0
        if line and seconds + length <= EPISODE_SECONDS[1]:
            lines.append(line)
            seconds += length
    return lines


def _ordered(clips: Sequence[Clip], who: str, episode: Episode, rng: np.random.Generator) -> list[Clip]:
    """Shuffle a speaker's clips, those of the episode's levels if it names any."""
    own = [clip for clip in clips if clip.speaker == who]
    if episode.levels:
        own = [clip for clip in own if clip.path.parent.parent.name in episode.levels]
    return [own[i] for i in rng.permutation(len(own))]


def _next(goals: dict[str, int], spoken: Sequence[str], rng: np.random.Generator) -> str:
    """Choose who is furthest from their number of lines; not the last speaker, then by chance."""
    share = {who: spoken.count(who) / goal for who, goal in goals.items()}
    least = [who for who in goals if share[who] == min(share.values())]
    return str(rng.choice([who for who in least if who != (spoken or [""])[-1]] or least))


def _length(line: Line) -> float:
    return sum(line.pauses) + sum(len(phrase.wave) for phrase in line.phrases) / SAMPLE_RATE


def _episode(
    series: Series, episode: Episode, lines: Sequence[Line], *, root: Path, path: Path, rng: np.random.Generator
) -> dict[str, object]:
    """Mix, encode, and return the entry of truth.json."""
    levelled = level_speakers(lines, dict.fromkeys(episode.speakers, 0.0))
    wave, turns = lay(levelled, sample_rate=SAMPLE_RATE, tail=1.5)
    music = []
    if episode.music:
        start, end = (round(share * len(wave)) for share in episode.stretch)
        mask = speech_mask([(turn.start, turn.end) for turn in turns], len(wave), SAMPLE_RATE)
        bed = _bed(load(root / episode.music, SAMPLE_RATE), wave[start:end], mask=mask[start:end], rng=rng)
        wave[start:end] += bed
        music = [
            {
                "start": round(start / SAMPLE_RATE, 3),
                "end": round(end / SAMPLE_RATE, 3),
                "snr_db": MUSIC_DB,
                "track": episode.music,
            }
        ]
    wave *= min(1.0, 0.89 / float(np.abs(wave).max()))
    tags = {"title": episode.title, "show": series.title, "copyright": episode.licence}
    _encode(wave, tags, path)
    return {
        "file": f"{series.slug}/{path.name}",
        "title": episode.title,
        "licence": episode.licence,
        "seconds": round(len(wave) / SAMPLE_RATE, 3),
        "speakers": sorted(episode.speakers),
        "turns": [asdict(turn) for turn in turns],
        "music": music,
    }


def _bed(track: np.ndarray, speech: np.ndarray, *, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bed = music_bed(track, samples=len(speech), offset=int(rng.integers(len(track))))
    fade = SAMPLE_RATE // 2
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    bed[:fade] *= ramp
    bed[-fade:] *= ramp[::-1]
    return at_ratio(bed, speech, mask=mask, snr_db=MUSIC_DB)


def _encode(wave: np.ndarray, tags: dict[str, str], path: Path) -> None:
    """Encode a title card with the waveform below; one thread and no dates, so the bytes repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        card, sound = Path(folder) / "card.png", Path(folder) / "sound.wav"
        _card(tags["show"], tags["title"]).save(card)
        soundfile.write(sound, wave, SAMPLE_RATE, subtype="PCM_16")
        picture = "[1:a]showwaves=s=320x60:mode=cline:rate=10:colors=0xE8B04A[w];[0:v][w]overlay=0:110:shortest=1[v]"
        _ffmpeg(
            *("-loop", "1", "-framerate", "10", "-i", str(card), "-i", str(sound)),
            *("-filter_complex", picture, "-map", "[v]", "-map", "1:a"),
            *("-c:v", "libx264", "-preset", "slow", "-crf", "38", "-pix_fmt", "yuv420p", "-g", "100", "-threads", "1"),
            *("-c:a", "aac", "-b:a", "80k", "-ac", "1", "-t", f"{len(wave) / SAMPLE_RATE:.3f}"),
            *(word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")),
            *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"),
            *("-movflags", "+faststart", str(path)),
        )
    log.info("%s: %.1f s, %d kB", path, len(wave) / SAMPLE_RATE, path.stat().st_size // 1000)


def _card(series: str, title: str) -> Image.Image:
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    image = Image.new("RGB", (320, 180), "#1d2733")
    draw = ImageDraw.Draw(image)
    draw.text((16, 24), series, font=ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 24), fill="#f4efe6")
    draw.text((16, 62), title, font=ImageFont.truetype(fonts / "DejaVuSans.ttf", 15), fill="#c9d2dc")
    return image


def _ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SourceError(f"ffmpeg could not write {arguments[-1]}: {result.stderr.strip()[-500:]}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.make", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=absolute_path, default=str(Path(__file__).parent), help="default: the samples folder"
    )
    add_packages(parser)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        make(packages(options), options.out, seed=options.seed)
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
