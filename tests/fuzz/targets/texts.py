"""Text files: tokens, explanations, records, configurations."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path
from typing import Any, NamedTuple

from saeaudit.errors import AuditError
from saeaudit.formats.reading import read_records
from saeaudit.policy.baseline import make_baseline, read_baseline
from saeaudit.policy.config import load_config
from saeaudit.policy.rules import parse_rule
from saeaudit.sources.activations import read_tokens
from saeaudit.sources.explanations import load_explanations
from saeaudit.sources.neuronpedia import read_explanations, read_features
from saeaudit.sources.releases import load_release
from tests.fuzz.engine import Case
from tests.fuzz.mutate import RAW, TEXTS, chance, mutate_bytes, mutate_json, mutate_lines
from tests.fuzz.oracle import promised
from tests.fuzz.seeds import record_rows

FEATURES = 12


class Tokens(NamedTuple):
    """Token strings: a line each, or a JSON list."""

    name: str = "tokens"

    def make(self, rng: random.Random) -> Case:
        tokens = [rng.choice(("a", " the", "ü", *TEXTS)) for _ in range(rng.randint(0, 8))]
        if chance(rng, 0.5):
            data = mutate_json(rng, tokens).encode("utf-8", "surrogatepass")
        else:
            data = "\n".join(tokens).encode("utf-8", "surrogatepass")
        return {"tokens.txt": mutate_bytes(rng, data) if chance(rng, 0.2) else data}

    def run(self, folder: Path) -> None:
        place = folder / "tokens.txt"
        text = place.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        count = len(lines) if text else 0
        tokens = read_tokens(place, 3 if text.lstrip().startswith("[") else count)
        if not text.lstrip().startswith("["):
            same = tokens == lines[: len(tokens)]
            promised(same, "a line is a token, and nothing else ends it", ascii(tokens)[:300])


class ExplanationFiles(NamedTuple):
    """Explanations as JSON Lines, as CSV, and as an export's folder."""

    name: str = "explanations"

    def make(self, rng: random.Random) -> Case:
        rows = [_explanation(rng, n) for n in range(rng.randint(1, 6))]
        if chance(rng, 0.5):
            return {"explanations.jsonl": mutate_lines(rng, rows)}
        stream = io.StringIO()
        names = ["index", "description", "typeName", "explanationModelName"]
        writer = csv.DictWriter(stream, names, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | ({"index": rng.choice(TEXTS)} if chance(rng, 0.1) else {}))
        data = stream.getvalue().encode("utf-8", "surrogatepass")
        return {"explanations.csv": mutate_bytes(rng, data) if chance(rng, 0.7) else data}

    def run(self, folder: Path) -> None:
        for place in folder.iterdir():
            load_explanations(place, FEATURES)


class Batches(NamedTuple):
    """An export's batches: gzip of JSON Lines."""

    name: str = "batches"

    def make(self, rng: random.Random) -> Case:
        kind = rng.choice(("explanations", "features"))
        row = _explanation if kind == "explanations" else _statistics
        made = {}
        for n in range(rng.choice((1, 1, 2))):
            content = mutate_lines(rng, [row(rng, n) for n in range(rng.randint(1, 5))])
            if chance(rng, 0.02):
                content = rng.choice((b"[", b"0", b'{"a":', b" ", b"\0")) * (80 << 20)
            data = gzip.compress(content, 1, mtime=0)
            if chance(rng, 0.3):
                data = mutate_bytes(rng, data, [data, gzip.compress(b"{}\n", mtime=0)])
            made[f"{kind}/batch-{n}.jsonl.gz"] = data
        return made

    def run(self, folder: Path) -> None:
        for place in folder.iterdir():
            if place.name == "features":
                read_features(place)
            else:
                read_explanations(place)
                load_explanations(place, FEATURES)


def _explanation(rng: random.Random, n: int) -> dict[str, Any]:
    embedding: Any = rng.choice(([0.1, 0.2], "[0.5, 0.25]", None, "[[", [], [1e308, 1e308]))
    return {
        "id": f"row {n}", "index": rng.choice((n, str(n))), "description": f"words about {n}",
        "typeName": "oai_token-act-pair", "explanationModelName": "a model",
        "embedding": embedding,
    }  # fmt: skip


def _statistics(rng: random.Random, n: int) -> dict[str, Any]:
    return {
        "index": str(n), "frac_nonzero": rng.choice((0.25, 0, 1, -1, 2)),
        "freq_hist_data_bar_values": [0.5, 1.5], "freq_hist_data_bar_heights": [3, 1],
    }  # fmt: skip


class Records(NamedTuple):
    """Records of every command, read back and reduced to a baseline."""

    name: str = "lines"

    def make(self, rng: random.Random) -> Case:
        rows = record_rows(rng.choice(("scan", "mediators", "score", "exchanges")))
        return {"records.jsonl": mutate_lines(rng, rows)}

    def run(self, folder: Path) -> None:
        place = folder / "records.jsonl"
        list(read_records(str(place), "--scan", "a hint"))
        list(make_baseline(read_records(str(place), "", "a hint"), "file", "0"))
        read_baseline(read_records(str(place), "", "a hint"), "file")


CONFIG: dict[str, Any] = {
    "release": "mine", "model": "m", "source": "hf://owner/repo", "revision": None,
    "neuronpedia": "m/{layer}-res-{width}", "saes": {"a": "layer_1/a", "b": "layer_2/b"},
    "scan": {"min_cosine": 0.9, "max_residual": 0.2, "min_gain": 2.0},
    "policy": {
        "max_duplicate_fraction": 0.01, "min_features": 5, "baseline": "b.jsonl",
        "fail_on": ["pairs>5", "max_cosine.p50>0.5"],
    },
}  # fmt: skip
YAML = (
    "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\n"
    "policy: {fail_on: [*c,*c,*c,*c,*c,*c,*c,*c]}\n",
    "release: &x [*x]\n", "saes: &x {a: *x}\n", "<<: [[[]]]\n", "<<: {policy: {}}\npolicy: {}\n",
    "? [a, b]\n: c\n", "? {a: b}\n: c\n", "!!python/object/apply:os.system ['true']\n",
    "policy: {max_pairs: 190:20:30.15}\n", "policy: {max_pairs: 2001-99-99}\n",
    "policy: {max_pairs: 2001-01-01 99:99:99}\n", "policy: {max_pairs: !!int x}\n",
    "policy: {max_pairs: !!float x}\n", "policy: {max_pairs: !!binary é}\n",
    "policy: {max_pairs: !!timestamp x}\n", "policy: {max_pairs: 0o9}\n", "--- a\n--- b\n",
    "policy: {max_pairs: " + "9" * 5000 + "}\n", "policy: {max_pairs: 0x" + "f" * 400 + "}\n",
    "policy: {max_pairs: .inf}\n", "policy: !!set {a, b}\n", "%YAML 9.9\n---\n", "\t- a\n",
    "%TAG ! tag:x,2000:\n---\n!a b\n", "policy: {}\npolicy: {max_pairs: 1}\n", "a: |9\n  b\n",
    "- " * 2000 + "a\n", "[" * 2000, "{a: " * 2000, "".join(f"{' ' * n}a:\n" for n in range(1500)),
    '"\\ud800": 1\n', '"\\U00110000": 1\n', "\x00", "\ufeffpolicy: {}\n", "policy: {~: 1}\n",
    "policy: {1: 1}\n", "saes: {1: 2}\n", "policy: {max_pairs: 1_0}\n",
    "policy: {max_pairs: 1e999}\n",
    "policy: !!omap [a: 1]\n", "policy: !!pairs [a: 1]\n", "policy: !!omap x\n", "!!null x\n",
    "!!bool x\n", "release: !!str {a: b}\n", "release: !!str [a]\n", "policy: {max_pairs: -.nan}\n",
)  # fmt: skip
"""YAML that is more than JSON, and some that is less."""
RULES = ("pairs", "max_cosine.p50", ">", "=", "<", "!", " ", ".", "1", "0.5", *TEXTS, *RAW[:18])
"""What a rule may be put together from."""


class Configurations(NamedTuple):
    """Policies and releases in YAML, and rules."""

    name: str = "yaml"

    def make(self, rng: random.Random) -> Case:
        if chance(rng, 0.3):
            text = rng.choice(YAML)
        elif chance(rng, 0.15):
            text = rng.choice(("[", "{a: ", "- ", "? ", "!a ", "&a ")) * rng.choice(
                (500, 5000, 200_000)
            )
        else:
            text = mutate_json(rng, CONFIG)
        if chance(rng, 0.2):
            text += "\n" + rng.choice(YAML)
        data = text.encode("utf-8", "surrogatepass")
        rule = "".join(rng.choice(RULES) for _ in range(rng.randint(0, 5)))
        return {
            "config.yaml": mutate_bytes(rng, data) if chance(rng, 0.3) else data,
            "rule": rule.encode("utf-8", "surrogatepass"),
        }

    def run(self, folder: Path) -> None:
        place = folder / "config.yaml"
        refusals = []
        for read in (load_config, load_release, self._rule):
            try:
                read(place)
            except AuditError as error:
                refusals.append(error)
        if refusals:
            raise max(refusals, key=lambda error: len(error.line()))

    def _rule(self, place: Path) -> None:
        text = place.with_name("rule").read_bytes().decode("utf-8", "surrogatepass")
        parse_rule(text, "scan")


TARGETS = (Tokens(), ExplanationFiles(), Batches(), Records(), Configurations())
