"""One choice between codes, in short and in full."""

from __future__ import annotations

from collections.abc import Mapping

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.codes import code_lines
from saeaudit.formats.screen.findings import Member
from saeaudit.formats.screen.layout import aligned, paragraph
from saeaudit.formats.screen.listing import Entry
from saeaudit.formats.screen.wording import around
from saeaudit.records import ChoiceRecord, Pick
from saeaudit.vocabulary import NEAR

LEAVING = 4
"""Features that leave which are named in short."""


def choice_entry(record: ChoiceRecord) -> Entry:
    """A choice in short: bits, whether it is settled, and the features that are exchanged."""
    settled = {True: "yes", False: "no", None: "-"}[record.resolved]
    figures = [("wasted", f"{record.encoder_excess_bits or 0:.1f}"), ("settled", settled)]
    if record.disagreement is not None:
        figures.append(("labels", f"{record.disagreement:.2f}"))
    said = record.explanations
    members = []
    for role, features, texts in (
        ("in", record.added, said.added if said else ()),
        ("out", record.removed, said.removed if said else ()),
    ):
        labels = [*texts, *[None] * (len(features) - len(texts))]
        members += [Member(f, label=t, role=role) for f, t in zip(features, labels, strict=False)]
    shown = members[: len(record.added) + LEAVING]
    return Entry(figures, shown, more=len(members) - len(shown))


def explained(record: ChoiceRecord, texts: Mapping[int, str], width: int) -> list[str]:
    """The reference and the shortest code in full, and how the choice stands."""
    name = "example" if record.token is None else f"token {record.token}"
    text = f" {escape(repr(record.text), NAME)}{around(record)}" if record.text else ""
    lines = paragraph(f"{name}{text}: L0 {record.l0}", width)
    if not record.alternative:
        return [*lines, "  no code in which another feature is on is as accurate"]
    lines += code_lines(record.codes, record.alternative, texts, width)
    rows = [("", "encoder", "its features", "another")]
    for title, compared in (
        ("bits", record.bits), ("half bins", record.bits_half), ("quarter", record.bits_quarter),
    ):  # fmt: skip
        kinds = compared.reference, compared.support, compared.alternative
        rows.append((title, _bits(kinds[0]), _bits(kinds[1]), _bits(kinds[2])))
    lines += aligned(rows, width, (1, 2, 3), cut_last=False)
    verdict = {True: "settled: ", False: "not settled: ", None: ""}[record.resolved]
    margin = "" if record.margin_bits is None else f", {_lead(record.margin_bits, record)} ahead"
    wins = "" if record.wins is None else f", in {record.wins:.0%} of the resamples"
    gap = f"; at most {record.gap_bits:.2f} bits are left unproved" if record.gap_bits else ""
    best = f"{verdict}fewest bits: {_pick(record.picks.mdl, record)}{margin}{wins}{gap}"
    lines += paragraph(best, width, 2)
    for norm, pick in (("L1", record.picks.l1), ("L2", record.picks.l2)):
        if pick is not None:
            lines += paragraph(f"least {norm} at no more error: {_pick(pick, record)}", width, 2)
    if record.disagreement is not None:
        method = escape(record.similarity_method or "", NAME)
        said = f"the labels differ by {record.disagreement:.2f} ({method})"
        if record.percentile is not None:
            said += f", more than {record.percentile:.0%} of random pairs of features do"
        lines += paragraph(said, width, 2)
    return lines


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
