"""What a figure was measured on."""

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> dict[str, str | int]:
    """Date, processor and number of cores, to stand beside every figure."""
    return {"date": date.today().isoformat(), "processor": _processor(), "cores": os.cpu_count() or 1}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
