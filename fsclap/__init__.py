"""FS-CLAP: a corpus of described emotional speech, and a model that finds clips by style."""

from fsclap.environment import prepare

Seconds = float
"""A duration or a position in a recording."""

Hertz = int
"""A sample rate."""

prepare()
