"""What docs/findings.md says of encoders, and of ways of choosing."""

from __future__ import annotations

from findings.markdown import (
    NAMES,
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


def recovery(figures: Row) -> str:
    """Whether encoders find the true code, and which way of choosing does."""
    return "\n\n".join(
        (
            "## 3. Do encoders find the true code, and does description length?",
            encoder_beside_pursuit(figures["encoder"]), known_codes(figures["known"]),
            planted(figures["planted"]), MIND,
        )
    )  # fmt: skip


def encoder_beside_pursuit(rows: list[Row]) -> str:
    """The encoder's codes and pursuits of as many features."""
    encoder, settled, pursuit = (
        one(rows, name=name, codes=codes)
        for name, codes in (
            ("encoder", "as it is"), ("encoder", "settled"), ("pursuit", "as it is"),
        )
    )  # fmt: skip
    both = one(rows, name="pursuit", codes="settled")
    answer = prose(
        holds(
            apart(pursuit["any"], encoder["any"])
            and pursuit["fvu"][0] < encoder["fvu"][0]
            and apart(pursuit["log2_size"], encoder["log2_size"]),
            "**The encoder does not find the most accurate code.** A pursuit of as many features "
            f"leaves {fvu(pursuit['fvu'])} of the variance where least squares on the encoder's "
            f"features leave {fvu(encoder['fvu'])}, and has fewer codes as good beside its own.",
        ),
        holds(
            abs(settled["fvu"][0] - both["fvu"][0]) < 0.01 and both["agreement_settled"][2] < 0.9,
            f"Settled, the encoder's codes leave {fvu(settled['fvu'])} and the pursuit's "
            f"{fvu(both['fvu'])}, with {share(both['agreement_settled'])} of their features in "
            "common: codes of one accuracy, and accuracy does not choose.",
        ),
    )
    return (
        answer
        + "\n\n"
        + table(
            ("codes", "error (FVU)", "as good or better, ε = 0", "attainable", "log2 size",
             "in common with the encoder", "with its settled codes"),
            [
                [
                    f"{row['name']}, {row['codes']}", fvu(row["fvu"]), share(row["any"]),
                    share(row["attainable"]), number(row["log2_size"]), share(row["agreement"]),
                    share(row["agreement_settled"]),
                ]
                for row in rows
            ],
        )
    )  # fmt: skip


def known_codes(rows: list[Row]) -> str:
    """Activations made of known codes."""

    def row(made_of: str, *, noise: bool, dictionary: str = "SAE") -> Row:
        return one(rows, made_of=made_of, noise=noise, dictionary=dictionary)

    clean, noisy = row("encoder", noise=False), row("encoder", noise=True)
    foreign, random = row("pursuit", noise=True), row("encoder", noise=True, dictionary="random")
    answer = prose(
        "Here activations are made of known codes on the SAE's rows, by the encoder or by the "
        "pursuit (16 features), with the residual of another document or without.",
        holds(
            clean["better"][0] == 0 and clean["encoder_all"][2] < 0.5,
            "Without residuals no exchange fits as well as the true code. The encoder then returns "
            f"{share(clean['encoder'])} of its own features, and all of them for "
            f"{share(clean['encoder_all'])} of the activations.",
        ),
        holds(
            noisy["better"][1] > 0.8
            and noisy["settled - pursuit"][2] < 0.05
            and foreign["settled - pursuit"][1] < 0 < foreign["settled - pursuit"][2],
            f"With residuals an exchange fits as well or better on {share(noisy['better'])}: "
            "the truth is not the best fit, and a better fit is hardly nearer to it. Settled, the "
            f"pursuit returns {points(noisy['settled - pursuit'])} more of the encoder's features, "
            f"and of its own not measurably more ({points(foreign['settled - pursuit'])}).",
        ),
        holds(
            apart(noisy["pursuit"], noisy["encoder"]),
            f"The encoder returns {share(noisy['encoder'])} of features that it could have written "
            f"itself, the pursuit {share(noisy['pursuit'])}.",
        ),
        holds(
            apart(foreign["encoder"], foreign["pursuit"]),
            f"Of the pursuit's features it is the other way round: {share(foreign['encoder'])} by "
            f"the encoder, {share(foreign['pursuit'])} by the pursuit. Each finds what it would "
            "have said.",
        ),
        holds(
            abs(random["pursuit"][0] - noisy["pursuit"][0]) < 0.15,
            "On random rows the pursuit returns about as many of the same codes' features, "
            f"{share(random['pursuit'])}, so this is the residuals' doing more than that of the "
            "SAE's rows.",
        ),
    )
    head = (
        "made of the codes of", "residuals", "rows", "an exchange fits as well",
        "pursuit returns", "settled", "encoder returns", "all, pursuit", "all, encoder",
    )  # fmt: skip
    lines = [
        [
            f"the {row['made_of']}", "yes" if row["noise"] else "no", NAMES[row["dictionary"]],
            *(
                share(row[key]) if key in row else "-"
                for key in (
                    "better", "pursuit", "settled", "encoder", "pursuit_all", "encoder_all",
                )
            ),
        ]
        for row in rows
    ]  # fmt: skip
    return (
        answer
        + "\n\n"
        + table(head, lines)
        + "\n\n"
        + "Features returned, as those in common above, are Jaccard indices."
    )


def planted(rows: list[Row]) -> str:
    """Planted triples, by what prices are fitted on."""

    def row(encoder: str) -> Row:
        return one(rows, encoder_is=encoder)

    exact, usual, coin = row("wrong on 0 %"), row("wrong on 30 %"), row("wrong on 50 %")
    trained = row("trained, L1"), row("trained, BatchTopK")
    answer = prose(
        "The planted triples of [score.md](score.md) have exact alternatives and known codes, the "
        "unusual one of a triple one time in eight.",
        holds(
            usual["mdl - l1"][1] > 0,
            "**Description length is better than L1 where the encoder is right more often than "
            f"not.** With prices fitted on an encoder that is wrong on 30 % it takes the true code "
            f"on {share(usual['mdl'])}, L1 on {share(usual['l1'])}, which is "
            f"{points(usual['mdl - l1'])} less.",
        ),
        holds(
            exact["mdl - encoder"][2] < 0 and usual["mdl - encoder"][0] < 0.06,
            f"Over that encoder itself it gains {points(usual['mdl - encoder'])}, over one "
            f"never wrong {points(exact['mdl - encoder'])}: where the unusual code is true it "
            f"takes it on {share(exact['mdl, unusual'])} only.",
        ),
        holds(
            coin["mdl - l1"][0] < 0.1,
            f"With prices of an encoder that tosses coins, the control, it takes the true code on "
            f"{share(coin['mdl'])}, {points(coin['mdl - l1'])} from L1.",
        ),
        holds(
            all(abs(of["mdl - l1"][0]) < 0.05 and of["encoder, f3"][0] == 0 for of in trained),
            "**It fails where the encoder is wrong by habit.** Encoders trained on these "
            "activations, with the true rows for a decoder and begun at its transpose, never write "
            "f1 and f3 where these are true, as a linear map and a ReLU read f1 and f2 off: they "
            "find "
            f"{share(trained[0]['encoder'])} (L1) and {share(trained[1]['encoder'])} (BatchTopK). "
            f"Prices fitted on their codes say the same, and description length takes the true "
            f"code on {share(trained[0]['mdl'])} and {share(trained[1]['mdl'])}: no better than "
            "L1.",
        ),
    )
    keys = (
        "mdl", "l1", "l2", "least error", "encoder", "mdl - l1", "mdl - encoder", "mdl, unusual",
    )  # fmt: skip
    head = (
        "the encoder that prices are fitted on", "description length", "L1", "L2", "least error",
        "the encoder", "length less L1", "length less the encoder", "length, unusual code true",
    )  # fmt: skip
    lines = [
        [of["encoder_is"], *((points if " - " in key else share)(of[key]) for key in keys)]
        for of in rows
    ]
    return answer + "\n\n" + table(head, lines)


MIND = """\
*What would change our mind:* an encoder trained on such sources that writes the unusual code where
that is true, or a price that does not come from the encoder's codes (of an export over other data,
or of settled codes) that takes the true code more often than L1. In real activations the true code
is not known: nothing here says how often description length is right about an SAE."""
