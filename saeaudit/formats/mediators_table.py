"""What `saeaudit mediators` tells people, from the same records."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.formats.side_by_side import codes_table
from saeaudit.formats.table import control_lines
from saeaudit.records import (
    DictionaryRecord,
    Interval,
    Involved,
    MediatorRecord,
    MediatorsSummary,
    Record,
)

SHOWN = 8
"""Exchanges shown below the table."""
TOKENS_SHOWN = 2
"""Tokens whose codes are shown in full: those with the most accurate alternatives to the refit,
and of these the ones that change most."""
STEPS = (0.1, 0.2, 0.33)
"""Changes of the code at which the table shows shares of tokens."""


class MediatorsTable:
    """Collects what is shown while records go by."""

    def __init__(
        self, console: Console, texts: Mapping[str, Mapping[int, str]] | None = None
    ) -> None:
        # A mapping that is empty now may hold each SAE's texts by the end.
        self._console, self._texts = console, {} if texts is None else texts
        self._examples: list[MediatorRecord] = []
        self._changing: dict[str, list[MediatorRecord]] = {}
        self._summaries: list[MediatorsSummary] = []
        self._controls: list[str] = []

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, DictionaryRecord):
            self._controls += control_lines(record)
        elif isinstance(record, MediatorRecord) and record.token is None:
            if len(self._examples) < SHOWN:
                self._examples.append(record)
        elif isinstance(record, MediatorRecord):
            changing = self._changing.setdefault(record.sae, [])
            if not any(_strength(kept) >= _strength(record) for kept in changing
                       if kept.token == record.token):  # fmt: skip
                others = [kept for kept in changing if kept.token != record.token]
                others = sorted([*others, record], key=_strength, reverse=True)
                self._changing[record.sae] = others[:TOKENS_SHOWN]
        elif isinstance(record, MediatorsSummary):
            self._summaries.append(record)

    def end(self) -> None:
        """Print the first examples, and for each SAE with activations a table and two tokens."""
        for line in self._controls:
            self._console.print(Text(line), soft_wrap=True)
        for example in self._examples:
            self._print_codes(example)
        for summary in self._summaries:
            if summary.tokens:
                self._print(summary)
                for record in self._changing.get(summary.sae, ()):
                    self._print_codes(record)

    def _print_codes(self, record: MediatorRecord) -> None:
        """Print a code and its alternative side by side, with what each feature's label says."""
        self._console.print(Text(_heading(record)), soft_wrap=True)
        texts = self._texts.get(record.sae, {})
        self._console.print(codes_table(record.codes, record.alternative, texts))

    def _print(self, summary: MediatorsSummary) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        steps = [f"… {step:.0%}" for step in STEPS]
        for name in ("mode", "tolerance", "tokens with another code", "attainable",
                     f"changing {STEPS[0]:.0%}", *steps[1:], "alternatives a token",
                     "droppable features"):  # fmt: skip
            table.add_column(name, justify="left" if name == "mode" else "right")
        for row in summary.non_unique:
            share = {c.change: c.fraction for c in row.by_change}
            table.add_row(
                row.mode, f"{row.epsilon:g}",
                _percent(row.non_unique_fraction, row.non_unique_interval),
                _percent(row.attainable_fraction, row.attainable_interval),
                *(f"{share[step]:.1%}" for step in STEPS),
                f"{row.mean_alternatives:,.0f}" + _ends(row.alternatives_interval, ",.0f"),
                f"{row.mean_droppable:.1f}",
            )  # fmt: skip
        self._console.print(table)
        refit = "the encoder's codes leave no error"
        if summary.refit_gap is not None:
            refit = (
                f"least squares on the encoder's own features leave {summary.refit_gap:.3f} of its "
                "squared error"
            )
        if summary.mean_refit_change is not None:
            refit += f", and change its code by {summary.mean_refit_change:.1%}"
        self._console.print(
            Text(
                f"{escape(summary.sae, NAME)}: {summary.tokens:,} tokens, "
                f"mean L0 {summary.mean_l0:.1f}; {refit}"
            )
        )
        for encoder in summary.encoders[1:]:
            self._console.print(
                Text(
                    f"  {escape(encoder.name, NAME)}: L0 {encoder.mean_l0:.1f}, error "
                    f"{_share(encoder.fvu)} of the variance "
                    f"({_share(summary.fvu_encoder)} for the SAE's own), "
                    f"{encoder.support_agreement:.0%} of the features in common"
                )
            )
        for pair in summary.most_involved[:SHOWN]:
            self._console.print(
                Text(
                    f"  {pair.removed} for {pair.added}: best exchange on {pair.tokens} tokens"
                    + self._said(summary.sae, pair)
                ),
                soft_wrap=True,
            )

    def _said(self, sae: str, pair: Involved) -> str:
        """What the explanations of two features say, where there are any."""
        texts = self._texts.get(sae, {})
        if pair.removed not in texts and pair.added not in texts:
            return ""
        removed, added = (escape(texts.get(f, "?"), NAME) for f in (pair.removed, pair.added))
        return f": {removed} | {added}"


def _percent(share: float | None, interval: Interval | None) -> str:
    return "-" if share is None else f"{share:.1%}" + _ends(interval, ".0%")


def _ends(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval.low:{form}}-{interval.high:{form}})"


def _share(fvu: float | None) -> str:
    return "-" if fvu is None else f"{fvu:.3f}"


def _strength(record: MediatorRecord) -> tuple[bool, float, float]:
    """Alternatives to the refit before others, as accurate ones first, by how much they change."""
    return record.mode == "refit", -record.epsilon, record.change or 0.0


def _heading(record: MediatorRecord) -> str:
    (removed,), (added,) = record.removed, record.added
    change = "" if record.change is None else f", a change of {record.change:.1%}"
    if record.token is not None:
        if change:
            of_refit = " from the refit (z is the encoder's code)"
            change += " from z" if record.mode == "reconstruction" else of_refit
        text = "" if record.text is None else f" {escape(record.text, NAME)!r}"
        return (
            f"token {record.token}{text}: {added} for {removed} ({record.mode}, tolerance "
            f"{record.epsilon:g}){change}"
        )
    ratio = 0.0 if record.error_ratio is None else max(record.error_ratio, 0.0) ** 0.5
    holds = "" if record.valid == "always" else f", while {record.valid}"
    return f"{added} for {removed}, to {ratio:.1%}{change}{holds}"
