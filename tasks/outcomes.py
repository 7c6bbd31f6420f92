"""What the flows return and pass to each other."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Committed(BaseModel):
    """The outcome of one source, as the build's table shows it."""

    model_config = ConfigDict(frozen=True)

    source_id: str
    series: str
    episode: str
    status: str
    seconds: float
    found: int
    kept: int
    rejected: int
    why: str = ""
    changed: bool = False
    """Whether the corpus has other rows of it than before."""

    @classmethod
    def of(cls, source: Mapping[str, Any], *, why: str, committed: bool) -> "Committed":
        """Make it of a row of the ledger.

        Args:
            source: The row.
            why: Why the source has no rows, or what a person should know of it.
            committed: Whether the row is another one than before.
        """
        return cls(
            source_id=source["source_id"],
            series=source["series"],
            episode=source["episode"],
            status=source["status"],
            seconds=source["duration"] or 0.0,
            found=source["turns_found"],
            kept=source["turns_kept"],
            rejected=source["turns_rejected"],
            why=why,
            changed=committed and source["status"] != "failed",
        )


class Published(BaseModel):
    """A corpus version, as one flow passes it to the next."""

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    utterances: int
    hours: float
    changed_sources: int
    new: bool
    """Whether this version is still to be announced."""
    card: str


class TrainedModel(BaseModel):
    """A finished training, as it passes between flows.

    Attributes:
        model: Folder of the model.
        validation: mAP@10 on the validation part, mean of both directions, 0 to 1.
        clips: Number of clips in each part.
        kept: Which weights were kept, in words.
        new: Trained by this run, rather than finished before.
    """

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    model: str
    validation: float
    clips: dict[str, int]
    kept: str = ""
    new: bool


class TooFewClips(BaseModel):
    """Why a corpus version is too small to train on, and what would help."""

    model_config = ConfigDict(frozen=True)

    reason: str


class EvaluatedModel(BaseModel):
    """An evaluation, as it passes between flows.

    Attributes:
        report: Path of the page, next to evaluation.json and map.png.
        leaks: The model leaks, so there are no figures.
        promoted: The model is the current one now.
        reason: Why it is, or is not.
    """

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    model: str
    report: str
    leaks: bool
    promoted: bool = False
    reason: str = ""


class Compared(BaseModel):
    """A comparison of systems, as far as it came.

    Attributes:
        report: Path of the page.
        cells: Number of trainings that were asked for.
        missing: Number of those without figures.
        figures: The figures as a table in Markdown.
    """

    model_config = ConfigDict(frozen=True)

    report: str
    cells: int
    missing: int
    figures: str


class Indexed(BaseModel):
    """An index, as flows pass it on.

    Attributes:
        index: Folder of the index.
        clips, captions: Number of vectors.
        left_out: Number of clips that could not be decoded.
        current: True if the model is the current one; otherwise none was promoted yet, and it is
            the newest.
    """

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    model: str
    index: str
    clips: int
    captions: int
    left_out: int
    current: bool
