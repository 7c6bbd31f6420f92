"""Find speech by describing it: the index of a corpus version, search, the page, exports."""

PORT = 8420
"""Port of the search page, unless the command names another."""
