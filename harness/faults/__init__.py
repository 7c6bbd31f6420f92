"""Breaks a whole installation at chosen moments and compares what is left with an undisturbed run."""
