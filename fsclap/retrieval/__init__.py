"""Finding speech by describing it: an index over a corpus version, the search, its page, what is taken away."""

PORT = 8420
"""Where the search page listens unless the command says otherwise."""
