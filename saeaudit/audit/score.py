"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from saeaudit.audit.choosing import Chooser, Group
from saeaudit.audit.coder import Coder, narrow
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.exchanges import encoder_takes, exchanges
from saeaudit.audit.pricing import (
    PILOT,
    WINDOW,
    Errors,
    Fitted,
    Width,
    choose_width,
    fit_activations,
    fit_histograms,
)
from saeaudit.audit.scan import describe, scan
from saeaudit.audit.scoring import ScoreTally, Setting, choice_record
from saeaudit.audit.search import ScanOptions
from saeaudit.core.choices import Candidates
from saeaudit.core.fits import Fit, Supports
from saeaudit.core.rows import UnitRows, spans
from saeaudit.core.swaps import batches
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    ChoiceRecord,
    Code,
    DictionaryRecord,
    MediatorRecord,
    Record,
    ScoreSummary,
    TokenRecord,
)
from saeaudit.sources.neuronpedia import FeatureStatistics

PLACES = 1024
"""Places (tokens times active features) in one batch."""
MEASURED = 0.2
"""Share of the activations, the first ones, that is measured; the rest is fitted on."""
LEAST = 10
"""Fewest activations that can be parted."""
AT_ONCE = 256
"""Examples or read tokens decided at once."""
MOST_EXAMPLES = 1000
"""Examples that are priced where a scan has to be made to find any."""

ScoreRecord = DictionaryRecord | ChoiceRecord | ScoreSummary


@dataclass(frozen=True)
class ScoreOptions:
    """What is priced, and how finely."""

    bin_width: float | None = None
    """Common width of bins in activation space; chosen by the error where None."""
    distortion: float | None = None
    """Squared error over the variance at which codes are quantised."""
    margin: float = 1.0
    """Bits by which the shortest code must lead to be resolved."""
    max_tokens: int = 1000
    """Most tokens whose alternatives are looked at; 0 for all that are measured."""
    canonicalise: bool = False
    """Whether to go on exchanging while codes get shorter."""
    explain: int | None = None
    """A token to look at alone."""
    device: str = "cpu"
    """Where to compute."""

    def __post_init__(self) -> None:
        for name, value, low in (
            ("--bin-width", self.bin_width, 0.0),
            ("--distortion", self.distortion, 0.0),
            ("--margin", self.margin, -1e-300),
            ("--max-tokens", self.max_tokens, -1),
            ("--explain", self.explain, -1),
        ):
            if value is not None and not (low < value < math.inf):
                what = "a positive number" if low == 0 else "a number of at least 0"
                raise AuditError(f"{value} is not {what}", where=name)
        if self.bin_width is not None and self.distortion is not None:
            raise AuditError(
                "--bin-width and --distortion both fix the width of the bins", where="--distortion"
            )


def score(
    dictionary: Dictionary,
    activations: Tensor | None = None,
    options: ScoreOptions | None = None,
    *,
    features: dict[int, FeatureStatistics] | None = None,
    features_from: str = "features",
    mediators: Iterable[Record] | None = None,
    explanations: Disagreement | None = None,
    tokens: list[str] | None = None,
    progress: Callable[[str, float], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Iterator[ScoreRecord]:
    """Measure description lengths, choose between alternative codes, compare explanations.

    Prices are fitted on the last 80 % of the activations and measured on the first 20 %, or built
    from an export's histograms; activations then only choose the width of the bins.

    Args:
        dictionary: an opened SAE; with activations it needs its encoder.
        activations: ``[N, d_in]`` of any float dtype, possibly memory-mapped.
        options: the defaults where None.
        features: an export's feature statistics.
        features_from: what errors call these.
        mediators: records of `saeaudit.mediators` for this SAE: their alternatives are priced, and
            none are looked for.
        explanations: compared and calibrated texts.
        tokens: text of each activation.
        progress: called with a step's name and the share of it that is done.
        note: called with lines that a user should read.

    Yields:
        The dictionary record, a choice for each token or example, the summary.

    Raises:
        AuditError: neither activations nor features, too few tokens, no encoder, input
            that is not finite or of another SAE.
    """
    options = options or ScoreOptions()
    yield describe(dictionary)
    if features is not None:
        yield from _from_histograms(
            dictionary, features, features_from, activations, options, mediators, explanations, note
        )
    elif activations is not None:
        run = _Run(dictionary, options, explanations, tokens, note)
        yield from run.records(activations, mediators, progress)
    else:
        raise AuditError(
            "prices need activations, or feature statistics",
            where=dictionary.sae,
            hint="--activations FILE or --features FILE",
        )


def _from_histograms(
    dictionary: Dictionary, features: dict[int, FeatureStatistics], where: str,
    activations: Tensor | None, options: ScoreOptions, mediators: Iterable[Record] | None,
    explanations: Disagreement | None, note: Callable[[str], None] | None,
) -> Iterator[ScoreRecord]:  # fmt: skip
    if options.canonicalise or options.explain is not None:
        raise AuditError(
            "--canonicalise and --explain need prices from activations, not --features",
            where=dictionary.sae,
        )
    width = None
    if activations is not None:
        coder = Coder(dictionary, options.device)
        width = choose_width(
            coder, coder.encode(activations[:PILOT], 0), bin_width=options.bin_width,
            distortion=options.distortion,
        )  # fmt: skip
    elif options.distortion is not None:
        raise AuditError("--distortion needs activations", where=dictionary.sae)
    elif options.bin_width is not None:
        width = Width(options.bin_width, "option")
    live = dictionary.live(include_collapsed=True)
    units = UnitRows(dictionary.weights.decoder, live, dictionary.norms[live])
    fitted = fit_histograms(dictionary, live, features, where, width=width)
    share = len(features) / max(dictionary.d_sae, 1)
    if note and share < 0.5:
        note(f"{where} covers {share:.0%} of the features: is it of another SAE?")
    if mediators is None:
        mediators = _examples(dictionary)
    tally = ScoreTally(dictionary.sae, fitted, explanations, dictionary.d_sae)
    setting = Setting(dictionary, Chooser(units, fitted.prices, options.margin), explanations, {})
    yield from _given(mediators, setting, tally, None, range(0), None)
    yield tally.summary()


def _examples(dictionary: Dictionary) -> Iterator[MediatorRecord]:
    """Examples of the exchanges that a scan finds."""
    findings = [
        record
        for record in scan(dictionary, ScanOptions(max_findings=MOST_EXAMPLES))
        if record.type in ("pair", "triple")
    ]
    return exchanges(dictionary, findings)


class _Run:
    """One SAE's activations: fit on the last, measure the first."""

    def __init__(
        self, dictionary: Dictionary, options: ScoreOptions, explanations: Disagreement | None,
        tokens: list[str] | None, note: Callable[[str], None] | None,
    ) -> None:  # fmt: skip
        self.dictionary, self.options, self.tokens = dictionary, options, tokens
        self.explanations, self.note = explanations, note
        self.coder = Coder(dictionary, options.device)

    def records(
        self, activations: Tensor, mediators: Iterable[Record] | None,
        progress: Callable[[str, float], None] | None,
    ) -> Iterator[ScoreRecord]:  # fmt: skip
        """Choices and the summary."""
        options, count = self.options, len(activations)
        if count < LEAST:
            raise AuditError(
                f"too few tokens: {count}; some are fitted on and the others measured",
                where=self.dictionary.sae,
                hint="more activations",
            )
        measured = int(MEASURED * count)
        given = list(mediators) if mediators is not None else None
        joint = {
            r.exchange for r in given or () if isinstance(r, MediatorRecord) and r.token is None
        }
        position = self._positions()
        fitted = fit_activations(
            self.coder, activations, measured, count, bin_width=options.bin_width,
            distortion=options.distortion, progress=progress,
            joint={tuple(position[f] for f in features) for features in joint},
        )  # fmt: skip
        few = int(((fitted.prices[0].samples < 50) & fitted.prices[0].observed).sum())
        if self.note and few > self.coder.units.count // 2:
            self.note(
                f"{few:,} of {self.coder.units.count:,} features fired fewer than 50 times on the "
                f"{count - measured:,} tokens fitted: their values are priced by the pool"
            )
        tally = ScoreTally(self.dictionary.sae, fitted, self.explanations, self.dictionary.d_sae)
        chooser = Chooser(self.coder.units, fitted.prices, options.margin)
        setting = Setting(self.dictionary, chooser, self.explanations, fitted.joint)
        chosen = range(min(measured, options.max_tokens or measured))
        if options.explain is not None:
            if options.explain >= measured:
                raise AuditError(
                    f"token {options.explain} is not among the {measured} that are measured",
                    where="--explain",
                    hint="prices are fitted on the others",
                )
            chosen = range(options.explain, options.explain + 1)
        for start, stop in spans(measured, WINDOW):
            window = range(max(start, chosen.start), min(stop, chosen.stop))
            yield from self._window(
                activations[start:stop], start, fitted, tally, setting,
                window if given is None else range(0),
            )  # fmt: skip
            if progress:
                progress("choosing", stop / measured)
        if given is not None:
            yield from _given(given, setting, tally, position, chosen, self.tokens)
        summary = tally.summary()
        if self.note and summary.fvu is not None and summary.fvu > 1:
            self.note(elsewhere(summary.fvu))
        yield summary

    def _positions(self) -> dict[int, int]:
        return {feature: at for at, feature in enumerate(self.coder.units.live.tolist())}

    def _window(
        self, rows: Tensor, first: int, fitted: Fitted, tally: ScoreTally, setting: Setting,
        chosen: range,
    ) -> Iterator[ChoiceRecord]:  # fmt: skip
        encoded = self.coder.encode(rows, first)
        codes, support = narrow(encoded.codes)
        errors = Errors(self.coder, encoded)
        tally.measured(
            encoded.x, support, codes, errors.of(codes), errors.quantised(fitted.prices[0].grid)
        )
        if not chosen:
            return
        some = torch.arange(chosen.start - first, chosen.stop - first, device=codes.device)
        sizes = (support[some] >= 0).sum(1)
        found: list[tuple[int, ChoiceRecord]] = []
        for order in batches(sizes, PLACES):
            index = some[order]
            width = int(sizes[order].max()) if len(order) else 0
            found += self._batch(
                support[index, :width], codes[index, :width], encoded.target[index],
                (index + first).tolist(), tally, setting,
            )  # fmt: skip
        for _, record in sorted(found, key=lambda pair: pair[0]):
            yield record

    def _batch(
        self, rows: Tensor, codes: Tensor, target: Tensor, index: list[int], tally: ScoreTally,
        setting: Setting,
    ) -> list[tuple[int, ChoiceRecord]]:  # fmt: skip
        units, enter = self.coder.units, self.coder.enter
        fit = Fit(Supports(units, rows), target)
        decoded = (codes[:, None, :] @ fit.supports.vectors).squeeze(1)
        group = Group(rows, codes, (target - decoded).square().sum(1))
        count, best, _, found = setting.chooser.alternatives(fit, group.error, enter)
        if self.options.canonicalise:
            tally.canonical(*setting.chooser.canonical(fit, group, enter))
        whole = codes.sum(1, keepdim=True)
        moved = torch.where(whole > 0, codes / whole, 0.0)
        b, i = (best >= 0).nonzero().unbind(1)
        tally.exchanged(
            len(rows), b.tolist(), units.live[rows[b, i]].tolist(),
            units.live[best[b, i]].tolist(), moved[b, i].tolist(),
        )  # fmt: skip
        out = []
        start = 0
        priced = torch.bincount(found.token, minlength=len(rows)).tolist()
        for n, decision in enumerate(setting.chooser.decide(group, found)):
            span = slice(start, start + priced[n])
            start += priced[n]
            record = choice_record(
                setting, decision, (rows[n], codes[n]), found.only(torch.arange(
                    span.start, span.stop, device=rows.device)),
                token=index[n], text=self.tokens[index[n]] if self.tokens else None,
                features=(), alternatives=max(int(count[n]), priced[n]),
                encoder=-1,
            )  # fmt: skip
            tally.choice(record)
            out.append((index[n], record))
        return out


def elsewhere(fvu: float) -> str:
    """What a reconstruction worse than the mean most likely means."""
    return (
        f"the SAE reconstructs these activations worse than their mean does (error {fvu:.3g} of "
        "the variance): they are probably of another layer, hook or model, or scaled"
    )


def _given(
    records: Iterable[Record], setting: Setting, tally: ScoreTally,
    position: dict[int, int] | None, chosen: range, tokens: list[str] | None,
) -> Iterator[ChoiceRecord]:  # fmt: skip
    """Choices between the alternatives that records of `mediators` hold."""
    live = setting.chooser.units.live.tolist()
    position = position or {feature: at for at, feature in enumerate(live)}
    counts: dict[int, int] = {}
    groups: list[list[MediatorRecord]] = []

    def wanted() -> Iterator[MediatorRecord]:
        for record in records:
            if record.type in ("run", "verdict"):
                continue
            if getattr(record, "sae", None) != setting.dictionary.sae:
                raise AuditError(
                    f"records of {getattr(record, 'sae', '?')}, not of {setting.dictionary.sae}",
                    where="--mediators",
                )
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
            yield from _decided(groups, setting, tally, position, counts, tokens)
            groups = []
    if groups:
        yield from _decided(groups, setting, tally, position, counts, tokens)
    missing = [t for t in counts if not counts[t] and (not chosen or t in chosen)]
    tally.unique(len(missing))


def _decided(
    groups: list[list[MediatorRecord]], setting: Setting, tally: ScoreTally,
    position: dict[int, int], counts: dict[int, int], tokens: list[str] | None,
) -> Iterator[ChoiceRecord]:  # fmt: skip
    chooser, norms = setting.chooser, setting.chooser.units.norms
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

    try:
        reference = tensors([group[0].codes for group in groups])
        members = [(n, m) for n, group in enumerate(groups) for m in group]
        rows, codes = tensors([m.alternative for _, m in members])
        leave = [position[m.removed[0]] for _, m in members]
        come = [position[m.added[0]] for _, m in members]
    except KeyError as missing:
        raise AuditError(
            f"records name feature {missing.args[0]}, which is not live in this SAE",
            where=setting.dictionary.sae,
        ) from missing
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
    encoder = setting.encoder()
    if encoder is None:
        return None
    decoded = torch.zeros(setting.dictionary.d_sae, dtype=encoder.w_dec.dtype)
    for code in example.codes:
        decoded[code.feature] = code.value
    return encoder_takes(encoder, decoded, example.removed[0], example.added[0])
