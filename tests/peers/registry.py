"""Makes saeaudit/sources/neuronpedia.txt.gz from SAELens's registry, which it is checked against.

    python -m tests.peers.registry REGISTRY [--write]

REGISTRY is pretrained_saes.yaml of an installed or unpacked sae-lens (MIT; the table was made from
6.54.12). The table holds facts alone: which SAE has which source on Neuronpedia. All of the
registry's rows of Gemma Scope 2 obey two rules, which are carried on to the rows that have no
source: that of a layer and width means ``resid_post/…_l0_medium`` among the SAEs of the residual
stream, and ``transcoder_all/…_l0_small_affine`` among the transcoders.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from saeaudit.sources.known_sources import TABLE
from saeaudit.sources.registry import FILES

GEMMA_SCOPE_2 = re.compile(r"google/gemma-scope-2-(\w+)-(pt|it)")
MEANT = re.compile(
    r"(?:(?P<res>resid_post)|transcoder_all)/layer_(?P<layer>\d+)_width_(?P<width>\d+[km])"
    r"_l0_(?(res)medium|small_affine)"
)


class Row(NamedTuple):
    """One SAE of the registry."""

    release: str
    id: str
    repo: str
    path: str
    """As the registry has it."""
    file: str
    """What it means: a folder, or a file."""
    conversion: str
    source: str | None
    """``model/source`` on Neuronpedia, where the registry has one."""


def read_registry(file: Path) -> Iterator[Row]:
    """All SAEs of a registry, parsed as YAML in full."""
    content: dict[str, Any] = yaml.load(file.read_text(), yaml.CSafeLoader)
    for name, release in content.items():
        conversion = str(release["conversion_func"])
        for row in release["saes"]:
            path = str(row["path"])
            meant = FILES.get(conversion, "{}").format(path)
            source = row.get("neuronpedia")
            yield Row(name, row["id"], release["repo_id"], path, meant, conversion, source)


def by_rule(repo: str, path: str) -> str | None:
    """The source of an SAE of Gemma Scope 2, by the rules above."""
    model, sae = GEMMA_SCOPE_2.fullmatch(repo), MEANT.fullmatch(path)
    if not model or not sae:
        return None
    size = f"{model[1]}-it" if model[2] == "it" else model[1]
    site = "res" if sae["res"] else "transcoder"
    return f"gemma-3-{size}/{sae['layer']}-gemmascope-2-{site}-{sae['width']}"


def table_of(rows: Iterator[Row]) -> dict[tuple[str, str], str]:
    """Source by repository and path; the shorter where the registry has a canonical one too."""
    table: dict[tuple[str, str], str] = {}
    for row in rows:
        source = row.source or by_rule(row.repo, row.path)
        place = row.repo, row.file
        if source and len(source) < len(table.get(place, f"{source}+")):
            table[place] = source
    return table


def main() -> None:
    """Compare the table with a registry, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    table = table_of(read_registry(given.registry))
    lines = "".join(f"{repo}\t{path}\t{source}\n" for (repo, path), source in sorted(table.items()))
    data = gzip.compress(lines.encode(), mtime=0)
    if given.write:
        TABLE.write_bytes(data)
    same = gzip.decompress(TABLE.read_bytes()) == lines.encode()
    print(f"{len(table):,} sources, {len(data):,} bytes; {'the same' if same else 'OTHERS here'}")


if __name__ == "__main__":
    main()
