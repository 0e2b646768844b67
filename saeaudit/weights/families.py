"""The families of weight files, and which of them reads a file.

A new family is a module of its own with one class, and a line here.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from saeaudit.weights.circuit_tracer import CircuitTracer
from saeaudit.weights.clt import CrossLayerTranscoder
from saeaudit.weights.dictionary_learning import DictionaryLearning
from saeaudit.weights.gemma_scope import GemmaScope, GemmaScope2
from saeaudit.weights.goodfire import Goodfire
from saeaudit.weights.interface import Family, Present
from saeaudit.weights.llama_scope import LlamaScope, LlamaScopeR1
from saeaudit.weights.plain import Plain
from saeaudit.weights.qwen_scope import QwenScope
from saeaudit.weights.saelens import SaeLens
from saeaudit.weights.sparsify import Sparsify
from saeaudit.weights.temporal import Temporal

FAMILIES: tuple[Family, ...] = (
    GemmaScope(),
    GemmaScope2(),
    SaeLens(),
    Sparsify(),
    DictionaryLearning(),
    LlamaScope(),
    LlamaScopeR1(),
    QwenScope(),
    CircuitTracer(),
    CrossLayerTranscoder(),
    Goodfire(),
    Temporal(),
    Plain(),
)
"""All families, the most specific first; the last claims every file."""


def on_disk(file: PurePath) -> bool:
    """Whether a file is there, on this machine."""
    try:
        return Path(file).is_file()
    except OSError:  # its folder is closed
        return False


def family_of(file: PurePath, present: Present = on_disk) -> Family:
    """Return the family that reads a weight file."""
    return next(family for family in FAMILIES if family.claims(file, present))
