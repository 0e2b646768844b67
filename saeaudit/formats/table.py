"""A table for people, from the same records; it goes to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.claims import claim_lines
from saeaudit.records import (
    ClaimRecord,
    DictionaryRecord,
    ErrorRecord,
    Finding,
    GroupRecord,
    PairRecord,
    Record,
    ScanSummary,
)
from saeaudit.vocabulary import CONTROLS

SHOWN = 8
"""Findings of each kind shown below the table."""


class ScanTable:
    """Collects what the table shows while records go by."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shape: dict[str, str] = {}
        self._rows: list[tuple[str, ...]] = []
        self._findings: dict[str, list[str]] = {}
        self._claims: list[str] = []

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, DictionaryRecord):
            self._shape[record.sae] = f"{record.d_sae} x {record.d_in}"
            self._findings = {"pair": [], "group": [], "triple": []} if not self._rows else {}
        elif isinstance(record, ClaimRecord):
            self._claims += claim_lines(record)
        elif isinstance(record, Finding):
            lines = self._findings.get(record.type)
            if lines is not None and len(lines) < SHOWN:
                lines.append(_line(record))
        elif isinstance(record, ScanSummary):
            self._rows.append(_row(record, self._shape.get(record.sae, "")))
        elif isinstance(record, ErrorRecord):
            self._rows.append((escape(record.sae, NAME), "error", "", "", "", "", "", ""))

    def end(self) -> None:
        """Print the table; with a single SAE, also its first findings; then answers to claims."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("SAE", overflow="fold")
        for name in ("features x width", "duplicates", "antipodal", "triples", "redundant",
                     "coherence", "max cos p50 (random)"):  # fmt: skip
            table.add_column(name, justify="right")
        for row in self._rows:
            table.add_row(*(Text(cell) for cell in row))
        if self._rows:
            self._console.print(table)
        if len(self._rows) == 1:
            for lines in self._findings.values():
                for line in lines:
                    self._console.print(Text(line))
        for line in self._claims:
            self._console.print(Text(line), soft_wrap=True)


def control_lines(record: DictionaryRecord) -> list[str]:
    """What people read first where records are of a control; no line where they are of an SAE."""
    if record.control is None:
        return []
    return [f"{escape(record.sae, NAME)} is a control: {CONTROLS[record.control]}"]


def _row(record: ScanSummary, shape: str) -> tuple[str, ...]:
    median = f"{record.max_cosine.quantiles.p50:.3f} ({record.random_control.p50:.3f})"
    return (
        escape(record.sae, NAME),
        shape,
        f"{record.pairs:,}",
        f"{record.antipodal_pairs:,}",
        f"{record.triples:,}" + ("" if record.complete else " (cut)"),
        f"{record.duplicate_fraction:.2%}",
        f"{record.coherence:.4f}",
        median,
    )


def _line(record: Finding) -> str:
    if isinstance(record, PairRecord):
        i, j = record.features
        return f"  {record.kind:<9}  {i} and {j}: cosine {record.cosine:.4f}"
    if isinstance(record, GroupRecord):
        members = ", ".join(map(str, record.features[:6])) + (" …" if record.size > 6 else "")
        return f"  group      {record.size} features: {members}"
    f1, f2, f3 = record.features
    a, b = record.coefficients
    sign = "-" if a < 0 else "+"
    return (
        f"  triple     {f3} = {b:.3f} x {f2} {sign} {abs(a):.3f} x {f1}: residual "
        f"{record.residual:.3f} (one feature alone {record.single_residual:.3f})"
    )
