"""Results of an evaluation as plain data: saved as JSON, and all that the report shows."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fsclap.files import written_aside

Direction = Literal["audio_to_text", "text_to_audio", "mean"]
Mode = Literal["paper", "grouped"]

FILE = "evaluation.json"
"""File name of a saved `Evaluation`, next to its report."""
METRICS = ("R@1", "R@5", "R@10", "mAP@10")
GOOD, NATURAL_CHANCE = 0.7, 0.5
"""Score above which a query as people type it counts as answered, and the score of clips at random."""
AUDIBLE, ALL_WORDS = "attribute match", "attribute match, all words"
"""Stages of the matcher that uses no model: with the words of a style that one clip alone lets one
hear, and with those too that compare a clip with its speaker's others."""


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
        mode: "paper": one positive per query, ties by expected rank. "grouped": every clip of the
            same style is relevant, queries are unique, AP@10 is divided by min(R, 10).
        direction: What searches what.
        pool: Number of clips in the pool.
        draws: Number of pools that the figures are averaged over (1 if the pool is the whole part).
        queries: Number of queries scored, over all draws.
        metrics: Value of each of METRICS.
        chance: Each metric for a random order.
        ceiling: Each metric for the best possible order if equal captions cannot be told apart.
        stage: "embeddings"; "rerank@k" after the matching head has reordered the first k; AUDIBLE or
            ALL_WORDS for the matcher that uses no model.
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
        uniformity: log mean exp(-2 |x - y|^2) over pairs (Wang & Isola 2020, Eq. 2); 0 is
            collapsed, -4 spread.
        effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007);
            1 to dim.
        mean_cosine: Mean pairwise cosine; 1 is collapsed.
    """

    uniformity: float
    effective_rank: float
    mean_cosine: float


class Alignment(Result):
    """How the two modalities lie relative to each other.

    Attributes:
        alignment: Mean |audio_i - text_i|^2 over pairs (Wang & Isola 2020, Eq. 1).
        modality_gap: Distance between the means of the two modalities (Liang et al. 2022).
    """

    alignment: float
    modality_gap: float


class LeakProbe(Result):
    """Whether an embedding knows its partner: retrieval among unrelated pairs.

    Attributes:
        pairs: Number of pairs in the pool.
        noise_r1: R@1 (mean of both directions) if every caption is replaced by random tokens.
        shuffled_r1: R@1 if every clip is paired with another clip's caption.
        moved: Largest distance an audio embedding moves when its partner is replaced.
        chance: 1 / pairs.
        limit: R@1 beyond chance (upper bound of a 99.9 % binomial interval).
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
    """One query of the report.

    Attributes:
        query: The caption.
        expected_id: Its clip.
        rank: Rank of that clip, from 1.
        found_ids: The first clips, best first.
    """

    query: str
    expected_id: str
    rank: float
    found_ids: list[str]


class Judged(Result):
    """How well a model's order agrees with people's judgements.

    Attributes:
        ndcg: nDCG@10 over the judged clips of each query, mean over queries, with its interval over
            queries; None if no query could be scored.
        chance: nDCG@10 of a random order for the same queries.
        above_chance: How much a query exceeds its chance on average, with the interval of the
            paired difference.
        queries: Number of queries scored.
        left_out: Number of queries with fewer than 2 judged clips in the part, or with equal gains.
        judgements: Number of verdicts that count, one per query, clip and judge.
        elsewhere: Number of verdicts on clips of other parts, such as training; they don't count.
        clips: Number of clips with a verdict that counts.
        judges: Number of people who gave these verdicts.
        alpha: Krippendorff's ordinal alpha over all pairs of query and clip that two or more people
            judged, of whatever part; None if it is undefined, and in older evaluations.
        judged_twice: Number of these pairs.
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
    alpha: float | None = None
    judged_twice: int = 0


class NaturalQuery(Result):
    """One query as people type it.

    Attributes:
        query: The query.
        scores: Ranking -> mean percentile, 0 to 1, of its ten best clips in the directions that the
            query asks for.
    """

    query: str
    scores: dict[str, float]


class NaturalRanking(Result):
    """One way to rank clips for queries as people type them.

    Attributes:
        percentile: Mean score of the queries, with its interval over queries.
        good: Share of the queries that score above GOOD.
    """

    percentile: Interval
    good: float


class Natural(Result):
    """Queries as people type them, scored against what was measured of the clips.

    Attributes:
        clips: Number of clips searched.
        rankings: By "model", "words" (no trained model), "both" and "ideal"; empty if left out.
        queries: Each query that was scored.
        left_out: Why nothing was scored; empty if something was.
    """

    clips: int
    rankings: dict[str, NaturalRanking]
    queries: list[NaturalQuery]
    left_out: str = ""

    def worst(self, count: int, ranking: str = "model") -> list[NaturalQuery]:
        """Return the queries that fared worst, the worst first."""
        return sorted(self.queries, key=lambda query: query.scores[ranking])[:count]


class Evaluation(Result):
    """All results of one evaluation.

    Attributes:
        model: Folder of the model.
        corpus: Location of the corpus.
        version: Version of the corpus.
        part: "test" or "validation".
        clips: Number of clips in that part.
        speakers: Number of diarized speakers in that part.
        captions: Number of distinct captions in that part.
        styles: Number of distinct style keys in that part.
        seed: Seed of pools and bootstrap.
        date: ISO date.
        machine: Processor and cores.
        leak: The leak probe. If the model leaks, `retrieval` is empty: no such figure means
            anything.
        retrieval: Figures of all pools, modes and directions.
        audio: Spread of the audio embeddings.
        text: Spread of the text embeddings.
        joint: Alignment of both.
        group_sizes: Clips that share a style -> number of styles.
        nearest_training_speaker: Highest cosine between a speaker of this part and one of training;
            None if the corpus has no speaker embeddings.
        best: Queries whose clip ranks best.
        worst: Queries whose clip ranks worst.
        judged: Agreement with people's judgements; None without any, or if the model leaks.
        matched: Figures of the matcher that uses no model, in all pools, modes and directions; empty
            if the model leaks, and in older evaluations.
        natural: Queries as people type them; None if the model leaks, and in older evaluations.
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
    matched: list[RetrievalFigures] = []
    natural: Natural | None = None

    def match(self, row: RetrievalFigures, stage: str = AUDIBLE) -> RetrievalFigures | None:
        """Return the figures of the matcher in the same mode, pool and direction, if there are any."""
        wanted = (stage, row.mode, row.pool, row.direction)
        found = (other for other in self.matched if (other.stage, other.mode, other.pool, other.direction) == wanted)
        return next(found, None)

    def figure(self, metric: str, *, mode: Mode, direction: Direction = "mean", pool: int | None = None) -> Interval:
        """Return one figure of the first stage; that of the largest pool by default.

        Raises:
            KeyError: There is no such figure, for instance because the model leaks.
        """
        rows = [
            row
            for row in self.retrieval
            if row.stage == "embeddings" and row.mode == mode and row.direction == direction
            and pool in (None, row.pool)
        ]  # fmt: skip
        if not rows:
            raise KeyError(f"no {mode} {direction} figure for a pool of {pool or 'all'}; leaks: {self.leak.leaks}")
        return max(rows, key=lambda row: row.pool).metrics[metric]

    def save(self, path: Path) -> None:
        """Write the evaluation, whole or not at all."""
        with written_aside(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        return cls.model_validate_json(path.read_bytes())
