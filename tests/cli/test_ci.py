"""The jobs that docs/ci.md documents, run as they stand there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from saeaudit import scan
from saeaudit.policy.baseline import make_baseline
from saeaudit.records import Verdict, dump
from saeaudit.sample import sample_root
from tests.conftest import Cli
from tests.support.hub import Running, large
from tests.support.records import RUN

BASH, JQ = shutil.which("bash"), shutil.which("jq")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ci.md"
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


def documents() -> list[dict]:
    text = PAGE.read_text()
    return [
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    ]


CONFIG, GITHUB, USES, GITLAB, HOOKS, CRON = documents()
SAMPLE = sample_root() / "layer_3/width_2k/average_l0_23/params.npz"
PIP = (
    "install\\ torch\\ --index-url\\ https://download.pytorch.org/whl/cpu|"
    "install\\ ./saeaudit-0.1.0-py3-none-any.whl"
)
"""What jobs install."""
Job = Callable[..., subprocess.CompletedProcess[str]]


def steps() -> dict[str, list[tuple[str, str]]]:
    """Each job's lines of shell, and the condition on which one runs."""
    (job,) = GITHUB["jobs"].values()
    return {
        "github": [(s["run"], s.get("if", "success()")) for s in job["steps"] if "run" in s],
        "gitlab": [(line, "success()") for line in GITLAB["audit"]["script"]],
    }


def holds(condition: str, folder: Path, status: int) -> bool:
    """Whether a step of GitHub's runs; as far as the page's conditions go."""
    file = re.fullmatch(r"always\(\) && hashFiles\('([\w.]+)'\) != ''", condition)
    if file:
        return (folder / file[1]).exists()
    assert condition == "success()", condition
    return status == 0


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is known of the sample in a folder `sae`."""
    folder = tmp_path_factory.mktemp("baseline")
    (folder / "sae").mkdir()
    shutil.copy(SAMPLE, folder / "sae" / "params.npz")
    with contextlib.chdir(folder):
        known = [RUN, *scan("sae"), Verdict(True, (), 1, 0)]
    return "".join(f"{dump(record)}\n" for record in make_baseline(known, "scan.jsonl", "0.1.0"))


@pytest.fixture
def job(tmp_path: Path, saeaudit: list[str], baseline: str) -> Job:
    """Run a job's lines in a checkout with the sample, a configuration and a baseline."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in (
        ("saeaudit", f'exec {" ".join(saeaudit)} "$@"'),
        ("pip", f'case "$*" in {PIP}) ;; *) exit 1;; esac'),
        ("python", '[ "$1 $2 $3" = "-m pip install" ] && echo "$@" >> ../installed'),
        ("mail", 'echo "mail: $2"; exec cat'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    folder = tmp_path / "checkout"
    (folder / "sae").mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "sae" / "params.npz")
    (folder / "saeaudit.yaml").write_text(yaml.safe_dump(CONFIG))
    environment = {
        **os.environ, "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"), "GITHUB_ACTION_PATH": str(ROOT),
    }  # fmt: skip

    def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        assert BASH is not None
        return subprocess.run(
            [BASH, "-e", "-o", "pipefail", "-c", line], cwd=folder, env=environment | more,
            text=True, capture_output=True, check=False, timeout=120,
        )  # fmt: skip

    def run(name: str) -> subprocess.CompletedProcess[str]:
        status, out, err = 0, "", ""
        for line, condition in steps()[name]:
            if not holds(condition, folder, status):
                continue
            done = shell(line)
            status, out, err = status or done.returncode, out + done.stdout, err + done.stderr
        return subprocess.CompletedProcess(name, status, out, err)

    run.shell, run.folder = shell, folder  # type: ignore[attr-defined]
    (folder / "baseline.jsonl").write_text(baseline)
    return run


def plant(file: Path, added: bool) -> list[tuple[int, int]]:
    """Write 20 duplicates into the sample, over other rows or after the last."""
    with np.load(file) as arrays:
        data = dict(arrays)
    count = len(data["W_dec"])
    sources = range(100, 120)
    if added:
        copies = range(count, count + 20)
        data = {
            "W_dec": np.concatenate([data["W_dec"], data["W_dec"][sources]]),
            "W_enc": np.concatenate([data["W_enc"], data["W_enc"][:, sources]], 1),
            "b_enc": np.concatenate([data["b_enc"], data["b_enc"][sources]]),
            "threshold": np.concatenate([data["threshold"], data["threshold"][sources]]),
            "b_dec": data["b_dec"],
        }
    else:
        copies = range(1000, 1020)
        data["W_dec"][copies] = 1.5 * data["W_dec"][sources]
    np.savez(file, **data)
    return list(zip(sources, copies, strict=True))


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_the_sample_passes_with_its_baseline(job: Job, name: str) -> None:
    done = job(name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::error" not in done.stdout


@pytest.mark.parametrize("added", [False, True], ids=["over", "after"])
@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_planted_duplicates_fail_by_name(job: Job, name: str, added: bool) -> None:
    folder = job.folder  # type: ignore[attr-defined]
    planted = plant(folder / "sae" / "params.npz", added)
    done = job(name)
    assert done.returncode == 1, done.stdout + done.stderr
    text = done.stdout if name == "github" else (folder / "saeaudit.xml").read_text()
    named = set(re.findall(r"features (\d+) and (\d+): decoder cosine 1.000", text))
    every = {(str(i), str(j)) for i, j in planted}
    if name == "github":
        assert len(named) == 8 and named < every
        assert len([line for line in text.splitlines() if line.startswith("::warning")]) == 8
        assert "::notice title=saeaudit::and " in text
        log = json.loads((folder / "saeaudit.sarif").read_text())
        fresh = [r for r in log["runs"][0]["results"] if r.get("baselineState") == "new"]
        assert sorted(tuple(r["properties"]["features"]) for r in fresh) == sorted(planted)
        summary = (folder.parent / "summary").read_text()
        assert summary.startswith("## saeaudit: 2 of 5 rules broken")
    else:
        assert named == every
        issues = json.loads((folder / "quality.json").read_text())
        assert [issue["severity"] for issue in issues].count("major") == 20
    assert (folder / "scan.jsonl").exists()
    assert "policy broken: new_findings is 20, above the limit of 0" in done.stderr


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_broken_jobs_could_not_answer(job: Job, name: str) -> None:
    folder = job.folder  # type: ignore[attr-defined]
    (folder / "baseline.jsonl").rename(folder / "elsewhere")
    done = job(name)
    assert done.returncode == 2
    assert "policy.baseline" in done.stderr and "cannot be read" in done.stderr
    (folder / "elsewhere").rename(folder / "baseline.jsonl")
    (folder / "saeaudit.yaml").write_text("scan: {min_cosin: 0.9}")
    done = job(name)
    assert done.returncode == 2
    assert "saeaudit.yaml: unknown key scan.min_cosin" in done.stderr


def test_another_revision_is_refused_unless_told(job: Job) -> None:
    plant(job.folder / "sae" / "params.npz", True)  # type: ignore[attr-defined]
    line = "saeaudit scan sae --baseline baseline.jsonl -q"
    done = job.shell(line)  # type: ignore[attr-defined]
    assert done.returncode == 2
    assert "features 2048, now 2068" in done.stderr and len(done.stderr.splitlines()) == 1
    done = job.shell(f"{line} --baseline-any-revision | tail -1")  # type: ignore[attr-defined]
    assert done.returncode == 0
    assert json.loads(done.stdout)["new_findings"] == 20


def test_cron_mails_what_is_broken(job: Job, tmp_path: Path) -> None:
    line = CRON["crontab"].split("  ", 1)[1].strip().replace("/srv/audit", ".")
    target = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
    assert target in line and "%" not in line, "cron takes a percent sign for the end of a line"
    folder = tmp_path / "served/google/gemma-scope-2b-pt-res/layer_16/width_16k/average_l0_78"
    folder.mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "params.npz")
    with Running(tmp_path / "served") as hub:
        line = f"export HF_ENDPOINT={hub.url} HF_HOME={tmp_path}/home; {line}"
        done = job.shell(line)  # type: ignore[attr-defined]
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    plant(folder / "params.npz", True)
    broken = line.replace(target, str(folder)).replace("0.01", "0.005")
    done = job.shell(broken)  # type: ignore[attr-defined]
    assert done.stdout.startswith("mail: saeaudit: 1\n") and "1 of 1 rule broken" in done.stdout
    done = job.shell(line.replace(target, "nowhere.npz"))  # type: ignore[attr-defined]
    assert done.stdout.startswith("mail: saeaudit: 2\n") and "nowhere.npz" in done.stdout
    assert "duplicate" not in done.stdout, "nothing that an earlier run has said"


def pinned(uses: str) -> bool:
    """Whether an action is named by its commit, which nobody can move."""
    return re.fullmatch(r"[\w-]+/[\w./-]+@([0-9a-f]{40}|COMMIT)", uses) is not None


def test_actions_are_pinned_and_jobs_end() -> None:
    (job,) = GITHUB["jobs"].values()
    used = [step["uses"] for step in (*job["steps"], *USES["steps"]) if "uses" in step]
    assert len(used) == 7 and all(map(pinned, used)) and not pinned("actions/checkout@v4")
    assert job["timeout-minutes"] and GITLAB["audit"]["timeout"]
    (cache,) = (step["with"] for step in job["steps"] if "cache@" in step.get("uses", ""))
    assert cache["key"].startswith(cache["restore-keys"]) and "run_id" in cache["key"]
    for step in job["steps"]:
        if "upload" in step.get("uses", ""):
            assert "hashFiles" in step["if"], "upload only what is there"


ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.mark.parametrize("broken", [False, True])
def test_the_action_scans_once_and_says_what_is_new(job: Job, broken: bool) -> None:
    install, judge = ACTION["runs"]["steps"]
    assert judge["env"] == {"TARGETS": "${{ inputs.targets }}", "OPTIONS": "${{ inputs.options }}"}
    assert "${{" not in judge["run"] + install["run"], "inputs are never part of a script"
    given = USES["steps"][0]["with"]
    assert given.keys() <= ACTION["inputs"].keys()
    folder = job.folder  # type: ignore[attr-defined]
    (folder / "saeaudit.jsonl").write_text("last week's")
    if broken:
        plant(folder / "sae" / "params.npz", True)
    assert job.shell(install["run"]).returncode == 0  # type: ignore[attr-defined]
    assert str(ROOT) in (folder.parent / "installed").read_text()
    done = job.shell(  # type: ignore[attr-defined]
        judge["run"], TARGETS=f"{given['targets']}\n\n", OPTIONS=given["options"]
    )
    assert done.returncode == broken, done.stderr
    assert ("::error" in done.stdout) == broken
    assert (folder.parent / "summary").read_text().startswith("## saeaudit: ")
    outputs = (folder.parent / "outputs").read_text().splitlines()
    assert outputs == ["records=saeaudit.jsonl", "sarif=saeaudit.sarif"]
    assert json.loads((folder / "saeaudit.sarif").read_text())["version"] == "2.1.0"


def test_the_action_takes_inputs_for_words(job: Job) -> None:
    _, judge = ACTION["runs"]["steps"]
    done = job.shell(  # type: ignore[attr-defined]
        judge["run"], TARGETS="--output=here\n$(touch pwned); x*\n", OPTIONS="$(touch pwned) *"
    )
    folder = job.folder  # type: ignore[attr-defined]
    assert done.returncode == 2 and not (folder / "pwned").exists()
    assert not (folder / "here").exists() and not (folder.parent / "outputs").exists()


def test_hooks_judge_what_a_commit_changes(job: Job) -> None:
    hooks = {
        hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    }
    folder = job.folder  # type: ignore[attr-defined]
    changed = ["saeaudit.yaml", "sae/params.npz", "baseline.jsonl", "sae/activations.npy"]

    def hook(name: str, args: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        files = [file for file in changed if re.search(hooks[name]["files"], file)]
        words = [*(hooks[name].get("args", []) if args is None else args), *files]
        line = f"{hooks[name]['entry']} {shlex.join(words)}"
        return job.shell(line)  # type: ignore[attr-defined]

    (listed,) = HOOKS["repos"]
    assert [one["id"] for one in listed["hooks"]] == list(hooks)
    assert hook("saeaudit-config").returncode == hook("saeaudit-scan").returncode == 0
    plant(folder / "sae" / "params.npz", True)
    (folder / "saeaudit.yaml").write_text("scan: {min_cosin: 0.9}")
    done = hook("saeaudit-config")
    assert done.returncode == 2 and "min_cosin" in done.stderr
    done = hook("saeaudit-scan", ["--fail-on", "pairs>19"])
    assert done.returncode == 1 and "20 duplicate pairs" in done.stdout


@pytest.mark.skipif(JQ is None, reason="needs jq")
def test_pipes(job: Job) -> None:
    rule = "saeaudit scan sample/stitched -q --fail-on 'pairs>{}' | {}"
    for limit, reader, status in (
        (1, "jq .", 1), (100, "jq .", 0), (1, "head -n 1", 1), (100, "head -n 1", 141),
    ):  # fmt: skip
        done = job.shell(rule.format(limit, reader))  # type: ignore[attr-defined]
        assert done.returncode == status, (limit, reader, done.stderr)
        assert "Traceback" not in done.stderr
    done = job.shell("set +o pipefail; " + rule.format(1, "jq ."))  # type: ignore[attr-defined]
    assert done.returncode == 0


def test_options_win_over_the_configuration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("scan: {min_cosine: 0.5}\npolicy: {max_pairs: 3}")
    for arguments, pairs, status in (
        ([], 14, 1), (["--exit-zero"], 14, 0), (["--min-cosine", "0.9"], 0, 0),
        (["--min-cosine", "0.7"], None, 0),
    ):  # fmt: skip
        done = cli("scan", "sample", "-q", "--config", "c.yaml", *arguments)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == status, done.stderr
        assert records[-1]["rules"][0]["rule"] == "pairs>3"
        if pairs is not None:
            assert records[-1]["rules"][0]["value"] + records[-3]["antipodal_pairs"] >= pairs


def test_a_release_of_one_s_own(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large(tmp_path / "served/google/gemma-scope-2b-pt-res/layer_16/width_16k/average_l0_78")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**CONFIG, "policy": {"max_pairs": 1e6}}))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Running(tmp_path / "served") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = cli("scan", "mine/layer_0", "--config", "c.yaml")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[1]["sae"].startswith("mine/layer_0")
    assert records[-1]["rules"][0]["rule"] == "pairs>1e+06"
    unknown = cli("scan", "mine/layer_1", "--config", "c.yaml", "--offline")
    assert unknown.returncode == 2 and len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "sample", "--fail-on", "pears>1"], "did you mean pairs?"),
        (["scan", "sample", "--baseline", "missing.jsonl"], "cannot be read"),
        (["scan", "sample", "--baseline-any-revision"], "there is no baseline"),
        (["scan", "sample", "--config", "missing.yaml"], "cannot be read"),
        (["score", "sample", "--fail-on", "pairs>1"], "no number of the summary of score"),
        (["baseline", "missing.jsonl"], "cannot be read"),
        (["config", "check", "missing.yaml"], "cannot be read"),
    ],
)
def test_one_clear_line(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2 and done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_baseline_from_standard_input(cli: Cli, tmp_path: Path) -> None:
    scanned = cli("scan", "sample/stitched", "-q").stdout
    made = cli("baseline", "-", input=scanned)
    assert made.returncode == 0 and len(made.stdout.splitlines()) == 23
    (tmp_path / "b.jsonl").write_bytes(made.stdout)
    done = cli("scan", "sample/stitched", "--baseline", "b.jsonl", "--format", "table", "-q")
    assert done.returncode == 0 and b"duplicate pairs" in done.stdout
    cut = cli("baseline", "-", "-o", "cut.jsonl", input=scanned.rsplit(b"\n", 2)[0])
    assert cut.returncode == 2 and not (tmp_path / "cut.jsonl").exists()


def test_names_of_files_cannot_command_a_runner(cli: Cli, tmp_path: Path) -> None:
    name = "x\n::error::pwn\r##[error]q.npz"
    shutil.copy(SAMPLE, tmp_path / name)
    for arguments in (
        ["--format", "github", "--fail-on", "pairs>=0"], ["--format", "table"], ["--triple", "x"],
        ["--baseline", name],
    ):  # fmt: skip
        done = cli("scan", name, *arguments)
        assert done.returncode in (0, 1, 2)
        lines = re.split(r"[\r\n]", (done.stdout + done.stderr).decode())
        commands = [line for line in lines if line.lstrip().startswith("::")]
        assert all(re.match(r"::\w+ title=saeaudit|::notice title=x %3A", c) for c in commands)
        assert not any("##[" in line for line in lines if not line.startswith("{"))
