"""What a referee recomputes from the written records of the sample, in float64, by other means."""

from __future__ import annotations

import json

import numpy as np
import pytest

import saeaudit
from saeaudit.audit.codes import no_less
from saeaudit.records import ChoiceRecord, Record, dump
from saeaudit.vocabulary import NEAR
from tests.support.sample import SAMPLE

TOKENS = 6


@pytest.fixture(scope="module")
def sample() -> saeaudit.Dictionary:
    return saeaudit.open("sample")


@pytest.fixture(scope="module")
def choices(sample: saeaudit.Dictionary) -> list[ChoiceRecord]:
    options = saeaudit.ScoreOptions(max_tokens=TOKENS)
    records = saeaudit.score(sample, saeaudit.ScoreInputs(SAMPLE[:1500]), options)
    return [record for record in records if isinstance(record, ChoiceRecord)]


def written(record: Record, name: str) -> dict[int, float]:
    return {code["feature"]: code["value"] for code in json.loads(dump(record))[name]}


def test_written_codes_are_at_their_thresholds_at_least(
    sample: saeaudit.Dictionary, choices: list[ChoiceRecord]
) -> None:
    assert sample.weights.threshold is not None
    thresholds = sample.weights.threshold.double().tolist()
    at_the_threshold = 0
    for choice in choices:
        for name in ("codes", "support_codes", "alternative"):
            for feature, value in written(choice, name).items():
                assert value >= thresholds[feature], (choice.token, name, feature)
                at_the_threshold += value < thresholds[feature] * (1 + 1e-8)
    assert at_the_threshold > 1


@pytest.mark.parametrize("floor", [0.7362185713, 1.00000000049, 9.999999994, 3e-7 + 4e-17])
def test_only_what_is_at_its_floor_is_lifted(floor: float) -> None:
    def rounded(value: float) -> float:
        return float(f"{value:.9g}")

    assert rounded(floor) < floor  # today's rounding
    for value in (floor, floor * (1 + 1e-15), floor * (1 - 1e-14)):
        assert floor <= rounded(no_less(value, floor)) <= floor * (1 + 2e-8)
    for value in (floor / 2, floor * (1 - 1e-9), floor * 2):
        assert no_less(value, floor) == value


def least(rows: np.ndarray, x: np.ndarray, most: float, floor: np.ndarray, power: int) -> float:
    """Least sum of codes ``[k] >= floor``, or of their squares, with a squared error of at most
    `most`: convex, so descent over one code at a time, for the price at which all of it is spent.
    """
    gram, moment = rows @ rows.T, rows @ x
    off = ~np.eye(len(rows), dtype=bool)
    codes = floor.copy()
    low, high = -20.0, 20.0
    for _ in range(50):
        price = np.exp((low + high) / 2)
        for _ in range(400):
            before = codes.copy()
            for n in range(len(codes)):
                pull = price * (moment[n] - gram[n, off[n]] @ codes[off[n]])
                centre = (pull - 0.5) / price if power == 1 else pull / (price + 1)
                codes[n] = max(centre, floor[n])
            if np.abs(codes - before).max() < 1e-11:
                break
        fits = float(((x - codes @ rows) ** 2).sum()) <= most
        low, high = (low, (low + high) / 2) if fits else ((low + high) / 2, high)
    return float((codes**power).sum())


def test_least_norms_follow_from_the_features_that_have_them(
    sample: saeaudit.Dictionary, choices: list[ChoiceRecord]
) -> None:
    norms, decoder = sample.norms.numpy(), sample.weights.decoder.double().numpy()
    assert sample.weights.threshold is not None and sample.weights.b_dec is not None
    bias = sample.weights.b_dec.double().numpy()
    for choice in sorted(choices, key=lambda choice: choice.l0)[:3]:
        codes = written(choice, "codes")
        x = SAMPLE[choice.token].double().numpy() - bias
        most = float(((x - sum(z * decoder[f] for f, z in codes.items())) ** 2).sum())
        for compared, pick, power in (
            (choice.l1, choice.picks.l1, 1),
            (choice.l2, choice.picks.l2, 2),
        ):
            assert compared.reference == pytest.approx(
                sum((z * norms[f]) ** power for f, z in codes.items())
            )
            assert pick is not None
            features = sorted((codes.keys() - set(pick.removed)) | set(pick.added))
            rows = decoder[features] / norms[features, None]
            floor = sample.weights.threshold.double().numpy()[features] * norms[features]
            figures = (compared.reference, compared.support, compared.alternative)
            said = min(figure for figure in figures if figure is not None)
            assert least(rows, x, most, floor, power) == pytest.approx(said, rel=1e-5)


def test_a_lead_is_capped_as_its_field_says(choices: list[ChoiceRecord]) -> None:
    margins = [choice.margin_bits for choice in choices if choice.margin_bits is not None]
    assert margins and max(margins) == NEAR
