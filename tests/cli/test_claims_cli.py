"""The claim of the post, checked in one command against a release on a hub."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from saeaudit.records import json_schema
from tests.conftest import Cli
from tests.support.hub import GEMMA, Running

RELEASE = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
LABELS = {
    30: "words about dogs", 31: "past tense verbs", 32: "numerals in dates", 40: "names of rivers",
    41: "legal terms", 42: "legal phrases in contracts", 50: "musical notes",
    51: "programming keywords", 52: "\x1b[31mchemical ##[error] symbols",
}  # fmt: skip


def gemma_scope(folder: Path) -> None:
    """A Gemma Scope file: rows 30 to 32 are the post's triple, 42 is 41 again, 52 is neither."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(200, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[32] = rows[31] - 0.8 * rows[30] + 0.05 * rows[1]
    rows[42] = rows[41] - 0.01 * rows[40]
    rows[52] = rows[51] - 0.8 * rows[50] + 1.2 * rows[2]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    folder.mkdir(parents=True)
    np.savez(
        folder / "params.npz", W_enc=rows.T.astype(np.float32), W_dec=rows.astype(np.float32),
        b_enc=np.zeros(200, np.float32), b_dec=np.zeros(64, np.float32),
        threshold=np.ones(200, np.float32),
    )  # fmt: skip


def test_the_claim_of_the_post(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gemma_scope(tmp_path / "served" / GEMMA / "layer_16/width_16k/average_l0_78")
    labels = tmp_path / "labels.jsonl"
    rows = [{"index": f, "description": text} for f, text in LABELS.items()]
    rows += [{"index": f, "description": f"tokens of kind {f}"} for f in range(100, 130)]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAEAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Running(tmp_path / "served") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = cli(
            "scan", RELEASE, "--triple", "30,31,32", "--triple", "40,41,42", "--triple",
            "50,51,52", "--pair", "41,42", "--explanations", labels, "--fail-on",
            "claims_that_fail>1", "--fail-on", "claims_that_hold<1",
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        jsonschema.validate(record, json_schema())
    claims = {tuple(r["features"]): r for r in records if r["type"] == "claim"}
    holds, pair, fails, twins = (
        claims[key] for key in ((30, 31, 32), (40, 41, 42), (50, 51, 52), (41, 42))
    )
    assert [claim["holds"] for claim in (holds, pair, fails, twins)] == ["yes", "pair", "no", "yes"]
    assert holds["alpha"] == pytest.approx(0.8, abs=0.05) and holds["residual"] < 0.05
    assert pair["sentence"] == "40 adds nothing: 41 and 42 are duplicates (cosine 1.0000)"
    assert " % of 52 is left" in fails["sentence"]
    assert holds["labels"] == [LABELS[30], LABELS[31], LABELS[32]]
    assert holds["urls"][2].endswith("/gemma-2-2b/16-gemmascope-res-16k/32")
    assert holds["leaving"] == 31 and holds["label_disagreement"] == pytest.approx(1)
    assert 0 < pair["label_disagreement"] < pair["label_chance"] == holds["label_chance"] <= 1
    assert pair["label_percentile"] < holds["label_percentile"]
    assert twins["similarity_method"] == pair["similarity_method"] is not None
    (finding,) = (r for r in records if r["type"] == "triple")
    assert set(finding["features"]) == {30, 31, 32} and "requested" not in finding
    assert [rule["passed"] for rule in records[-1]["rules"]] == [False, True]
    said = done.stderr.decode()
    block = said.split(f"claim about {RELEASE}: ")[1:]
    assert [lines.splitlines()[0] for lines in block] == [
        "32 = beta (31 - alpha 30)", "42 = beta (41 - alpha 40)", "41 and 42 are duplicates",
        "52 = beta (51 - alpha 50)",
    ]  # fmt: skip
    assert f"  {holds['sentence']}\n" in block[0]
    assert "  31: past tense verbs, https://" in block[0]
    assert "labels of 31 and 32 differ by 1.00 (" in block[0]
    assert "\x1b" not in said and "##[" not in said and "chemical" in said
