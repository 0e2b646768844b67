"""Choices between codes that are given: alternatives of tokens, and examples of exchanges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from saeaudit.audit.mediators.examples import encoder_takes
from saeaudit.audit.score.choose import Group
from saeaudit.audit.score.records import Setting, choice_record
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.core.codes.candidates import Candidates
from saeaudit.records import ChoiceRecord, Code, MediatorRecord, Record, TokenRecord

AT_ONCE = 256
"""Examples or read tokens decided at once."""


def given_choices(
    records: Iterable[Record], setting: Setting, tally: ScoreTally, chosen: range,
    tokens: list[str] | None,
) -> Iterator[ChoiceRecord]:  # fmt: skip
    """Choose between the alternatives that records of `mediators` hold; the tally is kept.

    Args:
        records: of this SAE, checked, in their order.
        setting: what choices are made with.
        tally: takes each choice.
        chosen: tokens to choose on; all where empty.
        tokens: text of each activation.
    """
    counts: dict[int, int] = {}
    groups: list[list[MediatorRecord]] = []

    def wanted() -> Iterator[MediatorRecord]:
        for record in records:
            if isinstance(record, TokenRecord):
                counts[record.token] = next(
                    (a.count for a in record.alternatives if a.mode == "accuracy"), 0
                )
            elif isinstance(record, MediatorRecord):
                of_token = record.mode == "accuracy" and record.error <= record.reference_error
                if record.token is None or (of_token and (not chosen or record.token in chosen)):
                    yield record

    for key, group in groupby(wanted(), key=lambda r: r.token):
        members = list(group)
        groups += [members] if key is not None else [[m] for m in members]
        if len(groups) >= AT_ONCE:
            yield from _decided(groups, setting, tally, counts, tokens)
            groups = []
    if groups:
        yield from _decided(groups, setting, tally, counts, tokens)
    missing = [t for t in counts if not counts[t] and (not chosen or t in chosen)]
    tally.unique(len(missing))


def _decided(
    groups: list[list[MediatorRecord]], setting: Setting, tally: ScoreTally,
    counts: dict[int, int], tokens: list[str] | None,
) -> Iterator[ChoiceRecord]:  # fmt: skip
    chooser, norms, position = setting.chooser, setting.chooser.units.norms, setting.position
    device = norms.device

    def tensors(codes: list[tuple[Code, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, codes), default=0)
        rows = torch.full((len(codes), width), -1, dtype=torch.int64)
        values = torch.zeros(len(codes), width, dtype=torch.float64)
        for n, code in enumerate(codes):
            rows[n, : len(code)] = torch.tensor([position[c.feature] for c in code])
            values[n, : len(code)] = torch.tensor([c.value for c in code], dtype=torch.float64)
        rows, values = rows.to(device), values.to(device)
        return rows, values * norms[rows.clamp(min=0)]

    reference = tensors([group[0].codes for group in groups])
    members = [(n, m) for n, group in enumerate(groups) for m in group]
    rows, codes = tensors([m.alternative for _, m in members])
    leave = [position[m.removed[0]] for _, m in members]
    come = [position[m.added[0]] for _, m in members]
    error = torch.tensor([m.error for _, m in members], dtype=torch.float64, device=device)
    first = [group[0] for group in groups]
    examples = [g.token is None for g in first]
    own = torch.tensor(
        [0.0 if e else g.reference_error for g, e in zip(first, examples, strict=True)],
        dtype=torch.float64, device=device,
    )  # fmt: skip
    token = torch.tensor([n for n, _ in members], device=device)
    place = torch.full_like(token, -1)
    found = Candidates(token, place, torch.tensor(come, device=device), rows, codes, error)
    leaving = torch.tensor(leave, device=device)
    start = 0
    for n, decision in enumerate(chooser.decide(Group(*reference, own), found)):
        span = torch.arange(start, start + len(groups[n]), device=device)
        start += len(groups[n])
        one = first[n]
        moved = [m.moved for m in groups[n]]
        tally.exchanged(
            1, [0] * len(moved), [m.removed[0] for m in groups[n]],
            [m.added[0] for m in groups[n]], moved,
        )  # fmt: skip
        text = one.text or (tokens[one.token] if tokens and one.token is not None else None)
        record = choice_record(
            setting, decision, (reference[0][n], reference[1][n]), found.only(span),
            token=one.token, text=text, features=one.exchange,
            alternatives=max(len(moved), counts.get(one.token, 0) if one.token is not None else 0),
            encoder=_encoded(setting, one) if examples[n] else -1, leaving=leaving[span],
        )  # fmt: skip
        tally.choice(record)
        yield record


def _encoded(setting: Setting, example: MediatorRecord) -> int | None:
    """What the encoder makes of an example: -1 for the reference, 0 for the alternative."""
    encoder = setting.encoder
    if encoder is None:
        return None
    decoded = torch.zeros(setting.dictionary.d_sae, dtype=encoder.w_dec.dtype)
    for code in example.codes:
        decoded[code.feature] = code.value
    return encoder_takes(encoder, decoded, example.removed[0], example.added[0])
