"""Golden bytes: what a scan of the bundled dictionaries writes, on every machine.

Regenerate after a deliberate change with ``python -m tests.golden.test_golden``, and read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import saeaudit
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.records import dump

HERE = Path(__file__).parent
CASES = {
    "sample.jsonl": ("sample", ScanOptions(min_cosine=0.5)),
    "stitched.jsonl": (
        "sample/stitched",
        ScanOptions(triples=((692, 3925, 554), (9, 114, 2280)), pairs=((2861, 1614),)),
    ),
}


def lines(name: str, **changes: str) -> str:
    target, options = CASES[name]
    records = scan(saeaudit.open(target), options, **changes)
    return "".join(dump(record) + "\n" for record in records)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, screen: str) -> None:
    assert lines(name, screen=screen) == (HERE / name).read_text()


if __name__ == "__main__":
    for case in CASES:
        (HERE / case).write_text(lines(case))
