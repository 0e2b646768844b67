"""Every kind of input from outside that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz.engine import Target
from tests.fuzz.targets import commands, exports, hubs, outputs, tables, texts, weights

MODULES = (weights, tables, texts, commands, hubs, exports, outputs)
TARGETS: dict[str, Target] = {
    target.name: target for module in MODULES for target in module.TARGETS
}
"""Name → target; the order is that of `make fuzz`."""
