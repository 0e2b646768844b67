"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from saeaudit.audit.checks import check_codes
from saeaudit.audit.codes import Coder, elsewhere, narrow
from saeaudit.audit.describe import describe
from saeaudit.audit.mediators.examples import exchanges
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.audit.score.choose import Chooser, Group
from saeaudit.audit.score.disagreement import Disagreement
from saeaudit.audit.score.given_codes import given_choices
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.prices import (
    PILOT,
    WINDOW,
    Errors,
    Fitted,
    Width,
    choose_width,
    fit_activations,
    fit_histograms,
)
from saeaudit.audit.score.records import Setting, choice_record
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.sparse import batches
from saeaudit.core.rows import UnitRows, spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    MediatorRecord,
    Record,
    ScoreSummary,
)
from saeaudit.sources.neuronpedia import FeatureStatistics

PLACES = 1024
"""Places (tokens times active features) in one batch."""
MEASURED = 0.2
"""Share of the activations, the first ones, that is measured; the rest is fitted on."""
LEAST = 10
"""Fewest activations that can be parted."""
MOST_EXAMPLES = 1000
"""Examples that are priced where a scan has to be made to find any."""

ScoreRecord = DictionaryRecord | ChoiceRecord | ScoreSummary


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
    observer: Observer = SILENT,
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
        mediators: records of `saeaudit.mediators`: the alternatives of this SAE are priced, and
            none are looked for.
        explanations: compared and calibrated texts.
        tokens: text of each activation.
        observer: is told how far it is, and what a user should read.

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
            dictionary,
            features,
            features_from,
            activations,
            options,
            mediators,
            explanations,
            observer,
        )
    elif activations is not None:
        run = _Run(dictionary, options, explanations, tokens, observer)
        yield from run.records(activations, mediators)
    else:
        raise AuditError(
            "prices need activations, or feature statistics",
            where=dictionary.sae,
            hint="--activations FILE or --features FILE",
        )


def _from_histograms(
    dictionary: Dictionary, features: dict[int, FeatureStatistics], where: str,
    activations: Tensor | None, options: ScoreOptions, mediators: Iterable[Record] | None,
    explanations: Disagreement | None, observer: Observer,
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
    if share < 0.5:
        observer.note(f"{where} covers {share:.0%} of the features: is it of another SAE?")
    if mediators is None:
        mediators = _examples(dictionary)
    else:
        count = None if activations is None else len(activations)
        mediators = check_codes(mediators, dictionary, count)
    tally = ScoreTally(dictionary.sae, fitted, explanations, dictionary.d_sae)
    setting = Setting(dictionary, Chooser(units, fitted.prices, options.margin), explanations, {})
    yield from given_choices(mediators, setting, tally, range(0), None)
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
        tokens: list[str] | None, observer: Observer,
    ) -> None:  # fmt: skip
        self.dictionary, self.options, self.tokens = dictionary, options, tokens
        self.explanations, self.observer = explanations, observer
        self.coder = Coder(dictionary, options.device)

    def records(
        self, activations: Tensor, mediators: Iterable[Record] | None
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
        given = None
        if mediators is not None:
            given = check_codes(mediators, self.dictionary, count)
        joint = {
            r.exchange for r in given or () if isinstance(r, MediatorRecord) and r.token is None
        }
        live = self.coder.units.live.tolist()
        position = {feature: row for row, feature in enumerate(live)}
        fitted = fit_activations(
            self.coder, activations, measured, count, bin_width=options.bin_width,
            distortion=options.distortion, observer=self.observer,
            joint={tuple(position[f] for f in features) for features in joint},
        )  # fmt: skip
        few = int(((fitted.prices[0].samples < 50) & fitted.prices[0].observed).sum())
        if few > self.coder.units.count // 2:
            self.observer.note(
                f"{few:,} of {self.coder.units.count:,} features fired fewer than 50 times on the "
                f"{count - measured:,} tokens fitted: their values are priced by the pool"
            )
        tally = ScoreTally(self.dictionary.sae, fitted, self.explanations, self.dictionary.d_sae)
        chooser = Chooser(self.coder.units, fitted.prices, options.margin)
        named = {tuple(live[row] for row in rows): t for rows, t in fitted.joint.items()}
        setting = Setting(self.dictionary, chooser, self.explanations, named)
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
            self.observer.step("choosing", stop / measured)
        if given is not None:
            yield from given_choices(given, setting, tally, chosen, self.tokens)
        summary = tally.summary()
        if summary.fvu is not None and summary.fvu > 1:
            self.observer.note(elsewhere(summary.fvu))
        yield summary

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
