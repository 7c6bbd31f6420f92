"""Clips, features, batches and splits: what training, evaluation and retrieval read."""
