"""What lies in a folder and cannot be read is an error record; the rest is audited."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan_all
from saeaudit.records import ErrorRecord, ScanSummary, Verdict
from saeaudit.sources.releases import known_releases
from saeaudit.sources.target import resolve
from saeaudit.weights.find import KEPT_TENSORS, find_weights, natural, read_weights
from saeaudit.weights.limits import Limits
from saeaudit.weights.stored import Read
from saeaudit.weights.tensors import READERS
from saeaudit.weights.torch_files import read_torch
from tests.conftest import Cli
from tests.hostile.archives import dictionary, piece, tensor, torch_zip
from tests.hostile.bounds import bounded

NOBODY = 65534
ROWS = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    with pytest.raises(AuditError):  # what is imported late may lie where only root reads
        resolve("no such release")
    yield path
    shutil.rmtree(path)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run the block as a user whom permissions bind: tests may be run by root."""
    known_releases()  # read before: a checkout may lie in a folder that is closed to this user
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def outcome(folder: Path) -> tuple[list[str], dict[str, str]]:
    """SAEs that were audited, and reasons of those that were not."""
    records = list(scan_all(resolve(str(folder)), ScanOptions(), "fp32"))
    errors = {r.sae: r.reason for r in records if isinstance(r, ErrorRecord)}
    assert isinstance(records[-1], Verdict) and records[-1].passed == (not errors)
    short = {name.removeprefix(f"{folder}/"): reason for name, reason in errors.items()}
    done = [r.sae.removeprefix(f"{folder}/") for r in records if isinstance(r, ScanSummary)]
    return done, short


def test_a_matrix_beside_an_sae_is_passed_over_unless_named(tmp_path: Path) -> None:
    for folder in ("here", "here/below", "apart"):
        (tmp_path / folder).mkdir()
    np.savez(tmp_path / "here" / "below" / "sae.npz", W_dec=ROWS, W_enc=ROWS.T)
    for folder in (".", "here", "here/below", "apart"):
        np.save(tmp_path / folder / "embeddings.npy", ROWS)
    notes: list[str] = []
    found = resolve(str(tmp_path), note=notes.append)
    assert [str(local.file.relative_to(tmp_path)) for local in found] == [
        "apart/embeddings.npy", "here/below/sae.npz",
    ]  # fmt: skip
    (line,) = notes
    assert line.startswith(
        f"{tmp_path}: passed over as no SAE of their own: embeddings.npy, "
        "here/below/embeddings.npy, here/embeddings.npy"
    )
    (named,) = resolve(str(tmp_path / "here" / "embeddings.npy"), note=notes.append)
    assert named.file.name == "embeddings.npy" and len(notes) == 1


def test_matrices_alone_are_dictionaries(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, ROWS)
    notes: list[str] = []
    assert len(resolve(str(tmp_path), note=notes.append)) == 2 and not notes


def test_what_cannot_be_read_is_an_error_record(folder: Path) -> None:
    np.save(folder / "a.npy", ROWS)
    np.save(folder / "closed.npy", ROWS)
    (folder / "closed.npy").chmod(0)
    inner = folder / "inner"
    inner.mkdir()
    np.save(inner / "b.npy", ROWS)
    inner.chmod(0)
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    (folder / "gone.npy").symlink_to(folder / "nowhere.npy")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.npy")
    np.save(folder / "z.npy", ROWS)
    with unprivileged():
        done, errors = outcome(folder)
    inner.chmod(0o755)
    assert done == ["a.npy", "z.npy"]
    assert errors == {
        "closed.npy": "cannot be read: Permission denied",
        "gone.npy": "cannot be read: No such file or directory",
        "inner": "a folder that cannot be listed",
        "loop.npy": "cannot be read: Too many levels of symbolic links",
        "pipe.npy": "a FIFO, not a file",
    }


def test_a_closed_folder(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "layer_0").mkdir()
    np.savez(inner / "layer_0" / "params.npz", W_dec=ROWS)
    inner.chmod(0o444)  # listed, but nothing in it can be opened
    with unprivileged():
        with pytest.raises(AuditError, match="cannot be read: Permission denied"):
            resolve(f"{inner}/layer_0")
        assert outcome(inner) == ([], {"layer_0": "cannot be read: Permission denied"})
    inner.chmod(0)
    with unprivileged():
        assert outcome(inner)[1] == {str(inner): "a folder that cannot be listed"}
    inner.chmod(0o111)
    with unprivileged(), pytest.raises(AuditError, match="no such file or folder"):
        resolve(f"{inner}/other.npy")
    inner.chmod(0o755)


def test_what_vanishes_meanwhile_is_an_error_record(tmp_path: Path) -> None:
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", ROWS)
    found = resolve(str(tmp_path))
    (tmp_path / "b.npy").unlink()
    records = list(scan_all(found, ScanOptions(), "fp32"))
    errors = [r for r in records if isinstance(r, ErrorRecord)]
    assert [(r.sae, r.reason) for r in errors] == [
        (f"{tmp_path}/b.npy", "cannot be read: No such file or directory")
    ]
    assert sum(isinstance(r, ScanSummary) for r in records) == 2
    assert found[1].size == 0


def test_vanishing_while_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saeaudit.core import rows as measuring

    np.save(tmp_path / "a.npy", ROWS)
    measure = measuring.row_norms

    def vanish(rows: torch.Tensor) -> torch.Tensor:
        norms = measure(rows)
        (tmp_path / "a.npy").unlink(missing_ok=True)
        return norms

    monkeypatch.setattr(measuring, "row_norms", vanish)
    with pytest.raises(AuditError, match="cannot be read: No such file"):
        saeaudit.open(tmp_path / "a.npy")


def test_hostile_files_in_a_folder(tmp_path: Path, cli: Cli) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    torch.save({"W_dec": torch.ones(1).expand(1 << 30, 64)}, tmp_path / "b.pt")
    content = {"a": torch.ones(3)}
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "c.pt")
    torch_zip(tmp_path / "d.pt", dictionary(("a" * 2000, piece(1))))
    os.mkfifo(tmp_path / "e.npy")
    with bounded():
        names = [sae.file.name for sae in find_weights(tmp_path)]
    assert names == ["a.npy", "b.pt", "c.pt", "d.pt", "e.npy"]
    done = cli("scan", tmp_path, "-o", "out.jsonl")
    assert done.returncode == 2
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(r["type"] == "error" for r in records) == 4
    assert sum(r["type"] == "summary" for r in records) == 1
    assert b"Traceback" not in done.stderr


def test_a_file_without_a_decoder_is_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    body = dictionary(("one", tensor("0", (2, 2), (2, 1))), ("two", tensor("0", (2, 2), (2, 1))))
    torch_zip(tmp_path / "other.pt", body, {"0": bytes(16)})
    assert [sae.file.name for sae in find_weights(tmp_path)] == ["a.npy"]


@pytest.mark.parametrize(
    "glob", ["[" * 100, "[" * 1000, "*a" * 500, "[z-a]", "[!", "?" * 1000, "[a-" * 300, "[]" * 500]
)
def test_globs_are_bounded(glob: str, tmp_path: Path) -> None:
    for n in range(20):
        np.save(tmp_path / f"{'a' * 200}{n}.npy", ROWS)
    with bounded(), pytest.raises(AuditError, match="no SAE here matches"):
        resolve(str(tmp_path), [glob])


def test_long_globs_and_names_are_refused(tmp_path: Path) -> None:
    with bounded(), pytest.raises(AuditError, match="a pattern of 5,000,000 characters"):
        resolve(str(tmp_path), ["[" * 5_000_000])
    for target in ("a" * 5_000, "a/" * 5_000, "a\0b", "\ud800"):
        with bounded(), pytest.raises(AuditError):
            resolve(target)


def decoders(folder: Path, features: int = 8) -> None:
    for name in ("a", "b"):
        torch.save({"W_dec": torch.randn(features, 6)}, folder / f"{name}.pt")


def test_what_listing_has_parsed_opening_parses_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders(tmp_path)
    parsed: list[str] = []

    def reader(path: Path, limits: Limits) -> Read:
        parsed.append(path.name)
        return read_torch(path, limits)

    monkeypatch.setitem(READERS, ".pt", reader)
    names, _ = outcome(tmp_path)
    assert sorted(names) == sorted(parsed) == ["a.pt", "b.pt"]


def test_what_has_changed_since_its_listing_is_parsed_again(tmp_path: Path) -> None:
    decoders(tmp_path)
    listed = find_weights(tmp_path)
    decoders(tmp_path, features=9)
    assert [len(read_weights(sae.file, sae.contents).weights.decoder) for sae in listed] == [9, 9]


def test_files_of_many_tensors_are_not_kept(tmp_path: Path) -> None:
    content = {"W_dec": torch.randn(8, 6), **{f"{n}": torch.zeros(1) for n in range(KEPT_TENSORS)}}
    torch.save(content, tmp_path / "many.pt")
    (sae,) = find_weights(tmp_path)
    assert sae.contents is None


def test_natural_order_of_odd_digits() -> None:
    names = ["²", "a²", "1" * 5_000, "2", "٣"]
    assert sorted(names, key=natural)[:2] == ["2", "٣"]


NASTY = [None, -1, 0.5, 1e999, 10**400, 10**10, "aaaa", [0], {"in": 1e999}]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:12])
def test_configurations_hold_anything(value: object, tmp_path: Path) -> None:
    """Each value at each key of each family's configuration: it opens, or says why not."""
    from tests.weights.layouts import LAYOUTS

    for name, (write, *_) in LAYOUTS.items():
        place = tmp_path / name.replace(" ", "_").replace("/", "_")
        place.mkdir()
        file = write(place)
        for config in place.rglob("*.json"):
            good = json.loads(config.read_text())
            sections = [good, *(v for v in good.values() if isinstance(v, dict))]
            for section in sections:
                for key in (*section, "k", "expansion_factor", "architecture", "d_sae"):
                    missing = key not in section
                    before = section.get(key)
                    section[key] = value
                    config.write_text(json.dumps(good))
                    with bounded():
                        try:
                            read_weights(file)
                        except AuditError as error:
                            assert "\n" not in error.line()
                    if missing:
                        del section[key]
                    else:
                        section[key] = before
