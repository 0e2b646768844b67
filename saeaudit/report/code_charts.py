"""Charts of codes: how many tokens have another one, how different it is, and what codes take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saeaudit.formats.screen.wording import percent
from saeaudit.records import MediatorsSummary, NonUnique
from saeaudit.report.gather import Audited
from saeaudit.report.marks import ACCENT, INK, SECOND, SOFT, THIRD, Picture

if TYPE_CHECKING:
    from saeaudit.report.marks import Drawable

LOOKS: dict[str, tuple[str, str, list[int]]] = {
    "refit": ("as accurate as its features allow", ACCENT, [1, 0]),
    "accuracy": ("as accurate as the encoder's code", SECOND, [6, 3]),
    "reconstruction": ("decoding to nearly the same", THIRD, [2, 2]),
    "pursuit": ("control: codes pursued on the SAE's rows", INK, [1, 0]),
    "random-decoder": ("control: codes pursued on random rows", SOFT, [4, 4]),
}
"""Mode or control → what the line is called, its colour and its dashes."""
MOST_NAMES = 6
"""SAEs whose names stand beside their dots."""


def by_change(audited: Audited, controls: Iterable[Audited]) -> Picture | None:
    """Share of tokens with another code that differs by at least so much; with controls."""
    summary = audited.listed.summary
    if summary is None or not summary.non_unique:
        return None
    rows = _changes(_strictest(summary))
    for control in controls:
        kind, null = control.dictionary.control, control.listed.summary
        if kind in LOOKS and null is not None and (row := _strictest(null).get("refit")):
            rows += _changes({kind: row})
    refit = _strictest(summary).get("refit")
    fifth = [share.fraction for share in refit.by_change if share.change == 0.2] if refit else []
    first = f" Of the best codes {percent(fifth[0])} can change by a fifth." if fifth else ""
    return Picture(
        "other-codes-by-change", "How different the other codes are",
        f"{audited.name}, {summary.tokens:,} tokens: the share with another code of the same size, "
        f"as accurate, that changes at least so much.{first}",
        _lines(rows, "change of the code", [0.0, 0.1, 0.2, 0.33, 0.5]),
    )  # fmt: skip


def by_tolerance(audited: Audited) -> Picture | None:
    """Share of tokens with another code by how much less accurate it may be."""
    summary = audited.listed.summary
    steps = sorted({row.epsilon for row in summary.non_unique}) if summary else []
    if summary is None or len(steps) < 2:
        return None
    rows = [
        {"x": row.epsilon, "y": row.non_unique_fraction, "line": row.mode}
        for row in summary.non_unique
    ]
    return Picture(
        "other-codes-by-tolerance", "How much tolerance they need",
        f"{audited.name}, {summary.tokens:,} tokens: the share with any other code of the same "
        "size that leaves at most so much more error. A line that begins high needs none.",
        _lines(rows, "tolerance on the error", steps),
    )  # fmt: skip


def rates(saes: Iterable[Audited]) -> Picture | None:
    """Bits a token against error, of two SAEs or more."""
    import altair as alt

    rows = [
        {"sae": audited.short_name, "bits": summary.bits_per_token, "error": error}
        for audited in saes
        if (summary := audited.scored.summary) and (error := summary.fvu_quantised) is not None
    ]
    if len(rows) < 2:
        return None
    scale = alt.Scale(zero=False, padding=14)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("error:Q", title="share of the variance left over", scale=scale,
                axis=alt.Axis(format=".0%")),
        y=alt.Y("bits:Q", title="bits a token", scale=scale),
    )  # fmt: skip
    parts = [base.mark_point(color=ACCENT, filled=True, size=50, opacity=1)]
    if len(rows) <= MOST_NAMES:
        parts.append(base.mark_text(color=SOFT, dy=-9, fontSize=10).encode(text="sae:N"))
    return Picture(
        "rates", "Bits against distortion",
        f"{len(rows)} SAEs. Further down is shorter, further left more accurate: an SAE beats "
        "those above it and to its right. Only both figures together compare two SAEs.",
        alt.layer(*parts),
    )  # fmt: skip


def _strictest(summary: MediatorsSummary) -> dict[str, NonUnique]:
    """Mode → its row with the least tolerance."""
    rows: dict[str, NonUnique] = {}
    for row in sorted(summary.non_unique, key=lambda row: row.epsilon):
        rows.setdefault(row.mode, row)
    return rows


def _changes(rows: Mapping[str, NonUnique]) -> list[dict[str, Any]]:
    return [
        {"x": share.change, "y": share.fraction, "line": line}
        for line, row in rows.items()
        for share in row.by_change
    ]


def _lines(rows: list[dict[str, Any]], title: str, steps: Sequence[float]) -> Drawable:
    """Shares of tokens, lines told apart by colour and dashes."""
    import altair as alt

    looks = [look for line, look in LOOKS.items() if any(row["line"] == line for row in rows)]
    named = [{**row, "line": LOOKS[row["line"]][0]} for row in rows]
    names = [name for name, _, _ in looks]
    legend = alt.Legend(orient="bottom", columns=1, title=None, symbolType="stroke",
                        symbolSize=300, labelLimit=WIDEST)  # fmt: skip
    colours = alt.Scale(domain=names, range=[colour for _, colour, _ in looks])
    dashes = alt.Scale(domain=names, range=[dash for _, _, dash in looks])
    base = alt.Chart(alt.InlineData(values=named)).encode(
        x=alt.X("x:Q", title=title, axis=alt.Axis(values=list(steps), format=".0%")),
        y=alt.Y("y:Q", title="share of tokens", axis=alt.Axis(format=".0%"),
                scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("line:N", legend=legend, scale=colours),
    )  # fmt: skip
    line = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash("line:N", legend=legend, scale=dashes)
    )
    return alt.layer(line, base.mark_point(filled=True, size=24, opacity=1))


WIDEST = 260
"""Pixels of a line's name."""
