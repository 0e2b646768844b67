from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from saeaudit.audit import many
from saeaudit.errors import WeightsError
from saeaudit.sources.sae import Sae
from tests.support.dictionaries import opened


def test_the_next_is_read_while_one_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Sae(name, Path(name)) for name in "abcd"]
    begun = {local.id: threading.Event() for local in found}
    dictionary = opened(np.eye(3))

    def open_layers(local: Sae):
        begun[local.id].set()
        if local.id == "b":
            raise WeightsError("broken", where="b")
        return [dictionary]

    def scan(_: object):
        working = next(names)
        following = chr(ord(working) + 1)
        assert following == "e" or begun[following].wait(10), "the next was not begun"
        assert not begun.get(chr(ord(working) + 2), threading.Event()).is_set(), "two ahead"
        yield from ()

    names = iter("acd")
    monkeypatch.setattr(many, "open_layers", open_layers)
    records = list(many.audit_all(found, scan))
    assert [record.type for record in records] == ["error", "verdict"]
    assert next(names, None) is None, "every readable SAE is scanned"


def test_a_member_is_named_once(tmp_path: Path) -> None:
    file = tmp_path / "twice.npz"
    np.savez(file, W_dec=np.eye(4)[:, :3], b_dec=np.array([object()], dtype=object))
    (error, _) = many.audit_all([Sae(str(file), file)], lambda dictionary: iter(()))
    assert error.reason.startswith("b_dec: holds Python objects"), error.reason
