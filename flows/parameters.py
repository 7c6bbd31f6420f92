"""Parameter types that several flows share."""

from typing import Annotated

from pydantic import Field

Folder = Annotated[str, Field(min_length=1)]
