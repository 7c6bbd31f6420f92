"""How long the tables of a large data set take to read: TextrolSpeech's caption form at full size, made up.

    python -m bench.importing [--rows 236220] [--sound] [--json FILE]

Made-up rows with as many words as the published ones, read and checked as `fsclap import textrolspeech --check` does.
Seconds are of the processor and by the clock; memory is the peak of the process. --sound puts an empty file at the
place of every tenth row's sound, so that a part is found.
"""

import csv
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import report
from storage.importers import PRESETS, ImportSettings, check

ROWS = 236_220
"""Rows of TextrolSpeech."""
_HEADER = (
    "num", "wav_fp", "item_name", "gender", "pitch", "tempo", "energy", "emotion", "style_prompt", "content_prompt",
)  # fmt: skip
_PROMPTS = (
    "His deep voice flows without haste, the words of a man who knows that he is listened to.",
    'With a bright and hurried tone, she lets every syllable ring out, "clear" as a bell.',
    "The speaker keeps an even pace, soft at first, and raises the pitch a little toward the end.",
)
_LEVELS, _EMOTIONS = ("low", "normal", "high"), ("neutral", "happy", "sad", "angry", "surprised")


def write_captions(file: Path, rows: int) -> None:
    """Write a table in the published form."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(_HEADER)
        for n in range(rows):
            name = f"{n % 2456}_{n % 997}_{n:06d}_000000"
            said = f"He stepped back, number {n}, and looked at the long row of houses before him once again."
            levels = (_LEVELS[n % 3], _LEVELS[n // 3 % 3], _LEVELS[n // 9 % 3])
            path, gender = f"libritts/{n % 2456}/{name}.wav", "FM"[n % 2]
            writer.writerow((n, path, name, gender, *levels, _EMOTIONS[n % 5], _PROMPTS[n % 3], said))


def measure(folder: Path, rows: int, *, sound: bool) -> dict[str, Any]:
    """Read the tables below a folder; seconds, memory and what was found."""
    write_captions(folder / "caption/random_train.csv", rows)
    if sound:
        for n in range(0, rows, 10):
            path = folder / f"libritts/{n % 2456}/{n % 2456}_{n % 997}_{n:06d}_000000.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    clock, processor = time.perf_counter(), time.process_time()
    found = check(folder, PRESETS["textrolspeech"], ImportSettings(min_joined=0))
    return {
        "rows": found.rows,
        "with sound": found.joined,
        "processor seconds": time.process_time() - processor,
        "clock seconds": time.perf_counter() - clock,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.importing", __doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="default: %(default)s")
    parser.add_argument("--sound", action="store_true", help="give every tenth row a sound file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.rows, sound=options.sound)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
