"""Models of the real architectures with random weights, in the file layouts of their hubs."""
