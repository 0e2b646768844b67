"""The verdict in words: one headline, and below it what each command found, in sentences."""

from __future__ import annotations

from typing import NamedTuple

from saeaudit.formats.screen import mediators, scan, score
from saeaudit.formats.screen.wording import counted, percent
from saeaudit.report.figures import changing
from saeaudit.report.gather import Audited, Gathered

UNFINISHED = "No verdict: these records are without a summary, so their run did not end."


class Answer(NamedTuple):
    """What one command says of one SAE."""

    title: str
    sentences: list[str]


def headline(gathered: Gathered) -> str:
    """The verdict in a line or two.

    Example: "17 duplicate pairs: 0.42% of the features could go; 3 dependent triples."
    """
    if len(gathered.saes) == 1:
        return _sentence(_parts(gathered.saes[0]))
    scans = gathered.scans
    parts = []
    if scans:
        summaries = [audited.scanned.summary for audited in scans if audited.scanned.summary]
        pairs, triples = (sum(counts) for counts in zip(
            *((summary.pairs, summary.triples) for summary in summaries), strict=True))  # fmt: skip
        parts.append(f"{_duplicates(pairs)} and {counted(triples, *scan.TITLES['triple'])} in "
                     f"{counted(len(scans), 'SAE', 'SAEs')}")  # fmt: skip
        worst = max(scans, key=_redundant)
        if _redundant(worst):
            parts.append(f"most redundant is {worst.name}, of whose features "
                         f"{percent(_redundant(worst))} could go")  # fmt: skip
    told = [(audited, codes) for audited in gathered.saes if (codes := _codes(audited))]
    if len(told) == 1:
        parts += [f"of {told[0][0].name}, {told[0][1][0]}", *told[0][1][1:]]
    return _sentence(parts)


def answers(audited: Audited) -> list[Answer]:
    """What the commands say of an SAE, each in the sentences of its screen."""
    listed = []
    if audited.scanned.summary:
        listed.append(Answer("Decoder", scan.answer(audited.scanned, audited.limits)))
    if audited.listed.summary:
        listed.append(Answer("Other codes", mediators.answer(audited.listed)))
    if audited.scored.summary:
        listed.append(Answer("Description length", score.answer(audited.scored)))
    return listed


def _parts(audited: Audited) -> list[str]:
    parts = []
    if summary := audited.scanned.summary:
        redundant = summary.duplicate_fraction
        could_go = f": {percent(redundant)} of the features could go" if redundant else ""
        parts.append(_duplicates(summary.pairs) + could_go)
        parts.append(counted(summary.triples, *scan.TITLES["triple"]) if summary.triples
                     else "no dependent triples")  # fmt: skip
    return parts + _codes(audited)


def _codes(audited: Audited) -> list[str]:
    parts = []
    row = mediators.strictest(audited.listed.summary)
    if row is not None:
        text = f"{percent(row.non_unique_fraction)} of tokens have another code"
        fifth = changing(row)
        parts.append(text if fifth is None else
                     f"{text}, {percent(fifth)} one that changes a fifth of it")  # fmt: skip
    summary = audited.scored.summary
    if summary and summary.chosen_shares and summary.chosen_shares.encoder:
        share = percent(summary.chosen_shares.encoder.value)
        parts.append(f"the encoder's code is the shortest on {share}")
    return parts


def _duplicates(pairs: int) -> str:
    return counted(pairs, *scan.TITLES["duplicate"]) if pairs else "no duplicate pairs"


def _redundant(audited: Audited) -> float:
    return audited.scanned.summary.duplicate_fraction if audited.scanned.summary else 0.0


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else UNFINISHED
