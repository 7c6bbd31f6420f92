"""Break a whole installation at chosen moments, and compare the result with an undisturbed run."""
