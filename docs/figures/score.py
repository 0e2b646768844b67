"""What docs/score.md says of the sample and of planted sources."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from figures.measured import inputs, measured, summary
from figures.words import ends, percent, with_interval
from findings.markdown import holds, one, prose, share, table

import saeaudit
from saeaudit.audit.score import split
from saeaudit.audit.score.inputs import ScoreSources, read_inputs
from saeaudit.audit.tokens import draw_tokens
from saeaudit.core.codes import choose
from saeaudit.records import Estimate, ScoreSummary

FINDINGS = Path(__file__).parents[1] / "findings" / "figures.json"
LABELLED = 200
"""Tokens whose exchanges' labels are compared."""


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    return {
        "prices": prices(),
        "choices": choices(),
        "planted": planted(),
        "disagreements": disagreements(),
    }


def prices() -> str:
    """Prices from activations beside those from histograms."""
    activations, histograms = summary(), summary("histograms")
    rows = [
        [
            f"{activations.fitted_tokens:,} tokens, measured on {activations.tokens:,} others",
            f"{activations.bin_width:.3f}",
            f"{activations.bits_per_token:.1f} ({ends(activations.bits_interval)})",
            f"{activations.gate_bits:.1f}", f"{activations.value_bits:.1f}",
        ],
        [
            f"an export's histograms over {round(histograms.fitted_tokens, -3):,} tokens",
            *(
                f"{figure:.{digits}f}" for figure, digits in (
                    (histograms.bin_width, 3), (histograms.bits_per_token, 1),
                    (histograms.gate_bits, 1), (histograms.value_bits, 1),
                )
            ),
        ],
    ]  # fmt: skip
    more = activations.bits_per_token / histograms.bits_per_token - 1
    sparser = 1 - activations.mean_l0 / histograms.mean_l0
    interval = activations.bits_interval
    assert interval is not None
    sentence = holds(
        more > 0 < sparser and interval.low < histograms.bits_per_token < interval.high,
        f"The difference of {percent(more)} is within the interval. Learning "
        f"{saeaudit.open('sample').d_sae:,} distributions from {activations.fitted_tokens:,} "
        f"tokens costs some bits, and the {percent(sparser)} lower L0 of the tokens measured saves "
        "some.",
    )
    head = ("prices from", "Δ", "bits a token", "gates", "values")
    return "\n\n".join((table(head, rows), prose(sentence)))


def choices() -> str:
    """Which code is the shortest, on the tokens that are chosen on."""
    of = summary()
    chosen, agreement, canonical = of.chosen_shares, of.agreement, of.canonical
    assert chosen and agreement and canonical and of.mean_encoder_excess_bits
    assert of.mean_support_excess_bits and of.proved_fraction and of.mean_gap_bits
    waste = f"{canonical.wasted_bits_per_token:.1f} of {canonical.encoder_bits_per_token:.1f}"
    excess, support = of.mean_encoder_excess_bits, of.mean_support_excess_bits
    rows = [
        ["tokens with another code as accurate", percent(of.non_unique_fraction),
         ends(of.non_unique_interval, scale=100)],
        ["the encoder's code is the shortest", *shares(chosen.encoder)],
        ["its features or fewer are, with other values", *shares(chosen.support)],
        ["another feature is on in the shortest", *shares(chosen.other)],
        ["bits of the encoder's code beyond the shortest",
         f"{excess.value:.1f} of {canonical.encoder_bits_per_token:.1f}", ends(excess)],
        ["bits of its features or fewer, at best, beyond the shortest", f"{support.value:.1f}",
         ends(support)],
        ["proved to be the shortest, as far as single codes are solved for",
         *shares(of.proved_fraction)],
        ["bits that others could save at most, on average", f"{of.mean_gap_bits.value:.1f}",
         ends(of.mean_gap_bits)],
        ["resolved, of the tokens with another code", percent(of.resolved_fraction),
         ends(of.resolved_interval, scale=100)],
        [f"the same feature enters by L1 as by bits, or none ({agreement.compared} tokens)",
         *shares(agreement.l1)],
        ["… by L2", *shares(agreement.l2)],
        ["… by the least error", *shares(agreement.error)],
        ["bits that the encoder's codes waste at least, with further exchanges", waste, ""],
        ["L0 of the codes that these end at, and of the encoder's",
         f"{canonical.mean_l0:.1f}, {mean_l0_chosen():.1f}", ""],
    ]  # fmt: skip
    fewer = 1 - canonical.mean_l0 / mean_l0_chosen()
    resolved = of.resolved_interval
    assert resolved is not None
    sentences = prose(
        holds(
            support.high < 0.25 * excess.low,
            f"So most of the {excess.value:.1f} bits that an encoder's code costs beyond the "
            "shortest are not for which features it has but for how many and how strong. What an "
            f"exchange adds is {with_interval(support)} bits.",
        ),
        holds(
            canonical.mean_l0 < mean_l0_chosen() and of.bits_per_token > 0,
            "With all exchanges that shorten it, a code as accurate has "
            f"{percent(fewer, 0)} fewer features.",
        ),
        holds(
            resolved.high < 0.25,
            f"With prices as uncertain as {of.fitted_tokens:,} tokens leave them, "
            f"{percent(of.resolved_fraction)} ({ends(resolved, scale=100)}) of the choices are "
            "resolved.",
        ),
    )
    opening = prose(
        f"`saeaudit score sample --canonicalise` ({of.choices} of the {of.tokens:,} tokens "
        f"measured, of {documents()} documents) says:"
    )
    return "\n\n".join((opening, table(("", "", "95 %"), rows), sentences))


def shares(of: Estimate | None) -> tuple[str, str]:
    """A share in per cent and its interval, which says nothing where all choices agree."""
    assert of is not None
    return percent(of.value), "" if of.low == of.high else ends(of, scale=100)


def mean_l0_chosen() -> float:
    """Mean L0 of the encoder's codes of the tokens chosen on."""
    return float(measured()["mean_l0"])


def documents() -> int:
    """How many documents the tokens measured are of."""
    given = inputs()
    assert given.activations is not None and given.documents is not None
    draw = draw_tokens(len(given.activations), given.documents, saeaudit.ScoreOptions().seed)
    return len(draw.part[draw.measured].unique())


def planted() -> str:
    """How often each way of choosing finds the true code: the findings have the rest."""
    rows = json.loads(FINDINGS.read_text())["planted"]
    usual, exact = one(rows, encoder_is="wrong on 30 %"), one(rows, encoder_is="wrong on 0 %")
    ways = {
        "description length": "mdl", "least L1": "l1", "least L2": "l2",
        "least error (of equal ones, the encoder's)": "least error", "the encoder": "encoder",
    }  # fmt: skip
    lines = [[name, share(usual[way])] for name, way in ways.items()]
    sentences = prose(
        holds(
            exact["mdl"][0] < exact["encoder"][0],
            "Fitted on an encoder without mistakes, description length finds "
            f"{share(exact['mdl'])}; where an encoder is right more often than the best guess from "
            "frequencies, as there, it knows better.",
        )
    )
    return "\n\n".join((table(("way of choosing", "true code found (95 %)"), lines), sentences))


class Unsearched:
    """Within it no codes are searched for: which exchanges there are does not depend on it."""

    def __enter__(self) -> None:
        self._kept = choose.SOLVED, split.NORMED
        choose.SOLVED = split.NORMED = 0

    def __exit__(self, *_: object) -> None:
        choose.SOLVED, split.NORMED = self._kept


@cache
def labelled() -> tuple[ScoreSummary, ScoreSummary]:
    """The sample's labels, and the same dealt at random."""
    runs = []
    with Unsearched():
        for control in (None, "shuffled-labels"):
            options = saeaudit.ScoreOptions(max_tokens=LABELLED, control=control)
            *_, last = saeaudit.score(saeaudit.open("sample"), inputs(), options)
            assert isinstance(last, ScoreSummary)
            runs.append(last)
    first, second = runs
    return first, second


def incoherent(name: str, of: Any) -> list[str]:
    """A line of the table; `of` is a share, or a summary."""
    fraction, chance, excess = (
        (of.incoherence, of.incoherence_chance, of.incoherence_excess)
        if isinstance(of, ScoreSummary)
        else (of.fraction, of.chance, of.excess)
    )
    both = (with_interval(figure, scale=100) for figure in (chance, excess))
    return [name, f"{100 * fraction:.1f}", *both]


def disagreements() -> str:
    """Whether labels of exchanged features disagree, and what tells."""
    labels, dealt = labelled()
    by_moved = {share.moved: share for share in labels.incoherence_by_moved}
    words = read_inputs(saeaudit.open("sample"), ScoreSources(similarity="tfidf")).explanations
    assert words and words.separation and words.undecidable and labels.disagreements
    assert labels.incoherence_excess and dealt.incoherence_excess and by_moved[0.05].excess
    separation = labels.disagreements.separation
    assert separation is not None
    rows = [
        incoherent("any", labels), incoherent("5 %", by_moved[0.05]),
        incoherent("10 %", by_moved[0.1]),
        incoherent("any, with `--control shuffled-labels`", dealt),
    ]  # fmt: skip
    head = ("at least so much of the code moves", "incoherent", "by chance", "difference")
    excess, moving = labels.incoherence_excess, by_moved[0.05].excess
    sentences = prose(
        holds(
            dealt.incoherence_excess.low < 0 < dealt.incoherence_excess.high,
            "The last row is a whole run with labels dealt at random ([controls.md](controls.md)), "
            "which has no difference to be told.",
        ),
        holds(
            excess.high < 0 and moving.low < 0 < moving.high,
            "So the labels of features that stand in for each other differ on most tokens, and "
            "still less often than labels dealt at random would; of exchanges that move 5 % of the "
            "code and more this cannot be said.",
        ),
        f"The separation is {with_interval(separation, 3)} by these embeddings. By TF-IDF "
        f"(`--similarity tfidf`) it is {with_interval(words.separation, 3)}, and there is no "
        "incoherence: more than 5 % of the features have two explanations that share no word that "
        "counts, which is the most that TF-IDF can say of any two labels.",
    )
    opening = prose(
        f"Of `saeaudit score sample --max-tokens {LABELLED}`, in per cent with intervals of 95 %:"
    )
    return "\n\n".join((opening, table(head, rows), sentences))
