"""Queries as people type them: what each word of a style is called, which clips a query is true of."""
