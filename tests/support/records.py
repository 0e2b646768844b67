"""Records made up, with texts that try to get out of what they are written in."""

from __future__ import annotations

from saeaudit.records import (
    ChoiceRecord,
    Code,
    Compare,
    Context,
    DisagreementSummary,
    Estimate,
    Pick,
    Picks,
    Run,
    ScoreSummary,
    Texts,
)

EVIL = "a\n::error title=x::y\r\n##[error]z %0A::warning::w <b>&\"']]>\x00\x1b[31m\ud800 ü"


RUN = Run("0.1.0", "scan", {}, "2026-11-23T18:00:00+00:00", "cpu", "fp32", "3.11", "2.13")


def choice() -> ChoiceRecord:
    none = Compare(1.0, None, 2.0)
    return ChoiceRecord(
        sae=EVIL, token=3, text=EVIL, features=(), l0=1, alternative_count=1, priced=1, bits=none,
        bits_half=none, bits_quarter=none, joint_bits=None, gap_bits=0.0,
        encoder_excess_bits=0.0, support_excess_bits=0.0, l1=none, l2=none,
        chosen="encoder", picks=Picks(*[Pick((), ())] * 5), removed=(1,), added=(2,), moved=1.0,
        codes=(Code(1, 1.0),), support_codes=(), alternative=(Code(2, 1.0),), margin_bits=1.0,
        wins=1.0, resolved=True, canonical_bits=None, canonical_codes=(), canonical_path=(),
        explanations=Texts((EVIL,), (EVIL,)), disagreement=0.9, percentile=0.9,
        similarity_method="tfidf", coverage=1.0, context=Context(EVIL, EVIL),
    )  # fmt: skip


def score() -> ScoreSummary:
    said = DisagreementSummary(
        similarity_method="tfidf", explainer="", coverage=1.0, dropped=0, mean=0.9, p10=0.9,
        p50=0.9, p90=0.9, random_mean=0.9, self_mean=None, self_pairs=0,
        separation=None, level=0.5, calibrated_by="random",
    )  # fmt: skip
    return ScoreSummary(
        sae=EVIL, fitted_on="histograms", fitted_tokens=1, tokens=0, drawn_by=None,
        skipped=(), bits_per_token=1.0,
        bits_interval=None, gate_bits=1.0, value_bits=0.0, bound_bits_per_token=1.0,
        value_range_bits=1.0, bin_width=1.0, bin_width_by="option", added_error=None,
        tail="geometric", never_observed=0, low_coverage=0, fvu=None, fvu_quantised=None,
        mean_l0=1.0, choices=1, non_unique_fraction=1.0, non_unique_interval=None,
        resolved_fraction=1.0, resolved_interval=None, resolved_unavailable=EVIL,
        chosen_shares=None, mean_encoder_excess_bits=None, mean_support_excess_bits=None,
        proved_fraction=None, mean_gap_bits=None, agreement=None,
        canonical=None, disagreements=said, incoherence=1.0,
        incoherence_chance=Estimate(0.9, 0.8, 1.0), incoherence_excess=Estimate(0.1, 0.0, 0.2),
        incoherence_by_moved=(), incoherence_unavailable=EVIL,
    )  # fmt: skip


def but_for_runs(out: bytes) -> list[bytes]:
    """Lines of records without the run's: what two runs on the same input have in common."""
    return [line for line in out.splitlines() if not line.startswith(b'{"type":"run"')]
