"""Screens as text, and dictionaries like those that people meet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import torch
from rich.console import Console
from torch import Tensor

import saeaudit
from saeaudit.audit.annotations import AnnotationSources
from saeaudit.formats.interface import Table
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.wording import Place
from saeaudit.records import Record

FILE = Place("scan.jsonl")


def drawn(table: Callable[[Console], Table], records: Iterable[Record], width: int) -> str:
    """What a screen prints of records on a terminal of this width."""
    text = io.StringIO()
    shown = table(Console(file=text, width=width, highlight=False, color_system=None))
    for record in records:
        shown.record(record)
    shown.end()
    return text.getvalue()


def scan_screen(records: Iterable[Record], width: int) -> str:
    """The screen of a scan whose records go to a file."""
    return drawn(lambda console: ScanScreen(console, FILE), records, width)


def labelled(target: str) -> list[Record]:
    """A scan of a bundled SAE with what is known of its features."""
    dictionary = saeaudit.open(target)
    features = "fetched" if target == "sample" else None
    known = AnnotationSources(features=features).read(dictionary)
    return list(saeaudit.scan(dictionary, annotations=known))


def dead_twins() -> saeaudit.Dictionary:
    """1,024 features of which 849 have collapsed, among the others twins of unlike encoders."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1024, 96, generator=generator)
    rows = rows / rows.norm(dim=1, keepdim=True)
    encoder = rows.clone()
    for first, second, cosine, detects in (
        (301, 403, 0.9949, 0.2548), (301, 448, 0.9942, 0.0717), (20, 286, 0.9225, 0.88),
    ):  # fmt: skip
        rows[second] = _at(rows[first], cosine, generator)
        encoder[second] = _at(encoder[first], detects, generator)
    rows[77] = -_at(rows[12], 0.97, generator)
    live = torch.zeros(1024, dtype=torch.bool)
    live[[301, 403, 448, 20, 286, 12, 77]] = True
    live[torch.arange(600, 768)] = True
    rows[~live] *= 3e-5
    return saeaudit.Dictionary.from_rows(
        rows, "wild.pt", encoder=lambda: encoder.T, architecture="standard",
        b_enc=torch.zeros(1024),
    )  # fmt: skip


def _at(row: Tensor, cosine: float, generator: torch.Generator) -> Tensor:
    """A unit row of this cosine with a unit row."""
    other = torch.randn(row.shape, generator=generator)
    other -= (other @ row) * row
    return cosine * row + (1 - cosine**2) ** 0.5 * other / other.norm()
