"""Find and settle ambiguous explanations in sparse autoencoders.

>>> import saeaudit
>>> [record.type for record in saeaudit.scan("sample")]
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
    from saeaudit.audit.memory import from_saelens, from_tensors
    from saeaudit.audit.open import open_target as open
    from saeaudit.audit.scan.options import ScanOptions
    from saeaudit.audit.scan.run import scan
    from saeaudit.audit.score.api import score
    from saeaudit.audit.score.inputs import ScoreInputs
    from saeaudit.audit.score.options import ScoreOptions
    from saeaudit.dictionary import Dictionary
    from saeaudit.formats.frames import Records, read, to_frame
    from saeaudit.policy.rules import numbers_of as numbers
    from saeaudit.records import (
        BaselineRecord,
        ChoiceRecord,
        ClaimRecord,
        DictionaryRecord,
        ErrorRecord,
        FiringRecord,
        GroupRecord,
        ListingRecord,
        MediatorRecord,
        MediatorsSummary,
        PairRecord,
        Record,
        Run,
        ScanSummary,
        ScoreSummary,
        TokenRecord,
        TripleRecord,
        Verdict,
    )

__version__ = "0.1.0"
__all__ = [
    "AuditError",
    "BaselineRecord",
    "ChoiceRecord",
    "ClaimRecord",
    "Dictionary",
    "DictionaryRecord",
    "ErrorRecord",
    "FiringRecord",
    "GroupRecord",
    "ListingRecord",
    "MediatorInputs",
    "MediatorOptions",
    "MediatorRecord",
    "MediatorsSummary",
    "PairRecord",
    "Record",
    "Records",
    "Run",
    "ScanOptions",
    "ScanSummary",
    "ScoreInputs",
    "ScoreOptions",
    "ScoreSummary",
    "TokenRecord",
    "TripleRecord",
    "Verdict",
    "__version__",
    "from_saelens",
    "from_tensors",
    "mediators",
    "numbers",
    "open",
    "read",
    "scan",
    "score",
    "to_frame",
]

_WHERE = {
    "open": ("saeaudit.audit.open", "open_target"),
    "from_tensors": ("saeaudit.audit.memory", "from_tensors"),
    "from_saelens": ("saeaudit.audit.memory", "from_saelens"),
    "scan": ("saeaudit.audit.scan.run", "scan"),
    "mediators": ("saeaudit.audit.mediators.run", "mediators"),
    "MediatorInputs": ("saeaudit.audit.mediators.inputs", "MediatorInputs"),
    "MediatorOptions": ("saeaudit.audit.mediators.options", "MediatorOptions"),
    "score": ("saeaudit.audit.score.api", "score"),
    "ScoreInputs": ("saeaudit.audit.score.inputs", "ScoreInputs"),
    "ScoreOptions": ("saeaudit.audit.score.options", "ScoreOptions"),
    "ScanOptions": ("saeaudit.audit.scan.options", "ScanOptions"),
    "Dictionary": ("saeaudit.dictionary", "Dictionary"),
    "Records": ("saeaudit.formats.frames", "Records"),
    "read": ("saeaudit.formats.frames", "read"),
    "to_frame": ("saeaudit.formats.frames", "to_frame"),
    "numbers": ("saeaudit.policy.rules", "numbers_of"),
}
"""Module and name of what is no record type; these are all in `saeaudit.records`."""


def __getattr__(name: str) -> Any:
    """Load the API on first use, so that `saeaudit --help` need not import torch."""
    if name not in __all__:
        raise AttributeError(f"module 'saeaudit' has no attribute {name!r}")
    module, attribute = _WHERE.get(name, ("saeaudit.records", name))
    return getattr(import_module(module), attribute)
