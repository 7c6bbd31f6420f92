"""The machine that a figure was measured on."""

import platform
from pathlib import Path


def processor() -> str:
    """Return the CPU model from /proc/cpuinfo; the architecture where that is missing."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
