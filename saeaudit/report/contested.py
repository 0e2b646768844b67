"""The most contested tokens: what is said of them, and what would be said as accurately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from saeaudit.escape import NAME, visible
from saeaudit.formats.screen.findings import members
from saeaudit.formats.screen.mediators import heading
from saeaudit.formats.screen.wording import percent
from saeaudit.records import ChoiceRecord, Code, MediatorRecord
from saeaudit.report.gather import Audited, Gathered

SHOWN = 12
"""Tokens, or exchanges, that are shown."""
BEFORE, AFTER = 12, 6
"""Tokens of context."""
FEATURES = 4
"""Features shown on a side."""
LABEL = 160
"""Characters of a label."""


class Side(NamedTuple):
    """A feature that leaves or enters."""

    feature: int
    value: str
    """Its code."""
    label: str
    """May be empty."""


class Contested(NamedTuple):
    """A token with two codes."""

    title: str
    before: str
    """Text before the token, where that is known."""
    text: str
    after: str
    removed: list[Side]
    """Features of the encoder's code that leave."""
    added: list[Side]
    """Features that stand in for them."""
    more: tuple[int, int]
    """Features that leave and enter beside these."""
    facts: list[str]
    """How much that changes, and what settles it."""
    of_token: bool
    """Whether it is of an activation, and not an example."""


def contested(gathered: Gathered) -> list[Contested]:
    """Tokens of all SAEs, those first whose other code moves most and disagrees most."""
    entries: list[tuple[float, Contested]] = []
    for audited in gathered.saes:
        labels = known_labels(audited)
        choices = [choice for choice in audited.choices.values() if choice.alternative]
        choices.sort(key=_weight, reverse=True)
        entries += [
            (_weight(choice), _of_choice(audited, choice, labels)) for choice in choices[:SHOWN]
        ]
        if not choices:
            for record in (*audited.listed.changing, *audited.listed.examples):
                weight = 0.0 if record.token is None else (record.change or 0.0)
                entries.append((weight, _of_alternative(audited, record, labels)))
    entries.sort(key=lambda entry: -entry[0])
    return [entry for _, entry in entries[:SHOWN]]


def known_labels(audited: Audited) -> dict[int, str]:
    """Feature → what its explanation says, as far as any record of the SAE has it."""
    labels = dict(audited.listed.texts)
    for finding in audited.findings:
        for member in members(finding):
            if member.label:
                labels[member.feature] = member.label
    for choice in audited.choices.values():
        if said := choice.explanations:
            for features, texts in ((choice.removed, said.removed), (choice.added, said.added)):
                labels |= {f: text for f, text in zip(features, texts, strict=False) if text}
    return labels


def _weight(choice: ChoiceRecord) -> float:
    """Disagreement x share of the code that moves; labels that are unknown count half."""
    disagreement = 0.5 if choice.disagreement is None else choice.disagreement
    return disagreement * (choice.moved or 0.0)


def _of_choice(audited: Audited, choice: ChoiceRecord, labels: Mapping[int, str]) -> Contested:
    facts = []
    if choice.moved is not None:
        facts.append(f"{percent(choice.moved)} of the code moves")
    if choice.disagreement is not None:
        beyond = (
            "" if choice.percentile is None
            else f", more than {percent(choice.percentile)} of random pairs"
        )  # fmt: skip
        facts.append(f"the labels differ by {choice.disagreement:.2f}{beyond}")
    if choice.bits.reference is not None and choice.bits.alternative is not None:
        difference = choice.bits.alternative - choice.bits.reference
        longer = "longer" if difference > 0 else "shorter"
        facts.append(f"the other code is {abs(difference):.1f} bits {longer}")
    if choice.resolved is not None:
        facts.append("settled" if choice.resolved else "not settled")
    name = "example" if choice.token is None else f"token {choice.token:,}"
    return Contested(
        f"{audited.name}, {name}", *_context(audited, choice),
        *_sides(choice, labels), facts, choice.token is not None,
    )  # fmt: skip


def _of_alternative(
    audited: Audited, record: MediatorRecord, labels: Mapping[int, str]
) -> Contested:
    name = "a finding's exchange" if record.token is None else f"token {record.token:,}"
    return Contested(
        f"{audited.name}, {name}", *_context(audited, record),
        *_sides(record, labels), [heading(replace(record, context=None), visible)],
        record.token is not None,
    )  # fmt: skip


def _context(audited: Audited, record: ChoiceRecord | MediatorRecord) -> tuple[str, str, str]:
    """Text before a token, its own, and text after it, as far as the records have neighbours."""
    token, text = record.token, record.text
    if token is None or text is None:
        return "", "", ""
    if record.context is not None:
        before, after = record.context.before, record.context.after
    else:
        before, after = _neighbours(audited, token)
    return visible(before, NAME), visible(text, NAME), visible(after, NAME)


def _neighbours(audited: Audited, token: int) -> tuple[str, str]:
    """Text of the tokens before and after one that are in the records, without a gap."""
    start, end = token, token
    while token - start < BEFORE and start - 1 in audited.tokens:
        start -= 1
    while end - token < AFTER and end + 1 in audited.tokens:
        end += 1
    before = " ".join(audited.tokens[place] for place in range(start, token))
    after = " ".join(audited.tokens[place] for place in range(token + 1, end + 1))
    return before, after


def _sides(
    record: ChoiceRecord | MediatorRecord, labels: Mapping[int, str]
) -> tuple[list[Side], list[Side], tuple[int, int]]:
    """Features that leave and that enter, of each the few largest, and how many more there are."""
    removed = _largest(record.removed, record.codes, labels)
    added = _largest(record.added, record.alternative, labels)
    more = len(record.removed) - len(removed), len(record.added) - len(added)
    return removed, added, more


def _largest(
    features: Sequence[int], codes: Sequence[Code], labels: Mapping[int, str]
) -> list[Side]:
    values = {code.feature: code.value for code in codes}
    ranked = sorted(features, key=lambda feature: -values.get(feature, 0.0))
    return [
        Side(
            feature,
            f"{values[feature]:.3g}" if feature in values else "",
            visible(labels.get(feature, ""), LABEL),
        )
        for feature in ranked[:FEATURES]
    ]
