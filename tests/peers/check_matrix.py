"""Files written by other libraries: right to 1e-5, or refused for codes with a reason.

Its name keeps it out of the suite: only ``make peer-test`` has the files.
"""

from __future__ import annotations

import re

import pytest

from tests.peers.matrix import Case, judge, read_cases

REFUSED = {
    "sae-lens": {
        r"abstopk": "negative",
        r"temporal": "tokens before",
        r"transcoder": "transcoder",
        r"covariance_whitening|^whitened (checkpoint|unfolded)": "whiten",
        r"tanh-relu|^(gated|jumprelu) topk$": "activation",
    },
    "eai-sparsify": {r"skip|transcode": "transcoder", r"signed True": "negative"},
    "circuit-tracer": {r"^clt": "cross-layer", r"": "transcoder"},
    "overcomplete": {r"mlp|QSAE": "more than a matrix", r"OMP|BatchTopK": "do not say"},
    "dictionary-learning": {},
}
"""What has no codes here: library, pattern of the case's name, and a word of the reason."""


def reason(case: Case) -> str | None:
    patterns = REFUSED[case.library.split()[0]]
    return next((why for pattern, why in patterns.items() if re.search(pattern, case.name)), None)


def test_there_are_files() -> None:
    libraries = {case.library.split()[0] for case in read_cases()}
    assert libraries == set(REFUSED)


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: f"{case.library} {case.name}")
def test_right_or_refused(case: Case) -> None:
    verdict = judge(case)
    assert not verdict.wrong
    why = reason(case)
    if why is None:
        assert verdict.refused is None
        assert "codes" in verdict.differences
    else:
        assert verdict.refused is not None and why in verdict.refused
