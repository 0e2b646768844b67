"""What `mediators --scan` and `score --mediators` refuse to take from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saeaudit import AuditError, MediatorInputs, mediators
from saeaudit import scan as scan_sae
from saeaudit.audit.checks import check_codes, check_findings
from saeaudit.records import Code, MediatorRecord, Record, Run, TokenRecord, dump
from tests.conftest import Cli
from tests.support.dictionaries import opened, sae

ROWS = np.vstack([np.eye(6), np.eye(6)[[0, 1]], np.zeros((1, 6))]) + 0.0
ROWS[7] += 0.01
ROWS[8] = 0
DICTIONARY = opened(ROWS.astype(np.float32))
RUN = Run("0", "scan", {}, "", "cpu", None, "", "")
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def scanned() -> list[Record]:
    records: list[Record] = [RUN, *scan_sae(DICTIONARY)]
    rows = ROWS.copy()
    rows[[3, 4]] = rows[0]
    more = [r for r in scan_sae(opened(rows.astype(np.float32))) if r.type == "group"]
    return [*records[:2], *more, *records[2:]]


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(AuditError) as caught:
        call()
    assert re.search(message, caught.value.line()) and "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pair", {"features": (0, 9)}, "no feature 9 among 9"),
        ("pair", {"features": (-1, 2)}, "no feature -1"),
        ("pair", {"features": (0, 8)}, "feature 8 is zero or not finite"),
        ("pair", {"features": (3, 3)}, "a feature twice"),
        ("pair", {"cosine": float("nan")}, "cosine is not finite"),
        ("pair", {"norm_ratio": float("inf")}, "norm_ratio is not finite"),
        ("group", {"size": 7}, "a group of size 7 with 4"),
        ("group", {"features": (0, 3, 4, 4)}, "a feature twice"),
        ("dictionary", {"d_sae": 8}, "8 features x 6 in it, and 9 features x 6 now"),
    ],
)
def test_findings(scanned, kind: str, change: dict[str, Any], message: str) -> None:
    number = next(n for n, r in enumerate(scanned) if r.type == kind)
    records = list(scanned)
    records[number] = replace(records[number], **change)
    refused(lambda: check_findings(records, DICTIONARY), f"--scan, line {number + 1}: .*{message}")
    refused(lambda: list(mediators(DICTIONARY, MediatorInputs(findings=records))), message)


def test_findings_of_this_sae_are_taken_from_those_of_several(scanned) -> None:
    kinds = ("pair", "group", "triple")
    other = [replace(r, sae="other") for r in scanned if r.type in kinds]
    mine = [r for r in scanned if r.type in kinds]
    assert check_findings([*other, *scanned], DICTIONARY) == mine and mine
    refused(lambda: check_findings(other, DICTIONARY), "a scan of other")


@pytest.fixture(scope="module")
def coded() -> tuple[Any, list[Record]]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[9] = 0
    rows[8] = rows[7] + 0.01
    dictionary = sae(rows.astype(np.float64))
    x = torch.from_numpy(np.abs(rng.normal(size=(5, 4))) @ np.eye(4))
    findings = [r for r in scan_sae(dictionary) if r.type == "pair"]
    records = list(mediators(dictionary, MediatorInputs(x, findings=findings)))
    tokens = {r.token for r in records if isinstance(r, MediatorRecord)}
    assert len(tokens) >= 3 and None in tokens
    assert len(check_codes([RUN, *records], dictionary, 5)) == len(records)
    return dictionary, [RUN, *records]


def moved(codes: tuple[Code, ...], **change: Any) -> tuple[Code, ...]:
    return (replace(codes[0], **change), *codes[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"token": 5}, "no token 5 among 5 activations"),
        (lambda r: {"token": -1}, "no token -1"),
        (lambda r: {"codes": moved(r.codes, feature=10)}, "no feature 10 among 10"),
        (lambda r: {"codes": moved(r.codes, feature=9)}, "feature 9 is zero"),
        (lambda r: {"codes": moved(r.codes, value=-1.0)}, "codes holds a value that is not pos"),
        (lambda r: {"codes": moved(r.codes, value=float("inf"))}, "codes is not finite"),
        (lambda r: {"codes": (*r.codes, r.codes[0])}, "a feature twice"),
        (lambda r: {"codes": r.codes[1:], "removed": (r.codes[0].feature,)}, "not in codes"),
        (lambda r: {"removed": r.added}, "is removed, but not in codes"),
        (lambda r: {"added": r.removed}, "is added, but already in codes"),
        (lambda r: {"removed": ()}, "not one feature for one other"),
        (lambda r: {"alternative": r.codes}, "more than one exchange"),
        (lambda r: {"l0": 77}, "l0 is 77 with"),
        (lambda r: {"error": -1.0}, "a negative error"),
        (lambda r: {"error": float("nan")}, "error is not finite"),
        (lambda r: {"moved": 1.5}, "moved is 1.5"),
        (lambda r: {"codes": moved(r.codes, value=9.0)}, "other codes of token"),
    ],
)  # fmt: skip
def test_codes(coded, change: Change, message: str) -> None:
    dictionary, records = coded
    number = max(
        n for n, r in enumerate(records)
        if isinstance(r, MediatorRecord) and r.token is not None
        and isinstance(records[n - 1], MediatorRecord)
    )  # fmt: skip
    changed = list(records)
    changed[number] = replace(changed[number], **change(changed[number]))
    where = f"--mediators, line {number + 1}: "
    refused(lambda: check_codes(changed, dictionary, 5), f"{where}.*({message})")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"token": 12}, "no token 12 among 5"),
        (lambda r: {"l0": -1}, "a negative count"),
        (
            lambda r: {"alternatives": tuple(replace(a, count=-3) for a in r.alternatives)},
            "a negative count",
        ),
        (lambda r: {"encoder_error": -1.0}, "a negative error"),
        (lambda r: {"log2_size": float("inf")}, "log2_size is not finite"),
    ],
)
def test_tokens(coded, change: Change, message: str) -> None:
    dictionary, records = coded
    number = next(n for n, r in enumerate(records) if isinstance(r, TokenRecord))
    changed = list(records)
    changed[number] = replace(changed[number], **change(changed[number]))
    refused(lambda: check_codes(changed, dictionary, 5), f"line {number + 1}: .*{message}")


def test_order_examples_and_other_saes(coded) -> None:
    dictionary, records = coded
    alternatives = [r for r in records if isinstance(r, MediatorRecord)]
    of_token = [r for r in alternatives if r.token is not None]
    first, last = of_token[0], of_token[-1]
    assert first.token != last.token
    tokens = [r for r in records if isinstance(r, TokenRecord)]
    apart = [*tokens, first, last, first]
    refused(lambda: check_codes(apart, dictionary, 5), f"line {len(apart)}: token . again")
    refused(lambda: check_codes([first], dictionary, 5), "whose own record is not before them")
    others = tuple(a for a in tokens[0].alternatives if a.mode != "accuracy")
    unsaid = replace(tokens[0], alternatives=others)
    refused(lambda: check_codes([unsaid], dictionary, 5), "no count of alternatives in accuracy")
    token = next(r for r in records if isinstance(r, TokenRecord))
    refused(lambda: check_codes([token, token], dictionary, 5), "line 2: token . a second time")
    example = next(r for r in alternatives if r.token is None)
    refused(lambda: check_codes([replace(example, features=())], dictionary, 5), "not in the exch")
    other = [replace(r, sae="other") for r in alternatives]
    assert check_codes([*other, *tokens, first], dictionary, 5) == [*tokens, first]
    refused(lambda: check_codes(other, dictionary, 5), "holds records of other")


def test_the_command_line_names_the_line(cli: Cli, tmp_path: Path, scanned) -> None:
    np.save(tmp_path / "w.npy", ROWS.astype(np.float32))
    lines = [json.loads(dump(r)) for r in scanned]
    for line in lines:
        line.update({"sae": "w.npy"} if "sae" in line else {})
    number = next(n for n, line in enumerate(lines) if line["type"] == "pair")
    lines[number]["features"] = [0, 4711]
    (tmp_path / "scan.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = cli("mediators", "w.npy", "--scan", "scan.jsonl", "-o", "out.jsonl")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert f"line {number + 1}: there is no feature 4711".encode() in done.stderr
