"""What people are shown of description lengths: bits, what is settled, labels against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.by_sae import BySae
from saeaudit.formats.screen.choices import choice_entry, explained
from saeaudit.formats.screen.firing import FiringList
from saeaudit.formats.screen.layout import common_folder, comparison, paragraph, show
from saeaudit.formats.screen.listing import entry_lines
from saeaudit.formats.screen.wording import (
    Place,
    around,
    between,
    control_lines,
    counted,
    percent,
    short_name,
    skipped_sentence,
)
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    Estimate,
    FiringRecord,
    Record,
    ScoreSummary,
)

SHOWN = 3
"""Choices that are shown."""
MEANING = (
    "What it means: bits choose between codes that accuracy and sparsity leave open. Where the "
    "choice is settled the shortest code is the canonical one; elsewhere no explanation of these "
    "is better founded than another."
)


@dataclass
class Scored:
    """What is kept of one SAE's records."""

    dictionary: DictionaryRecord | None
    choices: list[ChoiceRecord] = field(default_factory=list)
    """Those on which the encoder's code wastes most, that first."""
    explained: list[ChoiceRecord] = field(default_factory=list)
    """Those that are shown in full."""
    firing: FiringList = field(default_factory=FiringList)
    """How often features of findings fire together."""
    summary: ScoreSummary | None = None
    """None until all records have gone by."""

    def add(self, record: ChoiceRecord) -> None:
        """Take one choice."""
        if record.encoder_excess_bits and record.chosen == "other":
            self.choices = sorted([*self.choices, record], key=_waste)[:SHOWN]


class ScoreScreen:
    """Collects what is shown while records go by.

    Args:
        console: where to print.
        explain: a token whose codes are shown in full.
        texts: labels; a mapping that is empty now may hold each SAE's by the end.
        place: where the records are.
    """

    def __init__(
        self, console: Console, explain: int | None = None,
        texts: Mapping[str, Mapping[int, str]] | None = None, place: Place | None = None,
    ) -> None:  # fmt: skip
        self._console, self._explain = console, explain
        self._texts = {} if texts is None else texts
        self._place = place or Place()
        self._scored: BySae[Scored] = BySae()

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, DictionaryRecord):
            self._scored.begin(record.sae, Scored(record))
        elif isinstance(record, (ChoiceRecord, FiringRecord, ScoreSummary)):
            sae = record.sae
            scored = self._scored.get(sae) or self._scored.begin(sae, Scored(None))
            if isinstance(record, ScoreSummary):
                scored.summary = record
            elif isinstance(record, FiringRecord):
                scored.firing.add(record)
            elif self._explain is None:
                scored.add(record)
            else:
                scored.explained.append(record)

    def end(self) -> None:
        """Print, the best rate and distortion first where one SAE dominates."""
        done = self._scored.done
        width = self._console.width
        lines = [line for one in done if one.dictionary for line in control_lines(one.dictionary)]
        summaries = [scored.summary for scored in done if scored.summary]
        for scored in done:
            texts = self._texts.get(scored.summary.sae, {}) if scored.summary else {}
            for record in scored.explained:
                lines += [*explained(record, texts, width), ""]
        if len(done) == 1:
            lines += [line for text in answer(done[0]) for line in paragraph(text, width)]
        else:
            lines += compared(summaries, width)
        worst = sorted((c for scored in done for c in scored.choices), key=_waste)[:SHOWN]
        if worst:
            lines += [
                "",
                "Where the encoder's code wastes most, settled choices first",
                *choice_lines(worst, width, several=len(done) > 1),
            ]
            more = sum(summary.choices for summary in summaries) - len(worst)
            if more > 0:
                lines.append(f"  … {more:,} more: {self._place.show}")
        for scored in done:
            lines += scored.firing.lines(width, self._place)
        if done:
            lines += ["", *paragraph(MEANING, width), *self._next(worst, summaries)]
        show(self._console, [*lines, *self._place.last_lines] if done else [])

    def _next(self, worst: Sequence[ChoiceRecord], summaries: Sequence[ScoreSummary]) -> list[str]:
        controls = any(summary.control for summary in summaries)
        if not worst or worst[0].token is None or controls:
            return []
        option = f"--explain {worst[0].token}"
        return self._place.next("the codes of one token in full", "score", worst[0].sae, option)


def choice_lines(worst: Sequence[ChoiceRecord], width: int, *, several: bool) -> list[str]:
    """Choices under their tokens; of several SAEs, with the SAE's id before each."""
    lines = []
    for choice in worst:
        name = "an example" if choice.token is None else f"token {choice.token}"
        text = "" if choice.text is None else f" {escape(choice.text, NAME)!r}{around(choice)}"
        sae = f"{escape(choice.sae, NAME)}: " if several else ""
        lines += paragraph(f"{sae}{name}{text}", width, 2)
        lines += entry_lines([choice_entry(choice)], width)
    return lines


def answer(scored: Scored) -> list[str]:
    """What the scores of one SAE say, in sentences."""
    summary = scored.summary
    assert summary is not None
    sentences = [lengths(summary), distortion(summary), *skipped_sentence(summary.skipped)]
    if summary.non_unique_fraction is not None:
        sentences.append(
            f"{percent(summary.non_unique_fraction)} of "
            f"{counted(summary.choices, 'code looked at has', 'codes looked at have')} another one "
            "no less accurate."
        )
    sentences += [*shortest(summary), *settled(summary), *norms(summary), *labels(summary)]
    if summary.canonical:
        canonical = summary.canonical
        sentences.append(
            f"The encoder's codes waste {canonical.wasted_bits_per_token:.1f} of "
            f"{canonical.encoder_bits_per_token:.1f} bits a token: codes of L0 "
            f"{canonical.mean_l0:.1f} do as well ({canonical.tokens:,} tokens)."
        )
    return sentences


def lengths(summary: ScoreSummary) -> str:
    """How many bits a token takes, and what they say."""
    interval = between(summary.bits_interval, ".1f")
    return (
        f"{escape(summary.sae, NAME)}: {summary.bits_per_token:.1f} bits a token{interval}, "
        f"{summary.gate_bits:.1f} for which features are on and {summary.value_bits:.1f} for how "
        f"strongly; to name and value each by itself takes {summary.bound_bits_per_token:.1f}."
    )


def distortion(summary: ScoreSummary) -> str:
    """What these bits buy."""
    text = f"L0 {summary.mean_l0:.1f}, values in steps of {summary.bin_width:.4g}"
    if summary.fvu is None or summary.fvu_quantised is None:
        return f"{text}."
    return (
        f"{text}: {percent(summary.fvu)} of the variance is left over, "
        f"{percent(summary.fvu_quantised)} once values are rounded."
    )


def shortest(summary: ScoreSummary) -> list[str]:
    """Whose code is the shortest, and by how much; nothing without alternatives."""
    shares, excess = summary.chosen_shares, summary.mean_encoder_excess_bits
    if shares is None:
        return []
    parts = [
        f"{what} on {percent(estimate.value)}"
        for what, estimate in (
            ("the encoder's", shares.encoder), ("its features with other values", shares.support),
            ("one with another feature", shares.other),
        )
        if estimate
    ]  # fmt: skip
    if not parts:
        return []
    waste = "" if excess is None else f"; the encoder's takes {excess.value:.1f} bits more"
    return [f"The shortest is {', '.join(parts)}{waste}."]


def settled(summary: ScoreSummary) -> list[str]:
    """On which share of the choices the shortest code is beyond doubt."""
    if summary.resolved_fraction is None:
        reason = summary.resolved_unavailable
        return [f"Nothing is settled: {escape(reason, NAME)}."] if reason else []
    interval = between(summary.resolved_interval, ".0%")
    return [
        f"That is settled on {percent(summary.resolved_fraction)} of them{interval}: at all bin "
        "widths, by more than the margin, in resamples of the texts too."
    ]


def norms(summary: ScoreSummary) -> list[str]:
    """How often least L1 and least L2 take the same feature."""
    agreement = summary.agreement
    if agreement is None or agreement.l1 is None or agreement.l2 is None:
        return []
    return [
        f"Least L1 lets the same feature enter on {percent(agreement.l1.value)}, least L2 on "
        f"{percent(agreement.l2.value)}."
    ]


def labels(summary: ScoreSummary) -> list[str]:
    """How often labels of what is exchanged disagree, beside what chance gives."""
    if summary.incoherence_unavailable:
        return [f"Labels cannot be compared: {escape(summary.incoherence_unavailable, NAME)}."]
    chance, excess = summary.incoherence_chance, summary.incoherence_excess
    if summary.incoherence is None or chance is None:
        return []
    text = (
        f"Labels of what is exchanged disagree on {percent(summary.incoherence)}; labels dealt at "
        f"random do on {percent(chance.value)}"
    )
    if excess is None:
        return [f"{text}."]
    return [f"{text}, so {_compared_with_chance(excess)}."]


def compared(summaries: Sequence[ScoreSummary], width: int) -> list[str]:
    """A row for each SAE; only bits and error together compare two of them."""
    if not summaries:
        return []
    ranked = sorted(summaries, key=lambda row: len(dominating(row, summaries)))
    folder = common_folder([summary.sae for summary in summaries])
    titles = ("SAE", "bits a token", "error", "L0", "another code", "wasted", "settled",
              "incoherent", "by chance")  # fmt: skip
    rows = [(short_name(row.sae, folder), *_cells(row)) for row in ranked]
    in_folder = f" in {escape(folder, NAME)}" if folder else ""
    lines = [f"{len(rows)} SAEs{in_folder}", *comparison(titles, rows, width)]
    for row in ranked:
        name = short_name(row.sae, folder)
        for reason in filter(None, (row.incoherence_unavailable, row.resolved_unavailable)):
            lines += paragraph(f"{name}: {escape(reason, NAME)}", width, 2)
        for rival in dominating(row, summaries)[:1]:
            better = short_name(rival, folder)
            lines += paragraph(f"{name}: {better} has no more bits and no more error", width, 2)
    return lines


def dominating(row: ScoreSummary, rows: Sequence[ScoreSummary]) -> list[str]:
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
        return "-" if value is None else percent(value)

    excess, chance = row.mean_encoder_excess_bits, row.incoherence_chance
    return (
        f"{row.bits_per_token:.1f}",
        "-" if row.fvu_quantised is None else f"{row.fvu_quantised:.4f}",
        f"{row.mean_l0:.1f}",
        share(row.non_unique_fraction),
        "-" if excess is None else f"{excess.value:.1f}",
        share(row.resolved_fraction),
        share(row.incoherence),
        share(chance.value if chance else None),
    )


def _compared_with_chance(excess: Estimate) -> str:
    if excess.low > 0:
        return "exchanges change what is said more often than chance"
    if excess.high < 0:
        return "exchanged features are more alike than chance would have them"
    return "exchanges change what is said neither more nor less than chance"


def _waste(record: ChoiceRecord) -> tuple[bool, float, int]:
    """Sort key: settled choices first, then by the bits that the encoder's code wastes."""
    return not record.resolved, -(record.encoder_excess_bits or 0.0), record.token or 0
