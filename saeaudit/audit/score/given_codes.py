"""Choices between codes that records hold: alternatives of tokens, and examples of exchanges."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.observer import Observer
from saeaudit.audit.score.choose import Batch, Case, Exchanges, Setting
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.split import Split
from saeaudit.audit.texts import TokenText, token_text
from saeaudit.core.codes.candidates import Candidates
from saeaudit.core.codes.choose import Group
from saeaudit.core.codes.fits import Supports
from saeaudit.core.rows import UnitRows, spans
from saeaudit.errors import AuditError
from saeaudit.records import Code, MediatorRecord, Record, TokenRecord

SAME_ERROR = 1e-5
"""Share of the activation's size by which an error may differ from a record's."""
AT_ONCE = 256
"""Examples or tokens decided at once."""


class ListedCodes(NamedTuple):
    """What records of mediators hold of one SAE."""

    cases: list[list[MediatorRecord]]
    """Alternatives of one token, or one example, each."""
    counts: dict[int, int]
    """How many alternatives a token has, listed or not."""

    def exchanged_sets(self) -> set[tuple[int, ...]]:
        """Features of each exchange that has an example."""
        return {members[0].features for members in self.cases if members[0].token is None}

    @property
    def unlisted(self) -> dict[int, bool]:
        """Tokens of which no alternative is listed, and whether they have any."""
        listed = {members[0].token for members in self.cases}
        return {t: count > 0 for t, count in self.counts.items() if t not in listed}


def list_codes(
    inputs: CheckedInputs, split: Split | None, options: ScoreOptions, observer: Observer
) -> ListedCodes:
    """Sort the records of mediators, and check them against the activations.

    Args:
        inputs: of one SAE; their records in their order.
        split: of the activations, where there are any.
        options: say which tokens are looked at.
        observer: is told of tokens that are not measured.

    Raises:
        AuditError: none of their tokens is measured, or codes leave other errors than they say.
    """
    records = inputs.mediators or ()
    if split is None:
        return _sort_records(records, None)
    measured = None
    if inputs.features is None:
        measured = set((split.measured if options.explain is None else split.chosen).tolist())
        _check_measured(records, measured, options, observer)
    listed = _sort_records(records, measured)
    _check_errors(listed, split)
    return listed


def _check_measured(
    records: Sequence[Record], measured: set[int], options: ScoreOptions, observer: Observer
) -> None:
    """Say where tokens of mediators are not measured.

    Raises:
        AuditError: none is.
    """
    tokens = [record.token for record in records if isinstance(record, TokenRecord)]
    within = sum(token in measured for token in tokens)
    if tokens and not within:
        raise AuditError(
            f"none of its {len(tokens):,} tokens is among the {len(measured):,} measured",
            where="--mediators",
            hint=f"mediators --seed {options.seed} looks at those first",
        )
    if within < len(tokens) and options.explain is None:
        observer.note(
            f"{within:,} of {len(tokens):,} tokens of --mediators are among those measured, and "
            "chosen on"
        )


def _sort_records(records: Sequence[Record], measured: Collection[int] | None) -> ListedCodes:
    """Sort records by what they are alternatives of.

    Args:
        records: of this SAE, checked, in their order.
        measured: tokens to choose on; all where None.
    """
    counts: dict[int, int] = {}
    listed: list[MediatorRecord] = []
    for record in records:
        if not isinstance(record, (TokenRecord, MediatorRecord)):
            continue
        if record.token is not None and measured is not None and record.token not in measured:
            continue
        if isinstance(record, TokenRecord):
            counts[record.token] = next(
                a.count for a in record.alternatives if a.mode == "accuracy" and not a.epsilon
            )
        elif record.token is None or _no_less_accurate(record):
            listed.append(record)
    cases: list[list[MediatorRecord]] = []
    for token, group in groupby(listed, key=lambda record: record.token):
        members = list(group)
        cases += [members] if token is not None else [[member] for member in members]
    return ListedCodes(cases, counts)


def _no_less_accurate(record: MediatorRecord) -> bool:
    return record.mode == "accuracy" and record.error <= record.reference_error


def _check_errors(listed: ListedCodes, split: Split) -> None:
    """Check that codes leave the errors that their records say.

    Raises:
        AuditError: another error: codes of another SAE or other activations, or changed ones.
    """
    coder = split.coder
    members = [member for case in listed.cases for member in case if member.token is not None]
    for start, stop in spans(len(members), AT_ONCE):
        several = members[start:stop]
        numbers = torch.tensor([member.token for member in several])
        encoded = coder.encode(split.activations, numbers)
        size = encoded.target.square().sum(1) * encoded.worth
        for codes, said in (
            ([member.alternative for member in several], [m.error for m in several]),
            ([member.codes for member in several], [m.reference_error for m in several]),
        ):
            rows, values = _unit_codes(coder.units, codes)
            decoded = (values[:, None, :] @ Supports(coder.units, rows).vectors).squeeze(1)
            error = (encoded.target - decoded).square().sum(1) * encoded.worth
            off = (error - error.new_tensor(said)).abs() > SAME_ERROR * size
            if bool(off.any()):
                n = int(off.nonzero()[0])
                raise AuditError(
                    f"codes of token {several[n].token} leave an error of {float(error[n]):.6g} "
                    f"where the record says {said[n]:.6g}",
                    where="--mediators",
                    hint="are these of this SAE and these activations?",
                )


def listed_batches(listed: ListedCodes, setting: Setting) -> Iterator[Batch]:
    """Cases in batches: their alternatives, and what is chosen between them."""
    chooser = setting.chooser
    for start in range(0, len(listed.cases), AT_ONCE):
        several = listed.cases[start : start + AT_ONCE]
        firsts = [members[0] for members in several]
        rows, codes = _unit_codes(chooser.units, [first.codes for first in firsts])
        errors = [0.0 if first.token is None else first.reference_error for first in firsts]
        group = Group(rows, codes, rows.new_tensor(errors, dtype=torch.float64))
        cases = [_case(setting, first, listed.counts) for first in firsts]
        candidates, exchanges = _alternatives(chooser.units, several)
        decisions = list(chooser.decide(group, candidates))
        yield Batch(cases, group, candidates, exchanges, decisions)


def _case(setting: Setting, record: MediatorRecord, counts: Mapping[int, int]) -> Case:
    token, text = record.token, TokenText(record.text, record.context)
    if token is None:
        return Case(None, text, record.features, 0, _encoder_takes(setting, record))
    if not record.text:
        text = token_text(setting.tokens, token)
    return Case(token, text, record.features, counts.get(token, 0), -1)


def _alternatives(
    units: UnitRows, several: list[list[MediatorRecord]]
) -> tuple[Candidates, Exchanges]:
    """Alternatives of some cases, and the features exchanged."""
    case, members = zip(
        *((n, member) for n, members in enumerate(several) for member in members), strict=True
    )
    leaving = [member.removed[0] for member in members]
    entering = [member.added[0] for member in members]
    rows, codes = _unit_codes(units, [member.alternative for member in members])
    candidates = Candidates(
        token=rows.new_tensor(case),
        row=torch.searchsorted(units.live, rows.new_tensor(entering)),
        rows=rows,
        codes=codes,
        error=codes.new_tensor([member.error for member in members]),
        priced=torch.ones_like(rows[:, 0], dtype=torch.bool),
    )
    moved = [member.moved for member in members]
    return candidates, Exchanges(list(case), leaving, entering, moved)


def _unit_codes(units: UnitRows, codes: list[tuple[Code, ...]]) -> tuple[Tensor, Tensor]:
    """Codes in the file's scale as live rows ``[m, k]``, -1 at empty places, and unit-row codes."""
    width = max(map(len, codes), default=0)
    features = torch.full((len(codes), width), -1, dtype=torch.int64)
    values = torch.zeros(len(codes), width, dtype=torch.float64)
    for n, code in enumerate(codes):
        features[n, : len(code)] = torch.tensor([c.feature for c in code])
        values[n, : len(code)] = torch.tensor([c.value for c in code], dtype=torch.float64)
    features = features.to(units.device)
    rows = torch.searchsorted(units.live, features)
    return torch.where(features < 0, -1, rows), values.to(units.device) * units.norms[rows]


def _encoder_takes(setting: Setting, example: MediatorRecord) -> int | None:
    """What the encoder makes of an example's decoded code.

    Returns:
        -1 where it says more of the feature that leaves, 0 where more of the one that enters, None
        where it outputs neither, or there is no encoder.
    """
    encoder = setting.encoder
    if encoder is None or encoder.normalise != "none":
        return None  # decoding a normalised code needs the activation that was encoded
    codes = torch.zeros(1, setting.dictionary.d_sae, dtype=torch.float64)
    for code in example.codes:
        codes[0, code.feature] = code.value
    exchanged = [example.removed[0], example.added[0]]
    again = encoder.codes(encoder.decode(codes))[0, exchanged]
    before, after = (again * encoder.w_dec[exchanged].double().norm(dim=1)).tolist()
    if not before and not after:
        return None
    return -1 if before >= after else 0
