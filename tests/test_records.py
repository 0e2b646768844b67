from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saeaudit
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.records import (
    ErrorRecord,
    PairRecord,
    Verdict,
    dump,
    json_schema,
    number,
    parse,
)


def sample_lines() -> list[str]:
    options = ScanOptions(min_cosine=0.5, triples=((1, 2, 3),), pairs=((3, 1),))
    lines = [dump(record) for record in scan(saeaudit.open("sample"), options)]
    stitched = scan(saeaudit.open("sample/stitched"))
    lines += [dump(record) for record in stitched if record.type == "triple"]
    lines.append(dump(ErrorRecord("x", "broken", "mend it")))
    lines.append(dump(Verdict(passed=True, rules=(), new_findings=0, known_findings=0)))
    return lines


def test_records_survive_a_round_trip_and_match_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    lines = sample_lines()
    assert {json.loads(line)["type"] for line in lines} == {
        "dictionary", "claim", "pair", "group", "triple", "summary", "error", "verdict",
    }  # fmt: skip
    for line in lines:
        validator.validate(json.loads(line))
        assert dump(parse(line)) == line


def test_the_schema_refuses_what_is_not_a_record() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    good = json.loads(dump(PairRecord("s", (1, 2), "duplicate", 0.95, 1.0, None)))
    validator.validate(good)
    for wrong in (
        {**good, "cosine": "0.95"},
        {**good, "surprise": 1},
        {**good, "kind": "similar"},
        {**good, "features": [1]},
        {key: value for key, value in good.items() if key != "sae"},
        {**good, "type": "par"},
    ):
        assert not validator.is_valid(wrong)
        with pytest.raises(ValueError):
            parse(json.dumps(wrong))


def test_every_field_is_described() -> None:
    for name, definition in json_schema()["$defs"].items():
        for field, schema in definition["properties"].items():
            described = schema.get("description") or "$ref" in schema
            assert described, f"{name}.{field}"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers(value: float) -> None:
    shown = number(value)
    if value != value or abs(value) == float("inf"):
        assert shown is None
    else:
        assert shown == pytest.approx(value, rel=1e-8)
        assert str(shown) != "-0.0"


def test_records_need_no_pydantic_to_be_written() -> None:
    code = (
        "import sys, saeaudit.records as r; r.dump(r.ErrorRecord('a', 'b', 'c'));"
        "assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
