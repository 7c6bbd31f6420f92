"""FS-CLAP: a corpus of described emotional speech, and a model that finds a clip by how it sounds."""

Seconds = float
"""A duration or a position in a recording."""

Hertz = int
"""A sample rate."""
