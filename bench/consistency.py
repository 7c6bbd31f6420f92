"""What the consistency filter keeps and removes: `python -m bench.consistency`.

The dialogues of one half of bench.dialogues, vocals separated from music at 5 dB, are diarized with the
defaults. Then, for each rule:

    lost, removed    share of right clips lost and of wrong clips removed, when a share of each speaker's
                     clips comes from other speakers of the same recording: wrong clips are drawn DRAWS times,
                     right and wrong are known from the truth
    kept, pure       retention: share of the clips kept of the speakers as the diarization finds them, and
                     share of those kept with PURE of their true speech from one speaker, the one who
                     speaks most in clips of that label

Rules: Eq. 5 (`others`) and `core` (see `ConsistencySettings.compared_with`) at several thresholds; Eq. 5
against the median of the speaker's clips less k median absolute deviations (scaled to a standard
deviation); Eq. 5 against a mixture of two Gaussians where the BIC prefers two. `--resemblyzer` repeats all
with the voices of Resemblyzer (`pip install --no-deps resemblyzer webrtcvad`) on the same turns. Intervals:
95 %, bootstrap over recordings.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.mixture import GaussianMixture

from bench import report
from bench.corpus_quality import DATA_HELP, PURE, Figure, Parts, Recording, dialogues, purity, summarize
from bench.dialogues import HALVES
from bench.flow import EMBEDDED
from bench.thresholds import diarized, embedded, waves
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.diarization.whisper_campplus import RATE, Voiced
from fsclap.corpus.filtering.consistency import core_similarity, mean_similarity
from fsclap.corpus.separation import load_separator
from fsclap.corpus.turns import Turn
from samples.timeline import TrueTurn

log = logging.getLogger(__name__)

WRONG_SHARES = (0.1, 0.25, 0.4)
DRAWS = 5
THRESHOLDS = (0.5, 0.55, 0.6, 0.625, 0.65, 0.675, 0.7, 0.75)
DEVIATIONS = (1.0, 2.0, 3.0)
MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution."""
LEAST_MIXTURE = 6
"""Clips of a speaker from which a mixture is fitted; fewer are all kept."""
Rule = Callable[[np.ndarray], np.ndarray]
"""(n, dim) embeddings of one speaker's clips, n >= 2 -> (n,) bool, which stay."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A turn with an embedding.

    Attributes:
        label: Of the speaker that diarization gave it to.
        speaker: Who speaks in it; None if that is not one person.
        embedding: (dim,).
    """

    label: int
    speaker: str | None
    embedding: np.ndarray


def rules() -> dict[str, Rule]:
    """Rules by name."""
    fixed = {
        f"{name} {threshold:g}": _at_least(similar, threshold)
        for name, similar in (("others", mean_similarity), ("core", core_similarity))
        for threshold in THRESHOLDS
    }
    return fixed | {f"median - {k:g} MAD": _deviating(k) for k in DEVIATIONS} | {"mixture": _mixture}


def _at_least(similar: Callable[[np.ndarray], np.ndarray], threshold: float) -> Rule:
    return lambda embeddings: similar(embeddings) >= threshold


def _deviating(k: float) -> Rule:
    def keep(embeddings: np.ndarray) -> np.ndarray:
        similarity = mean_similarity(embeddings)
        median = np.median(similarity)
        return similarity >= median - k * MAD_TO_DEVIATION * np.median(np.abs(similarity - median))

    return keep


def _mixture(embeddings: np.ndarray) -> np.ndarray:
    values = mean_similarity(embeddings)[:, np.newaxis]
    if len(values) < LEAST_MIXTURE:
        return np.ones(len(values), dtype=bool)
    one, two = (GaussianMixture(count, random_state=0).fit(values) for count in (1, 2))
    if one.bic(values) <= two.bic(values):
        return np.ones(len(values), dtype=bool)
    return two.predict(values) == np.argmax(two.means_[:, 0])


def clips_of(found: Sequence[Turn], truth: Sequence[TrueTurn], embeddings: Sequence[np.ndarray | None]) -> list[Clip]:
    """Join the turns of a recording that have an embedding with who speaks in them."""
    return [
        Clip(turn.speaker, _speaker(turn, truth), embedding)
        for turn, embedding in zip(found, embeddings, strict=True)
        if embedding is not None
    ]


def _speaker(turn: Turn, truth: Sequence[TrueTurn]) -> str | None:
    if purity(turn, truth) < PURE:
        return None
    return max(truth, key=lambda true: min(turn.end, true.end) - max(turn.start, true.start)).speaker


def contaminated(clips: Sequence[Clip], share: float, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the embeddings of each true speaker's clips and, behind them, of wrong ones; and how many are right.

    A speaker of fewer than two clips, or whose recording has too few clips of others, is left out.
    """
    by_speaker: dict[str, list[np.ndarray]] = defaultdict(list)
    for clip in clips:
        if clip.speaker is not None:
            by_speaker[clip.speaker].append(clip.embedding)
    for speaker, own in by_speaker.items():
        others = [vector for other, theirs in by_speaker.items() if other != speaker for vector in theirs]
        count = round(len(own) * share / (1 - share))
        if len(own) >= 2 and 0 < count <= len(others):
            drawn = [others[index] for index in rng.choice(len(others), count, replace=False)]
            yield np.stack(own + drawn), len(own)


def score(clips: Sequence[Clip], *, seed: int) -> Parts:
    """All figures of one recording, as `{share of wrong clips}/{rule}/{figure}`."""
    parts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for share in WRONG_SHARES:
        rng = np.random.default_rng(seed)
        for _ in range(DRAWS):
            for embeddings, right in contaminated(clips, share, rng):
                for name, rule in rules().items():
                    kept = rule(embeddings)
                    parts[f"{share:g}/{name}/lost"] += (right - kept[:right].sum(), right)
                    parts[f"{share:g}/{name}/removed"] += ((~kept[right:]).sum(), len(kept) - right)
    for label in {clip.label for clip in clips}:
        own = [clip for clip in clips if clip.label == label]
        if len(own) >= 2:
            for name, rule in rules().items():
                kept, pure = rule(np.stack([clip.embedding for clip in own])), _of_the_most_frequent(own)
                parts[f"found/{name}/kept"] += (kept.sum(), len(kept))
                parts[f"found/{name}/pure"] += ((kept & pure).sum(), kept.sum())
    return {name: (float(part[0]), float(part[1])) for name, part in parts.items()}


def _of_the_most_frequent(clips: Sequence[Clip]) -> np.ndarray:
    """(n,) whether each clip of a label is of the speaker that most of them are of."""
    speakers = [clip.speaker for clip in clips]
    known = [speaker for speaker in speakers if speaker is not None]
    most = max(known, key=known.count) if known else ""
    return np.array([speaker == most for speaker in speakers])


def resemblyzer() -> Callable[[np.ndarray], np.ndarray]:
    """Load Resemblyzer's encoder: (samples,) at RATE -> (256,)."""
    try:
        from resemblyzer import VoiceEncoder, normalize_volume
    except ImportError as error:
        raise SystemExit(f"--resemblyzer: {error}; pip install --no-deps resemblyzer webrtcvad") from error
    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda wave: encoder.embed_utterance(normalize_volume(wave, -30, increase_only=False))


def measure(recordings: Sequence[Recording], found: Sequence[Voiced], *, other: bool, seed: int) -> dict[str, Figure]:
    """Every figure, as `{encoder}/{share of wrong clips, or found}/{rule}/{figure}`."""
    parts: dict[str, list[Parts]] = defaultdict(list)
    encoder = resemblyzer() if other else None
    for number, (recording, voiced) in enumerate(zip(recordings, found, strict=True)):
        turns = diarized(voiced, DiarizationSettings())
        vectors: Mapping[str, list[np.ndarray | None]] = {"campplus": [turn.embedding for turn in turns]}
        if encoder is not None:
            vectors = {**vectors, "resemblyzer": [_embedded(turn, voiced, encoder) for turn in turns]}
        for name, embeddings in vectors.items():
            parts[name].append(score(clips_of(turns, recording.turns, embeddings), seed=seed + number))
    return {f"{name}/{key}": figure for name, own in parts.items() for key, figure in summarize(own).items()}


def _embedded(turn: Turn, voiced: Voiced, encoder: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    return None if turn.embedding is None else encoder(voiced.wave[round(turn.start * RATE) : round(turn.end * RATE)])


def markdown(figures: Mapping[str, Figure]) -> str:
    """Make the tables of docs/measurements.md: one row per encoder and rule."""
    shares = [f"{share:g}" for share in WRONG_SHARES]
    columns = [*(f"{share:.0%} wrong: lost, removed" for share in WRONG_SHARES), "as found: kept, of one speaker"]
    lines = [f"| encoder | rule | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for encoder in dict.fromkeys(name.split("/")[0] for name in figures):
        for rule in rules():
            pairs = [(f"{share}/{rule}/lost", f"{share}/{rule}/removed") for share in shares]
            pairs.append((f"found/{rule}/kept", f"found/{rule}/pure"))
            cells = [", ".join(_percent(figures[f"{encoder}/{name}"]) for name in pair) for pair in pairs]
            lines.append(f"| {encoder} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(figure: Figure) -> str:
    return f"{figure.value:.0%} ({100 * figure.low:.0f} to {100 * figure.high:.0f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.consistency", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument("--half", choices=HALVES, default="dev", help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="read the first N dialogues only")
    parser.add_argument("--resemblyzer", action="store_true", help="repeat all with the voices of Resemblyzer")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of wrong clips")
    options = parser.parse_args(arguments)
    recordings = dialogues(options.data / options.half, options.limit)
    engine = embedded(load_diarizer(EMBEDDED.diarization))
    conditions = dict(waves(recordings, load_separator(EMBEDDED.separation)))
    found = engine.voiced(conditions["separated"])
    figures = measure(recordings, found, other=options.resemblyzer, seed=options.seed)
    print(markdown(figures))
    rows = {name: asdict(figure) for name, figure in figures.items()}
    report.write(options.json, {"recordings": len(recordings), "engine": engine.revision, "figures": rows})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
