"""A bucket of explanations that answers what it likes."""

from __future__ import annotations

import gzip
import json
import random
import urllib.parse
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.engine import Case
from tests.fuzz.mutate import SIZES, TEXTS, chance, mutate_lines
from tests.fuzz.oracle import promised
from tests.fuzz.server import Answer, Request, ranged
from tests.fuzz.targets.hubs import Lie, lie, network

SOURCE = "m/1-res-16k"
PREFIX = f"v1/{SOURCE}/explanations/"
KEYS = ("batch-0.jsonl.gz", "batch-1.jsonl.gz", "../../../escaped.jsonl.gz", "/escaped.jsonl.gz",
        "a/b.jsonl.gz", ".jsonl.gz", "batch-0.jsonl.gz/x.jsonl.gz", "\x1b[31m.jsonl.gz", "a" * 300 +
        ".jsonl.gz", "batch-&amp;.jsonl.gz", "batch-&#0;.jsonl.gz", "batch-9.jsonl")  # fmt: skip


class Bucket(NamedTuple):
    """Listings in XML and batches, fetched and read."""

    name: str = "neuronpedia"

    def make(self, rng: random.Random) -> Case:
        rows = [{"index": str(n), "description": f"words {n}", "typeName": "t"} for n in range(3)]
        batch = gzip.compress(mutate_lines(rng, rows), mtime=0)
        page = listing(["batch-0.jsonl.gz"], [len(batch)])
        lies = [lie(rng, ("listing", "batch"), lambda kind: page)] * rng.choice((0, 1))
        told = {"lies": [one._asdict() for one in lies], "listing": _listing(rng, len(batch))}
        return {"bucket.json": json.dumps(told).encode(), "batch": batch}

    def run(self, folder: Path) -> None:
        from saeaudit.sources.exports import fetch_export
        from saeaudit.sources.neuronpedia import read_explanations

        told = json.loads((folder / "bucket.json").read_bytes())
        batch = (folder / "batch").read_bytes()
        lies = {one["kind"]: Lie(**one) for one in told["lies"]}

        def respond(request: Request) -> Answer:
            listed = "list-type" in urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
            tokens.append(request.headers.get("authorization"))
            text = told["listing"].encode("utf-8", "surrogatepass")
            answer = Answer(200, text) if listed else ranged(request, batch)
            kind = "listing" if listed else "batch"
            url = f"http://{request.headers.get('host', '')}"
            return lies[kind].tell(answer, url) if kind in lies else answer

        tokens: list[str | None] = []
        with network(folder, respond, bucket=True):
            try:
                places = fetch_export(SOURCE, "explanations")
                read_explanations(places[0].parent)
            finally:
                promised(not any(tokens), "the hub's token stays with the hub")


def listing(keys: list[str], sizes: list[int], more: str = "") -> bytes:
    """A page of a bucket's listing."""
    items = "".join(
        f"<Contents><Key>{PREFIX}{key}</Key><Size>{size}</Size></Contents>"
        for key, size in zip(keys, sizes, strict=True)
    )
    return f'<?xml version="1.0"?><ListBucketResult>{items}{more}</ListBucketResult>'.encode(
        "utf-8", "surrogatepass"
    )


def _listing(rng: random.Random, size: int) -> str:
    keys = ["batch-0.jsonl.gz"]
    sizes = [size]
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        keys.append(rng.choice(KEYS + TEXTS))
        sizes.append(rng.choice((size, size, size + 1, *SIZES, 10**30)))
    more = ""
    if chance(rng, 0.2):
        token = rng.choice(("same", "", "&amp;", *TEXTS))
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        )
    text = listing(keys, sizes, more).decode("utf-8", "surrogatepass")
    if chance(rng, 0.1):
        half, entity = text[: len(text) // 2], '<!DOCTYPE x [<!ENTITY a "b">]>' + text
        text = rng.choice(("", "<html>log in</html>", "{}", "<Contents>" * 10_000, half, entity))
    return text


TARGETS = (Bucket(),)
