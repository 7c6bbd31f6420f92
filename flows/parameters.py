"""Parameter types that several flows share."""

import os.path
from typing import Annotated

from pydantic import AfterValidator, Field

from storage.corpus import Corpus
from storage.files import local_folder
from storage.objects import Place


def _usable(location: str) -> str:
    return Corpus.at(location).location


def _local(location: str) -> str:
    local_folder(location, what="these files")
    return os.path.expanduser(location)  # noqa: PTH111 (a Path would take "./~" for "~")


Folder = Annotated[str, Field(min_length=1), AfterValidator(_local)]
"""A folder of the worker's machine, not in an object store; `~` is the home of its user."""
CorpusFolder = Annotated[str, Field(min_length=1), AfterValidator(_usable)]
"""A folder that can hold a corpus, or an address: others are refused before anything runs."""
Location = Annotated[str, Field(min_length=1), AfterValidator(lambda location: Place.at(location).location)]
"""A folder of the worker's machine, or an address in an object store such as s3://bucket/models."""
