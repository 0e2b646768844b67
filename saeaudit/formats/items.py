"""What CI systems are told, whatever their format: findings, rules that fail, what went wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.claims import claim_text
from saeaudit.formats.screen.findings import members, sentence, worst_first
from saeaudit.formats.screen.wording import counted
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    DictionaryRecord,
    ErrorRecord,
    Finding,
    PairRecord,
    Record,
    RuleResult,
    Run,
    ScanSummary,
    ScoreSummary,
    Summary,
    Verdict,
)

Kind = Literal["duplicate", "antipodal", "group", "triple", "claim", "choice", "policy", "error"]
CHOICES = 10
"""Choices told of an SAE: those whose explanations disagree most."""


@dataclass(frozen=True)
class Item:
    """One thing to tell."""

    kind: Kind
    sae: str
    message: str
    features: tuple[int, ...] = ()
    known: bool | None = None
    """As in the record: null without a baseline."""
    urls: tuple[str, ...] = ()
    """Pages of its features."""
    about: str = ""
    """What tells it from others of its kind beside features: a rule's text, a token."""
    rank: tuple[object, ...] = ()
    """Sort key of a finding among findings: the worst first."""

    @property
    def level(self) -> Literal["error", "warning", "notice"]:
        """How loud: what is known, or was asked, or is a matter of choice, is only noted."""
        if self.kind in ("policy", "error"):
            return "error"
        return "notice" if self.known or self.kind in ("claim", "choice") else "warning"

    @property
    def fingerprint(self) -> str:
        """What it is known by from run to run, however long its SAE's name is."""
        name = f"{self.sae} {self.kind} {' '.join(map(str, self.features))}"
        name += f" {self.about}" if self.about else ""
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


LEVELS = ("error", "warning", "notice")
"""The loudest first."""


def worst_of(items: Iterable[Item]) -> list[Item]:
    """What went wrong, broken rules, findings that are new, then the rest; the worst first."""
    kinds = ("error", "policy")
    return sorted(
        items,
        key=lambda item: (
            LEVELS.index(item.level),
            kinds.index(item.kind) if item.kind in kinds else len(kinds),
            item.rank,
        ),
    )


@dataclass
class Outcome:
    """A run, sorted out."""

    run: Run | None = None
    sources: dict[str, str] = field(default_factory=dict)
    """SAE → its weight file."""
    items: list[Item] = field(default_factory=list)
    rules: list[RuleResult] = field(default_factory=list)
    summaries: dict[str, str] = field(default_factory=dict)
    """SAE → its line."""
    verdict: Verdict | None = None


def sort_out(records: Iterable[Record]) -> Outcome:
    """Take the records of a run."""
    outcome = Outcome()
    choices: list[ChoiceRecord] = []
    for record in records:
        if isinstance(record, Run):
            outcome.run = record
        elif isinstance(record, DictionaryRecord):
            outcome.sources[record.sae] = record.source.path
        elif isinstance(record, Finding):
            outcome.items.append(_finding(record))
        elif isinstance(record, ClaimRecord):
            message = f"{claim_text(record)}: {record.sentence}"
            urls = tuple(member.url for member in members(record) if member.url)
            outcome.items.append(Item("claim", record.sae, message, record.features, urls=urls))
        elif isinstance(record, ChoiceRecord):
            choices.append(record)
        elif isinstance(record, Summary):
            outcome.summaries[record.sae] = outcome_line(record)
            said = record.disagreements if isinstance(record, ScoreSummary) else None
            if said and said.level is not None:
                outcome.items += _choices(choices, said.level)
            choices = []
        elif isinstance(record, ErrorRecord):
            hint = f" ({record.hint})" if record.hint else ""
            outcome.items.append(Item("error", record.sae, record.reason + hint))
        elif isinstance(record, Verdict):
            outcome.verdict, outcome.rules = record, list(record.rules)
            for rule in record.rules:
                if not rule.passed:
                    outcome.items.append(Item("policy", rule.sae, broken(rule), about=rule.rule))
    return outcome


COMPARISON = re.compile(r"([\w.]+)(>=|<=|==|!=|>|<)")
"""How a rule's text begins: a number's name, and how it compares with the limit."""
BROKEN = {
    ">": "above the limit of {limit}",
    ">=": "not below the limit of {limit}",
    "<": "below the limit of {limit}",
    "<=": "not above the limit of {limit}",
    "==": "which is what must not be",
    "!=": "and must be {limit}",
}
"""What a value is where the condition of failing holds."""


def broken(rule: RuleResult) -> str:
    """Why a rule does not pass, in a sentence.

    Example: "new_findings is 20, above the limit of 0".
    """
    match = COMPARISON.match(rule.rule)
    name, comparison = match.groups() if match else (rule.rule, "")
    if rule.value is None:
        return f"{name} is not defined here, so {rule.rule} cannot pass"
    why = BROKEN.get(comparison, "{limit}").format(limit=f"{rule.limit:.6g}")
    return f"{name} is {rule.value:.6g}, {why}"


def _finding(record: Finding) -> Item:
    kind: Kind = record.kind if isinstance(record, PairRecord) else record.type
    return Item(
        kind, record.sae, sentence(record), record.features, record.known,
        urls=tuple(member.url for member in members(record) if member.url),
        rank=worst_first(record),
    )  # fmt: skip


def _choices(records: list[ChoiceRecord], level: float) -> list[Item]:
    disagreeing = [r for r in records if r.disagreement is not None and r.disagreement > level]
    disagreeing.sort(key=lambda r: (-(r.disagreement or 0), r.token or 0))
    items = []
    for record in disagreeing[:CHOICES]:
        assert record.explanations is not None
        removed, added = (
            " / ".join(escape(text or "?", NAME) for text in texts)
            for texts in (record.explanations.removed, record.explanations.added)
        )
        name = "an example" if record.token is None else f"token {record.token}"
        message = f"{name}: {removed!r} or {added!r}, disagreement {record.disagreement:.2f}"
        features = (*record.removed, *record.added)
        items.append(Item("choice", record.sae, message, features, about=name))
    return items


def outcome_line(record: Summary) -> str:
    """An SAE's figures in a line."""
    if isinstance(record, ScanSummary):
        return (
            f"{counted(record.pairs, 'duplicate pair', 'duplicate pairs')}, "
            f"{counted(record.antipodal_pairs, 'antipodal pair', 'antipodal pairs')}, "
            f"{counted(record.triples, 'triple', 'triples')}, "
            f"{record.duplicate_fraction:.2%} redundant"
        )
    if isinstance(record, ScoreSummary):
        fvu = "" if record.fvu is None else f", FVU {record.fvu:.4f}"
        return f"{record.bits_per_token:.1f} bits a token, L0 {record.mean_l0:.1f}{fvu}"
    if record.mean_l0 is None:
        exchanges = counted(record.exchanges, "exchange", "exchanges")
        return f"{exchanges} of a scan's findings"
    fvu = "" if record.fvu_encoder is None else f", FVU {record.fvu_encoder:.4f}"
    return f"{counted(record.tokens, 'token', 'tokens')}, L0 {record.mean_l0:.1f}{fvu}"
