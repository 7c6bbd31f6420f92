"""What every bench shares: its command line, the printed table and the JSON file.

Paths are made absolute once, here, so that a bench may start processes in other folders. A JSON
file always says when and on which machine its figures were measured.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from fsclap.machine import processor
from samples.arguments import absolute_path

__all__ = ["absolute_path", "machine", "name_values", "parser", "table", "write"]


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Command line of `python -m MODULE`: the module's docstring as help, and --json."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=absolute_path, metavar="FILE", help="write the figures to this file")
    return made


def machine() -> dict[str, str | int]:
    """Date, processor and number of cores."""
    return {"date": date.today().isoformat(), "processor": processor(), "cores": os.cpu_count() or 1}


def name_values(figures: Mapping[str, Any]) -> Iterator[str]:
    """One line per figure, values aligned."""
    width = max(map(len, figures))
    for name, value in figures.items():
        yield f"{name:{width}}  {value:.4g}" if isinstance(value, float) else f"{name:{width}}  {value}"


def table(rows: Sequence[Any]) -> Iterator[str]:
    """Lines of a table with the fields of the dataclass `rows` as columns."""
    yield "  ".join(f"{name:>17}" for name in asdict(rows[0]))
    for row in rows:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else cell for cell in asdict(row).values())
        yield "  ".join(f"{cell:>17}" for cell in cells)


def write(file: Path | None, content: Mapping[str, Any]) -> None:
    """Write `content` and the machine to a JSON file, if one was asked for."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **content}, indent=1, default=str)
    file.write_text(text + "\n", encoding="utf-8")
