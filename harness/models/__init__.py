"""Models of the real architectures with random weights, in the file layout of the hub that the real ones come from."""
