"""What `saeaudit score` tells people, from the same records."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.formats.table import control_lines
from saeaudit.records import ChoiceRecord, Code, DictionaryRecord, Pick, Record, ScoreSummary

COLUMNS = (
    "bits/token\n(95 %)", "bound", "error\n(quantised)", "L0", "bin", "non-\nunique", "resolved",
    "MDL = encoder,\nL1, L2", "disagreement\n(random)", "incoherent\n(chance)",
)  # fmt: skip


class ScoreTable:
    """Collects summaries while records go by."""

    def __init__(self, console: Console, explain: int | None = None) -> None:
        self._console, self._explain = console, explain
        self._rows: list[ScoreSummary] = []
        self._controls: list[str] = []

    def record(self, record: Record) -> None:
        """Take one record; a choice that is to be explained is printed."""
        if isinstance(record, DictionaryRecord):
            self._controls += control_lines(record)
        elif isinstance(record, ScoreSummary):
            self._rows.append(record)
        elif isinstance(record, ChoiceRecord) and self._explain is not None:
            explain(self._console, record)

    def end(self) -> None:
        """Print the table, the best rate and distortion first where one SAE dominates."""
        if not self._rows:
            return
        for line in self._controls:
            self._console.print(Text(line), soft_wrap=True)
        rows = sorted(self._rows, key=lambda row: len(dominating(row, self._rows)))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("SAE", overflow="fold")
        for name in COLUMNS:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(Text(escape(row.sae, NAME)), *map(Text, _cells(row)))
        self._console.print(table)
        for row in rows:
            name, others = escape(row.sae, NAME), dominating(row, self._rows)
            if row.incoherence_unavailable:
                reason = escape(row.incoherence_unavailable, NAME)
                self._console.print(Text(f"  {name}: incoherence: {reason}"), soft_wrap=True)
            if others:
                better = escape(others[0], NAME)
                line = f"  {name}: {better} has no more bits and no more error"
                self._console.print(Text(line), soft_wrap=True)
            if row.canonical:
                canonical = row.canonical
                line = (
                    f"  {name}: the encoder's codes waste "
                    f"{canonical.wasted_bits_per_token:.1f} of "
                    f"{canonical.encoder_bits_per_token:.1f} bits a token; codes of L0 "
                    f"{canonical.mean_l0:.1f} do as well ({canonical.tokens:,} tokens)"
                )
                self._console.print(Text(line), soft_wrap=True)


def dominating(row: ScoreSummary, rows: list[ScoreSummary]) -> list[str]:
    """SAEs with no more bits at no more error, and less of one: only these two compare."""

    def figures(summary: ScoreSummary) -> tuple[float, float] | None:
        error = summary.fvu_quantised
        return None if error is None else (summary.bits_per_token, error)

    dominated = figures(row)
    if dominated is None:
        return []
    bits, error = dominated
    return [
        rival.sae
        for rival in rows
        if (pair := figures(rival)) and pair[0] <= bits and pair[1] <= error and pair != dominated
    ]


def _cells(row: ScoreSummary) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    interval = row.bits_interval
    agreement, said = row.agreement, row.disagreements
    disagreement = incoherence = "-"
    if said and said.mean is not None:
        disagreement = f"{said.mean:.2f} ({said.random_mean:.2f})"
    if row.incoherence_chance:
        incoherence = f"{share(row.incoherence)} ({share(row.incoherence_chance.value)})"
    return (
        f"{row.bits_per_token:.1f}"
        + (f" ({interval.low:.1f}-{interval.high:.1f})" if interval else ""),
        f"{row.bound_bits_per_token:.1f}",
        "-" if row.fvu is None else f"{row.fvu:.4f} ({row.fvu_quantised:.4f})",
        f"{row.mean_l0:.1f}",
        f"{row.bin_width:.4g}",
        share(row.non_unique_fraction),
        share(row.resolved_fraction),
        "-"
        if agreement is None
        else f"{share(agreement.encoder)}, {share(agreement.l1)}, {share(agreement.l2)}",
        disagreement,
        incoherence,
    )


def explain(console: Console, record: ChoiceRecord) -> None:
    """Print a choice side by side: what both codes share, then what only one of them says."""
    name = "example" if record.token is None else f"token {record.token}"
    text = f" {escape(repr(record.text), NAME)}" if record.text else ""
    console.print(Text(f"{name}{text}: L0 {record.l0}"))
    if not record.alternative_count or not record.alternative:
        console.print(Text("  no other code of the same L0 is as accurate"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("feature", "encoder", "alternative", "explanation"):
        table.add_column(
            column, justify="left" if column == "explanation" else "right", overflow="fold"
        )
    codes = {c.feature: c for c in record.codes}
    alternative = {c.feature: c for c in record.alternative}
    texts: dict[int, str | None] = {}
    if record.explanations:
        texts.update(zip(record.removed, record.explanations.removed, strict=True))
        texts.update(zip(record.added, record.explanations.added, strict=True))
    changed = [f for f in (*codes, *alternative) if (f in codes) != (f in alternative)]
    for feature in sorted(changed, key=lambda f: f in alternative):
        text = escape(texts.get(feature) or "-", NAME)
        row = _code(codes.get(feature)), _code(alternative.get(feature)), text
        table.add_row(str(feature), *map(Text, row))
    shared = [f for f in codes if f in alternative]
    for feature in sorted(shared, key=lambda f: -codes[f].value):
        table.add_row(str(feature), _code(codes[feature]), _code(alternative[feature]), "(both)")
    table.add_row("bits", *map(_bits, (record.bits.reference, record.bits.alternative)), "")
    table.add_row("half bins", *map(_bits, _pair(record, "bits_half")), "")
    table.add_row("quarter", *map(_bits, _pair(record, "bits_quarter")), "")
    console.print(table)
    verdict = "not resolved: " if not record.resolved else ""
    margin = "" if record.margin_bits is None else f", {record.margin_bits:.2f} bits ahead"
    console.print(Text(f"  {verdict}fewest bits: {_pick(record.chosen.mdl)}{margin}"))
    console.print(
        Text(f"  least L1: {_pick(record.chosen.l1)}; least L2: {_pick(record.chosen.l2)}")
    )
    if record.disagreement is not None:
        method = escape(record.similarity_method or "", NAME)
        line = f"  the labels differ by {record.disagreement:.2f} ({method})"
        if record.percentile is not None:
            line += f", more than {record.percentile:.0%} of random pairs of features do"
        console.print(Text(line))


def _pair(record: ChoiceRecord, name: str) -> tuple[float | None, float | None]:
    compared = getattr(record, name)
    return compared.reference, compared.alternative


def _code(code: Code | None) -> str:
    return "" if code is None else f"{code.value:.3f}"


def _bits(value: float | None) -> str:
    return "never observed" if value is None else f"{value:.2f}"


def _pick(pick: Pick | None) -> str:
    if pick is None:
        return "the encoder's code has no price (a feature was never observed)"
    if not pick.added:
        return "the encoder's code"
    return f"{pick.added[0]} for {pick.removed[0]}"
