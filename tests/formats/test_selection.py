"""Which records are shown, in which order, and what is held meanwhile."""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import pytest

from saeaudit import AuditError
from saeaudit.formats.selection import Selection, features_of, kinds, numbers, select
from saeaudit.records import (
    DictionaryRecord,
    GroupRecord,
    PairRecord,
    Record,
    RuleResult,
    SourceRecord,
    TripleRecord,
    Verdict,
    kind_of,
)
from tests.support.records import RUN, choice, score

SOURCE = SourceRecord("s", None, "s", 1, "0", ())


def dictionary(sae: str, features: int = 100) -> DictionaryRecord:
    return DictionaryRecord(
        sae, SOURCE, "rows", "standard", 4, features, "float32", None, False, False, None, None, (),
        1.0, 2.0, (1,), (2,), (3,),
    )  # fmt: skip


def pair(sae: str, i: int, j: int, cosine: float, encoder: float | None = None) -> PairRecord:
    kind = "duplicate" if cosine > 0 else "antipodal"
    return PairRecord(sae, (i, j), kind, cosine, 2.0, encoder)


def triple(sae: str, features: tuple[int, int, int], residual: float) -> TripleRecord:
    return TripleRecord(
        sae, features, (-0.5, 1.0), 0.5, residual, 0.5, (0.0, -0.4, 0.9), "2,1", features[1],
        (features[0], features[2]), ("always", "never", "always"),
    )  # fmt: skip


def scanned(sae: str) -> list[Record]:
    return [
        dictionary(sae), GroupRecord(sae, (5, 6, 7), 3, 0.9, 0.95), pair(sae, 4, 9, -0.99),
        pair(sae, 5, 6, 0.91, 0.2), pair(sae, 6, 7, 0.95), pair(sae, 10, 11, 0.93, 0.9),
        triple(sae, (10, 4, 20), 0.15), triple(sae, (30, 31, 32), 0.05),
    ]  # fmt: skip


def run() -> list[Record]:
    rules = (RuleResult("pairs>1", 1.0, 3.0, "a/one", False),
             RuleResult("pairs>1", 1.0, 3.0, "a/two", False))  # fmt: skip
    return [
        RUN,
        *scanned("a/one"),
        *scanned("a/two"),
        choice(),
        score(),
        Verdict(False, rules, 14, 0),
    ]


def shown(**options: object) -> list[Record]:
    return list(select(run(), Selection(**options)))


def test_without_options_everything_stays() -> None:
    assert shown() == run()


def test_types_and_kinds() -> None:
    assert {r.type for r in shown(types=frozenset({"triple"}), frames=False)} == {"triple"}
    antipodal = shown(types=frozenset({"antipodal"}), frames=False)
    assert [r.features for r in antipodal] == [(4, 9), (4, 9)]
    framed = shown(types=frozenset({"antipodal"}))
    assert [r.type for r in framed] == [
        "run", "dictionary", "pair", "dictionary", "pair", "summary", "verdict",
    ]  # fmt: skip
    assert len(shown(types=frozenset({"pair", "verdict"}), frames=False)) == 9
    assert {"pair", "duplicate", "claim", "summary"} <= set(kinds())


def test_saes_take_their_rules_along() -> None:
    for glob in ("a/two", "two", "t*", "a/t*"):
        records = shown(saes=(glob,))
        assert {getattr(r, "sae", "a/two") for r in records} == {"a/two"}
        assert [rule.sae for rule in records[-1].rules] == ["a/two"]
    assert not Selection(saes=("wo",)).takes_sae("a/two")
    with pytest.raises(AuditError, match=r"f: no SAE in it matches sae .has a/one, a/two"):
        list(Selection(saes=("three",)).checked(run(), "f"))
    assert list(Selection(saes=("two",)).checked(run(), "f")) == run()


def test_a_feature() -> None:
    records = shown(feature=4, frames=False)
    listed = [r for r in records if r.type in ("pair", "group", "triple", "choice")]
    assert [r.features for r in listed] == [(4, 9), (10, 4, 20)] * 2
    assert features_of(choice()) == {1, 2} and features_of(RUN) == set()


def test_order() -> None:
    def features(**options: object) -> list[tuple[int, ...]]:
        return [r.features for r in shown(frames=False, saes=("one",), **options)
                if r.type in ("pair", "triple")]  # fmt: skip

    first, second = (30, 31, 32), (10, 4, 20)
    assert features(sort="cosine") == [(4, 9), (6, 7), (10, 11), (5, 6), second, first]
    assert features(sort="-cosine") == [(4, 9), (5, 6), (10, 11), (6, 7), second, first]
    assert features(sort="-residual")[-2:] == [first, second]
    assert features(sort="encoder_cosine")[1:4] == [(10, 11), (5, 6), (6, 7)], "without one last"
    assert features(sort="worst") == [(4, 9), (6, 7), (10, 11), (5, 6), first, second]
    assert features(sort="worst", top=1) == [(4, 9), (6, 7), first]
    assert features(top=2) == [(4, 9), (5, 6), (6, 7), second, first]


def test_sorted_records_stay_in_their_sae_and_type() -> None:
    records = shown(sort="cosine")
    runs = [(sae, kind) for (sae, kind), _ in groupby(
        records, lambda r: (getattr(r, "sae", ""), r.type))]  # fmt: skip
    assert len(runs) == len(set(runs)) and records[0] is RUN


def test_what_is_cut_is_not_held() -> None:
    """With --top the worst of ten thousand are told from a few that are kept."""
    rng = random.Random(0)
    cosines = [rng.uniform(0.9, 1) for _ in range(10_000)]
    most = 0

    class Watched(Selection):
        def takes(self, record: Record) -> bool:
            nonlocal most
            if isinstance(record, PairRecord) and record.features[0] % 1000 == 0:
                most = max(most, sum(type(o) is PairRecord for o in gc.get_objects()))
            return super().takes(record)

    def records() -> Iterator[Record]:
        yield dictionary("s")
        yield from (pair("s", n, n + 1, cosine) for n, cosine in enumerate(cosines))

    kept = list(select(records(), Watched(sort="cosine", top=5, frames=False)))
    assert [r.cosine for r in kept[1:]] == sorted(cosines, reverse=True)[:5]
    assert 0 < most < 200


def test_names_that_are_none() -> None:
    assert {"cosine", "residual", "size", "change", "disagreement", "features"} - set(
        numbers()
    ) == {"features"}
    for options, says in (
        ({"sort": "cosin"}, "--sort: 'cosin' is none"), ({"sort": "-labels"}, "--sort: 'labels'"),
        ({"types": frozenset({"pears"})}, "--type: 'pears' is none"),
    ):  # fmt: skip
        with pytest.raises(AuditError) as caught:
            Selection(**options)
        assert caught.value.line().startswith(says) and re.search(
            r"\((did you mean|known:) ", caught.value.line()
        )


def test_kinds_of_records() -> None:
    assert [kind_of(r) for r in scanned("s")[1:4]] == ["group", "antipodal", "duplicate"]
    assert kind_of(replace(choice(), token=None)) == "choice"
