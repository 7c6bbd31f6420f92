"""What an evaluation found, as plain data: one JSON file for machines, and all that the report shows."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fsclap.files import written_aside

Direction = Literal["audio_to_text", "text_to_audio", "mean"]
Mode = Literal["paper", "grouped"]

FILE = "evaluation.json"
"""File name of a saved `Evaluation`, next to its report."""
METRICS = ("R@1", "R@5", "R@10", "mAP@10")


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Result):
    """A figure with its 95 % bootstrap interval; shares are 0 to 1."""

    value: float
    low: float
    high: float


class RetrievalFigures(Result):
    """Retrieval in one pool, one mode and one direction.

    Attributes:
        mode: "paper": one positive a query, ties by expected rank. "grouped": every clip of the same style is
            relevant, queries are unique, AP@10 is divided by min(R, 10).
        pool: Clips in the pool.
        draws: Pools drawn, over which the figures are averaged (1 when the pool is all there is).
        queries: Queries scored, over all draws.
        metrics: For each of METRICS.
        chance: Of each metric, for an order at random.
        ceiling: Of each metric, for the best possible order when equal captions cannot be told apart.
        stage: "embeddings", or "rerank@k" when the matching head put the first k in another order.
    """

    mode: Mode
    direction: Direction
    pool: int
    draws: int
    queries: int
    metrics: dict[str, Interval]
    chance: dict[str, float]
    ceiling: dict[str, float]
    stage: str = "embeddings"


class Collapse(Result):
    """How spread out the embeddings of one modality are.

    Attributes:
        uniformity: log mean exp(-2 |x - y|^2) over pairs (Wang & Isola 2020, Eq. 2); 0 is collapsed, -4 spread.
        effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007); 1 to dim.
        mean_cosine: Mean pairwise cosine; 1 is collapsed.
    """

    uniformity: float
    effective_rank: float
    mean_cosine: float


class Alignment(Result):
    """How the two modalities lie to one another.

    Attributes:
        alignment: Mean |audio_i - text_i|^2 over pairs (Wang & Isola 2020, Eq. 1).
        modality_gap: Distance between the means of the two modalities (Liang et al. 2022).
    """

    alignment: float
    modality_gap: float


class LeakProbe(Result):
    """Whether an embedding knows its partner: retrieval among pairs that have nothing to do with one another.

    Attributes:
        pairs: Pairs in the pool.
        noise_r1: R@1 (mean of both directions) when every caption is replaced by random tokens.
        shuffled_r1: R@1 when every clip is paired with another clip's caption.
        moved: Largest change of an audio embedding, as a distance, when its partner is replaced.
        chance: 1 / pairs.
        limit: R@1 above which chance is out of the question (upper bound of a 99.9 % binomial interval).
        leaks: noise_r1 or shuffled_r1 is above the limit, or an embedding moved by more than 1e-3.
    """

    pairs: int
    noise_r1: float
    shuffled_r1: float
    moved: float
    chance: float
    limit: float
    leaks: bool


class Example(Result):
    """One query of the report: what was asked, what was found first, and where the right answer came."""

    query: str
    expected_id: str
    rank: float
    found_ids: list[str]


class Judged(Result):
    """How far a model's order agrees with what people heard.

    Attributes:
        ndcg: nDCG@10 over the judged clips of each query, mean over queries, with its interval over queries; None
            when no query could be scored.
        chance: Of an order at random, for the same queries.
        above_chance: By how much each query exceeds its own chance, with the interval of the paired difference.
        queries: Queries scored.
        left_out: Queries with fewer than 2 judged clips in the part, or with no difference among their gains.
        judgements: The verdicts that counted, one a query, clip and judge.
        elsewhere: Verdicts on clips that are not in the part, such as those of training: they don't count.
        clips: Clips that the counted verdicts are about.
        judges: People who gave them.
    """

    ndcg: Interval | None
    chance: float | None
    above_chance: Interval | None
    queries: int
    left_out: int
    judgements: int
    elsewhere: int
    clips: int
    judges: int


class Evaluation(Result):
    """Everything one evaluation found.

    Attributes:
        model: Folder of the model.
        corpus, version: What it was evaluated on.
        part: "test" or "validation".
        clips: Clips of that part.
        speakers: Diarized speakers of that part.
        captions: Distinct captions of that part.
        styles: Distinct style keys of that part.
        seed: Of pools and bootstrap.
        date: ISO date.
        machine: Processor and cores.
        leak: The probe. When it leaks, `retrieval` is empty: no such number is worth printing.
        group_sizes: Clips that share a style -> number of styles.
        nearest_training_speaker: Highest cosine between a speaker of this part and one of training; None when
            the corpus has no speaker embeddings.
        judged: What people's judgements say; None when there are none, or the model leaks.
    """

    model: str
    corpus: str
    version: int
    part: str
    clips: int
    speakers: int
    captions: int
    styles: int
    seed: int
    date: str
    machine: dict[str, str | int]
    leak: LeakProbe
    retrieval: list[RetrievalFigures]
    audio: Collapse
    text: Collapse
    joint: Alignment
    group_sizes: dict[int, int]
    nearest_training_speaker: float | None
    best: list[Example] = []
    worst: list[Example] = []
    judged: Judged | None = None

    def figure(self, metric: str, *, mode: Mode, direction: Direction = "mean", pool: int | None = None) -> Interval:
        """One figure of the first stage; the largest pool by default.

        Raises:
            KeyError: There is no such figure, for instance because the model leaks.
        """
        found = [
            row
            for row in self.retrieval
            if row.stage == "embeddings" and row.mode == mode and row.direction == direction
            and pool in (None, row.pool)
        ]  # fmt: skip
        if not found:
            raise KeyError(f"no {mode} {direction} figure for a pool of {pool or 'all'}; leaks: {self.leak.leaks}")
        return max(found, key=lambda row: row.pool).metrics[metric]

    def save(self, path: Path) -> None:
        """Write the evaluation, whole or not at all."""
        with written_aside(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        return cls.model_validate_json(path.read_bytes())
