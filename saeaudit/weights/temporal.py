"""Temporal SAEs as their authors save them: ``latest_ckpt.safetensors`` beside a ``conf.yaml``."""

from __future__ import annotations

from pathlib import Path, PurePath

from saeaudit.weights.assemble import Names, assemble
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents

UNAVAILABLE = "a temporal encoder, whose codes depend on the tokens before"


class Temporal:
    """D [F, d], E [d, F] unless it is tied; attention layers predict a part from earlier tokens."""

    name = "temporal"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called latest_ckpt.safetensors, with a conf.yaml beside it."""
        return file.name == "latest_ckpt.safetensors" and present(file.parent / "conf.yaml")

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration, by which it is known."""
        return (file.parent / "conf.yaml",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the dictionary; its codes cannot be had from one activation at a time."""
        weights = assemble(
            self.name, str(file), contents.tensors, Names(("D",), ("E",), b_dec=("b",)), "unknown",
            Layout(), codes_unavailable=UNAVAILABLE,
        )  # fmt: skip
        return Loaded(weights, (file, file.parent / "conf.yaml"))
