"""The bundled real dictionaries; see PROVENANCE.md beside this file."""

from __future__ import annotations

from pathlib import Path

from saeaudit.vocabulary import SAMPLE

SAMPLES = {
    SAMPLE: "layer_3/width_2k/average_l0_23/params.npz",
    "sample/stitched": "stitched/decoder.safetensors",
}
"""Target names of the bundled dictionaries, and their weight files."""


def sample_root() -> Path:
    """Folder that the bundled files lie in."""
    return Path(__file__).parent
