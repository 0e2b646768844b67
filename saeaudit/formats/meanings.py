"""What each kind of finding means, how to check it, and what to do: the texts, written once.

`saeaudit explain` prints them, and formats that have a place for help take them from here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from saeaudit.vocabulary import MAX_RESIDUAL, MIN_COSINE

Topic = Literal[
    "duplicate", "antipodal", "group", "triple", "claim", "mediator", "choice", "firing",
    "collapsed", "policy", "error",
]  # fmt: skip
"""What can be explained, beside the numbers that rules name."""


class Meaning(NamedTuple):
    """One kind, explained."""

    title: str
    """What it is, in half a line."""
    means: str
    """What follows from it, and what does not."""
    check: str
    """How to see whether it is so."""
    action: str
    """What to do."""
    commands: tuple[str, ...]
    """Commands that check it, TARGET and FILE to be filled in."""
    page: str
    """The page of the documentation that says more."""


MEANINGS: dict[Topic, Meaning] = {
    "duplicate": Meaning(
        "Two features whose decoder rows point the same way",
        f"Their cosine is at least --min-cosine ({MIN_COSINE.default}). Either can stand for the "
        "other in a reconstruction, up to what sqrt(1 - cosine^2) of it leaves, so a code with "
        "the one and a code with the other explain an activation nearly as well. It does not mean "
        "that both fire on the same tokens: that is for the encoder, whose cosine stands beside.",
        "Compare the encoder's cosine, the labels and the firing rates. Near 1 the two are one "
        "feature twice; near 0 they are two detectors that write the same thing.",
        "Read the two as one where you count or name features. Where you train the SAE: fewer "
        "features, or a penalty on the decoder's cosines; `score` says which of the two codes is "
        "shorter.",
        ("saeaudit scan TARGET --pair I,J", "saeaudit show FILE --feature I"),
        "docs/scan.md",
    ),
    "antipodal": Meaning(
        "Two features whose decoder rows point opposite ways",
        f"Their cosine is at most -{MIN_COSINE.default} (--min-cosine). Codes are not negative, so "
        "neither can stand for the other: it is no ambiguity by itself. The two are the ends of "
        "one axis, and where both are on they cancel.",
        "Look at the labels: opposites (past and present, left and right) or the same word twice. "
        "Count tokens on which both fire: on those a part of the code says nothing.",
        "Treat them as one signed feature where you steer or ablate: to remove one end adds the "
        "other.",
        ("saeaudit show FILE --type antipodal --sort worst", "saeaudit show FILE --feature I"),
        "docs/scan.md",
    ),
    "group": Meaning(
        "A connected component of duplicate features",
        "Three or more features, each a duplicate of another of them; the farthest two may be less "
        "alike than --min-cosine. A large group is most often a crowd of dead or starved features "
        "on one direction.",
        "See the least and largest cosine of the record, and the firing rates of its members.",
        "Count it as one feature. Where hundreds are in one group, look at the training: dead "
        "features that were revived to the same direction, or too wide a dictionary.",
        ("saeaudit show FILE --type group --sort size", "saeaudit explain collapsed"),
        "docs/scan.md",
    ),
    "triple": Meaning(
        "Three features of which one lies in the plane of the other two",
        f"f3 = beta (f2 - alpha f1) to within --max-residual ({MAX_RESIDUAL.default}), where no "
        "single feature explains f3. Where the pattern is 2,1, codes on two of the three can be "
        "rewritten on another two with as many active features and nearly the same "
        "reconstruction: two explanations, between which accuracy and sparsity do not choose. "
        "Where it is 3,0 the three cancel, and no code changes.",
        "Ask for the claim in its roles, and look at what is left with and without f1; then at "
        "real activations, on how many of which the exchange is open.",
        "Do not rely on an explanation that names one of the three where the others could be named "
        "as well. `score` says which of the codes is shorter, and whether the labels disagree.",
        (
            "saeaudit scan TARGET --triple F1,F2,F3",
            "saeaudit scan TARGET | saeaudit mediators TARGET --scan -",
        ),
        "docs/mathematics.md",
    ),
    "claim": Meaning(
        "The answer to a claim about features that were named",
        "Of --triple F1,F2,F3: whether F3 = beta (F2 - alpha F1) with beta > 0, by the thresholds "
        "of the scan; of --pair I,J: whether the two are duplicates. \"pair\" says that two of the "
        "three are so nearly parallel that the third adds nothing. It is no finding: it was named, "
        "not found.",
        "residual and residual_without_f1 say what is left; z and z_prime are the two codes, error "
        "how far apart what they decode to is.",
        "Where it does not hold, quote the residual. In CI: --fail-on 'claims_that_fail>0'.",
        ("saeaudit scan TARGET --triple F1,F2,F3 --pair I,J",),
        "docs/scan.md",
    ),
    "mediator": Meaning(
        "Another code with the same L0 that reconstructs no worse",
        "One active feature is exchanged for another, the rest is fitted again, and the error is "
        "within the tolerance. The activation has more than one explanation of this size. That "
        "there are many is usual where features are correlated; how much of the code moves is what "
        "to look at.",
        "See change (how far the code moves) and attainable (whether the encoder's thresholds "
        "could give it), and compare with the controls: what random rows show as well is no "
        "property of the SAE.",
        "Take explanations of such tokens for one of several. Keep those that all codes share.",
        (
            "saeaudit mediators TARGET --activations X.npy",
            "saeaudit mediators TARGET --activations X.npy --control random-decoder",
        ),
        "docs/mediators.md",
    ),
    "choice": Meaning(
        "Two codes as accurate as each other, with explanations that disagree",
        "The shortest description among the codes of an activation, and whether it is the "
        "encoder's. It is resolved where it leads by a stated number of bits and in most resamples "
        "of the prices. disagreement compares the labels of what leaves and what enters.",
        "Compare disagreement with its percentile among random pairs of features, and incoherence "
        "with its chance.",
        "Where it is resolved, prefer the shorter code. Where it is not, nothing in accuracy, "
        "sparsity or length says which explanation is right.",
        (
            "saeaudit score TARGET --explain TOKEN",
            "saeaudit score TARGET --control shuffled-labels",
        ),
        "docs/score.md",
    ),
    "firing": Meaning(
        "How often, and how strongly, the features of a finding fire",
        "ratio is how many times as often as by chance they all fire on one token: near 0 they "
        "stand in for each other, as twins do that have shared out one meaning; well above 1 they "
        "are on together, and the code says the same thing twice. Rows alone tell neither.",
        "See ratio_interval: where it holds 1, these tokens do not tell it from chance; features "
        "that seldom fire need many. typical has two codes of usual strength, from score with "
        "their bits.",
        "Where two exclude each other, read them as one feature that was split. Where one fires "
        "wherever the other does, look at whether the second says anything by itself. Where z and "
        "z' differ in bits, the shorter is the less surprising.",
        (
            "saeaudit scan TARGET -o FILE",
            "saeaudit score TARGET --scan FILE --activations X.npy",
            "saeaudit show FILE --type firing --sort ratio",
        ),
        "docs/score.md",
    ),
    "collapsed": Meaning(
        "Rows whose norm is below a thousandth of the norms' 99th percentile",
        "Dead features that weight decay has shrunk. Their directions pile up and would read as "
        "thousands of false duplicates, so they are left out of every finding and counted.",
        "The note and collapsed_doubt say where the rule may take features for dead; look at the "
        "norms and the firing rates.",
        "--include-collapsed keeps them. Many dead rows are a finding about the training.",
        ("saeaudit scan TARGET --include-collapsed",),
        "docs/scan.md",
    ),
    "policy": Meaning(
        "A rule of the policy that does not hold",
        "A number of an SAE's summary compares with the limit in the way that --fail-on or the "
        "configuration names. The run ends with exit status 1.",
        "The verdict record has every rule with its value; `saeaudit explain NAME` says what the "
        "number is.",
        "Look at the findings behind the number, or set another limit; a baseline tells what is "
        "new from what is known.",
        ("saeaudit show FILE --type verdict --format jsonl",),
        "docs/ci.md",
    ),
    "error": Meaning(
        "Something that could not be audited",
        "A file that is missing, damaged or of no known form, or an SAE that the question does not "
        "fit. It is never taken for clean: the run ends with exit status 2.",
        "The record has the reason and what to do about it.",
        "Mend it and run again; --debug has the traceback.",
        ("saeaudit show FILE --type error --format jsonl",),
        "docs/ci.md",
    ),
}  # fmt: skip
