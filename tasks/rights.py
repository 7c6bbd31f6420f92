"""What a build states of the licence, rights holder and consent of its sources."""

from collections.abc import Mapping, Sequence

from storage.corpus import Corpus
from storage.rights import Rights, state
from tasks.batches import Item

ALL = "*"
"""Key for what is stated of all sources of a build."""


def require_known(sources: Sequence[str], rights: Mapping[str, Rights]) -> None:
    """Refuse a statement about what is not built.

    Raises:
        ValueError: The message names it.
    """
    unknown = sorted(rights.keys() - {ALL, *sources})
    if unknown:
        raise ValueError(f"rights names {unknown[0]!r}, which is none of the sources: write it as there, or {ALL!r}")


def state_rights(
    listed: Sequence[Item], origins: Sequence[str], rights: Mapping[str, Rights], corpus: str
) -> list[str]:
    """Keep what is stated of sources, for each episode of theirs; return those of which it was not known.

    What a person has stated of an episode before stays: a refresh must not take a withdrawal back.

    Args:
        listed: Episodes.
        origins: Source of the build that lists each.
        rights: Source of the build, or ALL -> what is stated. A source's own statement goes before that of all.
        corpus: Location of the corpus.
    """
    if not rights:
        return []
    stated: dict[str, Rights] = {}
    for item, origin in zip(listed, origins, strict=True):
        given = [each.model_dump(exclude_none=True) for key in (ALL, origin) if (each := rights.get(key))]
        if item.alive and given:
            stated[item.episode.source_id] = Rights(**{name: value for each in given for name, value in each.items()})
    table = Corpus.open(corpus)
    with table.lock():
        return state(table, stated, only_new=True)
