"""What commands are given beside weights: records of other commands, and what a user types."""

from __future__ import annotations

import json
import os
import random
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from saeaudit.sources.target import resolve
from saeaudit.vocabulary import Format
from tests.fuzz.engine import Case, write_case
from tests.fuzz.mutate import SIZES, TEXTS, chance, mutate_bytes, mutate_lines
from tests.fuzz.seeds import FEATURES, SAE, TOKENS, call, record_rows, records, sae_files
from tests.fuzz.targets.outputs import check, hostile
from tests.fuzz.targets.tables import numbers


class Given(NamedTuple):
    """A command that reads records which another command wrote."""

    name: str
    command: str
    """Whose records are changed."""
    arguments: tuple[str, ...]

    def make(self, rng: random.Random) -> Case:
        rows = record_rows(self.command)
        for _ in range(rng.choice((0, 1, 2))):
            _misnumber(rng, rng.choice(rows))
        return {"records.jsonl": mutate_lines(rng, rows, changed=1)}

    def run(self, folder: Path) -> None:
        write_case(folder, sae_files())
        call(folder, *self.arguments, "-o", "out.jsonl")


def _misnumber(rng: random.Random, value: Any) -> None:
    """Change one number somewhere in a record to another of its type: its form stays valid."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    places = [
        (k, v) for k, v in inner if isinstance(v, (int, float, dict, list)) and v not in ([], {})
    ]
    if not places:
        return
    key, inside = rng.choice(places)
    if isinstance(inside, (dict, list)):
        _misnumber(rng, inside)
    elif isinstance(inside, bool):
        value[key] = not inside
    elif isinstance(inside, int):
        value[key] = rng.choice((-1, 0, 1, inside + 1, 11, 12, *SIZES))
    else:
        value[key] = rng.choice((-1.0, 0.0, 1e308, -1e308, 5e-324, -inside, inside * 2))


SHOWN = (
    (), ("--sort", "worst"), ("--feature", "2"), ("--top", "1", "--sort", "-cosine"),
    ("--type", "pair"), ("--sae", "s*"), ("--feature", "3", "--format", "jsonl"),
)  # fmt: skip


class Shown(NamedTuple):
    """`show` of records that were changed, in every form."""

    name: str = "shown"

    def make(self, rng: random.Random) -> Case:
        rows = [row for name in ("scan", "mediators", "score") for row in record_rows(name)]
        for _ in range(rng.choice((0, 1, 2))):
            _misnumber(rng, rng.choice(rows))
        options = rng.choice((*SHOWN, *(("--format", form) for form in get_args(Format))))
        told = {"options": options}
        return {
            "records.jsonl": mutate_lines(rng, rows, changed=1),
            "told.json": json.dumps(told).encode(),
        }

    def run(self, folder: Path) -> None:
        options = json.loads((folder / "told.json").read_bytes())["options"]
        form = options[options.index("--format") + 1] if "--format" in options else "table"
        check(call(folder, "show", "records.jsonl", *options), form)


class Activations(NamedTuple):
    """Activations with odd numbers in them, through whole commands."""

    name: str
    arguments: tuple[str, ...]

    def make(self, rng: random.Random) -> Case:
        from safetensors.numpy import save

        records(self.name)  # all that commands import is there before the first input is timed
        count = rng.choice((1, 2, 40, 40, 40))
        matrix = numbers(rng, (count, 5))
        if chance(rng, 0.3):
            with np.errstate(all="ignore"):
                matrix = matrix * matrix.dtype.type(rng.choice((0, 1e-30, 1e30, 1e4)))
        tokens = b"".join(
            rng.choice(TEXTS).encode("utf-8", "replace") + b"\n" for _ in range(count)
        )
        return {
            "activations.safetensors": save({"activations": matrix}),
            "tokens.txt": mutate_bytes(rng, tokens) if chance(rng, 0.2) else tokens,
        }

    def run(self, folder: Path) -> None:
        write_case(folder, {k: v for k, v in sae_files().items() if k.startswith(f"{SAE}/")})
        call(folder, *self.arguments, "-o", "out.jsonl")


class Statistics(NamedTuple):
    """An export's firing rates and histograms, which a score is priced by."""

    name: str = "statistics"

    def make(self, rng: random.Random) -> Case:
        rows = [
            {"index": str(n), "frac_nonzero": 0.25, "freq_hist_data_bar_values": [0.5, 1.5],
             "freq_hist_data_bar_heights": [3, 1]} for n in range(FEATURES)
        ]  # fmt: skip
        for _ in range(rng.choice((0, 1, 3))):
            _misnumber(rng, rng.choice(rows))
        return {"features/batch-0.jsonl": mutate_lines(rng, rows, changed=1)}

    def run(self, folder: Path) -> None:
        write_case(folder, sae_files())
        call(folder, "score", SAE, "--features", "features", "-o", "out.jsonl")


class Labels(NamedTuple):
    """Names of files, tokens and explanations that a terminal or a CI system would obey."""

    name: str = "labels"

    def make(self, rng: random.Random) -> Case:
        texts = [{"index": n, "description": hostile(rng)} for n in range(FEATURES)]
        tokens = [hostile(rng).replace("\n", " ") for _ in range(TOKENS)]
        command = rng.choice(("scan", "score", "mediators"))
        form = rng.choice(get_args(Format))
        told = {"command": command, "form": form, "name": _file_name(rng)}
        return {
            "explanations.jsonl": "".join(json.dumps(text) + "\n" for text in texts).encode(),
            "tokens.txt": "\n".join(tokens).encode("utf-8", "replace"),
            "told.json": json.dumps(told).encode(),
        }

    def run(self, folder: Path) -> None:
        told = json.loads((folder / "told.json").read_bytes())
        honest = sae_files()
        files = {k.replace(SAE, told["name"], 1): v for k, v in honest.items() if "/" in k}
        write_case(folder, files | {"a.safetensors": honest["activations.safetensors"]})
        beside = ("--activations", "a.safetensors", "--explanations", "explanations.jsonl",
                  "--tokens", "tokens.txt")  # fmt: skip
        form = ("--format", told["form"])
        more = beside[2:4] if told["command"] == "scan" else beside
        written = call(folder, told["command"], f"./{told['name']}", *form, *more)
        check(written, told["form"])


def _file_name(rng: random.Random) -> str:
    """A name that a file can have."""
    name = hostile(rng).replace("/", ":").replace("\0", "##[").encode("utf-8", "replace")[:200]
    return name.decode("utf-8", "surrogateescape").strip(".") or "::error::"


PIECES = (
    "hf://", "hf:/", "owner/repo", "owner", "repo", "@", "@main", "@" + "a" * 40, "/", "//", "..",
    ".", "~", "sample", "sample/stitched", "gemma-scope-2b-pt-res", "/layer_16/width_16k/canonical",
    "[[[[", "*", "?", "[!a]", "[a-", "\\", "\0", "%2e%2e", " ", "sae", "x.npy", "C:", "file://",
    "http://127.0.0.1:9/", "gemma-scope-2b-pt-res/", "-", "--", "#", "$HOME", "a" * 5000, "/" * 300,
)  # fmt: skip


class Names(NamedTuple):
    """Targets and globs as a user types them, offline."""

    name: str = "targets"

    def make(self, rng: random.Random) -> Case:
        def text(most: int) -> str:
            return "".join(rng.choice(PIECES + TEXTS) for _ in range(rng.randint(1, most)))

        globs = [rng.choice((text(3), "*a" * 30 + "b", "[" * 5000, "[a-z]*" * 40 + "!", "**"))
                 for _ in range(rng.choice((0, 0, 1, 2)))]  # fmt: skip
        typed = {
            "target": rng.choice((text(5), "sample", f"hf://owner/repo{text(3)}")),
            "globs": globs, "revision": rng.choice((None, None, "main", text(2))),
        }  # fmt: skip
        return {"typed.json": json.dumps(typed).encode(), "x.npy": b"x"}

    def run(self, folder: Path) -> None:
        typed = json.loads((folder / "typed.json").read_bytes())
        with chdir(folder):
            if os.path.lexists(typed["target"].replace("\0", "")):
                return  # "/" or the like: a folder that is not part of the input
            resolve(typed["target"], typed["globs"], offline=True, revision=typed["revision"])


TARGETS = (
    Given("exchanges", "scan", ("mediators", SAE, "--scan", "records.jsonl")),
    Given("choices", "mediators", (
        "score", SAE, "--activations", "activations.safetensors", "--mediators", "records.jsonl",
    )),
    Given("examples", "exchanges", (
        "score", SAE, "--activations", "activations.safetensors", "--mediators", "records.jsonl",
    )),
    Given("baseline", "scan", ("scan", SAE, "--baseline", "records.jsonl")),
    Activations("mediators", ("mediators", SAE, "--activations", "activations.safetensors",
                              "--tokens", "tokens.txt")),
    Activations("score", ("score", SAE, "--activations", "activations.safetensors",
                          "--tokens", "tokens.txt")),
    Shown(),
    Statistics(),
    Labels(),
    Names(),
)  # fmt: skip
