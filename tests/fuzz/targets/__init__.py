"""Every kind of input from outside that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz.engine import Target
from tests.fuzz.targets import collected, commands, exports, hubs, outputs, tables, texts, weights

MODULES = (weights, tables, collected, texts, commands, hubs, exports, outputs)
TARGETS: dict[str, Target] = {
    target.name: target for module in MODULES for target in module.TARGETS
}
"""Name → target: one reader, or one command with one thing that it is given."""

KINDS: dict[str, tuple[str, ...]] = {
    "weights": ("npy", "npz", "safetensors", "pt", "pt-legacy", "folders"),
    "records": (
        "lines",
        "exchanges",
        "choices",
        "examples",
        "baseline",
        "mediators",
        "score",
        "shown",
    ),
    "texts": (
        "activations",
        "collected",
        "resumed",
        "caches",
        "codes",
        "tokens",
        "explanations",
        "batches",
        "statistics",
        "labels",
    ),
    "yaml": ("yaml",),
    "targets": ("targets", "escape"),
    "hubs": ("hub", "partial", "neuronpedia"),
}
"""Kind → the targets that share its minutes; the order is that of `make fuzz`."""
