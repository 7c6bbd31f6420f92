"""Find speech by describing it: the index of a corpus version, search, the page, exports."""

from typing import Literal

PORT = 8420
"""Port of the search page, unless the command names another."""
By = Literal["model", "words", "both"]
"""What ranks the clips for a description: the trained model; the words of their styles, which needs
no training; or the sum of the two, weighted (fsclap.queries.reading.combined)."""
DEFAULT: By = "words"
"""What does best where the clips have styles; otherwise the model ranks. Chosen by `bench.natural`,
which scores searches in everyday words by what was measured of the clips that they find."""
