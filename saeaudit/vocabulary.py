"""Words and numbers that several layers use, each written once; imports nothing of ours.

Closed sets of names are Literals, from which the command line makes its choices, the records their
JSON Schema, and mypy its check that none is forgotten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Audit = Literal["scan", "mediators", "score"]
"""Commands whose summaries a policy can judge."""
Format = Literal["jsonl", "table", "markdown", "github", "junit", "sarif", "codequality"]
"""How a run's records leave."""
ScreenName = Literal["int8", "bf16", "fp32"]
"""Arithmetic of a scan's screening pass."""
ScreenChoice = Literal["auto", "int8", "bf16", "fp32"]
"""The same, or the best for the device and the rows."""
Exchange = Literal["always", "sometimes", "never"]
"""Whether a code on two features of a triple has another code of the same size."""
Mode = Literal["refit", "accuracy", "reconstruction"]
"""What alternative codes are measured against."""
Similarity = Literal["auto", "semantic", "sentence-transformers", "export", "tfidf"]
"""How the texts of two explanations are compared; "semantic" is by static embeddings."""
Architecture = Literal[
    "standard", "jumprelu", "topk", "batchtopk", "gated", "groupmax", "matching_pursuit",
    "nnomp", "unknown", "decoder-only",
]  # fmt: skip
"""The encoder's formula; "unknown" where the file has an encoder and no formula here fits it, and
"nnomp" for the controls' non-negative pursuit, which is in no file."""
Unstated = Literal["activation", "centring"]
"""What a file may leave open of its encoder: what follows the matrix, and what is subtracted."""
Control = Literal["pursuit", "random-decoder", "permuted-tokens", "shuffled-labels"]
"""What records are a null of; "pursuit" is what the two that follow are to be compared with."""
MediatorControl = Literal["random-decoder", "permuted-tokens"]
"""Those that `mediators` makes, "pursuit" beside each."""
ScoreControl = Literal["random-decoder", "permuted-tokens", "shuffled-labels"]
"""Those that `score` makes."""
CONTROLS: dict[Control, str] = {
    "pursuit": "codes by non-negative pursuit on the SAE's own rows",
    "random-decoder": "codes by the same pursuit on random rows of the decoder's second moment and "
    "norms",
    "permuted-tokens": "codes by the same pursuit, activations permuted between tokens along each "
    "of their principal axes",
    "shuffled-labels": "explanations permuted among features of like firing rate",
}
"""What each is, in a line."""
Normalise = Literal["none", "layer_norm", "constant_norm"]
"""What is done to each activation before encoding, and undone after decoding."""
SignPattern = Literal["2,1", "3,0"]
"""How many entries of a triple's kernel vector share a sign: two against one, or all three."""
WidthBy = Literal["option", "distortion", "share", "histograms"]
"""What has fixed the width of the bins of values."""
Parts = Literal["documents", "blocks"]
"""What activations are drawn by: documents where enough are known, else blocks of neighbours."""
Holds = Literal["yes", "no", "pair"]
"""Whether a claim about named features holds; "pair" where two of its three explain it."""
Bos = Literal["keep", "drop", "none"]
"""The token that begins a text: its activation is kept, or dropped, or it is not there."""
ModelDtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What a model computes in; "auto" is what it is stored in."""
Choice = Literal["encoder", "support", "other"]
"""A shortest code: the reference, its features with other values, or one with another feature."""
SkipReason = Literal["norm", "l0"]
"""Why an activation is not looked at: an outlying norm, or too many active features."""

FEATURE_URL = "https://www.neuronpedia.org/{source}/{feature}"
"""A feature's page on Neuronpedia."""

SAMPLE = "sample"
"""The bundled SAE that has activations of its own."""
FETCHED = "fetched"
"""For --explanations and --features: what came with the SAE or `saeaudit fetch` brought."""
NONE = "none"
"""For --explanations: show and compare none."""


@dataclass(frozen=True)
class Threshold:
    """A number that a user can set: its default and its range, bounds included."""

    default: float
    low: float
    high: float = math.inf

    @property
    def allowed(self) -> str:
        """The range in words.

        Example: ``Threshold(0.9, 0.01, 1).allowed`` is "0.01 to 1".
        """
        if math.isinf(self.high):
            return f"{self.low:g} or more"
        return f"{self.low:g} to {self.high:g}"

    def allows(self, value: float) -> bool:
        """Whether a value is in the range; NaN is not."""
        return self.low <= value <= self.high


MIN_COSINE = Threshold(0.9, 0.01, 1.0)
"""Least |cosine| of a pair."""
MAX_RESIDUAL = Threshold(0.2, 0.0, 0.8)
"""Largest residual of a triple."""
MIN_GAIN = Threshold(2.0, 1.0)
"""Least ratio of single residual to residual of a genuine triple."""
SCAN_THRESHOLDS = {
    "min_cosine": MIN_COSINE, "max_residual": MAX_RESIDUAL, "min_gain": MIN_GAIN,
}  # fmt: skip
"""By the name of the option and of the configuration's key."""
MAX_FINDINGS = 100_000
"""Most pairs, and most triples, written for an SAE."""
COLLECTED = 100_000
"""Activations that are collected; 0 for those of all texts."""
MAX_TOKENS = 1000
"""Most activations whose alternatives are looked at; 0 for all."""
MAX_CHOICES = 400
"""Most activations whose shortest code is searched for; 0 for all."""
SEED = 0
"""Of the draw of these."""
EPSILONS = (0.0, 0.01, 0.05)
"""Tolerances on the unsquared error, ascending."""
SWAPS = 1
"""Exchanges to chain when counting codes."""
BEAM = 4
"""Codes to go on from at each further exchange."""
MAX_ALTERNATIVES = 3
"""Most alternatives written for a token and mode."""
MAGNITUDE_BINS = 50
"""Bins of the magnitudes of a feature's codes."""
NEAR = 3.0
"""Bits within which codes are looked for beside the shortest: refitted prices can turn to them."""
MARGIN = 1.0
"""Bits by which the shortest code must lead to be resolved."""
STATIC_MODEL = "minishlab/potion-base-8M"
"""Static embeddings of words, read by model2vec."""
SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""Embeddings of sentences, read by sentence-transformers."""
