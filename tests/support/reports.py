"""Records to make reports of: of the bundled SAEs, made up in any number, and hostile ones."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from saeaudit.formats.reading import read_records
from saeaudit.records import (
    Code,
    DictionaryRecord,
    FiringRecord,
    GroupRecord,
    Interval,
    Magnitudes,
    PairRecord,
    Record,
    ScanSummary,
    TripleRecord,
    Typical,
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
SYLLABLES = "ab con de er fi gra in ly men ness or pro re sta ti tion un vel".split()
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


def hard_to_pack(count: int, features: int = 131_072, seed: int = 0) -> list[Record]:
    """A scan in which hardly a feature is in two findings, and each has a sentence of its own.

    Of each finding it is known how its features fire. So it is for an SAE with twins of most
    features, explained by a language model: as bad as anything real for the size of a page.
    """
    draw = random.Random(seed)
    base = scan_of("made/131k", 0, features)
    words = ["".join(draw.choice(SYLLABLES) for _ in range(draw.randint(1, 4)))
             for _ in range(4000)]  # fmt: skip
    often = [1 / (place + 1) for place in range(len(words))]
    records: list[Record] = []
    for _ in range(count):
        pair = sorted(draw.sample(range(features), 2))
        labels = tuple(" ".join(draw.choices(words, often, k=draw.randint(7, 14))) for _ in pair)
        rates = tuple(10 ** draw.uniform(-5, -1) for _ in pair)
        together = min(rates) * draw.random() * draw.choice((0, 1))
        both = pair[0], pair[1]
        records.append(PairRecord("made/131k", both, "duplicate", draw.uniform(0.9, 1), 1.0,
                                  draw.uniform(-0.2, 1), labels=labels))  # fmt: skip
        records.append(FiringRecord(
            "made/131k", both, 100_000, "documents", rates, (None, None), (0,) * 4, together, None,
            rates[0] * rates[1], together / rates[0] / rates[1], None,
            (Magnitudes(None, ()),) * 2, None,
        ))  # fmt: skip
    return [*base[:2], *records, *base[2:]]


def fired(features: tuple[int, ...], **changes: object) -> FiringRecord:
    """Features that fire together on 0.12 % of the tokens; z is on the first two of three."""
    drawn = Magnitudes(0.25, tuple(max(0, 30 - abs(place - 12)) for place in range(50)))
    size = len(features)
    typical = Typical(
        40, tuple(Code(f, 2.0 + f / 1000) for f in features[:-1]),
        tuple(Code(f, 3.0) for f in features[-2:]), 0.1, 12.34, 15.6,
    )  # fmt: skip
    record = FiringRecord(
        "sample/stitched", features, 5000, "documents", (0.01, 0.02, 0.03)[:size], (None,) * size,
        (0,) * 2**size, 0.0012, None, 0.0006, 2.0, Interval(1.2, 3.1), (drawn,) * size, typical,
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]
