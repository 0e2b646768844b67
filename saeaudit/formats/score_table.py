"""What `saeaudit score` tells people, from the same records."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.formats.side_by_side import codes_table
from saeaudit.formats.table import control_lines
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    Estimate,
    Pick,
    Record,
    ScoreSummary,
)
from saeaudit.vocabulary import NEAR

COLUMNS = (
    "bits/token\n(95 %)", "error\n(quantised)", "L0", "bin", "non-\nunique",
    "shortest: encoder,\nits features, other", "excess\nbits", "resolved\n(95 %)",
    "same enters\nby L1, L2", "disagreement\n(random)", "incoherent\n(chance)",
)  # fmt: skip


class ScoreTable:
    """Collects summaries while records go by."""

    def __init__(
        self, console: Console, explain: int | None = None,
        texts: Mapping[str, Mapping[int, str]] | None = None,
    ) -> None:  # fmt: skip
        # A mapping that is empty now may hold each SAE's texts by the end.
        self._console, self._explain = console, explain
        self._texts = {} if texts is None else texts
        self._rows: list[ScoreSummary] = []
        self._controls: list[str] = []

    def record(self, record: Record) -> None:
        """Take one record; a choice that is to be explained is printed."""
        if isinstance(record, DictionaryRecord):
            self._controls += control_lines(record)
        elif isinstance(record, ScoreSummary):
            self._rows.append(record)
        elif isinstance(record, ChoiceRecord) and self._explain is not None:
            explain(self._console, record, self._texts.get(record.sae, {}))

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

    def estimate(value: Estimate | None) -> str:
        return share(None if value is None else value.value)

    interval = row.bits_interval
    agreement, said, shares = row.agreement, row.disagreements, row.chosen_shares
    disagreement = incoherence = "-"
    if said and said.mean is not None:
        disagreement = f"{said.mean:.2f} ({said.random_mean:.2f})"
    if row.incoherence_chance:
        incoherence = f"{share(row.incoherence)} ({share(row.incoherence_chance.value)})"
    excess, resolved = row.mean_encoder_excess_bits, share(row.resolved_fraction)
    if row.resolved_interval:
        resolved += f" ({row.resolved_interval.low:.0%}-{row.resolved_interval.high:.0%})"
    return (
        f"{row.bits_per_token:.1f}"
        + (f" ({interval.low:.1f}-{interval.high:.1f})" if interval else ""),
        "-" if row.fvu is None else f"{row.fvu:.4f} ({row.fvu_quantised:.4f})",
        f"{row.mean_l0:.1f}",
        f"{row.bin_width:.4g}",
        share(row.non_unique_fraction),
        ", ".join(map(estimate, (shares.encoder, shares.support, shares.other))) if shares else "-",
        "-" if excess is None else f"{excess.value:.1f}",
        resolved,
        ", ".join(map(estimate, (agreement.l1, agreement.l2))) if agreement else "-",
        disagreement,
        incoherence,
    )


def explain(console: Console, record: ChoiceRecord, texts: Mapping[int, str]) -> None:
    """Print the reference and the shortest code in full, and how the choice stands."""
    name = "example" if record.token is None else f"token {record.token}"
    text = f" {escape(repr(record.text), NAME)}" if record.text else ""
    console.print(Text(f"{name}{text}: L0 {record.l0}"), soft_wrap=True)
    if not record.alternative:
        console.print(Text("  no code in which another feature is on is as accurate"))
        return
    console.print(codes_table(record.codes, record.alternative, texts))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "encoder", "its features", "another"):
        table.add_column(column, justify="left" if not column else "right")
    for width, compared in (
        ("bits", record.bits), ("half bins", record.bits_half), ("quarter", record.bits_quarter),
    ):  # fmt: skip
        kinds = compared.reference, compared.support, compared.alternative
        table.add_row(f"  {width}", *map(_bits, kinds))
    console.print(table)
    verdict = {True: "resolved: ", False: "not resolved: ", None: ""}[record.resolved]
    margin = "" if record.margin_bits is None else f", {_lead(record.margin_bits, record)} ahead"
    wins = "" if record.wins is None else f", in {record.wins:.0%} of the resamples"
    gap = f"; at most {record.gap_bits:.2f} bits are left unproved" if record.gap_bits else ""
    line = f"  {verdict}fewest bits: {_pick(record.picks.mdl, record)}{margin}{wins}{gap}"
    console.print(Text(line), soft_wrap=True)
    for norm, pick in (("L1", record.picks.l1), ("L2", record.picks.l2)):
        if pick is not None:
            line = f"  least {norm} at no more error: {_pick(pick, record)}"
            console.print(Text(line), soft_wrap=True)
    if record.disagreement is not None:
        method = escape(record.similarity_method or "", NAME)
        line = f"  the labels differ by {record.disagreement:.2f} ({method})"
        if record.percentile is not None:
            line += f", more than {record.percentile:.0%} of random pairs of features do"
        console.print(Text(line))


def _lead(margin: float, record: ChoiceRecord) -> str:
    """A lead in bits; where codes are searched for, none is looked for beyond `NEAR`."""
    capped = record.gap_bits is not None and margin >= NEAR
    return f"{margin:.2f} bits" + (" or more" if capped else "")


def _bits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pick(pick: Pick | None, record: ChoiceRecord) -> str:
    if pick is None:
        return "the encoder's code has no price (a feature was never observed)"
    if pick == Pick((), ()):
        same = record.chosen == "encoder" and pick == record.picks.mdl
        return "the encoder's code" if same else "the encoder's features"
    removed, added = (", ".join(map(str, features)) for features in (pick.removed, pick.added))
    return f"{added} for {removed}" if added else f"without {removed}"
