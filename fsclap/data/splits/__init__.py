"""Training, validation and test parts of a corpus that share neither a voice nor a text.

`make_split` makes them, `Split` is the result.
"""

from fsclap.data.splits.base import PARTS, MixedEmbeddings, Part, Split, SplitSettings, TooAlike, TooSmall, Voice
from fsclap.data.splits.make import make_split

__all__ = [
    "PARTS", "MixedEmbeddings", "Part", "Split", "SplitSettings", "TooAlike", "TooSmall", "Voice", "make_split",
]  # fmt: skip
