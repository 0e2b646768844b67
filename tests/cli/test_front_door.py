"""The first minute: no arguments, help, versions, completion, and what a new user mistypes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from saeaudit.cli import targets
from saeaudit.cli.usage import show_help
from saeaudit.errors import AuditError
from saeaudit.sources.sae import Sae
from tests.conftest import Cli

LIBRARY = re.compile(
    r"no such (option|command)|missing (argument|parameter)|invalid value|input should|"
    r"value error|unexpected extra|requires an argument|does not take a value|usage:",
    re.IGNORECASE,
)
"""What the libraries that parse the command line would say."""


@pytest.mark.parametrize("arguments", ([], ["-h"], ["help"]))
def test_help_is_printed_on_lines(arguments: list[str], cli: Cli) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.count("\n") > 20 and "Examples:\n    saeaudit scan sample/stitched\n" in text
    headings = (
        "Audit SAEs:", "Look at what was found:", "Get SAEs:", "Judge them in CI:",
        "Look things up:",
    )  # fmt: skip
    assert [heading for heading in headings if f"\n{heading}\n" in text] == list(headings)


@pytest.mark.parametrize("command", ("scan", "config check"))
def test_help_of_a_command(command: str, cli: Cli) -> None:
    words = command.split()
    texts = {cli(*typed).stdout for typed in (["help", *words], [*words, "-h"])}
    assert len(texts) == 1 and texts.pop().decode().startswith(f"Usage: saeaudit {command} ")
    group = cli(words[0]) if len(words) > 1 else cli("help", words[0])
    assert group.returncode == 0 and group.stdout.startswith(b"Usage: saeaudit ")


def test_help_fits_80_columns_and_no_summary_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer.main

    from saeaudit.cli.app import app

    monkeypatch.setenv("COLUMNS", "80")
    command = typer.main.get_command(app)
    root = command.make_context("saeaudit", [])
    texts = {name: show_help(root, [name] if name else []) for name in ("", *command.commands)}
    for name, text in texts.items():
        assert max(map(len, text.splitlines())) <= 80, name
        usage = text.partition("\n")[0]
        assert "...}" not in usage, name  # the parser adds dots of its own
        assert not re.search(r"(\.\.\.|…)$", text.removeprefix(usage), re.MULTILINE), name
    scan = texts["scan"]
    for heading in ("What is read:", "What must hold:", "What is written:", "How it runs:"):
        assert f"\n{heading}\n" in scan
    assert "\n    saeaudit scan sample | jq -c '" in scan


MISTAKES = {
    "scna": "there is no command 'scna' (did you mean scan?)",
    "help scna": "there is no command 'scna' (did you mean scan?)",
    "config chek": "config: there is no command 'chek' (did you mean check?)",
    "scan sample --min-cosin 1":
        "scan: there is no option --min-cosin (did you mean --min-cosine?)",
    "scan sample -z": "scan: there is no option -z (see saeaudit scan --help)",
    "--nope": "there is no option --nope (see saeaudit --help)",
    "scan": "scan: TARGET is missing (see saeaudit scan --help)",
    "scan sample -o": "-o: takes a value (see saeaudit --help)",
    "scan sample --quiet=3": "--quiet: takes no value (see saeaudit --help)",
    "scan sample --min-cosine x": "--min-cosine: 'x' is no number (see saeaudit scan --help)",
    "scan sample --max-findings 1.5":
        "--max-findings: '1.5' is no whole number (see saeaudit scan --help)",
    "scan sample --screen fp23":
        "--screen: 'fp23' is none of auto, int8, bf16, fp32 (did you mean fp32?)",
    "schema foo bar": "schema: cannot use 'foo bar' (see saeaudit schema --help)",
    "scan sample --fail-on pear>1":
        "--fail-on: 'pear' is no number of the summary of scan (did you mean pairs?)",
    "scan sample --device tpu": "--device: 'tpu' is no device (auto, cpu, cuda, cuda:1)",
}  # fmt: skip
"""What is typed, and the one line that answers."""


@pytest.mark.parametrize(("typed", "line"), MISTAKES.items(), ids=list(MISTAKES))
def test_mistakes_are_answered_in_our_words(typed: str, line: str, cli: Cli) -> None:
    done = cli(*typed.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"saeaudit: {line}\n"
    assert not LIBRARY.search(line)


def test_completion_is_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(words: str, shell: str = "bash") -> subprocess.CompletedProcess[bytes]:
        monkeypatch.setenv("_SAEAUDIT_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        return cli()

    assert complete("saeaudit sc").stdout.split() == [b"scan", b"score", b"schema"]
    assert complete("saeaudit scan --scr").stdout.split() == [b"--screen"]
    assert complete("saeaudit sc", "nosuch").returncode == 2


def test_mistakes_are_answered_at_once() -> None:
    """A third of a second on a quiet machine; processor time, and generously, on a busy one."""
    times = []
    for _ in range(3):
        start = os.times()
        command = [sys.executable, "-m", "saeaudit", "scan", "smaple"]
        done = subprocess.run(command, capture_output=True, check=False)
        end = os.times()
        assert done.stderr.endswith(b"(did you mean sample?)\n")
        times.append(end.children_user + end.children_system)
        times[-1] -= start.children_user + start.children_system
    assert min(times) < 1.0


def sae_of(size: int, folder: Path) -> Sae:
    """An SAE on the hub of so many bytes, none of which are here."""

    class Listed:
        file, beside = "params.npz", ()

    class Repo:
        repo_id, folder, commit = "a/b", Path("models--a--b"), "0" * 40

    class Remote:
        bytes, repo, listed = size, Repo, Listed

    return Sae("hf://a/b", folder / f"{size}.npz", remote=Remote)  # type: ignore[arg-type]


def test_much_is_not_fetched_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("SAEAUDIT_CACHE", str(tmp_path))
    large = [sae_of(targets.LARGE, tmp_path), sae_of(1, tmp_path)]
    little = large[1:]
    monkeypatch.setattr("saeaudit.sources.cache.free_bytes", lambda folder: 10**15)
    targets.confirm_fetch([large[0], large[0]], "a", yes=False)  # the same file counts once
    with pytest.raises(AuditError, match=r"20\.0 GB would be fetched \(2 SAEs\).*1,000,000\.0 GB"):
        targets.confirm_fetch(large, "a", yes=False)
    targets.confirm_fetch(large, "a", yes=True)
    monkeypatch.setattr("saeaudit.sources.cache.free_bytes", lambda folder: 0)
    with pytest.raises(AuditError, match=r"would be fetched \(1 SAE\); 0 bytes.*yes to go on"):
        targets.confirm_fetch(little, "a", yes=False)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for answer in (True, False):
        monkeypatch.setattr(typer, "confirm", lambda *_, answer=answer, **__: answer)
        if answer:
            targets.confirm_fetch(large, "a", yes=False)
        else:
            with pytest.raises(AuditError, match="not fetched"):
                targets.confirm_fetch(large, "a", yes=False)
    assert "20.0 GB would be fetched" in capsys.readouterr().err
