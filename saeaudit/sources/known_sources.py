"""Which SAEs Neuronpedia has, and by what names: a table that comes with saeaudit."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("neuronpedia.txt.gz")
"""Repository, path and source of every SAE whose source is known, a line each."""


@cache
def known_sources() -> dict[tuple[str, str], str]:
    """``model/source`` on Neuronpedia by repository and path of an SAE (its folder or its file).

    The table lists SAEs one by one, because names tell nothing for certain: of two hundred SAEs of
    a layer Neuronpedia has one, and which it is no path says. tests/peers/registry.py makes it.
    """
    lines = gzip.decompress(TABLE.read_bytes()).decode().splitlines()
    return {(repo, path): source for repo, path, source in (line.split("\t") for line in lines)}
