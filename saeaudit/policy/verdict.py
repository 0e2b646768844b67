"""The verdict: records go by, findings are marked as known, rules are evaluated for each SAE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from saeaudit.policy.baseline import Baseline, key
from saeaudit.policy.rules import Rule, value_of
from saeaudit.records import (
    DictionaryRecord,
    Finding,
    Record,
    RuleResult,
    Summary,
    Verdict,
    is_finding,
)


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
    new = known = all_new = all_known = 0
    for record in records:
        if isinstance(record, DictionaryRecord):
            new = known = 0
        elif isinstance(record, Finding):
            old = bool(policy.baseline and key(record) in policy.baseline.known)
            if is_finding(record):
                new, known = new + (not old), known + old
            if policy.baseline:
                record = replace(record, known=old)
        elif isinstance(record, Summary):
            all_new, all_known = all_new + new, all_known + known
            for rule in policy.rules:
                value = value_of(rule.name, record, new, known)
                results.append(
                    RuleResult(rule.text, rule.limit, value, record.sae, rule.holds(value))
                )
        elif isinstance(record, Verdict):
            passed = record.passed and all(result.passed for result in results)
            record = Verdict(passed, tuple(results), all_new, all_known)
        yield record
