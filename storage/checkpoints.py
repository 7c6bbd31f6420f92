"""Remove checkpoints of a log that nothing needs.

A checkpoint holds all that is in a table at a version. One every 20 commits, none ever removed, makes a log
that grows with the square of the commits. The entries of the log stay, so every version can still be read.
"""

import re

from storage.objects import Place

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
EVERY = 20
"""Commits between two checkpoints."""
NEWEST = 2
"""Newest checkpoints that stay in any case: a reader may just have been sent to the last but one."""


def thin_checkpoints(corpus: Place, table: str) -> None:
    """Keep the newest checkpoints of a table, and older ones at versions that double: few, and soon replayed.

    Args:
        corpus: Where the tables lie.
        table: Name of a Delta table there.
    """
    log = corpus / table / "_delta_log"
    found = {int(match[1]): entry.name for entry in log.list() if (match := _CHECKPOINT.fullmatch(entry.name))}
    kept = set(sorted(found)[-NEWEST:])
    reached = 0
    for version in sorted(found):
        if version >= 2 * reached:
            kept.add(version)
            reached = max(version, 1)
    log.delete(*(name for version, name in found.items() if version not in kept))
