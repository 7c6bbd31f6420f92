"""Acted speech and music in Debian packages: where each clip is, who speaks and what is said.

The packages are the only large, freely licensed collection of acted speech that installs with one
command:

    fillets-ng-data{,-cs,-nl}      Fish Fillets: two fish and minor roles, Czech and Dutch, with words
    hedgewars-data                 short exclamations by packs of voices; music
    asterisk-core-sounds-en-g722   telephone prompts, one English speaker
    pocketsphinx-testdata          five sentences of a LibriVox reading, with their words
    unknown-horizons               music
"""

import hashlib
import logging
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
import soxr

log = logging.getLogger(__name__)

PACKAGES = (
    "fillets-ng-data",
    "fillets-ng-data-cs",
    "fillets-ng-data-nl",
    "hedgewars-data",
    "asterisk-core-sounds-en-g722",
    "pocketsphinx-testdata",
    "unknown-horizons",
)
TRANSCRIPTS = Path(__file__).with_name("asterisk_prompts.txt")

FILLETS = Path("usr/share/games/fillets-ng")
HEDGEWARS = Path("usr/share/games/hedgewars/Data")
ASTERISK = Path("usr/share/asterisk/sounds/en_US_f_Allison")
LIBRIVOX = Path("usr/share/pocketsphinx/test/data/librivox")
HORIZONS = Path("usr/share/unknown-horizons/content/audio/voice/en/0/new_world")
MUSIC = (FILLETS / "music", HEDGEWARS / "Music", Path("usr/share/unknown-horizons/content/audio/music"))

# Levels added after the game's own recordings of April to September 2004. The fish have other
# voices there: a level's mean speaker embedding (of a GE2E encoder) has a cosine of 0.58-0.73 to the
# same fish elsewhere; the others, above 0.8.
LATER_CZECH_LEVELS = frozenset({"fdto", "hanoi", "hole", "nowall", "rush", "linux", "keys"})
FISH = {"font_small": "small-fish", "font_big": "big-fish"}
# Roles of one level with enough lines. Left out: fonts that several voices share, and roles whose
# mean embedding is so near a fish (cosine 0.79-0.87) that its actor may play them: viking three,
# the robot dog, the second god.
MINOR_ROLES = {
    ("city", "font_statue"): "city-statue",
    ("pavement", "font_statue"): "pavement-statue",
    ("gods", "font_cyan"): "god",
    ("viking2", "font_viking4"): "viking",
}

# Packs left out: Robot is processed, Singer is sung, Classic shares a third of its clips with
# Default.
HEDGEWARS_PACKS = {
    "British": "en",
    "Default": "en",
    "Default_es": "es",
    "Default_pl": "pl",
    "Default_ru": "ru",
    "Default_uk": "uk",
    "HillBilly": "en",
    "Mobster": "en",
    "Pirate": "en",
    "Russian": "en",
    "Russian_pl": "pl",
    "Surfer": "en",
}
# Grunts, laughter and screams hold no speech, so no speaker can be asked of them.
WORDLESS = re.compile(r"(Ow|Ooff|Ouch|Jump|Firepunch|Laugh|Hmm|Poison|Kamikaze|Nooo|Uh-oh|Fire)\w*$")

DIALOG = re.compile(
    r'dialogId\(\s*"([^"]+)"\s*,\s*"([^"]+)"\s*,\s*"(?:[^"\\]|\\.)*"\s*\)'
    r'(?:\s|--[^\n]*\n)*dialogStr\(\s*"((?:[^"\\]|\\.)*)"\s*\)'
)


class SourceError(RuntimeError):
    """The recordings cannot be had: says which package or tool is missing, and what to do."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recorded line.

    Attributes:
        path: Sound file.
        speaker: "{source}/{role}"; one role is taken to be one actor.
        language: ISO 639-1.
        text: Words spoken, or None when no list of lines gives them.
        seconds: Length of the file, silence included.
    """

    path: Path
    speaker: str
    language: str
    text: str | None
    seconds: float


def fetch_packages(cache: Path) -> Path:
    """Download (about 450 MB) and unpack PACKAGES below `cache`, or reuse them.

    Returns:
        The folder that holds `usr/share/...`.

    Raises:
        SourceError: apt-get or dpkg is missing, or a download failed.
    """
    root = cache / "extracted"
    archives = cache / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not list(archives.glob(f"{package}_*.deb")):
            log.info("downloading %s", package)
            _run(["apt-get", "download", package], cwd=archives)
        archive = next(archives.glob(f"{package}_*.deb"))
        done = archives / f"{archive.name}.extracted"
        if not done.exists():
            _run(["dpkg", "-x", str(archive), str(root)], cwd=archives)
            done.touch()
    return root


def _run(command: list[str], *, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SourceError(
            f"{command[0]} is not installed: the recordings come from Debian packages. Run this on Debian or "
            f"Ubuntu, or unpack {', '.join(PACKAGES)} yourself and name the folder with --packages."
        )
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SourceError(f"`{' '.join(command)}` failed: {result.stderr.strip()[-500:]}")


def require(root: Path) -> None:
    """Raise SourceError unless `root` holds every package."""
    missing = [str(p) for p in (FILLETS, HEDGEWARS, ASTERISK, LIBRIVOX, *MUSIC) if not (root / p).is_dir()]
    if missing:
        raise SourceError(f"{root} lacks {', '.join(missing)}: unpack {', '.join(PACKAGES)} there (dpkg -x).")


def all_clips(root: Path) -> list[Clip]:
    """Every usable line in the packages unpacked at `root`, sorted by path."""
    require(root)
    clips = [*fillets(root, "cs"), *fillets(root, "nl"), *hedgewars(root), *asterisk(root), *librivox(root)]
    return sorted(clips, key=lambda clip: clip.path)


def fillets(root: Path, language: str) -> Iterator[Clip]:
    """Lines of Fish Fillets in "cs" or "nl"; the colour of the subtitle says who speaks."""
    for script in sorted((root / FILLETS / "script").glob(f"*/dialogs_{language}.lua")):
        level = script.parent.name
        if language == "cs" and level in LATER_CZECH_LEVELS:
            continue
        for name, font, line in DIALOG.findall(script.read_text(encoding="utf-8")):
            role = FISH.get(font) or MINOR_ROLES.get((level, font))
            path = root / FILLETS / "sound" / level / language / f"{name}.ogg"
            if role and path.is_file():
                text = line.replace('\\"', '"').replace("\\n", " ")
                yield Clip(path, f"fillets-{language}/{role}", language, text, _seconds(path))


def hedgewars(root: Path, *, wordless: bool = False) -> Iterator[Clip]:
    """Exclamations of the Hedgewars packs. Text is None: file names are not the exact words.

    Args:
        root: Where the packages were unpacked.
        wordless: The grunts, laughter and screams instead of those with words.
    """
    voices = root / HEDGEWARS / "Sounds/voices"
    files = sorted(voices.glob("*/*.ogg"))
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    copies = Counter(digests.values())
    for path in files:
        language = HEDGEWARS_PACKS.get(path.parent.name)
        if language and copies[digests[path]] == 1 and bool(WORDLESS.match(path.stem)) == wordless:
            yield Clip(path, f"hedgewars/{path.parent.name}", language, None, _seconds(path))


def asterisk(root: Path) -> Iterator[Clip]:
    """Telephone prompts whose words are listed in asterisk_prompts.txt."""
    for line in TRANSCRIPTS.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, text = line.partition(":")
        path = root / ASTERISK / f"{name}.g722"
        # 64 kbit/s whatever the content
        yield Clip(path, "asterisk/allison", "en", text.strip(), path.stat().st_size / 8000)


def librivox(root: Path) -> Iterator[Clip]:
    """Sentences of Sense and Sensibility, read for LibriVox."""
    for line in (root / LIBRIVOX / "transcription").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line.strip())
        if match:
            path = root / LIBRIVOX / f"{match[2]}.wav"
            yield Clip(path, "librivox/austen", "en", match[1], _seconds(path))


def horizons(root: Path) -> Iterator[Clip]:
    """Yield the English narrator of Unknown Horizons: four sentences; the text of one is known."""
    for path in sorted((root / HORIZONS).glob("*.ogg")):
        text = "A new world has been created." if path.stem == "1" else None
        yield Clip(path, "horizons/narrator", "en", text, _seconds(path))


def music_tracks(root: Path, *, shortest: float = 45.0) -> list[Path]:
    """Music of at least `shortest` seconds, sorted."""
    tracks = [path for folder in MUSIC for path in (root / folder).rglob("*.ogg")]
    return sorted(path for path in tracks if _seconds(path) >= shortest)


def _seconds(path: Path) -> float:
    return soundfile.info(path).duration


def load(path: Path, sample_rate: int) -> np.ndarray:
    """Decode a sound file to (samples,) float32 mono at `sample_rate` Hz."""
    if path.suffix == ".g722":
        wave, rate = _decode_g722(path), 16_000
    else:
        stereo, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = stereo.mean(axis=1)
    return soxr.resample(wave, rate, sample_rate)


def _decode_g722(path: Path) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "g722", "-i", str(path), "-f", "f32le", "-"]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        raise SourceError(f"ffmpeg cannot decode {path}: {result.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(result.stdout, dtype=np.float32).copy()
