"""What tasks pass to each other: small frozen models that name files, never the files' content."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from fsclap.corpus.download import Episode
from fsclap.refusal import Refused, Unavailable
from storage.work import Step


class Refusal(BaseModel):
    """Why and at which stage an episode stopped. The next run tries a transient one again."""

    model_config = ConfigDict(frozen=True)

    stage: str
    reason: str
    detail: str
    transient: bool = False

    @classmethod
    def of(cls, stage: str, refused: Refused) -> "Refusal":
        return cls(
            stage=stage,
            reason=refused.reason,
            detail=refused.detail,
            transient=isinstance(refused, Unavailable),
        )


class Item(BaseModel):
    """One episode on its way through the stages: the work folder each one left, or where it stopped."""

    model_config = ConfigDict(frozen=True)

    episode: Episode
    steps: dict[str, Step] = {}
    """Stage -> the step whose folder in the work store holds its output."""
    refusal: Refusal | None = None
    again: bool = False
    """An earlier refusal of the work store is taken back: every stage decides again."""
    fetch: bool = False
    """Its recording is downloaded again, whatever the work store has of it."""

    @property
    def alive(self) -> bool:
        return self.refusal is None

    def done(self, step: Step, refusal: Refusal | None) -> "Item":
        return self.model_copy(update={"steps": {**self.steps, step.stage: step}, "refusal": refusal})

    def refused(self, refusal: Refusal) -> "Item":
        return self.model_copy(update={"refusal": refusal})


class Batch(BaseModel):
    """Episodes that a task takes at once; 5 to 30 minutes of audio keep Prefect's own cost small."""

    model_config = ConfigDict(frozen=True)

    name: str
    items: tuple[Item, ...]

    @property
    def alive(self) -> list[Item]:
        return [item for item in self.items if item.alive]

    def map(self, change: Callable[[Item], Item]) -> "Batch":
        return self.model_copy(update={"items": tuple(change(item) for item in self.items)})


def make_batches(items: list[Item], size: int) -> list[Batch]:
    """Batch neighbours of one series, at most `size` together; a batch is named after its episodes."""
    by_series: dict[str, list[Item]] = {}
    for item in items:
        by_series.setdefault(item.episode.series, []).append(item)
    return [
        _batch(series, group[start : start + size])
        for series, group in by_series.items()
        for start in range(0, len(group), size)
    ]


def _batch(series: str, items: list[Item]) -> Batch:
    first, last = items[0].episode.name, items[-1].episode.name
    span = first if len(items) == 1 else f"{first} to {last}"
    return Batch(name=f"{series} {span}", items=tuple(items))
