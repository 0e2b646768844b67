"""Sparse codes of activations: encoders, fits, exchanges and description lengths."""
