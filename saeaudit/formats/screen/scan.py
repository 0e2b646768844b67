"""What people are shown of a scan: the answer in sentences, the worst findings, what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.by_sae import BySae
from saeaudit.formats.screen.claims import claim_lines
from saeaudit.formats.screen.findings import distance, worst_first
from saeaudit.formats.screen.layout import INDENT, common_folder, comparison, paragraph, show
from saeaudit.formats.screen.listing import entry, entry_lines
from saeaudit.formats.screen.scan_summary import (
    doubts,
    meaning,
    news,
    nothing_near,
    population,
    redundancy,
    unwritten,
)
from saeaudit.formats.screen.wording import (
    Place,
    control_lines,
    counted,
    pages_line,
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
            lines = several_saes(done, self._limits, self._place, width)
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


def several_saes(
    done: Sequence[Scanned], limits: dict[str, float], place: Place, width: int
) -> list[str]:
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
    for text in reservations(done, folder):
        lines += paragraph(text, width)
    if not any(sum(totals(scanned).values()) for scanned in done):
        lines += paragraph(nothing_near(nearest_over_all(done), limits, folder), width)
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
        for text in others:
            lines += paragraph(text.lstrip(), width, 2 * INDENT, hang=INDENT)
    return lines


def reservations(done: Sequence[Scanned], folder: str) -> list[str]:
    """What else several SAEs' rows do not say: doubts, findings not written, what is known."""
    sentences = []
    for scanned in done:
        name = short_name(scanned.dictionary.sae, folder)
        if scanned.summary:
            sentences += [f"{name}: {text}" for text in doubts(scanned.summary)]
    cut = sum(scanned.summary is not None and not scanned.summary.complete for scanned in done)
    if cut:
        sentences.append(unwritten(f" of {counted(cut, 'SAE', 'SAEs')}"))
    compared = [scanned.known for scanned in done if scanned.known is not None]
    if compared:
        sentences.append(news(sum(scanned.new for scanned in done), sum(compared)))
    return sentences


def nearest_over_all(done: Iterable[Scanned]) -> ScanSummary:
    """The summary of the SAE whose closest pair is the closest."""
    summaries = [scanned.summary for scanned in done if scanned.summary]
    return max(summaries, key=lambda summary: abs(summary.closest_pair.cosine))


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
    sentences += doubts(summary)
    if any(totals(scanned).values()):
        sentences += [redundancy(summary), findings_counted(summary, limits)]
    else:
        sentences.append(nothing_near(summary, limits))
    if scanned.distinct:
        sentences.append(other_detectors(scanned))
    if not summary.complete:
        sentences.append(unwritten())
    if scanned.known is not None:
        sentences.append(news(scanned.new, scanned.known))
    return [*sentences, neighbours(summary)]


def findings_counted(summary: ScanSummary, limits: dict[str, float]) -> str:
    """How many findings there are, and of which thresholds."""
    cosine = limits.get("min_cosine", MIN_COSINE.default)
    residual = limits.get("max_residual", MAX_RESIDUAL.default)
    return (
        f"The decoder has {counted(summary.pairs, *TITLES['duplicate'])} and "
        f"{counted(summary.antipodal_pairs, *TITLES['antipodal'])} (|cosine| of {cosine:g} or "
        f"more), and {counted(summary.triples, *TITLES['triple'])} (residual of {residual:g} or "
        "less)."
    )


def other_detectors(scanned: Scanned) -> str:
    """How many duplicates write the same and detect something else."""
    pairs = f"{scanned.distinct:,} of the {scanned.with_encoder:,} duplicate pairs"
    has, whose = ("has", "its") if scanned.distinct == 1 else ("have", "their")
    return (
        f"{'The duplicate pair' if scanned.with_encoder == 1 else pairs} {has} an encoder cosine "
        f"below {DISTINCT:g}: {whose} two features detect different things."
    )


def neighbours(summary: ScanSummary) -> str:
    """How near features are to each other, beside random rows."""
    return (
        "The nearest neighbour of the median feature is at |cosine| "
        f"{summary.max_cosine.quantiles.p50:.3f}; among random rows of this shape at "
        f"{summary.random_control.p50:.3f}."
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
