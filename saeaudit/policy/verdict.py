"""The verdict: records go by, findings are marked as known, rules are evaluated for each SAE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from saeaudit.policy.baseline import Baseline, key
from saeaudit.policy.rules import Rule, value_of
from saeaudit.records import (
    ClaimRecord,
    DictionaryRecord,
    Finding,
    Record,
    RuleResult,
    Summary,
    Verdict,
)

COUNTED = ("new_findings", "known_findings", "claims_that_hold", "claims_that_fail")
"""What is counted of an SAE's records while they go by; rules can name it."""


@dataclass(frozen=True)
class Policy:
    """What a run must meet."""

    rules: tuple[Rule, ...] = ()
    baseline: Baseline | None = None


def judge(records: Iterable[Record], policy: Policy) -> Iterator[Record]:
    """Pass records on, with `known` on findings and the rules in the verdict.

    Args:
        records: of one run, its verdict last.
        policy: rules and baseline.
    """
    results: list[RuleResult] = []
    counts: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for record in records:
        if isinstance(record, DictionaryRecord):
            counts = Counter(dict.fromkeys(COUNTED, 0))
        elif isinstance(record, ClaimRecord):
            counts["claims_that_hold" if record.holds == "yes" else "claims_that_fail"] += 1
        elif isinstance(record, Finding):
            old = bool(policy.baseline and key(record) in policy.baseline.known)
            counts["known_findings" if old else "new_findings"] += 1
            if policy.baseline:
                record = replace(record, known=old)
        elif isinstance(record, Summary):
            total += counts
            for rule in policy.rules:
                value = value_of(rule.name, record, counts)
                results.append(
                    RuleResult(rule.text, rule.limit, value, record.sae, rule.holds(value))
                )
        elif isinstance(record, Verdict):
            passed = record.passed and all(result.passed for result in results)
            record = Verdict(passed, tuple(results), total["new_findings"], total["known_findings"])
        yield record
