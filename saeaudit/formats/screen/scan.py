"""What people are shown of a scan: the answer in sentences, the worst findings, what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.by_sae import BySae
from saeaudit.formats.screen.claims import claim_lines
from saeaudit.formats.screen.findings import distance, pair_sentence, worst_first
from saeaudit.formats.screen.layout import INDENT, common_folder, comparison, paragraph, show
from saeaudit.formats.screen.listing import entry, entry_lines
from saeaudit.formats.screen.wording import (
    Place,
    control_lines,
    counted,
    pages_line,
    percent,
    short_name,
)
from saeaudit.records import (
    ClaimRecord,
    DictionaryRecord,
    ErrorRecord,
    Finding,
    PairRecord,
    Record,
    Run,
    ScanSummary,
    kind_of,
)
from saeaudit.vocabulary import MAX_RESIDUAL, MIN_COSINE, SCAN_THRESHOLDS

SHOWN = {"duplicate": 8, "antipodal": 4, "group": 3, "triple": 4}
"""Findings of each kind that are shown of one SAE."""
WORST = 3
"""Findings shown of several SAEs together."""
DISTINCT = 0.5
"""Encoder cosine below which two features detect something else."""
TITLES = {
    "duplicate": ("duplicate pair", "duplicate pairs"),
    "antipodal": ("antipodal pair", "antipodal pairs"),
    "group": ("group of duplicates", "groups of duplicates"),
    "triple": ("dependent triple", "dependent triples"),
}


@dataclass
class Scanned:
    """What is kept of one SAE's records."""

    dictionary: DictionaryRecord
    summary: ScanSummary | None = None
    """None until the scan of it has ended."""
    worst: dict[str, list[Finding]] = field(default_factory=dict)
    """Kind → the worst findings, that one first."""
    claims: list[ClaimRecord] = field(default_factory=list)
    """Answers to claims."""
    groups: int = 0
    """Groups of duplicates."""
    with_encoder: int = 0
    """Duplicates whose encoder cosine is known."""
    distinct: int = 0
    """Those of them whose encoder cosine is below `DISTINCT`."""
    known: int | None = None
    """Findings that the baseline knows; None without one."""
    new: int = 0
    """Findings that it does not."""

    def add(self, record: Finding | ClaimRecord | ScanSummary) -> None:
        """Take one record."""
        if isinstance(record, ClaimRecord):
            self.claims.append(record)
        elif isinstance(record, ScanSummary):
            self.summary = record
        else:
            self._list(record)

    def _list(self, finding: Finding) -> None:
        kind = kind_of(finding)
        kept = sorted([*self.worst.get(kind, ()), finding], key=worst_first)
        self.worst[kind] = kept[: SHOWN[kind]]
        self.groups += kind == "group"
        if isinstance(finding, PairRecord) and kind == "duplicate":
            encoder = finding.encoder_cosine
            self.with_encoder += encoder is not None
            self.distinct += encoder is not None and encoder < DISTINCT
        if finding.known is not None:
            self.known = (self.known or 0) + finding.known
            self.new += not finding.known


class ScanScreen:
    """Collects what is shown while records go by.

    Args:
        console: where to print.
        place: where the records are.
    """

    def __init__(self, console: Console, place: Place | None = None) -> None:
        self._console, self._place = console, place or Place()
        self._scanned: BySae[Scanned] = BySae()
        self._failed: list[ErrorRecord] = []
        self._limits = limits_of(None)

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, Run):
            self._limits = limits_of(record)
        elif isinstance(record, DictionaryRecord):
            self._scanned.begin(record.sae, Scanned(record))
        elif isinstance(record, ErrorRecord):
            self._failed.append(record)
        elif isinstance(record, Finding | ClaimRecord | ScanSummary):
            scanned = self._scanned.get(record.sae)
            if scanned is not None:
                scanned.add(record)

    def end(self) -> None:
        """Print."""
        done = self._scanned.done
        width = self._console.width
        if len(done) == 1:
            lines = one_sae(done[0], self._limits, self._place, width)
        else:
            lines = several_saes(done, self._place, width)
        for error in self._failed:
            reason = f"Not audited: {escape(error.sae, NAME)}: {escape(error.reason)}"
            lines += paragraph(reason, width)
        show(self._console, [*lines, *self._place.last_lines] if done else lines)


def limits_of(run: Run | None) -> dict[str, float]:
    """Thresholds of a scan by their names: a run's, or the defaults where it does not say."""
    limits = {name: threshold.default for name, threshold in SCAN_THRESHOLDS.items()}
    arguments = run.arguments if run else {}
    asked = {name: arguments.get(name) for name in limits}
    return limits | {k: float(v) for k, v in asked.items() if isinstance(v, (int, float))}


def one_sae(scanned: Scanned, limits: dict[str, float], place: Place, width: int) -> list[str]:
    """The screen of one SAE."""
    dictionary, summary = scanned.dictionary, scanned.summary
    assert summary is not None
    lines = control_lines(dictionary)
    for text in answer(scanned, limits):
        lines += paragraph(text, width)
    for kind, total in totals(scanned).items():
        worst = scanned.worst.get(kind, [])
        if worst:
            heading = counted(total, *TITLES[kind]) + (", worst first" if total > 1 else "")
            lines += ["", heading, *entry_lines(list(map(entry, worst)), width)]
            if total > len(worst):
                lines.append(f"  … {total - len(worst):,} more: {place.show}")
    lines += [*answers(scanned, width), ""]
    if dictionary.neuronpedia and any(totals(scanned).values()):
        lines.append(pages_line(dictionary.neuronpedia))
    lines += paragraph(f"What it means: {meaning(summary)}", width)
    return [*lines, *next_lines(scanned, place)]


def several_saes(done: Sequence[Scanned], place: Place, width: int) -> list[str]:
    """The screen of several SAEs: a row for each, and the worst findings over all."""
    if not done:
        return []
    names = [scanned.dictionary.sae for scanned in done]
    folder = common_folder(names)
    titles = ("SAE", "features", "dead", "duplicates", "antipodal", "triples", "redundant",
              "neighbour", "random")  # fmt: skip
    rows = [(short_name(scanned.dictionary.sae, folder), *_cells(scanned)) for scanned in done]
    lines = [line for scanned in done for line in control_lines(scanned.dictionary)]
    lines.append(f"{counted(len(done), 'SAE', 'SAEs')} in {escape(folder, NAME)}" if folder
                 else counted(len(done), "SAE", "SAEs"))  # fmt: skip
    lines += comparison(titles, rows, width)
    worst = worst_over_all(done)
    for scanned, finding in worst:
        name = short_name(scanned.dictionary.sae, folder)
        lines += [
            "",
            f"{name}: {TITLES[kind_of(finding)][0]}",
            *entry_lines([entry(finding)], width),
        ]
        if scanned.dictionary.neuronpedia:
            lines.append(f"  {pages_line(scanned.dictionary.neuronpedia)}")
    lines += [line for scanned in done for line in answers(scanned, width)]
    total = sum(sum(totals(scanned).values()) for scanned in done)
    if total > len(worst):
        lines.append(f"… {total - len(worst):,} more: {place.show}")
    lines.append("")
    legend = (
        "neighbour is the median feature's largest |cosine| with another, random the same of "
        "random rows of that shape."
    )
    lines += paragraph(legend, width)
    chosen = worst[0][0] if worst else done[0]
    if chosen.summary:
        lines += paragraph(f"What it means: {meaning(chosen.summary)}", width)
        lines += next_lines(chosen, place)
    return lines


def answers(scanned: Scanned, width: int) -> list[str]:
    """The block of each claim, an empty line before it."""
    lines = []
    for claim in scanned.claims:
        first, *others = claim_lines(claim)
        lines += ["", *paragraph(first, width)]
        lines += [line for text in others for line in paragraph(text, width, INDENT)]
    return lines


def worst_over_all(done: Iterable[Scanned]) -> list[tuple[Scanned, Finding]]:
    """The findings of several SAEs that are closest to dependent; pairs stand for their groups."""
    listed = [
        (scanned, finding)
        for scanned in done
        for kind, findings in scanned.worst.items()
        if kind != "group" or "duplicate" not in scanned.worst
        for finding in findings
    ]
    listed.sort(key=lambda pair: (bool(pair[1].known), distance(pair[1])))
    return listed[:WORST]


def totals(scanned: Scanned) -> dict[str, int]:
    """How many findings of each kind there are, listed or not."""
    summary = scanned.summary
    assert summary is not None
    return {"duplicate": summary.pairs, "antipodal": summary.antipodal_pairs,
            "group": scanned.groups, "triple": summary.triples}  # fmt: skip


def answer(scanned: Scanned, limits: dict[str, float]) -> list[str]:
    """What a scan says of one SAE, in sentences: dead, redundant, findings, neighbours."""
    summary = scanned.summary
    assert summary is not None
    sentences = [population(scanned.dictionary, summary)]
    if summary.collapsed_doubt:
        sentences.append(
            f"They may not all be dead: {summary.collapsed_doubt} (--include-collapsed keeps them)."
        )
    if any(totals(scanned).values()):
        sentences += [redundancy(summary), findings_counted(summary, limits)]
    else:
        sentences.append(nothing_near(summary, limits))
    if scanned.distinct:
        sentences.append(
            f"{scanned.distinct:,} of the {scanned.with_encoder:,} duplicate pairs have encoder "
            f"cosines below {DISTINCT:g}: their two features detect different things."
        )
    if not summary.complete:
        sentences.append("Not all findings are in the records: --max-findings writes more.")
    if scanned.known is not None:
        sentences.append(
            f"{counted(scanned.new, 'finding is', 'findings are')} new; the baseline knows "
            f"{scanned.known:,}."
        )
    return [*sentences, neighbours(summary)]


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


def redundancy(summary: ScanSummary) -> str:
    """How many features duplicate others."""
    count = round(summary.duplicate_fraction * summary.live_features)
    if not count:
        return "No live feature is redundant: none duplicates another."
    return (
        f"{count:,} of the {summary.live_features:,} live features "
        f"({percent(summary.duplicate_fraction)}) are redundant: each points the way of one that "
        "stays."
    )


def findings_counted(summary: ScanSummary, limits: dict[str, float]) -> str:
    """How many findings there are, and of which thresholds."""
    cosine = limits.get("min_cosine", MIN_COSINE.default)
    residual = limits.get("max_residual", MAX_RESIDUAL.default)
    return (
        f"{counted(summary.pairs, 'pair points', 'pairs point')} the same way and "
        f"{summary.antipodal_pairs:,} opposite ways (|cosine| of {cosine:g} or more); "
        f"{counted(summary.triples, 'triple is', 'triples are')} dependent to within {residual:g}."
    )


def nothing_near(summary: ScanSummary, limits: dict[str, float]) -> str:
    """That there is no finding, and which pair is nearest to one."""
    thresholds = ", ".join(f"{name.replace('_', ' ')} {limits[name]:g}" for name in limits)
    return (
        f"Nothing within the thresholds ({thresholds}). The closest pair: "
        f"{pair_sentence(summary.closest_pair)}."
    )


def neighbours(summary: ScanSummary) -> str:
    """How near features are to each other, beside random rows."""
    return (
        "The nearest neighbour of the median feature is at |cosine| "
        f"{summary.max_cosine.quantiles.p50:.3f}; among random rows of this shape at "
        f"{summary.random_control.p50:.3f}."
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


def next_lines(scanned: Scanned, place: Place) -> list[str]:
    """What to run next."""
    dictionary, summary = scanned.dictionary, scanned.summary
    assert summary is not None
    if summary.pairs or summary.triples:
        scan = f"--scan {place.file}"
        return place.next("the codes that are exchanged", "mediators", dictionary.sae, scan)
    if dictionary.codes_unavailable:
        return place.next("what is less close", "scan", dictionary.sae, "--min-cosine 0.5")
    return place.next("codes of real activations", "mediators", dictionary.sae)


def _cells(scanned: Scanned) -> tuple[str, ...]:
    dictionary, summary = scanned.dictionary, scanned.summary
    assert summary is not None
    return (
        f"{dictionary.d_sae:,} x {dictionary.d_in:,}",
        f"{summary.dead_features:,}",
        f"{summary.pairs:,}",
        f"{summary.antipodal_pairs:,}",
        f"{summary.triples:,}",
        f"{summary.duplicate_fraction:.2%}",
        f"{summary.max_cosine.quantiles.p50:.3f}",
        f"{summary.random_control.p50:.3f}",
    )
