"""What the README and the docs say is run."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from saeaudit.records import json_schema
from tests.support.hub import Hub, Running, large

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALONE = [page for page in PAGES if page.name != "collect.md"]
"""Pages whose Python needs nothing around it; that of collect.md makes what its commands read, and
tests/test_figures.py runs both."""
BASH, JQ = shutil.which("bash"), shutil.which("jq")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            found += [
                (page.name, line)
                for line in block.splitlines()
                if line.startswith("saeaudit ") and "TARGET" not in line
            ]
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A loopback hub with what the docs name, and one cache for all of their commands."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "served/google/gemma-scope-2b-pt-res/layer_16/width_16k"
    for sparsity in (78, 154):
        large(folder / f"average_l0_{sparsity}")
    batch = root / "served/bucket/v1/gemma-2-2b/16-gemmascope-res-16k/explanations"
    batch.mkdir(parents=True)
    row = b'{"id": "a", "index": "0", "description": "words"}\n'
    (batch / "batch-0.jsonl.gz").write_bytes(gzip.compress(row))
    with Running(root / "served") as running:
        yield running


@pytest.mark.skipif(BASH is None or JQ is None, reason="needs bash and jq")
@pytest.mark.parametrize(("page", "command"), commands())
def test_documented_commands_run(
    page: str, command: str, tmp_path: Path, hub: Hub, saeaudit: list[str]
) -> None:
    shim = tmp_path / "bin" / "saeaudit"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {" ".join(saeaudit)} "$@"\n')
    shim.chmod(0o755)
    done = subprocess.run(
        [BASH, "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env={
            "PATH": f"{shim.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(hub.root.parent / "home"),
            "HF_ENDPOINT": hub.url,
            "SAEAUDIT_NEURONPEDIA_URL": f"{hub.url}/bucket",
        },
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout or (tmp_path / "scan.jsonl").exists()


@pytest.mark.parametrize(
    "code", [block for page in ALONE for block in blocks(page, "python")], ids=lambda c: c[:20]
)
def test_documented_python_runs_and_prints_what_is_shown(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(re.findall(r"print\(.*\)  # (<.*>)$", code, re.M)) <= set(done.stdout.splitlines())


TYPED = ("saeaudit ", "set -o pipefail; saeaudit ", "make ", "pip install ", "python ",
         "compute-sanitizer ", ".venv/bin/")  # fmt: skip
"""How lines begin that are typed, and not shown by anything."""
SHOWN = re.compile(r"<!-- figures: .*?<!-- end of figures -->", re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_commands_show_is_generated(page: Path) -> None:
    """Blocks outside of the marks of docs/generate_figures.py hold what is typed, or code.

    Those of ``sh`` need a model, or the network: they are typed, and no test runs them.
    """
    written = SHOWN.sub("", page.read_text())
    opened = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", written, re.M)
    assert written.count("```") == 2 * len(opened)
    assert {language for language, _ in opened} <= {"", "sh", "python", "yaml"}
    typed = [block for language, block in opened if language in ("", "sh")]
    lines = [line for block in typed for line in block.splitlines()]
    assert [line for line in lines if not line.startswith(TYPED)] == []


def test_a_rule_reads_as_the_page_of_ci_says() -> None:
    from saeaudit.formats.items import broken
    from saeaudit.records import RuleResult

    (said,) = re.findall(r'sentences \("(.*?)"\)', (ROOT / "docs" / "ci.md").read_text())
    assert said == broken(RuleResult("new_findings>0", 0.0, 20.0, "sae", False))


def test_the_records_page_names_every_field() -> None:
    page = (ROOT / "docs" / "records.md").read_text()
    for name, definition in json_schema()["$defs"].items():
        for field in definition["properties"]:
            assert f"`{field}`" in page, f"{name}.{field}"


@pytest.mark.parametrize(
    "name", ("scan", "collect", "fetch", "mediators", "score", "show", "report")
)
def test_every_option_is_documented(name: str) -> None:
    import typer.main

    from saeaudit.cli.app import app

    page = (ROOT / "docs" / f"{name}.md").read_text()
    command = typer.main.get_command(app).commands[name]
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in page, option


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_anchors_are_headings_of_their_page() -> None:
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
            if not link.startswith("http"):
                linked = page.parent / link if link else page
                assert anchor in anchors(linked), f"{page.name}: {link}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as the site and GitHub name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_site_has_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(leaves(nav)) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def leaves(nav: object) -> Iterator[str]:
    """The pages of a menu."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def test_every_command_has_its_page() -> None:
    import typer.main

    from saeaudit.cli.app import app

    page = (ROOT / "docs" / "commands.md").read_text()
    shown = set(re.findall(r"^\| `(\w+)` ", page, re.M))
    commands = typer.main.get_command(app).commands
    assert shown == {name for name, command in commands.items() if not command.hidden} - {"help"}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("scan", ("triple", "babel", "coherence", "claim")),
        ("mediators", ("exchange", "refit", "attainable", "change", "moved", "droppable")),
        ("score", ("bits", "canonical-code", "resolved", "distortion", "incoherence")),
        ("report", ("random-rows",)),
        ("mathematics", ("babel", "duplicate")),
        ("controls", ("control", "pursuit")),
        ("findings", ("exchange", "refit", "attainable", "pursuit")),
        ("ci", ("rule", "baseline")),
    ],
)
def test_words_are_explained_where_they_come_first(page: str, words: tuple[str, ...]) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert [word for word in words if f"](glossary.md#{word})" not in text] == []


def test_the_records_page_is_up_to_date() -> None:
    import runpy

    made = runpy.run_path(str(ROOT / "docs" / "generate_records.py"))
    assert made["page"]() == (ROOT / "docs" / "records.md").read_text()
    assert made["rules"]() == (ROOT / "docs" / "rules.md").read_text()


def test_every_rule_name_is_documented_with_an_example_that_works() -> None:
    """Each example of docs/rules.md is evaluated on the samples."""
    import saeaudit
    from saeaudit.audit.mediators.inputs import MediatorInputs
    from saeaudit.audit.score.inputs import ScoreSources, read_inputs
    from saeaudit.policy.rules import names, parse_rule
    from saeaudit.policy.verdict import Policy, judge
    from saeaudit.records import Verdict

    options = saeaudit.ScoreOptions(max_tokens=20, canonicalise=True)
    sample = saeaudit.open("sample")
    scored = read_inputs(sample, ScoreSources())
    runs = {
        "scan": list(saeaudit.scan(sample)),
        "mediators": list(
            saeaudit.mediators(
                sample,
                MediatorInputs(scored.activations),
                saeaudit.MediatorOptions(max_tokens=3),
            )
        ),
        "score": list(saeaudit.score(sample, scored, options)),
    }
    text = (ROOT / "docs" / "rules.md").read_text()
    for command, records in runs.items():
        section = text.split(f"## {command}\n")[1].split("\n## ")[0]
        examples = dict(re.findall(r"^\| `([\w.]+)` .*`--fail-on '([^']+)'` \|$", section, re.M))
        assert set(examples) == set(names(command))
        rules = tuple(parse_rule(example, command) for example in examples.values())
        *_, verdict = judge([*records, Verdict(True, (), 0, 0)], Policy(rules))
        undefined = {r.rule.split(">")[0] for r in verdict.rules if r.value is None}
        assert len(verdict.rules) == len(examples)
        assert undefined <= {"unique_below_k"}
