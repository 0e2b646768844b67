"""Rules, baselines, verdicts and the configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.scan.run import scan_all
from saeaudit.formats.reading import read_records
from saeaudit.policy.baseline import make_baseline, read_baseline
from saeaudit.policy.config import load_config
from saeaudit.policy.rules import Rule, names, parse_rule, value_of
from saeaudit.policy.verdict import COUNTED, Policy, judge
from saeaudit.records import (
    ClaimRecord,
    ErrorRecord,
    PairRecord,
    Record,
    ScanSummary,
    TripleRecord,
    Verdict,
    dump,
    parse,
)
from saeaudit.sources.target import resolve


@pytest.fixture(scope="module")
def scanned() -> list[Record]:
    found = list(saeaudit.scan(saeaudit.open("sample/stitched")))
    return [*found, Verdict(True, (), 21, 0)]


def verdict(records, *rules: str, baseline=None) -> Verdict:
    parsed = tuple(parse_rule(rule, "scan") for rule in rules)
    last = list(judge(records, Policy(parsed, baseline)))[-1]
    assert isinstance(last, Verdict)
    return last


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("pairs>16", False),
        ("pairs>17", True),
        ("pairs >= 17", False),
        ("pairs<17", True),
        ("pairs<=17", False),
        ("pairs==17", False),
        ("pairs!=17", True),
        ("triples_per_1000_features>0.7", False),
        ("triples_per_1000_features>0.8", True),
        ("pairs_per_1000_features>5", True),
        ("max_cosine.quantiles.p50>0.3", False),
        ("babel.k8<1e9", False),
        ("new_findings>20", False),
        ("new_findings>21", True),
    ],
)
def test_rules(scanned: list[Record], rule: str, passed: bool) -> None:
    found = verdict(scanned, rule)
    assert found.passed is passed
    (one,) = found.rules
    assert (one.sae, one.passed) == ("sample/stitched", passed)
    assert one.rule == rule.replace(" ", "").replace("1e9", "1e+09")


def test_every_name_has_a_value(scanned: list[Record]) -> None:
    (summary,) = (r for r in scanned if isinstance(r, ScanSummary))
    for name in names("scan"):
        value = value_of(name, summary, dict.fromkeys(COUNTED, 1))
        undefined = name == "closest_pair.encoder_cosine"  # there is no encoder in this file
        assert value is None if undefined else isinstance(value, (int, float)), name
    assert len(names("score")) > 30 and "incoherence" in names("score")
    assert "disagreements.mean" in names("score") and "bits_interval.low" in names("score")


def test_an_undefined_number_cannot_pass(scanned: list[Record]) -> None:
    records = [
        replace(r, unique_below_k=None) if isinstance(r, ScanSummary) else r for r in scanned
    ]
    for rule in ("unique_below_k>1", "unique_below_k<1"):
        found = verdict(records, rule)
        assert not found.passed and found.rules[0].value is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "zebras>3",
            "no number of the summary of scan .known: antipodal_pairs, babel.k1",
        ),
        ("pear>3", r"no number of the summary of scan .did you mean pairs\?"),
        ("pair>3", r"did you mean pairs or pairs_per_1000_features\?"),
        ("pairs", "is no rule"),
        ("pairs=3", "is no rule"),
        ("pairs>many", "'many' in 'pairs>many' is no number"),
        ("pairs>nan", "is no number"),
        ("complete>0", "no number of the summary of scan"),
        ("sae>0", "no number of the summary of scan"),
        ("__class__>0", "no number of the summary of scan"),
        ("pairs>3; rm -rf", "is no rule"),
    ],
)
def test_bad_rules(rule: str, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        parse_rule(rule, "scan")


def test_each_sae_is_judged(scanned: list[Record]) -> None:
    other = list(saeaudit.scan(saeaudit.open("sample")))
    found = verdict([*other, *scanned], "triples>0", "new_findings>1")
    assert [(r.sae, r.passed) for r in found.rules] == [
        ("sample", True), ("sample", True), ("sample/stitched", False), ("sample/stitched", False),
    ]  # fmt: skip
    assert found.new_findings == 22
    failed = [*scanned[:-1], ErrorRecord("x", "y", ""), Verdict(False, (), 0, 0)]
    assert not verdict(failed, "triples>100").passed


def test_a_baseline_knows_findings_whose_numbers_drift(scanned: list[Record]) -> None:
    made = list(make_baseline(scanned, "scan.jsonl", "0.1.0"))
    assert made[0].type == "baseline" and made[0].findings == 21
    assert all(parse(dump(record)) == parse(dump(parse(dump(record)))) for record in made)
    known = read_baseline(made, "b")
    moved = [
        replace(r, cosine=r.cosine + 0.01, features=r.features) if isinstance(r, PairRecord)
        else replace(r, features=r.features[::-1]) if isinstance(r, TripleRecord) else r
        for r in scanned
    ]  # fmt: skip
    extra = replace(next(r for r in scanned if isinstance(r, PairRecord)), features=(7, 9))
    records = list(judge([*moved[:-2], extra, *moved[-2:]], Policy((), known)))
    fresh = [r for r in records if getattr(r, "known", None) is False]
    assert [r.features for r in fresh] == [(7, 9)]
    assert records[-1].new_findings == 1 and records[-1].known_findings == 21
    flipped = [replace(r, kind="antipodal") if r == extra else r for r in [extra]]
    assert read_baseline([*made, extra], "b").known.isdisjoint(
        read_baseline([made[0], made[1], *flipped], "b").known
    )
    # A whole scan is a baseline as well, and a baseline of a baseline is the same.
    assert read_baseline(scanned, "s").known == known.known
    assert list(make_baseline(made, "b", "0.1.0")) == made


def test_a_claim_is_no_finding_and_rules_can_name_the_answers(scanned: list[Record]) -> None:
    options = saeaudit.ScanOptions(
        triples=((1, 2, 3), (114, 9, 2280), (692, 3925, 554)), pairs=((1, 2), (114, 2280))
    )
    records = list(saeaudit.scan(saeaudit.open("sample/stitched"), options))
    answers = [r.holds for r in records if isinstance(r, ClaimRecord)]
    assert answers == ["no", "no", "pair", "yes", "yes"]
    known = read_baseline(make_baseline(scanned, "", "0"), "b")
    texts = {"claims_that_hold>2": True, "claims_that_fail==3": False, "claims_that_fail>3": True}
    rules = tuple(parse_rule(text, "scan") for text in texts)
    *_, end = judge([*records, Verdict(True, (), 0, 0)], Policy(rules, known))
    assert end.new_findings == 0 and end.known_findings == 21
    assert [result.passed for result in end.rules] == list(texts.values())
    *_, without = judge([*scanned], Policy(rules))
    assert [result.value for result in without.rules] == [0, 0, 0], "where nothing is claimed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: replace(d, d_sae=5000), "features 4096, now 5000"),
        (lambda d: replace(d, d_in=5), "width 384, now 5"),
        (lambda d: replace(d, source=replace(d.source, revision="abc")), "revision None, now abc"),
        (lambda d: replace(d, sae="other"), "has no other; it has sample/stitched"),
    ],
)
def test_a_baseline_of_another_dictionary_is_refused(scanned, change, message: str) -> None:
    known = read_baseline(scanned, "b.jsonl")
    known.check(scanned[0])
    with pytest.raises(AuditError, match=message) as caught:
        known.check(change(scanned[0]))
    assert "--baseline-any-revision" in caught.value.hint
    replace(known, any_revision=True).check(change(scanned[0]))


@pytest.mark.parametrize("first", ["run", "baseline"])
def test_records_of_another_schema_are_refused_as_such(first: str, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(f'{{"type":"{first}","schema":"saeaudit/1","version":"0.1.0"}}\n')
    with pytest.raises(AuditError, match="records of saeaudit/1; this version reads saeaudit/2"):
        list(read_records(str(file), "--baseline", ""))
    file.write_text(f'{{"type":"{first}","schema":"saeaudit/2","version":"0.1.0"}}\n')
    with pytest.raises(AuditError, match="line 1 is not a record of saeaudit"):
        list(read_records(str(file), "--baseline", ""))


def test_only_complete_scans_are_baselines(scanned: list[Record]) -> None:
    for make in (lambda r: list(make_baseline(r, "f", "0")), lambda r: read_baseline(r, "f")):
        with pytest.raises(AuditError, match="no complete scan"):
            make(scanned[:-1])
        with pytest.raises(AuditError, match="could not audit x"):
            make([ErrorRecord("x", "y", ""), *scanned])
        with pytest.raises(AuditError, match=r"holds no scan|no complete scan"):
            make([])
        cut = [replace(r, complete=False) if isinstance(r, ScanSummary) else r for r in scanned]
        with pytest.raises(AuditError, match="not all findings of sample/stitched"):
            make(cut)


def test_an_sae_that_the_baseline_lacks_is_an_error_of_that_one(scanned: list[Record]) -> None:
    found = [local for name in ("sample", "sample/stitched") for local in resolve(name)]
    known = read_baseline(scanned, "--baseline b.jsonl")
    run = scan_all(found, saeaudit.ScanOptions(), "fp32", check=known.check)
    records = list(judge(run, Policy((), known)))
    error = records[0]
    assert isinstance(error, ErrorRecord) and error.sae == "sample"
    assert "b.jsonl: has no sample; it has sample/stitched" in error.reason
    assert {getattr(r, "sae", "sample/stitched") for r in records[1:]} == {"sample/stitched"}
    last = records[-1]
    assert isinstance(last, Verdict) and not last.passed
    assert (last.new_findings, last.known_findings) == (0, 21)


FULL = """
release: mine
model: some/model
source: hf://someone/saes
revision: main
neuronpedia: model/{layer}-res
saes: {"layer_0": "a/b"}
scan: {min_cosine: 0.8, max_residual: 0.1, min_gain: 3}
policy:
  max_duplicate_fraction: 0.01
  min_live_features: 100
  max_bits_per_token: 300
  max_new_findings: 0
  fail_on: ["coherence>=0.999", "incoherence>0.5"]
  baseline: known.jsonl
"""


def test_every_key_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "saeaudit.yaml"
    file.write_text(FULL)
    config = load_config(file)
    assert config.release and config.baseline == tmp_path / "known.jsonl"
    assert config.scan == {"min_cosine": 0.8, "max_residual": 0.1, "min_gain": 3.0}
    assert config.rules["scan"] == (
        Rule("duplicate_fraction", ">", 0.01), Rule("live_features", "<", 100),
        Rule("new_findings", ">", 0), Rule("coherence", ">=", 0.999),
    )  # fmt: skip
    assert config.rules["score"] == (
        Rule("bits_per_token", ">", 300),
        Rule("incoherence", ">", 0.5),
    )
    file.write_text("")
    assert load_config(file).rules["scan"] == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scna: {}", r"unknown key scna .known: release, .*scan"),
        ("scan: {min_cosin: 0.9}", r"unknown key scan.min_cosin .known: min_cosine"),
        ("scan: {min_cosine: high}", "scan.min_cosine is 'high'; a number of 0.01 to 1"),
        ("scan: {min_cosine: true}", "scan.min_cosine is True; a number"),
        ("scan: {min_cosine: 1.5}", "scan.min_cosine is 1.5; a number of 0.01 to 1"),
        ("scan: {min_gain: 0.5}", "scan.min_gain is 0.5; a number of 1 or more"),
        ("scan: {max_residual: .nan}", "scan.max_residual is nan"),
        ("scan: [1]", r"scan is \[1\]; a mapping"),
        ("policy: {max_pears: 1}", "policy.max_pears: 'pears' is no number"),
        ("policy: {maximum: 1}", "unknown key policy.maximum .known: baseline, fail_on, and max_"),
        ("policy: {max_pairs: lots}", "policy.max_pairs is 'lots'; a number"),
        ("policy: {fail_on: pairs>3}", "policy.fail_on is 'pairs>3'; a list"),
        ("policy: {fail_on: ['pears>3']}", r"policy.fail_on\[0\]: 'pears' is no number"),
        ("policy: {fail_on: ['pairs']}", r"policy.fail_on\[0\]: 'pairs' is no rule"),
        ("policy: {baseline: 3}", "policy.baseline is 3; the name of a file"),
        ("release: 3", "release is 3; text"),
        ("release: mine", "source is missing"),
        ("source: owner/repo", "source is 'owner/repo'; hf://owner/repo"),
        ("source: hf://a/b\nsaes: [x]", r"saes is \['x'\]; a mapping"),
        ("source: hf://a/b\nsaes: {x: 3}", "saes.x is 3; a path"),
        ("- 1", r"the file is \[1\]; a mapping"),
        ("a: {", "bad YAML"),
        ("1: 2", "unknown key 1"),
    ],
)
def test_bad_configurations(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(AuditError, match=message) as caught:
        load_config(file)
    assert str(file) in caught.value.line()


def test_the_releases_that_ship_are_valid_configurations() -> None:
    from saeaudit.sources.releases import config_folder

    files = list(config_folder().glob("*.yaml"))
    assert len(files) > 5
    for file in files:
        assert load_config(file).release
