"""Lists of what was found: figures beside the features that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.findings import Member, figures, members
from saeaudit.formats.screen.layout import aligned
from saeaudit.formats.screen.wording import percent
from saeaudit.records import Finding, PairRecord


@dataclass(frozen=True)
class Entry:
    """One thing that was found."""

    figures: Sequence[tuple[str, str]]
    """Its numbers by name."""
    members: Sequence[Member]
    """The features that it is of."""
    known: bool = False
    """Whether a baseline has it."""
    more: int = 0
    """Features that are not among the members."""

    @property
    def relation(self) -> str:
        """The features in one line, each after its role."""
        between = " and " if len(self.members) == 2 and not self.more else " "
        if not any(member.role for member in self.members) and between == " ":
            between = ", "
        words = between.join(f"{member.role} {member.feature}".strip() for member in self.members)
        return words + (f" and {self.more:,} more" if self.more else "")


def entry(finding: Finding) -> Entry:
    """A finding of a scan as an entry."""
    listed = members(finding)
    more = 0 if isinstance(finding, PairRecord) else len(finding.features) - len(listed)
    return Entry(figures(finding), listed, bool(finding.known), more)


def entry_lines(entries: Sequence[Entry], width: int) -> list[str]:
    """Entries below a heading: a line each, or a block where something is known of features.

    A block has a line for each figure, and beside it one for each feature; where lines are too long
    for the width there are blocks as well.

    Args:
        entries: with figures of the same names.
        width: cells of a line; labels are cut to it, numbers are not.
    """
    every = [member for one in entries for member in one.members]
    if not any(member.label or member.firing_rate is not None for member in every):
        lines = _a_line_each(entries)
        if max(map(cell_len, lines), default=0) <= width:
            return lines
    return _a_block_each(entries, every, width)


def _a_line_each(entries: Sequence[Entry]) -> list[str]:
    names = max(len(one.figures) for one in entries)
    rows = []
    for one in entries:
        pairs = [*one.figures, *[("", "")] * (names - len(one.figures))]
        figure_cells = [cell for pair in pairs for cell in pair]
        rows.append((*figure_cells, one.relation + (" (known)" if one.known else "")))
    return aligned(rows, 0, range(1, 2 * names, 2), cut_last=False)


def _a_block_each(entries: Sequence[Entry], every: Sequence[Member], width: int) -> list[str]:
    digits = max(len(str(member.feature)) for member in every)
    rated = any(member.firing_rate is not None for member in every)
    rows: list[tuple[str, ...]] = []
    for one in entries:
        known = [("(known)", "")] if one.known else []
        left = [*one.figures, *known]
        right = [_cells(member, digits, rated) for member in one.members]
        if one.more:
            right.append((f"and {one.more:,} more", *[""] * (2 if rated else 1)))
        lines = max(len(left), len(right))
        left += [("", "")] * (lines - len(left))
        right += [("",) * (3 if rated else 2)] * (lines - len(right))
        rows += [(*figure, *member) for figure, member in zip(left, right, strict=True)]
    return aligned(rows, width, (1, 2, 3) if rated else (1, 2), cut_last=True)


def _cells(member: Member, digits: int, rated: bool) -> tuple[str, ...]:
    name = f"{member.role} {member.feature:>{digits}}".strip()
    label = escape(member.label, NAME) if member.label else ""
    if not rated:
        return name, label
    return name, "" if member.firing_rate is None else percent(member.firing_rate), label
