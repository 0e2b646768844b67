"""What a scan's summary says to people, a sentence for each thing."""

from __future__ import annotations

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.findings import pair_sentence
from saeaudit.formats.screen.wording import counted, percent, short_name
from saeaudit.records import DictionaryRecord, ScanSummary


def population(dictionary: DictionaryRecord, summary: ScanSummary) -> str:
    """How many features there are, dead and alive."""
    name = escape(dictionary.sae, NAME)
    text = f"{name}: {dictionary.d_sae:,} features of width {dictionary.d_in:,}, "
    dead = summary.dead_features
    if not dead:
        text += "none of them dead."
    else:
        zero = len(dictionary.zero_rows)
        kinds = ((zero, "of zeros"), (dead - zero, "shrunk to nearly nothing"))
        rows = " and ".join(f"{count:,} {kind}" for count, kind in kinds if count)
        text += (
            f"{dead:,} dead ({percent(summary.dead_fraction)}; rows: {rows}) and "
            f"{summary.live_features:,} live."
        )
    broken = len(dictionary.nonfinite_rows)
    return text + (f" {counted(broken, 'row is', 'rows are')} not finite." if broken else "")


def doubts(summary: ScanSummary) -> list[str]:
    """Why rows that are taken for dead may not be; nothing where no doubt is."""
    if summary.collapsed_doubt is None:
        return []
    return [
        f"The dead may not all be dead: {summary.collapsed_doubt} (--include-collapsed keeps them)."
    ]


def redundancy(summary: ScanSummary) -> str:
    """How many features duplicate others."""
    count = round(summary.duplicate_fraction * summary.live_features)
    if not count:
        return "No live feature is redundant: none duplicates another."
    return (
        f"{count:,} of the {summary.live_features:,} live features "
        f"({percent(summary.duplicate_fraction)}) {'is' if count == 1 else 'are'} redundant: each "
        "points the way of one that stays."
    )


def unwritten(of: str = "") -> str:
    """That `--max-findings` has cut the records."""
    return f"Not all findings{of} are in the records: --max-findings writes more."


def news(new: int, known: int) -> str:
    """How many findings a baseline does not know, and knows."""
    return f"{counted(new, 'finding is', 'findings are')} new; the baseline knows {known:,}."


def nothing_near(summary: ScanSummary, limits: dict[str, float], folder: str | None = None) -> str:
    """That there is no finding, and which pair is nearest to one.

    Args:
        summary: of an SAE.
        limits: the thresholds by their names.
        folder: where the pair is of one of several SAEs, what their ids begin with.
    """
    thresholds = ", ".join(f"{name.replace('_', ' ')} {limits[name]:g}" for name in limits)
    of = "" if folder is None else f" is of {short_name(summary.sae, folder)}"
    return (
        f"Nothing within the thresholds ({thresholds}). The closest pair{of}: "
        f"{pair_sentence(summary.closest_pair)}."
    )


def meaning(summary: ScanSummary) -> str:
    """What follows from a scan, in a line."""
    if summary.pairs:
        return (
            "an activation that uses one feature of a duplicate pair has another code of the same "
            "size with the other: another explanation where encoder cosines are low or labels "
            "differ."
        )
    if summary.triples:
        return (
            "an activation that uses two features of a triple has another code of the same size "
            "with the third, and so another explanation."
        )
    if summary.antipodal_pairs:
        return (
            "features of an antipodal pair cancel each other where both are active; neither can "
            "stand for the other."
        )
    return (
        "no two or three rows allow an exchange by themselves; codes of real activations, of more "
        "features, may have others all the same."
    )
