"""What people are shown of other codes: how many tokens have one, how much moves, and which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.by_sae import BySae
from saeaudit.formats.screen.codes import code_lines
from saeaudit.formats.screen.findings import Member
from saeaudit.formats.screen.firing import FiringList
from saeaudit.formats.screen.layout import common_folder, comparison, paragraph, show
from saeaudit.formats.screen.listing import Entry, entry_lines
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
    DictionaryRecord,
    EncoderSummary,
    FiringRecord,
    Involved,
    MediatorRecord,
    MediatorsSummary,
    NonUnique,
    Record,
    Texts,
)

SHOWN = 8
"""Exchanges that are shown."""
TOKENS_SHOWN = 2
"""Tokens whose codes are shown: those with the most accurate alternatives to the refit, and of
these the ones that change most."""
FEATURES_SHOWN = 5
"""Features of such a token that are shown without --details."""
MOVES = 0.2
"""Change of a code that is told first."""
STEPS = (0.1, 0.2, 0.33)
"""Changes of the code at which the table shows shares of tokens."""
MEANING = (
    "What it means: accuracy and sparsity do not choose between these codes; which of them is "
    "read as the explanation is the encoder's habit."
)

Labels = Mapping[str, Mapping[int, str]]
"""SAE → feature → label."""


@dataclass
class Listed:
    """What is kept of one SAE's records."""

    dictionary: DictionaryRecord | None
    examples: list[MediatorRecord] = field(default_factory=list)
    """Exchanges of a scan's findings, the most exact first."""
    changing: list[MediatorRecord] = field(default_factory=list)
    """A record of each token that is shown, the one that changes most first."""
    texts: dict[int, str] = field(default_factory=dict)
    """Labels that stand in the records."""
    firing: FiringList = field(default_factory=FiringList)
    """How often features of findings fire together."""
    summary: MediatorsSummary | None = None
    """None until all records have gone by."""

    def add(self, record: MediatorRecord) -> None:
        """Take one alternative."""
        self.learn(record.removed, record.added, record.explanations)
        if record.token is None:
            self.examples = sorted([*self.examples, record], key=_inexactness)[:SHOWN]
            return
        if not any(_strength(kept) >= _strength(record) for kept in self.changing
                   if kept.token == record.token):  # fmt: skip
            others = [kept for kept in self.changing if kept.token != record.token]
            ranked = sorted([*others, record], key=_strength, reverse=True)
            self.changing = ranked[:TOKENS_SHOWN]

    def learn(self, removed: Sequence[int], added: Sequence[int], said: Texts | None) -> None:
        """Keep what is said of exchanged features."""
        if said is not None:
            pairs = zip((*removed, *added), (*said.removed, *said.added), strict=False)
            self.texts.update({feature: text for feature, text in pairs if text})


class MediatorsScreen:
    """Collects what is shown while records go by.

    Args:
        console: where to print.
        texts: labels beside those of the records; a mapping that is empty now may hold each SAE's
            by the end.
        place: where the records are.
        details: whether every mode and tolerance and every feature is shown.
    """

    def __init__(
        self, console: Console, texts: Labels | None = None, place: Place | None = None,
        *, details: bool = False,
    ) -> None:  # fmt: skip
        self._console, self._texts = console, {} if texts is None else texts
        self._place, self._details = place or Place(), details
        self._listed: BySae[Listed] = BySae()

    def record(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, DictionaryRecord):
            self._listed.begin(record.sae, Listed(record))
        elif isinstance(record, (MediatorRecord, FiringRecord, MediatorsSummary)):
            sae = record.sae
            listed = self._listed.get(sae) or self._listed.begin(sae, Listed(None))
            if isinstance(record, MediatorRecord):
                listed.add(record)
            elif isinstance(record, FiringRecord):
                listed.firing.add(record)
            else:
                listed.summary = record
                for pair in record.most_involved:
                    listed.learn([pair.removed], [pair.added], pair.explanations)

    def end(self) -> None:
        """Print."""
        done = self._listed.done
        width = self._console.width
        lines = [line for one in done if one.dictionary for line in control_lines(one.dictionary)]
        if len(done) > 1:
            lines += compared(done, width)
        for listed in done:
            if len(done) == 1:
                lines += [line for text in answer(listed) for line in paragraph(text, width)]
            lines += self._lists(listed, width)
        if done:
            lines += ["", *paragraph(MEANING, width), *next_lines(done[0], self._place)]
        show(self._console, [*lines, *self._place.last_lines] if done else [])

    def _lists(self, listed: Listed, width: int) -> list[str]:
        summary = listed.summary
        assert summary is not None
        texts = {**listed.texts, **self._texts.get(summary.sae, {})}
        lines = []
        if self._details and summary.non_unique:
            lines += ["", f"{escape(summary.sae, NAME)}: every mode and tolerance"]
            lines += details_table(summary, width)
        if summary.most_involved:
            lines += ["", "Exchanges that are the best on most tokens"]
            lines += entry_lines(
                [_exchange(pair, texts) for pair in summary.most_involved[:SHOWN]], width
            )
        if summary.exchanges:
            lines += ["", f"{counted(summary.exchanges, 'exchange', 'exchanges')} of the scan's "
                      "findings, the most exact first"]  # fmt: skip
        for record in (*listed.examples, *listed.changing):
            lines += ["", *paragraph(heading(record), width)]
            most = None if self._details else FEATURES_SHOWN
            lines += code_lines(record.codes, record.alternative, texts, width, most)
        if summary.exchanges > len(listed.examples):
            more = summary.exchanges - len(listed.examples)
            lines += [f"… {more:,} more: {self._place.show}"]
        return lines + listed.firing.lines(width, self._place)


def answer(listed: Listed) -> list[str]:
    """What one SAE's codes are, in sentences: tokens with another one, and how much of it moves."""
    summary, dictionary = listed.summary, listed.dictionary
    assert summary is not None
    name = escape(summary.sae, NAME)
    if not summary.tokens:
        return [f"{name}: {counted(summary.exchanges, 'exchange', 'exchanges')} of one feature for "
                "another that the scan's findings allow, without activations."]  # fmt: skip
    of = f" of {dictionary.d_sae:,}" if dictionary else ""
    sentences = [
        f"{name}: {counted(summary.tokens, 'activation', 'activations')}, "
        f"{summary.mean_l0 or 0:.1f}{of} features active on each."
    ]
    sentences += skipped_sentence(summary.skipped)
    refit, accuracy = (strictest(summary, mode) for mode in ("refit", "accuracy"))
    if refit is not None:
        sentences.append(
            f"{percent(refit.non_unique_fraction)}{between(refit.non_unique_interval, '.0%')} of "
            "them have another code of the same size as accurate as the best one on the encoder's "
            f"features: {refit.mean_alternatives:,.0f}"
            f"{between(refit.alternatives_interval, ',.0f')} each on average."
        )
        if refit.attainable_fraction is not None:
            sentences.append(
                f"{percent(refit.attainable_fraction)}{between(refit.attainable_interval, '.0%')} "
                "have one that the encoder could have output."
            )
        sentences.append(moved(refit, summary))
    sentences += shrinkage(accuracy, summary)
    return [*sentences, *map(_other_encoder, summary.encoders[1:])]


def moved(row: NonUnique, summary: MediatorsSummary) -> str:
    """How much of the code another one changes."""
    text = f"On {percent(_changing(row, MOVES))} another code differs by {MOVES:.0%} or more"
    if summary.mean_refit_change is not None:
        text += f"; the encoder's own is {percent(summary.mean_refit_change)} from its best values"
    return f"{text}."


def shrinkage(row: NonUnique | None, summary: MediatorsSummary) -> list[str]:
    """What the encoder's own error, a laxer bar, allows; nothing where that was not looked at."""
    if summary.refit_gap is None:
        return ["The encoder's codes leave no error, so there is nothing to refit."]
    if row is None:
        return []
    return [
        f"As accurate as the encoder's own are {row.mean_alternatives:,.0f} each: least squares on "
        f"its features leave {summary.refit_gap:.3f} of its squared error, so that "
        f"{row.mean_droppable:.1f} of its features can simply go."
    ]


def compared(done: Sequence[Listed], width: int) -> list[str]:
    """A row for each SAE."""
    summaries = [listed.summary for listed in done if listed.summary]
    folder = common_folder([summary.sae for summary in summaries])
    titles = ("SAE", "tokens", "L0", "another code", "attainable", f"changing {MOVES:.0%}",
              "each")  # fmt: skip
    rows = []
    for summary in summaries:
        name, row = short_name(summary.sae, folder), strictest(summary)
        cells = ("-",) * 4
        if row is not None:
            attainable = row.attainable_fraction
            cells = (
                percent(row.non_unique_fraction),
                "-" if attainable is None else percent(attainable),
                percent(_changing(row, MOVES)),
                f"{row.mean_alternatives:,.0f}",
            )
        l0 = "-" if summary.mean_l0 is None else f"{summary.mean_l0:.1f}"
        rows.append((name, f"{summary.tokens:,}", l0, *cells))
    in_folder = f" in {escape(folder, NAME)}" if folder else ""
    return [f"{len(done)} SAEs{in_folder}", *comparison(titles, rows, width)]


def details_table(summary: MediatorsSummary, width: int) -> list[str]:
    """Every mode and tolerance."""
    steps = [f"changing {step:.0%}" for step in STEPS]
    titles = ("mode, tolerance", "another code", "attainable", *steps, "each", "droppable")
    rows = [
        (
            f"{row.mode} {row.epsilon:g}",
            percent(row.non_unique_fraction),
            "-" if row.attainable_fraction is None else percent(row.attainable_fraction),
            *(percent(_changing(row, step)) for step in STEPS),
            f"{row.mean_alternatives:,.0f}",
            f"{row.mean_droppable:.1f}",
        )
        for row in summary.non_unique
    ]
    return comparison(titles, rows, width)


def heading(record: MediatorRecord, show: Callable[[str, int], str] = escape) -> str:
    """What an alternative exchanges, for what, and how much that changes.

    Args:
        record: the alternative.
        show: makes the token's text safe where it is read, in so many characters.
    """
    removed, added = (", ".join(map(str, listed)) for listed in (record.removed, record.added))
    change = "" if record.change is None else f", a change of {percent(record.change)}"
    if record.token is not None:
        if change:
            of_refit = " from the refit (z is the encoder's code)"
            change += " from z" if record.mode == "reconstruction" else of_refit
        text = "" if record.text is None else f" {show(record.text, NAME)!r}{around(record)}"
        return (
            f"token {record.token}{text}: {added} for {removed} ({record.mode}, tolerance "
            f"{record.epsilon:g}){change}"
        )
    left = max(record.error_ratio or 0.0, 0.0) ** 0.5
    holds = "" if record.valid == "always" else f", while {record.valid}"
    return f"{added} for {removed}, to {percent(left)}{change}{holds}"


def strictest(summary: MediatorsSummary | None, mode: str = "refit") -> NonUnique | None:
    """The row of a mode with the least tolerance; None where the mode was not looked at."""
    rows = [row for row in summary.non_unique if row.mode == mode] if summary else []
    return min(rows, key=lambda row: row.epsilon, default=None)


def next_lines(listed: Listed, place: Place) -> list[str]:
    """What to run next."""
    summary = listed.summary
    if summary is None or summary.control:
        return []
    if summary.tokens:
        return place.next("which of them is the shortest", "score", summary.sae)
    return place.next("codes of real activations", "mediators", summary.sae)


def _other_encoder(encoder: EncoderSummary) -> str:
    error = "-" if encoder.fvu is None else f"{encoder.fvu:.3f}"
    return (
        f"{escape(encoder.name, NAME)}: L0 {encoder.mean_l0:.1f}, error {error} of the variance, "
        f"{encoder.support_agreement:.0%} of the features in common."
    )


def _exchange(pair: Involved, texts: Mapping[int, str]) -> Entry:
    pairs = ((pair.removed, "out"), (pair.added, "in"))
    exchanged = [Member(f, label=texts.get(f), role=role) for f, role in pairs]
    return Entry([("tokens", f"{pair.tokens:,}")], exchanged)


def _changing(row: NonUnique, step: float) -> float:
    """Share of tokens with a code that changes by at least a step."""
    return next((share.fraction for share in row.by_change if share.change == step), 0.0)


def _strength(record: MediatorRecord) -> tuple[bool, float, float]:
    """Alternatives to the refit before others, as accurate ones first, by how much they change."""
    return record.mode == "refit", -record.epsilon, record.change or 0.0


def _inexactness(record: MediatorRecord) -> tuple[float, tuple[int, ...]]:
    return record.error_ratio or 0.0, record.features
