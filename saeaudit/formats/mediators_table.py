"""What `saeaudit mediators` tells people, from the same records."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.records import Involved, MediatorRecord, MediatorsSummary, Record

SHOWN = 8
"""Exchanges shown below the table."""


class MediatorsTable:
    """Collects what is shown while records go by."""

    def __init__(
        self, console: Console, texts: Mapping[str, Mapping[int, str]] | None = None
    ) -> None:
        # A mapping that is empty now may hold each SAE's texts by the end.
        self._console, self._texts = console, {} if texts is None else texts
        self._examples: list[str] = []
        self._summaries: list[MediatorsSummary] = []

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, MediatorRecord) and record.token is None:
            if len(self._examples) < SHOWN:
                self._examples.append(_example(record))
        elif isinstance(record, MediatorsSummary):
            self._summaries.append(record)

    def end(self) -> None:
        """Print the first examples, and a table for each SAE with activations."""
        for line in self._examples:
            self._console.print(Text(line))
        for summary in self._summaries:
            if summary.tokens:
                self._print(summary)

    def _print(self, summary: MediatorsSummary) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("mode", "tolerance", "tokens with another code", "… moving 5 %", "… 20 %",
                     "… 33 %", "alternatives a token"):  # fmt: skip
            table.add_column(name, justify="left" if name == "mode" else "right")
        for row in summary.non_unique:
            share = {m.moved: m.fraction for m in row.by_moved}
            table.add_row(
                row.mode, f"{row.epsilon:g}", f"{row.non_unique_fraction:.1%}",
                *(f"{share[m]:.1%}" for m in (0.05, 0.2, 0.33)), f"{row.mean_alternatives:,.0f}",
            )  # fmt: skip
        self._console.print(table)
        refit = "the encoder's codes leave no error"
        if summary.refit_gap is not None:
            refit = (
                f"least squares on the encoder's own features leave {summary.refit_gap:.3f} of its "
                "squared error"
            )
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
                    f"{encoder.fvu:.3f} of the variance "
                    f"({summary.fvu_encoder:.3f} for the SAE's own), "
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


def _example(record: MediatorRecord) -> str:
    def code(codes: tuple) -> str:  # type: ignore[type-arg]
        return " + ".join(f"{c.value:.3f} x {c.feature}" for c in codes)

    ratio = 0.0 if record.error_ratio is None else max(record.error_ratio, 0.0) ** 0.5
    return f"  {code(record.codes)} = {code(record.alternative)} to {ratio:.1%}" + (
        "" if record.valid == "always" else f" while {record.valid}"
    )
