"""What figures mean, for people who do not know the metrics; and how figures are written."""

from fsclap.evaluation.results import (
    ALL_WORDS,
    GOOD,
    NATURAL_CHANCE,
    Evaluation,
    Interval,
    Judged,
    Mode,
    Natural,
    RetrievalFigures,
)

HEADLINE: tuple[Mode, str] = ("paper", "mAP@10")
"""Mode and metric of the figure a report opens with: largest pool, mean of both directions."""
FEW_QUERIES = 5
"""With fewer judged queries than this, an interval over queries says nothing."""
TENTATIVE, RELIABLE = 0.667, 0.8
"""Krippendorff's limits: below the first, data say nothing; from the second, they can be relied on."""
LITTLE = 0.1
"""A model that reaches less of what the attribute match reaches is said to miss most."""
RANKINGS = {
    "model": "the model",
    "words": "the words of the clips, no trained model",
    "both": "both together",
    "ideal": "the best possible",
}
"""What a ranking of queries as people type them is called."""


def headline(evaluation: Evaluation) -> RetrievalFigures | None:
    """Return the row a report opens with; None if the model leaks or nothing was scored."""
    mode, _ = HEADLINE
    rows = [
        row
        for row in evaluation.retrieval
        if row.stage == "embeddings" and row.mode == mode and row.direction == "mean"
    ]
    return None if evaluation.leak.leaks or not rows else max(rows, key=lambda row: row.pool)


def meaning(evaluation: Evaluation) -> str:
    """Explain the headline figure to someone who does not know the metric."""
    row = headline(evaluation)
    if row is None:
        return "There is no figure to explain."
    _, metric = HEADLINE
    figure, chance, ceiling = row.metrics[metric], row.chance[metric], row.ceiling[metric]
    text = (
        f"Out of {row.pool:,} clips, one is the right answer to a query. {metric} is the mean of 1/rank of that "
        "answer, counted as 0 if it is not among the first ten. "
        f"A random order reaches {percent(chance)}; a perfect model would reach {percent(ceiling)}"
    )
    text += ". " if ceiling == 1 else ", because clips with the same caption cannot be told apart. "
    if figure.low <= chance:
        text += "The interval includes chance: this evaluation cannot tell the model from guessing."
    else:
        text += f"The model is {figure.value / chance:.1f} times as good as chance, and the interval excludes chance."
    return f"{text} {match_meaning(evaluation)}".strip()


def match_meaning(evaluation: Evaluation) -> str:
    """Compare the headline figure with the matcher that uses no model; empty without its figures."""
    row = headline(evaluation)
    audible, every = (evaluation.match(row), evaluation.match(row, ALL_WORDS)) if row else (None, None)
    if row is None or audible is None or every is None:
        return ""
    _, metric = HEADLINE
    most = audible.metrics[metric].value
    text = (
        "Attribute match, which uses no model but the words of each clip's style without error, reaches "
        f"{percent(most)} with the words that can be heard in one clip alone, and "
        f"{percent(every.metrics[metric].value)} with those too that compare a clip with its speaker's others."
    )
    if row.metrics[metric].value < LITTLE * most:
        text += (
            " The model is below a tenth of what it could reach with the audible words: it misses most of what the "
            "captions say."
        )
    return text


def natural_meaning(natural: Natural) -> str:
    """Explain what queries as people type them say about the model."""
    if natural.left_out:
        return f"Queries as people type them were not scored: {natural.left_out}."
    figure = natural.rankings["model"].percentile
    text = (
        f"{len(natural.queries)} queries in everyday words that no caption uses were searched among "
        f"{natural.clips:,} clips. On the scales that a query asks for, the model's ten best clips lie at "
        f"{interval(figure)} of the way to the far end on average; clips at random lie at 50 %"
    )
    if figure.high < NATURAL_CHANCE:
        return f"{text}: the model finds the opposite of what is asked for."
    if figure.low <= NATURAL_CHANCE:
        return f"{text}: these queries cannot tell the model from guessing."
    return f"{text}, and the interval excludes that."


def natural_rows(natural: Natural) -> list[tuple[str, str, str]]:
    """Return a table of the rankings: name, mean with its interval, share of the queries above GOOD."""
    rows = [("chance", percent(NATURAL_CHANCE), "")]
    for name, ranking in natural.rankings.items():
        rows.append((RANKINGS.get(name, name), interval(ranking.percentile), percent(ranking.good)))
    return rows if natural.rankings else []


def natural_header() -> tuple[str, str, str]:
    """Return the headings of `natural_rows`."""
    return "ranked by", "ten best clips, 100 % is the far end", f"queries above {100 * GOOD:.0f} %"


def judged_meaning(judged: Judged) -> str:
    """Explain what people's judgements say about the model, and how far the judges agree."""
    return f"{_judged_model(judged)} {agreement(judged)}".strip()


def agreement(judged: Judged) -> str:
    """Say how far the judges agree; empty if no two judged the same."""
    if not judged.judged_twice:
        return ""
    pairs = f"{judged.judged_twice:,} pairs of description and clip were judged by more than one person"
    if judged.alpha is None:
        return f"{pairs}, too few or too alike to say how far the judges agree."
    text = f"{pairs}; Krippendorff's alpha is {judged.alpha:.2f} (1: all agree, 0: no better than chance)"
    if judged.alpha < TENTATIVE:
        return f"{text}: the judges hear different things, so the figures above say little."
    return f"{text}: enough for tentative conclusions." if judged.alpha < RELIABLE else f"{text}: the judges agree."


def _judged_model(judged: Judged) -> str:
    if judged.ndcg is None or judged.chance is None or judged.above_chance is None:
        return (
            f"None of {judged.left_out} judged queries can be scored: each has fewer than two judged clips in this "
            "part, or the same verdict for all of them."
        )
    text = (
        f"People judged how well clips fit {judged.queries} queries. The model's order of these clips reaches "
        f"{percent(judged.ndcg.value)} of the gain of the best order (nDCG@10); a random order reaches "
        f"{percent(judged.chance)}. The difference is {points(judged.above_chance)}"
    )
    if judged.queries < FEW_QUERIES:
        return text + f", but with fewer than {FEW_QUERIES} queries it means nothing yet."
    if judged.above_chance.low <= 0:
        return text + ": these judgements cannot tell the model from guessing."
    return text + ", and the interval excludes chance."


def percent(share: float) -> str:
    """Write a share of 0 to 1 as a percentage."""
    return f"{100 * share:.1f} %"


def interval(figure: Interval) -> str:
    """Write a share and its interval: "12.3 % (10.1 to 14.5)"."""
    return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def points(difference: Interval) -> str:
    """Write a difference of shares: "+2.3 points (+0.1 to +4.5)"."""
    return f"{100 * difference.value:+.1f} points ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def corpus_name(location: str) -> str:
    """Return the name of a corpus: the last part of its location, a path or a URI."""
    return location.rstrip("/").rsplit("/", 1)[-1]
