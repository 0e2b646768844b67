from __future__ import annotations

import json
from pathlib import Path

import pytest

from saeaudit import AuditError
from saeaudit.sources.releases import builtin_releases, load_release
from saeaudit.sources.target import URI
from tests.conftest import Cli


def test_builtin_releases() -> None:
    known = builtin_releases()
    for name in (
        "gemma-scope-2b-pt-res", "gemma-scope-2b-pt-mlp", "gemma-scope-2b-pt-att",
        "gemma-scope-2b-pt-transcoders", "gemma-scope-9b-pt-res", "gemma-scope-9b-it-res",
        "gemma-scope-27b-pt-res", "gemma-scope-2-270m-pt", "gemma-scope-2-27b-it",
        "gpt2-small-res-jb", "llama_scope_lxr_8x",
    ):  # fmt: skip
        assert name in known
    assert sum(name.startswith("gemma-scope-2-") for name in known) == 10
    for release in known.values():
        assert URI.fullmatch(release.source) and release.model
    saes = known["gemma-scope-2b-pt-res"].saes
    assert saes["layer_16/width_16k/canonical"] == "layer_16/width_16k/average_l0_78"
    assert saes["layer_20/width_16k/canonical"] == "layer_20/width_16k/average_l0_71"
    assert saes["layer_12/width_1m/canonical"] == "layer_12/width_1m/average_l0_107"
    assert sum(name.startswith("layer_") for name in saes) == 26 + 26 + 3 + 3  # 131k has none
    assert known["llama_scope_lxr_8x"].saes["l8r_8x"] == "Llama3_1-8B-Base-L8R-8x"


def test_listing(cli: Cli) -> None:
    rows = [json.loads(line) for line in cli("releases", "--format", "jsonl").stdout.splitlines()]
    assert {"name", "model", "saes", "source"} <= set(rows[0])
    assert [row["name"] for row in rows] == sorted(builtin_releases())
    table = cli("releases").stdout.decode()
    assert len(table.splitlines()) == len(rows) and "hf://google/gemma-scope-2b-pt-res" in table
    some = cli("releases", "LLAMA_scope_lx").stdout.decode().splitlines()
    assert len(some) == 8 and all(line.startswith("llama_scope_lx") for line in some)
    assert cli("releases", "no such model").stdout == b""


def test_releases_name_what_the_registry_names() -> None:
    known = builtin_releases()
    distilled = known["llama_scope_r1_distill"].saes
    assert len(distilled) == 96
    assert distilled["l7r_800m_slimpajama"] == "800M-Slimpajama-0-OpenR1-Math-220k/L7R"
    assert [len(r.saes) for n, r in known.items() if n.startswith("saebench_gemma")] == [6, 6, 6]
    nine = known["gemma-scope-9b-pt-res"].saes
    assert nine["layer_9/width_1m/canonical"] == "layer_9/width_1m/average_l0_122"
    assert nine["layer_31/width_1m/canonical"] == "layer_31/width_1m/average_l0_77"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("release: a\nsource: hf://a/b\nsoruce: x\n", "unknown key 'soruce'"),
        ("release: a\nsource: https://a/b\n", "hf://owner/repo was expected"),
        ("release: a\n", "hf://owner/repo was expected"),
        ("release: [a]\nsource: hf://a/b\n", "text was expected"),
        ("source: hf://a/b\nsaes: [a]\n", "saes must map"),
        ("- a\n", "a mapping was expected"),
        ("a: [\n", "bad YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "bad YAML"),
    ],
)
def test_bad_release_files(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(AuditError, match=says) as caught:
        load_release(file)
    assert str(file) in caught.value.line() and "\n" not in caught.value.line()
