"""Machines, days, storage and money for a corpus of any size, from measured figures and given prices.

    python -m bench.cost [--episodes 1000000] [--days 30] [--machine-price 0.10] ... [--json FILE]

Nothing is measured here. The defaults of what a machine does are this project's figures (docs/measurements.md,
docs/scale.md); prices are parameters, because they differ between providers and years: give those of yours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench import report


@dataclass(frozen=True)
class Build:
    """What is built, on what, at which prices. Prices in any one currency."""

    episodes: int = 1_000_000
    minutes: float = 2.4
    days: float = 30.0
    real_time_factor: float = 0.2
    overhead_seconds: float = 0.0
    batch: int = 12
    kept: float = 0.6
    megabytes_per_hour_in: float = 60.0
    megabytes_per_hour_kept: float = 110.0
    database_kib: float = 50.0
    api_calls: float = 4.0
    calls_per_second: float = 100.0
    machine_price: float = 0.10
    server_price: float = 0.20
    storage_price: float = 0.023
    egress_price: float = 0.0


HELP = {
    "episodes": "recordings",
    "minutes": "length of a recording",
    "days": "days in which all are to be done",
    "real_time_factor": "computing time of a machine over the length of what it computes",
    "overhead_seconds": "seconds per batch that are not hidden behind the batch before it",
    "batch": "recordings per batch",
    "kept": "share of the sound that the corpus keeps",
    "megabytes_per_hour_in": "of downloaded sound",
    "megabytes_per_hour_kept": "of the corpus: 24 kHz mono FLAC, with rows",
    "database_kib": "growth of the server's database per episode, before its retention removes anything",
    "api_calls": "calls of the server's API per episode",
    "calls_per_second": "that one server answers",
    "machine_price": "of a machine with that real-time factor, per hour",
    "server_price": "of server and database, per hour",
    "storage_price": "of object storage, per GB and month",
    "egress_price": "of reading the corpus once, per GB",
}


def plan(build: Build) -> dict[str, Any]:
    """Compute what the build needs.

    Returns:
        Machines, hours, gigabytes and money, by name.
    """
    hours = build.episodes * build.minutes / 60
    machine_hours = hours * build.real_time_factor + build.episodes / build.batch * build.overhead_seconds / 3600
    machines = math.ceil(machine_hours / (24 * build.days))
    corpus = hours * build.kept * build.megabytes_per_hour_kept / 1000
    calls = build.episodes * build.api_calls / (86_400 * build.days)
    compute = machine_hours * build.machine_price
    server = 24 * build.days * build.server_price
    storage = corpus * build.storage_price
    return {
        "hours_of_sound": hours,
        "machine_hours": machine_hours,
        "machines": machines,
        "downloaded_terabytes": hours * build.megabytes_per_hour_in / 1e6,
        "corpus_terabytes": corpus / 1000,
        "database_gigabytes": build.episodes * build.database_kib / 2**20,
        "api_calls_per_second": calls,
        "share_of_one_server": calls / build.calls_per_second,
        "price_of_machines": compute,
        "price_of_the_server": server,
        "price_of_storage_per_month": storage,
        "price_of_reading_it_once": corpus * build.egress_price,
        "price_of_the_build": compute + server,
        "price_per_hour_of_corpus": (compute + server) / (hours * build.kept),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.cost", __doc__)
    for field in fields(Build):
        option = "--" + field.name.replace("_", "-")
        default: Any = field.default
        parser.add_argument(option, type=type(default), default=default, help=f"{HELP[field.name]}; default {default}")
    options = vars(parser.parse_args(arguments))
    file = options.pop("json")
    figures = plan(Build(**options))
    print("\n".join(report.name_values(figures)))
    report.write(file, {"given": options, "needed": figures})


if __name__ == "__main__":
    main()
