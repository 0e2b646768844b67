"""Find and settle ambiguous explanations in sparse autoencoders.

>>> import saeaudit
>>> dictionary = saeaudit.open("sample")
>>> [record.type for record in saeaudit.scan(dictionary)]
['dictionary', 'pair', 'summary']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from saeaudit.audit.mediators.inputs import MediatorInputs
    from saeaudit.audit.mediators.options import MediatorOptions
    from saeaudit.audit.mediators.run import mediators
    from saeaudit.audit.open import open_target as open
    from saeaudit.audit.scan.options import ScanOptions
    from saeaudit.audit.scan.run import scan
    from saeaudit.audit.score.api import score
    from saeaudit.audit.score.inputs import ScoreInputs
    from saeaudit.audit.score.options import ScoreOptions
    from saeaudit.dictionary import Dictionary

__version__ = "0.1.0"
__all__ = [
    "AuditError",
    "Dictionary",
    "MediatorInputs",
    "MediatorOptions",
    "ScanOptions",
    "ScoreInputs",
    "ScoreOptions",
    "__version__",
    "mediators",
    "open",
    "scan",
    "score",
]

_WHERE = {
    "open": ("saeaudit.audit.open", "open_target"),
    "scan": ("saeaudit.audit.scan.run", "scan"),
    "mediators": ("saeaudit.audit.mediators.run", "mediators"),
    "MediatorInputs": ("saeaudit.audit.mediators.inputs", "MediatorInputs"),
    "MediatorOptions": ("saeaudit.audit.mediators.options", "MediatorOptions"),
    "score": ("saeaudit.audit.score.api", "score"),
    "ScoreInputs": ("saeaudit.audit.score.inputs", "ScoreInputs"),
    "ScoreOptions": ("saeaudit.audit.score.options", "ScoreOptions"),
    "ScanOptions": ("saeaudit.audit.scan.options", "ScanOptions"),
    "Dictionary": ("saeaudit.dictionary", "Dictionary"),
}


def __getattr__(name: str) -> Any:
    """Load the API on first use, so that `saeaudit --help` need not import torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'saeaudit' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
