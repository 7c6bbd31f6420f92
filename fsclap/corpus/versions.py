"""Versions of the stages' code. They are part of every cache key and of every row's recipe."""

VERSIONS = {
    "download": 1,
    "separation": 3,
    "diarization": 7,
    "consistency": 1,
    "attributes": 1,
    "tagging": 1,
    "quality": 1,
    "captioning": 1,
    "rows": 4,
}
"""Raise a stage's number when the same input and settings would give another output; that of "rows" when
the commit would write other rows of the same outputs."""
