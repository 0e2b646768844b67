"""Folders of collected activations, read and gone on with, and caches that pyarrow reads."""

from __future__ import annotations

import io
import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import ipc, parquet

from saeaudit.sources.activations import read_activations
from saeaudit.sources.collected.reader import CollectedTexts
from saeaudit.sources.collected.writer import Writer
from tests.fuzz.engine import Case
from tests.fuzz.mutate import chance, mutate_bytes, mutate_json
from tests.fuzz.targets.weights import mutate_safetensors
from tests.support.collecting import MANIFEST, WIDTH, collect, contents, documents, text_of


@cache
def folder() -> Case:
    """Files of a complete folder."""
    with tempfile.TemporaryDirectory() as place:
        collect(Path(place))
        return contents(Path(place))


def mutated(rng: random.Random, files: Case) -> Case:
    """A folder of which one file or two are changed, cut or missing."""
    changed = dict(files)
    for _ in range(rng.choice((1, 1, 2))):
        texts = [name for name in files if name.endswith(".json")]
        name = rng.choice([*texts, rng.choice(sorted(files))])
        data = files[name]
        if chance(rng, 0.05):
            changed.pop(name, None)
        elif not name.endswith(".json"):
            changed[name] = mutate_safetensors(rng, data)
        elif chance(rng, 0.8):
            text = mutate_json(rng, json.loads(data))
            changed[name] = text.encode("utf-8", "surrogatepass")
        else:
            changed[name] = mutate_bytes(rng, data)
    return changed


class Collected(NamedTuple):
    """A complete folder, all of it read."""

    name: str = "collected"

    def make(self, rng: random.Random) -> Case:
        return mutated(rng, folder())

    def run(self, folder: Path) -> None:
        activations, tokens, _ = read_activations([folder], WIDTH)
        assert len(activations[:]) == len(activations)
        if isinstance(tokens, CollectedTexts):  # else there is no manifest: they are any files
            assert len(tokens[:]) == len(activations)
            for number in range(0, len(tokens), 50):
                tokens.around(number)


class Resumed(NamedTuple):
    """A folder that is not complete, gone on with."""

    name: str = "resumed"

    def make(self, rng: random.Random) -> Case:
        files = dict(folder())
        manifest = json.loads(files["manifest.json"])
        del files["vocabulary.json"]
        files["manifest.json"] = json.dumps({**manifest, "totals": None}).encode()
        return mutated(rng, files)

    def run(self, folder: Path) -> None:
        with Writer(folder, MANIFEST, resume=True) as writer:
            for document in documents(min(writer.document, 60)):
                writer.append(document)
            writer.finish(text_of)


@cache
def caches() -> Case:
    """An Arrow stream and a Parquet file of the same activations."""
    values = np.random.default_rng(0).normal(size=20 * 4 * WIDTH).astype(np.float16)
    inner = pa.ListArray.from_arrays(pa.array(range(0, 81 * WIDTH, WIDTH), pa.int32()), values)
    table = pa.table({"x": pa.ListArray.from_arrays(pa.array(range(0, 81, 4), pa.int32()), inner)})
    arrow, columns = io.BytesIO(), io.BytesIO()
    with ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    parquet.write_table(table, columns)
    return {"x.arrow": arrow.getvalue(), "x.parquet": columns.getvalue()}


class Caches(NamedTuple):
    """Files that pyarrow reads."""

    name: str = "caches"

    def make(self, rng: random.Random) -> Case:
        name = rng.choice(("x.arrow", "x.arrow", "x.parquet"))
        return {name: mutate_bytes(rng, caches()[name])}

    def run(self, folder: Path) -> None:
        read_activations([folder], WIDTH).activations[:]


TARGETS = (Collected(), Resumed(), Caches())
