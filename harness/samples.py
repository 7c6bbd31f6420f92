"""Short recordings, cut from the sample episodes that come with the project."""

import subprocess
from pathlib import Path

from fsclap.ffmpeg import ffmpeg_binary

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def sample_episodes() -> list[Path]:
    """List the sample episodes, by series and number."""
    return sorted(SAMPLES.glob("*/*.mp4"))


def cut(episode: Path, destination: Path, *, start: float, seconds: float, picture: bool = True) -> Path:
    """Write a stretch of an episode to a file.

    Args:
        episode: A recording.
        destination: The file to write; its suffix chooses the format. Missing parent folders are
            made.
        start: Where the stretch begins, in seconds.
        seconds: How long it is.
        picture: Whether to keep the picture too.

    Returns:
        The destination.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", "-ss", str(start), "-i", str(episode)]
    options = ["-t", str(seconds), *([] if picture else ["-vn"])]
    subprocess.run([*command, *options, str(destination)], check=True)
    return destination
