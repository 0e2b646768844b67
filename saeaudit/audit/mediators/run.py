"""Mediators: every other code of the same L0 that reconstructs an activation as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from saeaudit.audit.checks import check_findings
from saeaudit.audit.codes import Coder, active_codes, misfit_note
from saeaudit.audit.describe import describe_dictionary
from saeaudit.audit.mediators.examples import attainable, exchanges
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.tally import Compared, Tally
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.core.codes.chains import chained
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.codes.sparse import batches
from saeaudit.core.codes.swaps import Swaps, one_swaps
from saeaudit.core.codes.tolerances import TOLERANCE
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.records import (
    Alternatives,
    Code,
    DictionaryRecord,
    MediatorRecord,
    MediatorsSummary,
    Mode,
    Record,
    TokenRecord,
)

MODES: tuple[Mode, ...] = ("accuracy", "refit", "reconstruction")
WINDOW = 512
"""Tokens encoded at once; records come in the order of tokens."""
PLACES = 1024
"""Places (tokens times active features) in one batch of swaps."""
PURSUITS = {"omp": False, "nnomp": True}
"""Built-in pursuits by name: whether codes are non-negative."""

Codes = Callable[[int, int], Tensor]
MediatorsRecord = DictionaryRecord | MediatorRecord | TokenRecord | MediatorsSummary


def mediators(
    dictionary: Dictionary,
    activations: Tensor | None = None,
    options: MediatorOptions | None = None,
    *,
    findings: Iterable[Record] = (),
    tokens: list[str] | None = None,
    codes: Mapping[str, Codes | None] | None = None,
    observer: Observer = SILENT,
) -> Iterator[MediatorsRecord]:
    """List the alternative codes of activations, and the exchanges that findings allow.

    Args:
        dictionary: an opened SAE; with activations it needs its encoder.
        activations: ``[N, d_in]`` of any float dtype, possibly memory-mapped.
        options: the defaults where None.
        findings: records of a scan, of which those of this SAE count.
        tokens: text of each activation.
        codes: other encoders' codes by name: a function of ``(start, stop)`` that returns
            ``[stop - start, F]``, or None for the pursuits of `PURSUITS`.
        observer: is told how far it is, and what a user should read.

    Yields:
        The dictionary record; a unit example for each exchange; for each activation its token
        record and its alternatives, those that move most first; the summary.

    Raises:
        AuditError: no encoder, a transcoder, activations that are not finite, codes that are
            negative or not finite, findings of another SAE.
    """
    options = options or MediatorOptions()
    checked = check_findings(findings, dictionary)
    yield describe_dictionary(dictionary)
    examples = 0
    for example in exchanges(dictionary, checked):
        if example.moved >= options.min_moved:
            examples += 1
            yield example
    tally = Tally(dictionary.sae, options.epsilons, examples)
    if activations is not None:
        run = _Run(dictionary, options, tally, dict(codes or {}))
        count = min(len(activations), options.max_tokens or len(activations))
        for start, stop in spans(count, WINDOW):
            yield from run.window(activations[start:stop], start, tokens)
            observer.step("swapping", stop / count)
    summary = tally.summary()
    if summary.fvu_encoder is not None and summary.fvu_encoder > 1:
        observer.note(misfit_note(summary.fvu_encoder))
    yield summary


class _Run:
    """One SAE's activations, window by window."""

    def __init__(
        self, dictionary: Dictionary, options: MediatorOptions, tally: Tally,
        codes: dict[str, Codes | None],
    ) -> None:  # fmt: skip
        self.dictionary, self.options, self.tally, self.others = dictionary, options, tally, codes
        self.coder = Coder(dictionary, options.device, options.budget)
        self.units, self.enter = self.coder.units, self.coder.enter

    def window(
        self, rows: Tensor, first: int, tokens: list[str] | None
    ) -> Iterator[TokenRecord | MediatorRecord]:
        """Records of one window of activations."""
        x, unit, target, worth = self.coder.encode(rows, first)
        self.tally.activations(x)
        others = {
            name: self.coder.unit(read(first, first + len(x)).to(unit))
            for name, read in self.others.items()
            if read
        }
        sizes = (unit > 0).sum(1)
        records: list[tuple[int, list[TokenRecord | MediatorRecord]]] = []
        for group in batches(sizes, PLACES):
            batch = _Batch(self, unit[group], target[group], worth[group])
            for name in self.others:
                given = others[name][group] if name in others else None
                self.tally.compared(name, batch.compare(PURSUITS.get(name), given))
            for at, found in enumerate(batch.records(first + group, tokens)):
                records.append((int(group[at]), found))
        for _, found in sorted(records, key=lambda pair: pair[0]):
            yield from found


class _Batch:
    """Tokens with supports of like size."""

    def __init__(self, run: _Run, unit: Tensor, target: Tensor, worth: Tensor) -> None:
        self.run, self.worth, self.target = run, worth, target
        options = run.options
        self.codes, rows = active_codes(unit)
        self.supports = Supports(run.units, rows)
        decoded = (self.codes[:, None, :] @ self.supports.vectors).squeeze(1)
        self.fit = Fit(self.supports, target)
        self.mirror = Fit(self.supports, decoded)
        self.encoder_error = (target - decoded).square().sum(1)
        tolerance = torch.tensor(options.epsilons, dtype=torch.float64, device=unit.device)
        wider = (1 + tolerance).square()
        self.references = {
            "accuracy": self.encoder_error,
            "refit": self.fit.error,
            "reconstruction": self.mirror.size,
        }
        self.limits = {
            "accuracy": wider * self.encoder_error[:, None],
            "refit": wider * self.fit.error[:, None],
            "reconstruction": tolerance.square() * self.mirror.size[:, None],
        }
        to_x = torch.cat([self.limits["accuracy"], self.limits["refit"]], 1)
        of_x, of_mirror = one_swaps(
            [self.fit, self.mirror], [to_x, self.limits["reconstruction"]], run.enter
        )
        e = len(options.epsilons)
        self.swaps: dict[Mode, tuple[Swaps, slice]] = {
            "accuracy": (of_x, slice(0, e)),
            "refit": (of_x, slice(e, 2 * e)),
            "reconstruction": (of_mirror, slice(0, e)),
        }
        whole = self.codes.sum(1, keepdim=True)
        self.moved = torch.where(whole > 0, self.codes / whole, 0.0)

    def compare(self, nonnegative: bool | None, given: Tensor | None) -> Compared:
        """Another encoder's codes on the same tokens: pursued here, or given ``[B, n]``."""
        run = self.run
        if given is None:
            sizes = self.supports.active.sum(1)
            rows, codes = pursue(
                run.units, self.target, sizes, run.enter, nonnegative=bool(nonnegative)
            )
            codes = codes.clamp(min=0) if nonnegative else codes
        else:
            codes, rows = active_codes(given)
        supports = Supports(run.units, rows)
        decoded = (codes[:, None, :] @ supports.vectors).squeeze(1)
        mine = self.supports.rows[:, :, None] == rows[:, None, :]
        shared = (mine & self.supports.active[:, :, None]).sum((1, 2))
        union = self.supports.active.sum(1) + supports.active.sum(1) - shared
        error = (self.target - decoded).square().sum(1)
        return Compared(
            l0=supports.active.sum(1),
            error=error * self.worth,
            refit=Fit(supports, self.target).error * self.worth,
            agreement=torch.where(union > 0, shared / union.clamp(min=1), 1.0),
            better=error < self.encoder_error,
        )

    def records(
        self, index: Tensor, tokens: list[str] | None
    ) -> Iterator[list[TokenRecord | MediatorRecord]]:
        """Each token's records, in the order of the batch; the tally is kept."""
        run, options = self.run, self.run.options
        sizes = self._sizes()
        accurate, part = self.swaps["accuracy"]
        best = (
            accurate.error.amin(1) if accurate.error.shape[1] else torch.full_like(sizes, torch.inf)
        )
        ratio = torch.where(
            best.isfinite() & (self.encoder_error > 0), best / self.encoder_error, torch.nan
        )
        own = Compared(
            l0=self.supports.active.sum(1), error=self.encoder_error * self.worth,
            refit=self.fit.error * self.worth, agreement=torch.ones_like(self.worth),
            better=torch.zeros_like(self.worth, dtype=torch.bool),
        )  # fmt: skip
        run.tally.compared("encoder", own)
        for mode in MODES:
            swaps, part = self.swaps[mode]
            chain = sizes if mode == "accuracy" and options.swaps > 1 else None
            run.tally.alternatives(
                mode, swaps.count[:, part], swaps.unsigned[:, part], swaps.passing[:, part],
                self.moved, chain,
            )  # fmt: skip
        gone, came = self._best_exchanges()
        run.tally.involve(gone, came)
        written = self._mediators(index, tokens)
        for b, token in enumerate(index.tolist()):
            counts = tuple(
                Alternatives(mode, epsilon, int(c), int(u))
                for mode in MODES
                for epsilon, c, u in zip(
                    options.epsilons,
                    self.swaps[mode][0].count[b, self.swaps[mode][1]],
                    self.swaps[mode][0].unsigned[b, self.swaps[mode][1]],
                    strict=True,
                )
            )
            record = TokenRecord(
                sae=run.dictionary.sae,
                token=token,
                text=tokens[token] if tokens else None,
                l0=int(own.l0[b]),
                encoder_error=float(own.error[b]),
                refit_error=float(own.refit[b]),
                alternatives=counts,
                best_error_ratio=float(ratio[b]) if ratio[b] == ratio[b] else None,
                log2_size=float(sizes[b]),
            )
            yield [record, *written.get(b, [])]

    def _sizes(self) -> Tensor:
        """``[B]``: log2 of the codes found that are as accurate as the encoder's, itself too."""
        options = self.run.options
        count = self.swaps["accuracy"][0].count[:, 0]
        if options.swaps > 1:
            count = chained(
                self.fit,
                self.limits["accuracy"][:, :1],
                self.run.enter,
                swaps=options.swaps,
                beam=options.beam,
            )
        return torch.log2(1 + count.to(torch.float64))

    def _best_exchanges(self) -> tuple[list[int], list[int]]:
        """Features removed and entering, for each removed feature's best accurate exchange."""
        swaps, _ = self.swaps["accuracy"]
        b, i = (swaps.passing[:, 0] & (swaps.feature >= 0)).nonzero().unbind(1)
        live = self.run.units.live
        return live[self.supports.rows[b, i]].tolist(), live[swaps.feature[b, i]].tolist()

    def _mediators(
        self, index: Tensor, tokens: list[str] | None
    ) -> dict[int, list[TokenRecord | MediatorRecord]]:
        """Alternatives to write, by token of the batch: those that move most of the code."""
        out: dict[int, list[TokenRecord | MediatorRecord]] = {}
        most = min(self.run.options.max_alternatives, self.moved.shape[1])
        for mode in MODES if most else ():
            swaps, _ = self.swaps[mode]
            fit = self.mirror if mode == "reconstruction" else self.fit
            limits = self.limits[mode] + TOLERANCE * fit.size[:, None]
            passes = (swaps.feature >= 0) & (swaps.error <= limits[:, -1:])
            passes &= self.moved >= self.run.options.min_moved
            moved, place = torch.where(passes, self.moved, -1.0).topk(most, dim=1)
            b, n = (moved >= 0).nonzero().unbind(1)
            if not len(b):
                continue
            for b_, record in self._exact(mode, fit, limits, b, place[b, n], index, tokens):
                out.setdefault(b_, []).append(record)
        return out

    def _exact(
        self, mode: Mode, fit: Fit, limits: Tensor, b: Tensor, i: Tensor, index: Tensor,
        tokens: list[str] | None,
    ) -> Iterator[tuple[int, MediatorRecord]]:  # fmt: skip
        """Solve some swaps again, one system each, and measure what they leave."""
        run, units = self.run, self.run.units
        feature = self.swaps[mode][0].feature[b, i]
        added = units.raw(feature) / units.norms[feature, None]
        vectors = self.supports.vectors[b]
        cross = (vectors @ added[:, :, None]).squeeze(2)
        moment = (fit.target[b] * added).sum(1)
        every_code = torch.ones_like(cross, dtype=torch.bool)
        codes = fit.exchange(b, i, cross, moment).solve(every_code)
        every = torch.arange(len(b), device=b.device)
        vectors[every, i] = added
        error = (fit.target[b] - (codes[:, None, :] @ vectors).squeeze(1)).square().sum(1)
        rows = self.supports.rows[b].clone()
        rows[every, i] = feature
        removed = units.live[self.supports.rows[b, i]].tolist()
        entered = units.live[feature].tolist()
        least = [
            next((e for e, limit in zip(run.options.epsilons, row, strict=True) if value <= limit),
                 run.options.epsilons[-1])
            for value, row in zip(error.tolist(), limits[b].tolist(), strict=True)
        ]  # fmt: skip
        reference = self.references[mode]
        alternatives = self._codes(rows, codes)
        for m, at in enumerate(b.tolist()):
            token = int(index[at])
            alternative = alternatives[m]
            worth, ref = float(self.worth[at]), float(reference[at])
            yield (
                at,
                MediatorRecord(
                    sae=run.dictionary.sae,
                    token=token,
                    text=tokens[token] if tokens else None,
                    l0=int(self.supports.active[at].sum()),
                    mode=mode,
                    epsilon=least[m],
                    removed=(removed[m],),
                    added=(entered[m],),
                    codes=self._reference[at],
                    alternative=alternative,
                    error=float(error[m]) * worth,
                    reference_error=ref * worth,
                    error_ratio=float(error[m]) / ref if ref else None,
                    moved=float(self.moved[at, i[m]]),
                    attainable=attainable(run.dictionary, alternative),
                    valid=None,
                    exchange=(),
                ),
            )

    @cached_property
    def _reference(self) -> list[tuple[Code, ...]]:
        """Each token's codes by the encoder."""
        return self._codes(self.supports.rows, self.codes)

    def _codes(self, rows: Tensor, codes: Tensor) -> list[tuple[Code, ...]]:
        """Codes ``[m, k]`` in the file's scale, by feature; zeros are left out."""
        units, at = self.run.units, rows.clamp(min=0)
        kept = ((rows >= 0) & (codes > 0)).tolist()
        features, values = units.live[at].tolist(), (codes / units.norms[at]).tolist()
        return [
            tuple(
                Code(feature, value)
                for feature, value, keep in sorted(zip(*row, strict=True))
                if keep
            )
            for row in zip(features, values, kept, strict=True)
        ]
