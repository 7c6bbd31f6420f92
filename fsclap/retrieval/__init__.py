"""Finding speech by describing it: an index over a corpus version, the search, its page, what is taken away."""
