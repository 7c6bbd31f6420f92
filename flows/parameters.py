"""Parameter types that several flows share."""

import os.path
from typing import Annotated

from pydantic import AfterValidator, Field

from storage.corpus import Corpus


def _usable(location: str) -> str:
    return Corpus.at(location).location


Folder = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
"""A folder of the worker's machine; `~` is the home of its user."""
CorpusFolder = Annotated[str, Field(min_length=1), AfterValidator(_usable)]
"""A folder that can hold a corpus: others are refused before anything runs."""
