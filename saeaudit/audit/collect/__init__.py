"""Activations of a model at the place that an SAE reads."""
