"""Models of the real architectures with random weights, written in the file layout of the hub that the real ones come from."""
