"""What publishers say about their SAEs elsewhere than in the files: by hub repository and folder.

From the registry by which SAELens loads public SAEs (its `config_overrides` and
`norm_scaling_factor`), for the repositories where it changes the codes or what is encoded and the
files do not have it. Only files in the hub's cache are known to be of a repository.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import PurePath

NORMALISE = {"JoshEngels/Mistral-7B-Residual-Stream-SAEs": "constant_norm_rescale"}
"""Repository → SAELens's name of what is done to each activation; its cfg.json has nothing."""

CENTRED = (
    "jbloom/GPT2-Small-SAEs-Reformatted",
    "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
    "tommmcgrath/gpt2-small-mlp-out-saes",
)
"""Repositories whose SAEs read what TransformerLens has taken the mean off; their cfg.json has
nothing of it."""


def published_centring(file: PurePath) -> bool | None:
    """Whether activations are centred over their width, where the file's publisher says it."""
    return True if _place(file)[0] in CENTRED else None


def published_normalisation(file: PurePath) -> str | None:
    """SAELens's name of what is done to each activation, where the file's publisher says it."""
    return NORMALISE.get(_place(file)[0])


def published_scale(file: PurePath) -> float | None:
    """What activations are multiplied by before encoding, where the file's publisher says it."""
    repository, folder = _place(file)
    return _scales().get(repository, {}).get(folder)


@cache
def _scales() -> dict[str, dict[str, float]]:
    text = files("saeaudit.weights").joinpath("published.json").read_text(encoding="utf-8")
    scales: dict[str, dict[str, float]] = json.loads(text)
    return scales


def _place(file: PurePath) -> tuple[str, str]:
    """Repository and folder of a file in the hub's cache; empty for any other.

    >>> _place(PurePath("/hub/models--google--gemma-scope-2b-pt-res/snapshots/0a/layer_1/a.npz"))
    ('google/gemma-scope-2b-pt-res', 'layer_1')
    """
    for number, part in enumerate(file.parts):
        kind, *names = part.split("--")
        below = file.parts[number + 1 :]
        if kind == "models" and len(names) >= 2 and below[:1] == ("snapshots",):
            return f"{names[0]}/{'--'.join(names[1:])}", "/".join(below[2:-1])
    return "", ""
