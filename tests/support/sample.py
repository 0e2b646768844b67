"""The activations that come with the sample, ``[5000, 384]`` float16."""

from __future__ import annotations

from saeaudit.sources.activations import read_activations, sample_activations

FILES = sample_activations("sample")
assert FILES is not None
SAMPLE = read_activations([FILES[0]], 384).activations[:]
