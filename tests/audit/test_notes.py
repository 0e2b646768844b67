"""What a user should know of how a file was read: the same from every command that opens it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import saeaudit
from saeaudit.audit.open import open_layers
from saeaudit.records import DictionaryRecord
from saeaudit.sources.target import resolve
from tests.support.notes import Notes
from tests.weights.layouts import WRITERS


@pytest.mark.parametrize("name", WRITERS)
def test_every_command_tells_the_same_of_every_family(name: str, tmp_path: Path) -> None:
    (sae,) = resolve(str(WRITERS[name](tmp_path)))
    for dictionary in open_layers(sae):
        x = torch.zeros(2, dictionary.activation_width)
        told: list[list[str]] = []
        records: list[DictionaryRecord] = []
        for command, inputs in (
            (saeaudit.scan, ()),
            (saeaudit.mediators, (saeaudit.MediatorInputs(x),)),
            (saeaudit.score, (saeaudit.ScoreInputs(x),)),
        ):
            observer = Notes()
            records.append(next(iter(command(dictionary, *inputs, observer=observer))))
            told.append(observer.lines)
        assert records[0] == records[1] == records[2]
        assert told[0] == told[1] == told[2]
        weights, (record, *_) = dictionary.weights, records
        assert record.notes == weights.notes
        assert (record.k, record.centred) == (weights.k, weights.subtract_b_dec)
        assert record.maps_elsewhere == weights.maps_elsewhere
        assert record.codes_unavailable == dictionary.codes_unavailable
        lines = [f"{dictionary.sae}: {note}" for note in record.notes]
        if weights.codes_unavailable:
            lines.append(f"{dictionary.sae}: no codes: {record.codes_unavailable}")
        assert told[0] == lines
