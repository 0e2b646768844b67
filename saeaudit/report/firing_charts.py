"""Charts of how strongly the features of a finding fire, with two codes marked on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from saeaudit.formats.screen.firing import listed_words, together_words
from saeaudit.formats.screen.wording import counted, percent
from saeaudit.records import Code, FiringRecord, Magnitudes, Typical
from saeaudit.report.gather import Audited, Gathered
from saeaudit.report.marks import ACCENT, NULL, SECOND, WIDTH, Picture
from saeaudit.report.ranking import weighed
from saeaudit.vocabulary import MAGNITUDE_BINS

if TYPE_CHECKING:
    import altair as alt

    from saeaudit.report.marks import Drawable

Side = Literal["left", "right"]
DRAWN = 3
"""Findings that are drawn."""
HEIGHT = 60
"""Pixels of one feature's plot."""
ROOM = 1.35
"""Height of a plot over that of its tallest bar: names of lines stand above."""
MARKS = {"z": (ACCENT, [1, 0]), "z'": (SECOND, [4, 3])}
"""Code → colour and dashes of its line."""


def firing(gathered: Gathered) -> list[Picture]:
    """Magnitudes of the features of claims, then of the findings that deserve a look first."""
    drawn: list[Picture] = []
    for audited, record in _first(gathered):
        if record.typical is not None and len(drawn) < DRAWN:
            drawn.append(_picture(audited, record, record.typical))
    return drawn


def _first(gathered: Gathered) -> Iterator[tuple[Audited, FiringRecord]]:
    """Records of claims, then of findings by how much they deserve a look."""
    for audited in gathered.saes:
        for claim in audited.scanned.claims:
            if claim.features in audited.firing:
                yield audited, audited.firing[claim.features]
    places = {id(finding): audited for audited in gathered.saes for finding in audited.findings}
    for entry in sorted(weighed(gathered.saes), key=lambda entry: -entry.weight):
        if entry.firing is not None:
            yield places[id(entry.finding)], entry.firing


def _picture(audited: Audited, record: FiringRecord, typical: Typical) -> Picture:
    import altair as alt

    codes = {"z": typical.codes, "z'": typical.alternative}
    plots = [
        _plot(feature, drawn, {name: _value(code, feature) for name, code in codes.items()})
        for feature, drawn in zip(record.features, record.magnitudes, strict=False)
        if drawn.bin_width and any(drawn.counts[:MAGNITUDE_BINS])
    ]
    names = listed_words(map(str, record.features))
    bits = {"z": typical.bits, "z'": typical.alternative_bits}
    said = "; ".join(
        f"{name} is {_code_words(code)}" + _bits_words(bits[name]) for name, code in codes.items()
    )
    rates = listed_words(map(percent, record.rates))
    of = counted(record.tokens, "token", "tokens")
    return Picture(
        "magnitudes", f"How strongly {names} fire",
        f"{audited.name}, {of}: they fire on {rates} of them, "
        f"{together_words(record)}. {said}: the mean of "
        f"{counted(typical.tokens, 'token', 'tokens')} with these features, and the nearest code "
        "with the other in place of one of them.",
        alt.vconcat(_key(bits), *plots, spacing=4),
    )  # fmt: skip


def _plot(feature: int, drawn: Magnitudes, values: dict[str, float | None]) -> Drawable:
    """One feature's histogram, and an upright line for each code that it is in."""
    import altair as alt

    width = drawn.bin_width or 0.0
    counts = drawn.counts[:MAGNITUDE_BINS]
    marks = {name: value for name, value in values.items() if value is not None}
    last = max(place for place, count in enumerate(counts) if count) + 1
    end = max([last * width, *marks.values()])
    bars = [
        {"from": place * width, "to": (place + 1) * width, "count": count}
        for place, count in enumerate(counts)
        if count
    ]
    x = alt.X("from:Q", title=f"code of {feature}", scale=alt.Scale(domain=[0, end], nice=False))
    top = alt.Scale(domain=[0, ROOM * max(counts)], nice=False)
    y = alt.Y("count:Q", title=None, axis=alt.Axis(tickCount=2), scale=top)
    histogram = alt.Chart(alt.InlineData(values=bars)).mark_bar(color=NULL, binSpacing=0.5)
    layers = [histogram.encode(x=x.bin("binned"), x2="to:Q", y=y)]
    for name, (side, row) in _sides(marks, end).items():
        layers += _mark(name, marks[name], side, row)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _sides(marks: Mapping[str, float], end: float) -> dict[str, tuple[Side, int]]:
    """On which side of its line each name stands, and in which row, so that none hides another."""
    ordered = sorted(marks, key=lambda name: marks[name])
    first, last = ordered[:1], ordered[1:]
    sides: dict[str, tuple[Side, int]] = {}
    for name in last:
        sides[name] = ("right" if marks[name] < 0.8 * end else "left"), 0
    for name in first:
        left = marks[name] > (0.2 if last else 0.5) * end
        crowded = any(side == "left" for side, _ in sides.values()) == left
        sides[name] = ("left" if left else "right"), int(bool(last) and crowded)
    return sides


def _mark(name: str, value: float, side: Side, row: int) -> list[alt.Chart]:
    import altair as alt

    colour, dashes = MARKS[name]
    mark: dict[str, Any] = {"at": value, "text": f"{name} {value:.3g}"}
    base = alt.Chart(alt.InlineData(values=[mark])).encode(x="at:Q")
    align: Side = "left" if side == "right" else "right"
    step = 4 if side == "right" else -4
    text = base.mark_text(color=colour, align=align, dx=step, baseline="top", fontSize=11)
    return [
        base.mark_rule(color=colour, strokeWidth=2, strokeDash=dashes),
        text.encode(y=alt.value(13 * row), text="text:N"),
    ]


def _key(bits: Mapping[str, float | None]) -> Drawable:
    """What each code takes, above the plots."""
    import altair as alt

    words = [
        alt.Chart(alt.InlineData(values=[{"text": f"{name}{_bits_words(bits[name])}"}]))
        .mark_text(color=colour, align="left", baseline="top", fontSize=12)
        .encode(text="text:N", x=alt.value(place * WIDTH / 2), y=alt.value(0))
        for place, (name, (colour, _)) in enumerate(MARKS.items())
    ]
    return alt.layer(*words).properties(width=WIDTH, height=12)


def _value(codes: Sequence[Code], feature: int) -> float | None:
    return next((code.value for code in codes if code.feature == feature), None)


def _code_words(codes: Sequence[Code]) -> str:
    return listed_words(f"{code.feature} at {code.value:.3g}" for code in codes)


def _bits_words(bits: float | None) -> str:
    return "" if bits is None else f", {bits:.1f} bits"
