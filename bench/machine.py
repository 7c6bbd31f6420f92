"""What a figure was measured on."""

import os
from datetime import date

from fsclap.machine import processor


def machine() -> dict[str, str | int]:
    """Date, processor and number of cores, to stand beside every figure."""
    return {"date": date.today().isoformat(), "processor": processor(), "cores": os.cpu_count() or 1}
