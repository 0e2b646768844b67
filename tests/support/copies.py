"""Decoder-only copies: fetch one, and see what is in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeaudit.audit.fetch import fetch_all
from saeaudit.audit.observer import SILENT
from saeaudit.records import ErrorRecord, ListingRecord
from saeaudit.sources.target import resolve

NAME = "hf://big/one/sae"


def fetch(name: str = NAME, **options: Any) -> ListingRecord | ErrorRecord:
    saes = resolve(name, note=options.get("observer", SILENT).note)
    (record,) = fetch_all(saes, decoder_only=True, **options)
    return record


def left_over(tmp_path: Path) -> list[str]:
    """Files of saeaudit's cache but locks."""
    files = [f for f in (tmp_path / "cache").rglob("*") if not f.is_dir() or f.is_symlink()]
    return sorted(f.name for f in files if f.suffix != ".lock")
