"""What a figure was measured on."""

import platform
from pathlib import Path


def processor() -> str:
    """The name of the processor, as the kernel tells it; of its kind, where there is no /proc."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
