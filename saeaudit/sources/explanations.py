"""Explanations of an SAE's features, from an export's folder, JSON Lines or CSV."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeaudit.errors import AuditError, TargetError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.sources.neuronpedia import (
    COMPLETE,
    Explanation,
    Kind,
    explanation_of,
    export_folder,
    read_explanations,
    source_of,
)
from saeaudit.sources.target import resolve
from saeaudit.untrusted import parse_json, text_lines
from saeaudit.vocabulary import FETCHED, NONE

FILE = 1 << 30
"""Bytes of a file of explanations."""
LONGEST = 500
"""Characters; longer texts are reasoning that leaked, not labels."""
LEAKED = re.compile(
    r"^\W*(the user (wants|is asking|asks|asked|provided)|we (need|are asked|have) to|let me |"
    r"okay[,. ]|i need to|i should|looking at the|(analyzing|analysing) the|"
    r"(explanation of )?neuron \d+|<think>|here('s| is) (a|the|my) )",
    re.IGNORECASE,
)
NEGATIVE = "(negative activations)"
"""Suffix of texts about what a feature is when negative; codes never are."""


@dataclass(frozen=True)
class Explanations:
    """What one explainer says, and what others say of the same features."""

    where: str
    """Where they came from."""
    labels: dict[int, Explanation]
    """One text a feature, all by the explainer that explains most features."""
    second: dict[int, tuple[Explanation, Explanation]]
    """Features with two texts, for the explainers' agreement with themselves."""
    dropped: int
    """Texts left out: leaked reasoning, very long ones, and those about negative activations."""

    @property
    def left_out(self) -> str | None:
        """What a user should read of the texts that are no labels; None where all are."""
        if not self.dropped:
            return None
        texts = "1 text is" if self.dropped == 1 else f"{self.dropped:,} texts are"
        return (
            f"{self.where}: {texts} left out of the explanations: reasoning that leaked, of over "
            f"{LONGEST} characters, or about negative activations"
        )

    @property
    def explainer(self) -> str:
        """Name of the method and model that wrote the labels; may be empty."""
        label = next(iter(self.labels.values()), None)
        return " ".join(part for part in (label.kind, label.model) if part) if label else ""


def place_of_explanations(option: str, target: str, source: str | None = None) -> Path | None:
    """Where the explanations are that ``--explanations`` names; None where there are none.

    Args:
        option: a file, a folder, "fetched" or "none".
        target: names one SAE.
        source: its ``model/source`` on Neuronpedia, where the user says it.

    Raises:
        AuditError: nothing was fetched from the source that the user says.
    """
    if option == NONE:
        return None
    return find_explanations(target, source) if option == FETCHED else Path(option)


def find_explanations(target: str, source: str | None = None) -> Path | None:
    """The explanations that come with the bundled samples, or that were fetched for a target.

    Args:
        target: names one SAE.
        source: its ``model/source`` on Neuronpedia, where the user says it.

    Raises:
        AuditError: nothing was fetched from the source that the user says.
    """
    root = sample_root()
    if target in SAMPLES and source is None:
        if target.endswith("stitched"):
            return root / "stitched" / "explanations.jsonl"
        return next((root / "neuronpedia").glob("v1/*/*/explanations"))
    return _fetched(target, "explanations", source)


def find_features(target: str, source: str | None = None) -> Path | None:
    """The feature statistics that come with the bundled sample, or that were fetched.

    Args and errors are those of `find_explanations`.
    """
    if target == next(iter(SAMPLES)) and source is None:
        return next((sample_root() / "neuronpedia").glob("v1/*/*/features"))
    return _fetched(target, "features", source)


def _fetched(target: str, kind: Kind, source: str | None) -> Path | None:
    if source is not None:
        folder = export_folder(source) / kind
        if not (folder / COMPLETE).exists():
            command = f"saeaudit fetch {target} --{kind} --neuronpedia {source}"
            raise AuditError(f"no {kind} of {source} were fetched", where=target, hint=command)
        return folder
    try:
        (sae,) = resolve(target, (), offline=True)
        folder = export_folder(source_of(sae)) / kind
    except (TargetError, AuditError, ValueError):
        return None
    return folder if (folder / COMPLETE).exists() else None


def load_explanations(path: Path, features: int, *, embeddings: bool = True) -> Explanations:
    """Read and clean explanations.

    Args:
        path: an export's folder (or the one above its ``explanations``), a ``.jsonl`` with index
            and description in each row, or a ``.csv`` with these two columns.
        features: how many features the SAE has.
        embeddings: whether those of an export are read, for texts to be compared by.

    Raises:
        AuditError: unreadable, no explanation in it, or one of a feature that the SAE has not.
    """
    explained = _read(path, embeddings)
    where = str(path)
    if not explained:
        raise AuditError("no explanation in it", where=where, hint="rows of index and description")
    foreign = next((i for i in explained if not 0 <= i < features), None)
    if foreign is not None:
        raise AuditError(
            f"explains feature {foreign} of {features}",
            where=where,
            hint="are these explanations of another SAE?",
        )
    clean = {i: [e for e in texts if usable(e.description)] for i, texts in explained.items()}
    total = sum(map(len, explained.values()))
    kept = sum(map(len, clean.values()))
    groups = Counter((e.kind, e.model) for texts in clean.values() for e in texts)
    main = max(groups, key=lambda g: (groups[g], g)) if groups else None
    labels, second = {}, {}
    for i, texts in sorted(clean.items()):
        of_main = [e for e in texts if (e.kind, e.model) == main]
        if of_main:
            labels[i] = of_main[0]
        unlike = [e for e in texts if e is not (of_main[0] if of_main else None)]
        if of_main and unlike:
            second[i] = of_main[0], unlike[0]
    return Explanations(where, labels, second, total - kept)


def usable(text: str) -> bool:
    """Whether a text is a label: not reasoning that leaked, not of negative activations."""
    return len(text) <= LONGEST and NEGATIVE not in text and not LEAKED.match(text)


def _read(path: Path, embeddings: bool) -> dict[int, list[Explanation]]:
    if path.is_dir():
        below = path / "explanations"
        return read_explanations(below if below.is_dir() else path, embeddings=embeddings)
    if not path.is_file():
        raise AuditError("no such file", where=str(path))
    where = str(path)
    explained: dict[int, list[Explanation]] = {}
    try:
        with path.open("rb") as stream:
            lines = text_lines(stream, where, total=FILE)
            rows: Iterable[Any] = (
                csv.DictReader(f"{line}\n" for line in lines)
                if path.suffix.lower() == ".csv"
                else (parse_json(line, where) for line in lines if line.strip())
            )
            for number, row in enumerate(rows, 1):
                index, explanation = explanation_of(row) if isinstance(row, dict) else (None, None)
                if index is None:
                    raise AuditError(
                        f"row {number} has no index",
                        where=where,
                        hint="index and description in each row",
                    )
                if explanation:
                    explained.setdefault(index, []).append(explanation)
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise AuditError(f"cannot be read: {error}", where=where) from error
    return explained
