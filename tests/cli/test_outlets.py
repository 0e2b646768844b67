"""`--format F=FILE`, as often as is wanted, beside `-o` and standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from saeaudit.cli.outlets import outlets
from saeaudit.errors import AuditError
from saeaudit.vocabulary import Format
from tests.conftest import Cli

FORMS: tuple[Format, ...] = get_args(Format)


def test_one_scan_writes_every_form(cli: Cli, tmp_path: Path) -> None:
    several = [f"--format={form}={form}.out" for form in FORMS]
    done = cli("scan", "sample", "-q", "--no-progress", "--fail-on", "antipodal_pairs>0", *several)
    assert done.returncode == 1 and done.stdout == b""
    done = cli("show", "jsonl.out", *(f"--format={form}={form}.shown" for form in FORMS))
    assert done.returncode == 0 and done.stdout == b"", done.stderr
    for form in FORMS:
        written = (tmp_path / f"{form}.out").read_bytes()
        shown = (tmp_path / f"{form}.shown").read_bytes()
        assert written and shown and (form == "table" or written == shown), form
    done = cli("scan", "sample", "-q", "--format", "markdown", "--format", "jsonl=again.jsonl")
    assert done.stdout.startswith(b"## saeaudit: no rules were asked for")
    assert '"type":"verdict"' in (tmp_path / "again.jsonl").read_text().splitlines()[-1]


@pytest.mark.parametrize("command", ["mediators", "score"])
def test_tokens_commands_have_every_form_too(cli: Cli, tmp_path: Path, command: str) -> None:
    rule = {"mediators": "mean_l0>1", "score": "bits_per_token>1"}[command]
    done = cli(command, "sample", "--max-tokens", 2, "-q", "--fail-on", rule, "-o", "r.jsonl",
               "--format=markdown=m", "--format=codequality=c", "--format=sarif=s")  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "above the limit of 1 |" in (tmp_path / "m").read_text()
    (issue, *_) = json.loads((tmp_path / "c").read_text())
    assert issue["check_name"] == "saeaudit policy" and rule.split(">")[0] in issue["description"]
    assert json.loads((tmp_path / "s").read_text())["runs"][0]["results"]
    assert (tmp_path / "r.jsonl").read_text().startswith('{"type":"run"')


def test_what_could_not_be_audited_is_told_and_leaves_no_records(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    done = cli("scan", "bad.npz", "--format=sarif=s", "--format=jsonl=j", "--format=markdown=m")
    assert done.returncode == 2 and not (tmp_path / "j").exists()
    assert "could not audit 1 SAE" in (tmp_path / "m").read_text()
    (run,) = json.loads((tmp_path / "s").read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize(
    ("forms", "output", "says"),
    [
        (["sarf"], None, "--format: 'sarf' is none of jsonl, table, markdown, github, junit, "
         "sarif, codequality (did you mean sarif?)"),
        (["sarf=x"], None, "(did you mean sarif?)"),
        (["sarif", "junit"], None, "both sarif and junit for one place (junit=FILE)"),
        (["sarif="], None, "no file is named (--format sarif=- is standard output)"),
        (["sarif=no/such"], None, "--format sarif=no/such: cannot be written"),
        (["sarif=a", "junit=./a"], None, "--format junit=./a: two forms for one place"),
        (["sarif=a"], "a", "-o a: two forms for one place"),
        (["sarif=-", "junit"], None, "standard output: two forms for one place"),
    ],
)  # fmt: skip
def test_a_form_and_its_place_are_looked_at_first(
    forms: list[str], output: str | None, says: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuditError) as caught:
        outlets(forms, output).spare([])
    assert says in caught.value.line()


def test_inputs_are_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("weights")
    with pytest.raises(AuditError, match="would be written over a, which is read"):
        outlets(["sarif=b", "junit=a"], None).spare(["a"])


def test_standard_output_is_left_alone_where_every_form_has_a_file() -> None:
    assert outlets(["sarif=b"], None).main is None
    assert outlets(["sarif=b"], "c").all_as("jsonl")[0][1] == "jsonl"
    assert outlets(["sarif=b", "github"], None).all_as("jsonl")[0][1] == "github"
    assert outlets(None, None).all_as("table")[0][1] == "table"
    assert not outlets(["sarif=b"], None).is_for_people
