"""Folders of collected activations that are made up, and processes that are killed making one.

``python -m tests.support.collecting FOLDER SEED COUNT`` collects in processes of which COUNT are
killed, each time going on, and compares the bytes with those of one that is not.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from saeaudit.sources.collected.manifest import Manifest, Origin
from saeaudit.sources.collected.writer import Document, Writer

WIDTH = 16
ORIGIN = Origin(
    model="someone/model", revision="0" * 40, tokenizer="someone/model", place="layers.3:out",
    divide_gain=False, subtract_mean=False, computed_in="float32", attention="eager", device="cpu",
    texts="texts.jsonl",
    texts_identity="sha256:1", options={"context": 128, "bos": "drop", "tokens": None},
    versions={"saeaudit": "0.1.0", "torch": "2", "transformers": "5"},
)  # fmt: skip
MANIFEST = Manifest(origin=ORIGIN, width=WIDTH, dtype="float16", shard_rows=50)


def documents(first: int = 0, count: int = 60, width: int = WIDTH) -> Iterator[Document]:
    """Documents of 0 to 29 tokens, the first of each dropped, and every fifth all of it."""
    for number in range(first, count):
        generator = torch.Generator().manual_seed(number)
        length = int(torch.randint(30, (1,), generator=generator))
        ids = torch.randint(1000, (length,), generator=generator)
        positions = torch.arange(1, length) if number % 5 else torch.arange(0)
        activations = torch.randn(len(positions), width, generator=generator)
        dropped = {"bos": min(length, 1), "sampled": max(length - len(positions) - 1, 0)}
        yield Document(number, ids, positions, activations, dropped)


SMALL = replace(MANIFEST, shard_rows=10)


def text_of(token: int) -> str:
    return f" t{token}"


def collect(folder: Path, manifest: Manifest = MANIFEST, *, resume: bool = False) -> Manifest:
    """Collect the made-up documents, from where the folder is."""
    with Writer(folder, manifest, resume=resume) as writer:
        if not writer.manifest.totals:
            # Whoever collects begins again with the batch that a document is in.
            for document in documents(writer.document // 4 * 4, width=manifest.width):
                writer.append(document)
            writer.finish(text_of)
        return writer.manifest


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def die_at(call: int) -> None:
    """Kill this process at the n-th time that it brings a file to the disk, or names it."""
    calls = iter(range(1, sys.maxsize))

    def counted(name: str) -> None:
        function = getattr(os, name)

        def wrapper(*arguments: object) -> object:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        setattr(os, name, wrapper)

    for name in ("fsync", "replace"):
        counted(name)


def killed(folder: Path, call: int, after: float) -> bool:
    """Go on collecting in another process, that dies at a call or after so many seconds."""
    child = os.fork()
    if not child:
        die_at(call)
        collect(folder, SMALL, resume=True)
        os._exit(0)
    if after:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not status, "the process failed"
    return os.WIFSIGNALED(status)


def main(folder: Path, seed: int, count: int) -> None:
    """Kill processes at calls and at random times; the next one goes on where one ended."""
    torch.set_num_threads(1)  # no threads, which a fork would lose
    collect(folder / "whole", SMALL)
    whole, going = contents(folder / "whole"), folder / "killed"
    drawn, shards = random.Random(seed), []
    while True:
        call, after = drawn.choice([(drawn.randint(1, 60), 0.0), (0, drawn.random() / 20)])
        if len(shards) == count:
            call, after = 0, 0.0
        if killed(going, call, after):
            shards.append(len(list(going.glob("*.safetensors"))))
            continue
        assert contents(going) == whole
        shutil.rmtree(going)
        if len(shards) == count:
            print("the same bytes; shards at each kill:", *shards)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
