"""Charts of decoders: how near features are to each other, and what findings there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from saeaudit.formats.screen.scan import DISTINCT, neighbours
from saeaudit.formats.screen.wording import counted
from saeaudit.records import GroupRecord, PairRecord, TripleRecord
from saeaudit.report.gather import Audited
from saeaudit.report.marks import ACCENT, INK, NULL, SOFT, WIDTH, Picture, rule, scatter

MOST_SAES = 30
"""SAEs drawn as rows of a chart."""
MOST_MEMBERS, MOST_GROUPS = 15, 9
"""Features drawn of a cluster, and clusters drawn."""


def nearest(audited: Audited) -> Picture:
    """Largest |cosine| of every feature of one SAE, and of random rows."""
    import altair as alt

    summary = audited.scanned.summary
    assert summary is not None
    counts = summary.max_cosine.histogram
    bars = [
        {"from": place / len(counts), "to": (place + 1) / len(counts), "count": count}
        for place, count in enumerate(counts)
        if count
    ]
    random = summary.random_control
    x = alt.X("from:Q", title="largest |cosine| with another feature",
              scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    band = alt.Chart(alt.InlineData(values=[{"from": random.p05, "to": random.p95}]))
    histogram = alt.Chart(alt.InlineData(values=bars))
    limit = audited.limits["min_cosine"]
    return Picture(
        "nearest-neighbours", "How near each feature is to another",
        f"{neighbours(summary)} The grey band holds nine in ten random rows; from {limit:g} on a "
        "feature is in a pair.",
        alt.layer(
            band.mark_rect(color=NULL, opacity=0.5).encode(x=x, x2="to:Q"),
            histogram.mark_bar(color=ACCENT, binSpacing=0.5).encode(
                x=x.bin("binned"), x2="to:Q", y=alt.Y("count:Q", title="features")
            ),
            *rule(random.p05, "random", NULL, SOFT),
            *rule(limit, "pairs", INK, INK),
        ),
    )  # fmt: skip


def nearest_of_several(scans: Sequence[Audited]) -> Picture:
    """The same of several SAEs, a row each: nine in ten features, the median, the random median."""
    import altair as alt

    rows: list[dict[str, str | float]] = []
    for audited in scans:
        summary = audited.scanned.summary
        assert summary is not None
        values = summary.max_cosine.quantiles
        rows.append({"sae": audited.short_name, "low": values.p05, "median": values.p50,
                     "high": values.p95, "random": summary.random_control.p50})  # fmt: skip
    rows.sort(key=lambda row: (-float(row["high"]), row["sae"]))
    y = alt.Y(
        "sae:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, labelFontSize=10, grid=False)
    )
    x = alt.X("low:Q", title="largest |cosine| with another feature",
              scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    base = alt.Chart(alt.InlineData(values=rows[:MOST_SAES])).encode(y=y)
    more = f" The {MOST_SAES} with the nearest features." if len(rows) > MOST_SAES else ""
    return Picture(
        "nearest-neighbours", "How near features are to each other",
        "A line spans nine in ten features of an SAE, the dot is its median feature, the upright "
        f"tick the median of random rows of its shape.{more}",
        alt.layer(
            base.mark_rule(color=ACCENT, strokeWidth=4, opacity=0.4).encode(x=x, x2="high:Q"),
            base.mark_point(color=ACCENT, filled=True, size=50, opacity=1).encode(x="median:Q"),
            base.mark_tick(color=INK, thickness=1.5, size=11).encode(x="random:Q"),
        ).properties(width=WIDTH - 100, height=alt.Step(17)),
    )  # fmt: skip


def encoders(scans: Iterable[Audited]) -> Picture | None:
    """Cosine of decoder rows against that of encoder directions, for all duplicates with both."""
    pairs = [
        (finding.cosine, finding.encoder_cosine)
        for audited in scans
        for finding in audited.findings
        if isinstance(finding, PairRecord)
        and finding.kind == "duplicate"
        and finding.encoder_cosine is not None
    ]
    if not pairs:
        return None
    apart = sum(encoder < DISTINCT for _, encoder in pairs)
    return Picture(
        "encoders", "Written alike, detected apart?",
        f"{counted(len(pairs), 'duplicate pair', 'duplicate pairs')}. High up, two features detect "
        f"the same; low down, they write the same and detect different things: {apart:,} of them "
        f"are below {DISTINCT:g}.",
        scatter(pairs, "cosine of decoder rows", "cosine of encoder directions"),
    )  # fmt: skip


def triples(scans: Iterable[Audited]) -> Picture | None:
    """What two features leave of a third, against how many times as much one of them leaves."""
    points = [
        (finding.residual, finding.single_residual / finding.residual)
        for audited in scans
        for finding in audited.findings
        if isinstance(finding, TripleRecord) and finding.residual > 0
    ]
    if not points:
        return None
    least, gain = min(points)
    return Picture(
        "triples", "What two features leave of a third",
        f"{counted(len(points), 'triple', 'triples')}. To the left, two features explain a third; "
        "high up, one of them by itself does not. The nearest to exact leaves "
        f"{least:.3f}, and one feature alone {gain:.1f} times as much.",
        scatter(points, "residual", "gain over one feature alone"),
    )  # fmt: skip


def clusters(scans: Iterable[Audited]) -> Picture | None:
    """The largest groups of duplicates, each on a circle, with the pairs that hold it together."""
    import altair as alt

    groups = [
        (audited, finding)
        for audited in scans
        for finding in audited.findings
        if isinstance(finding, GroupRecord)
    ]
    if not groups:
        return None
    groups.sort(key=lambda entry: (-entry[1].size, entry[1].features))
    drawn = groups[:MOST_GROUPS]
    dots, edges, names = [], [], []
    for place, (audited, group) in enumerate(drawn):
        row, column = divmod(place, 3)
        members = group.features[:MOST_MEMBERS]
        spots = {
            feature: (column + 0.34 * math.sin(2 * math.pi * step / len(members)),
                      0.34 * math.cos(2 * math.pi * step / len(members)) - row)
            for step, feature in enumerate(members)
        }  # fmt: skip
        dots += [{"x": x, "y": y} for x, y in spots.values()]
        names.append({"x": column, "y": -row - 0.5, "text": f"{group.size:,} features"})
        for i, j in _links(audited, members):
            (x, y), (x2, y2) = spots[i], spots[j]
            edges.append({"x": x, "y": y, "x2": x2, "y2": y2})
    scale = alt.Scale(zero=False, nice=False, padding=10)
    x_axis, y_axis = alt.X("x:Q", axis=None, scale=scale), alt.Y("y:Q", axis=None, scale=scale)
    line = alt.Chart(alt.InlineData(values=edges)).mark_rule(color=ACCENT, opacity=0.35)
    dot = alt.Chart(alt.InlineData(values=dots)).mark_point(color=ACCENT, filled=True, opacity=1)
    name = alt.Chart(alt.InlineData(values=names)).mark_text(
        color=SOFT, fontSize=10, baseline="middle"
    )
    largest, in_groups = drawn[0][1].size, sum(group.size for _, group in groups)
    cut = f" The {MOST_GROUPS} largest are drawn." if len(groups) > MOST_GROUPS else ""
    return Picture(
        "clusters", "Clusters of duplicates",
        f"{counted(len(groups), 'group', 'groups')} of three duplicates or more, of {in_groups:,} "
        f"features in all, the largest of {largest:,}. A line is a duplicate pair.{cut} At most "
        f"{MOST_MEMBERS} features of a group are drawn.",
        alt.layer(
            line.encode(x=x_axis, y=y_axis, x2="x2:Q", y2="y2:Q"),
            dot.encode(x=x_axis, y=y_axis),
            name.encode(x=x_axis, y=y_axis, text="text:N"),
        ).properties(width=WIDTH, height=WIDTH * math.ceil(len(drawn) / 3) / 3 + 20),
    )  # fmt: skip


def _links(audited: Audited, members: Sequence[int]) -> list[tuple[int, int]]:
    """Duplicate pairs among features; a ring where pairs were counted and not listed."""
    inside = set(members)
    pairs = [
        finding.features
        for finding in audited.findings
        if isinstance(finding, PairRecord)
        and finding.kind == "duplicate"
        and inside.issuperset(finding.features)
    ]
    return pairs or list(pairwise([*members, members[0]]))
