"""Remove checkpoints of a log that nothing needs.

A checkpoint holds all that is in a table at a version. One every 20 commits, none ever removed, makes a log
that grows with the square of the commits. The entries of the log stay, so every version can still be read.
"""

import re
from pathlib import Path

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
EVERY = 20
"""Commits between two checkpoints."""
NEWEST = 2
"""Newest checkpoints that stay in any case: a reader may just have been sent to the last but one."""


def thin_checkpoints(table: Path) -> None:
    """Keep the newest checkpoints of a table, and older ones at versions that double: few, and soon replayed.

    Args:
        table: Local folder of a Delta table.
    """
    found = {}
    for path in (table / "_delta_log").iterdir():
        match = _CHECKPOINT.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    kept = set(sorted(found)[-NEWEST:])
    reached = 0
    for version in sorted(found):
        if version >= 2 * reached:
            kept.add(version)
            reached = max(version, 1)
    for version, path in found.items():
        if version not in kept:
            path.unlink(missing_ok=True)
