"""Records to make reports of: of the bundled SAEs, made up in any number, and hostile ones."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from saeaudit.formats.reading import read_records
from saeaudit.records import (
    DictionaryRecord,
    GroupRecord,
    PairRecord,
    Record,
    ScanSummary,
    TripleRecord,
)
from saeaudit.report.draw import pictures, svg
from saeaudit.report.gather import Gathered, Gatherer
from saeaudit.report.page import page
from tests.support.records import RUN

GOLDEN = Path(__file__).parents[1] / "golden"
WORDS = (
    "the past tense of verbs nouns about music legal terms in code brackets names cities dates "
    "numbers punctuation lists negation before commas German French biology proteins questions"
).split()
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7 * 7 }}&amp;'\""


def golden(name: str) -> list[Record]:
    """Records of a scan of a bundled SAE."""
    return list(read_records(str(GOLDEN / f"{name}.jsonl"), "", ""))


def gathered(*files: Iterable[Record]) -> Gathered:
    gatherer = Gatherer()
    for number, records in enumerate(files):
        gatherer.file(records, f"file {number}")
    return gatherer.end()


def built(*files: Iterable[Record], charts: bool = True) -> str:
    """The page of records; drawing its charts is what takes longest."""
    whole = gathered(*files)
    drawn = [(picture, svg(picture)) for picture in pictures(whole)] if charts else []
    return page(whole, drawn, "0.1.0")


def scan_of(sae: str, count: int, features: int = 16384, seed: int = 0) -> list[Record]:
    """A scan of a clustered SAE with labels: `count` findings, pairs, triples and groups."""
    base = golden("stitched")
    dictionary = next(record for record in base if isinstance(record, DictionaryRecord))
    summary = next(record for record in base if isinstance(record, ScanSummary))
    findings = list(_findings(sae, count, features, random.Random(seed)))
    pairs = sum(isinstance(finding, PairRecord) for finding in findings)
    return [
        RUN,
        replace(dictionary, sae=sae, d_sae=features, neuronpedia="gpt2-small/8-res-jb"),
        *findings,
        replace(summary, sae=sae, pairs=pairs, live_features=features),
    ]


def _findings(
    sae: str, count: int, features: int, draw: random.Random
) -> Iterator[PairRecord | GroupRecord | TripleRecord]:
    """Findings among clusters of 64 neighbouring features."""
    for number in range(count):
        start = draw.randrange(features // 64) * 64
        size = 3 if number % 5 == 0 else 8 if number % 50 == 1 else 2
        members = sorted(start + place for place in draw.sample(range(64), size))
        labels = tuple(map(label, members))
        rates = tuple(map(rate, members))
        known = {"labels": labels, "firing_rates": rates}
        if size == 8:
            yield GroupRecord(sae, tuple(members), size, 0.9, draw.uniform(0.9, 1), **known)
        elif size == 3:
            residual = draw.uniform(0.02, 0.2)
            yield TripleRecord(
                sae, (members[0], members[1], members[2]), (-0.4, 0.9), 0.44, residual,
                3 * residual, (0.1, 0.2, 0.7), "2,1", members[2], (members[0], members[1]),
                ("always", "sometimes", "never"), **known,
            )  # fmt: skip
        else:
            cosine = draw.uniform(0.9, 1)
            yield PairRecord(
                sae, (members[0], members[1]), "duplicate", cosine, 1.0, draw.uniform(-0.2, 1),
                **known,
            )  # fmt: skip


def rate(feature: int) -> float:
    """On which share of tokens a feature fires."""
    return round(10 ** random.Random(feature).uniform(-5, -1), 9)


def label(feature: int) -> str:
    """What a feature is said to detect."""
    draw = random.Random(feature)
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 9)))
