"""Weights on disk: one module per family, one way in (`saeaudit.weights.interface`)."""
