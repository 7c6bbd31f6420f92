"""Make the caption bins that come with the package: `python -m bench.reference_bins --json FILE`.

The speech is that of Debian packages (see samples.sources). Every speaker gives at most `--clips`
clips, drawn by the hash of the file's name, so that the two actors who speak most of one game do
not set the scale for all.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

from bench import report
from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.bins import Bins, fit_bins
from fsclap.pitch import RATE
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load

log = logging.getLogger(__name__)

SPEECH = ("fillets-ng-data-cs", "fillets-ng-data-nl", "hedgewars-data", "asterisk-core-sounds-en-g722")
MIN_SECONDS = 1.0
"""A shorter exclamation has neither a pace nor a melody worth a bin."""
MIN_CLIPS = 8
"""A speaker with fewer has no mean to be compared with."""

FIXED = {
    # The packages are mostly cartoon voices. Adults: typically 120 Hz for men and 210 Hz for women
    # (Traunmüller & Eriksson 1995), half each, with 3.5 semitones of standard deviation over
    # speakers and utterances: the quantiles 0.1, 0.35, 0.65 and 0.9 of that mixture.
    "pitch": (101.0, 133.0, 190.0, 249.0),
    # The makers of the packages levelled their clips. A difference below 2.5 dB is hardly heard in
    # speech.
    "energy": (-6.0, -2.5, 2.5, 6.0),
}


def draw(clips: Sequence[Clip], count: int) -> dict[str, list[Clip]]:
    """At most `count` clips a speaker, always the same ones, for the speakers who have enough."""
    by_speaker: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.path.name.encode()).digest()):
        if clip.seconds >= MIN_SECONDS:
            by_speaker.setdefault(clip.speaker, []).append(clip)
    return {who: by_speaker[who][:count] for who in sorted(by_speaker) if len(by_speaker[who]) >= MIN_CLIPS}


def measured(clips: Sequence[Clip]) -> Iterator[Attributes]:
    """Measure the attributes of each clip, in order."""
    with ProcessPoolExecutor() as pool:
        yield from pool.map(_measured, [clip.path for clip in clips], chunksize=8)


def _measured(path: Path) -> Attributes:
    return measure(load(path, RATE), RATE)


def reference_bins(clips: Sequence[Clip], count: int) -> Bins:
    """Bins of the clips drawn from `clips`."""
    cast = draw(clips, count)
    drawn = [clip for clips_of_one in cast.values() for clip in clips_of_one]
    about: dict[str, str | int | list[str]] = {
        "date": date.today().isoformat(),
        "sources": [f"Debian package {name}" for name in SPEECH],
        "clips": len(drawn),
        "speakers": [f"{who}: {len(clips_of_one)}" for who, clips_of_one in cast.items()],
        "fixed": sorted(FIXED),
        "command": f"python -m bench.reference_bins --clips {count}",
    }
    fitted = fit_bins(list(measured(drawn)), [clip.speaker for clip in drawn])
    return Bins(edges={**fitted.edges, **FIXED}, about=about)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.reference_bins", __doc__)
    add_packages(parser)
    parser.add_argument("--clips", type=int, default=60, help="at most this many per speaker (default: %(default)s)")
    parser.set_defaults(json=report.absolute_path("data/bench/reference_bins.json"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        bins = reference_bins(all_clips(packages(options)), options.clips)
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    bins.save(options.json)
    log.info("%s: bins from %s clips of %s", options.json, bins.about["clips"], bins.about["speakers"])


if __name__ == "__main__":
    main()
