"""What docs/findings.md says of k and of width."""

from __future__ import annotations

from collections.abc import Callable

from findings.markdown import (
    NAMES,
    Figure,
    Row,
    apart,
    fvu,
    holds,
    number,
    one,
    points,
    prose,
    share,
    table,
)


def ties(rows: list[Row], step: str, codes: str, epsilon: float) -> str:
    """Figures of every step, the SAE's above those of random rows."""
    chosen = [row for row in rows if (row["codes"], row["epsilon"]) == (codes, epsilon)]
    chosen.sort(key=lambda row: (row[step], row["dictionary"] != "SAE"))
    head = (
        step, "rows", "error (FVU)", "another code", "changing ≥ 10 %", "≥ 20 %", "attainable",
        "log2 size",
    )  # fmt: skip
    columns: tuple[tuple[str, Callable[[Figure], str]], ...] = (
        ("fvu", fvu), ("any", share), ("change_0.1", share), ("change_0.2", share),
        ("attainable", share), ("log2_size", number),
    )  # fmt: skip
    return table(
        head,
        [
            [str(row[step]), NAMES[row["dictionary"]], *(f(row[key]) for key, f in columns)]
            for row in chosen
        ],
    )


def opening(figures: Row) -> str:
    """What is measured, and what the first tolerance means."""
    rows = [*figures["size"]["rows"], *figures["width"]["rows"]]
    best = [row for row in rows if (row["codes"], row["epsilon"]) == ("settled", 0.0)]
    encoder = one(figures["encoder"], name="encoder", codes="as it is")
    exact = prose(
        holds(
            all(row["any"][0] == 0 for row in best),
            "At ε = 0 an alternative to the refit fits at least as well as the code does, so it "
            "says that the code was not the best: of settled codes no activation has one, at any "
            "k, any width, on any rows.",
        ),
        holds(
            encoder["any"][1] > 0.9,
            f"The {share(encoder['any'])} of the encoder's own codes that have one are the share "
            "that one exchange improves.",
        ),
        "How many codes are about as good as the best one is what ε = 0.01 on settled codes says: "
        "near ties.",
    )
    return OPENING.format(**figures) + "\n\n" + exact


def by_size(figures: Row) -> str:
    """Whether there are more other codes where codes have more features."""
    rows, growths = figures["size"]["rows"], figures["size"]["growth"]
    grown = {name: one(growths, dictionary=name, codes="settled", epsilon=0.01) for name in NAMES}
    pursued = one(growths, dictionary="SAE", codes="nnomp", epsilon=0.0)
    like = figures["size"]["like_error"]
    at = {
        (name, k): one(rows, dictionary=name, k=k, codes="settled", epsilon=0.01)
        for name in NAMES
        for k in (4, 8, 32, 64)
    }
    signed = [
        one(rows, dictionary=name, k=k, codes="omp", epsilon=0.0)["any"]
        for name in NAMES
        for k in (4, 64)
    ]
    answer = prose(
        holds(
            pursued["log2_size"][1] > 0
            and all(grow["log2_size"][1] > 0 for grow in grown.values()),
            "**In number yes, on any rows.** From k = 4 to k = 64 the log2 size of the pursuit's "
            f"codes at ε = 0 grows by {number(pursued['log2_size'])}, so that the pursuit is ever "
            "further from the best code; that of near ties grows by "
            f"{number(grown['SAE']['log2_size'])}, and on random rows by "
            f"{number(grown['random']['log2_size'])}.",
        ),
        holds(
            all(grow["change_0.2"][2] < 0 for grow in grown.values())
            and at["SAE", 64]["change_0.2"][0] < 0.01,
            "**In what an exchange changes no.** The share of activations with a near tie that "
            "changes a fifth of the code goes from "
            f"{share(at['SAE', 4]['change_0.2'])} to {share(at['SAE', 64]['change_0.2'])}: one "
            "feature of many holds little.",
        ),
        holds(
            apart(at["SAE", 4]["log2_size"], at["random", 4]["log2_size"])
            and apart(at["random", 64]["log2_size"], at["SAE", 64]["log2_size"]),
            "**The control** says that growth alone is no property of the SAE. At k = 4 it has "
            f"fewer near ties than random ones (log2 size {number(at['SAE', 4]['log2_size'])} "
            f"against {number(at['random', 4]['log2_size'])}), at k = 64 more "
            f"({number(at['SAE', 64]['log2_size'])} against "
            f"{number(at['random', 64]['log2_size'])}).",
        ),
        holds(
            like["fvu"][1] < 0 < like["fvu"][2] and like["log2_size"][1] > 2,
            f"At like error, k = 8 on the SAE's rows ({fvu(at['SAE', 8]['fvu'])}) and 32 on random "
            f"ones ({fvu(at['random', 32]['fvu'])}), it has fewer by {number(like['log2_size'])} "
            "in log2 on the same activations. Two of these could be had from k alone, as four "
            "times as many features can leave; the others not.",
        ),
        holds(
            apart(signed[0], signed[1]) and apart(signed[2], signed[3]),
            "Codes of either sign (`omp`) go the same way: an exchange improves "
            f"{share(signed[0])} of them at k = 4 and {share(signed[1])} at k = 64, on random rows "
            f"{share(signed[2])} and {share(signed[3])}.",
        ),
    )
    mind = prose(
        "*What would change our mind:* an SAE whose near ties do not grow, or chains of exchanges "
        "(`--swaps`) among settled codes that change a fifth of the code as often at k = 64 as at "
        "k = 4. One exchange is all that was looked at."
    )
    return "\n\n".join(
        (
            "## 1. Does non-uniqueness grow with k?", answer,
            "Settled codes, ε = 0.01:", ties(rows, "k", "settled", 0.01),
            "The pursuit's codes as they are (`nnomp`), ε = 0:", ties(rows, "k", "nnomp", 0.0),
            mind,
        )
    )  # fmt: skip


def by_width(figures: Row) -> str:
    """Whether there are more other codes where the dictionary is wider."""
    rows, growths = figures["width"]["rows"], figures["width"]["growth"]

    def growth(name: str, stop: int, epsilon: float, codes: str = "settled") -> Figure:
        row = one(growths, dictionary=name, to=stop, epsilon=epsilon, codes=codes)
        size: Figure = row["log2_size"]
        return size

    nested = {name: growth(name, 2048, 0.01) for name in NAMES}
    loose = {name: growth(name, 2048, 0.05) for name in NAMES}
    merged = {name: growth(name, 4096, 0.01) for name in NAMES}
    pursued = {name: growth(name, 4096, 0.0, "nnomp") for name in NAMES}
    twins = {
        name: one(growths, dictionary=name, to=4096, epsilon=0.01, codes="settled")["change_0.2"]
        for name in NAMES
    }
    narrow, wide = (
        one(rows, dictionary="SAE", width=width, codes="settled", epsilon=0.01)["change_0.2"]
        for width in (2048, 4096)
    )
    answer = prose(
        holds(
            all(grow[2] < 0 for grow in nested.values()),
            "**Not among features of one SAE.** From 256 to all 2,048 features, "
            f"k = {figures['width']['k']} throughout, the log2 size of near ties changes by "
            f"{number(nested['SAE'])}, on random rows by {number(nested['random'])}: the error "
            "falls, and with it what ε allows.",
        ),
        holds(
            all(grow[1] > 0 for grow in loose.values()),
            f"**That depends on ε**: at 0.05 it grows, by {number(loose['SAE'])} and "
            f"{number(loose['random'])}. (Eight times the features are three bits more of "
            "exchanges that could pass.)",
        ),
        holds(
            pursued["SAE"][1] > 0 > pursued["random"][0]
            and merged["SAE"][1] < 0 < merged["SAE"][2]
            and twins["SAE"][1] > 0
            and twins["random"][1] < 0 < twins["random"][2],
            "**Where two SAEs are merged, a little.** The stitched dictionary has 2,048 features "
            "more, of a second training. The log2 size of the pursuit's codes at ε = 0 grows by "
            f"{number(pursued['SAE'])}, with as many more random rows by "
            f"{number(pursued['random'])}; that of near ties by {number(merged['SAE'])} and "
            f"{number(merged['random'])}. Near ties that change a fifth of the code go from "
            f"{share(narrow)} to {share(wide)} of the activations, by {points(twins['SAE'])}; on "
            f"random rows by {points(twins['random'])}, which could be as much. So it is not shown "
            "that a feature and its twin of the other training change places.",
        ),
    )
    mind = prose(
        "*What would change our mind:* a family of SAEs trained at several widths on the same "
        "activations, in which near ties grow at equal k or at equal error. A random subset of "
        "features is not a narrower SAE: it leaves out what others would have learnt."
    )
    return "\n\n".join(
        (
            "## 2. Does it grow with width?", answer,
            f"Settled codes of {figures['width']['k']} features, ε = 0.01:",
            ties(rows, "width", "settled", 0.01),
            "The pursuit's codes as they are (`nnomp`), ε = 0:", ties(rows, "width", "nnomp", 0.0),
            mind,
        )
    )  # fmt: skip


OPENING = """\
# Findings: three conjectures, tested

Are there more explanations where codes have more features, or dictionaries are wider? Do encoders
find the one that is true, and does description length? This page is made by
`python docs/generate_findings.py` from the two bundled SAEs, which are small (2,048 and 4,096
features of a sentence encoder): it says how such questions are answered, and what the answer is
there. The figures are kept in [findings/figures.json](findings/figures.json); `--only PART`
measures one part again.

There are {activations} activations, equally many of each of {documents} documents. Intervals are
of 95 %, bootstraps over documents, and over sources where these are planted (10, or the 5 that
encoders are trained on). Where all activations drawn agree, an interval of 0 to 0 or 100 to 100 is
no certainty: were one document in 22 otherwise, none of 65 would show it one time in twenty. Words
are those of [mediators.md](mediators.md) and of the [glossary](glossary.md):

- other codes are one [exchange](glossary.md#exchange) away, non-negative, and held to the
  [refit](glossary.md#refit) of the code (refit mode);
- [*attainable*](glossary.md#attainable) are codes above the threshold of the SAE's
  encoder, whoever wrote the code;
- [*pursuit*](glossary.md#pursuit) is `--codes nnomp`; *settled* codes are what the best
  exchange makes of a code, again and again until none fits better;
- *random rows*, the control, have the decoder's second moment and norms, and the same pursuits."""
