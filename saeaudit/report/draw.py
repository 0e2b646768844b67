"""From records to charts, and from charts to SVG and PNG."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import replace

from saeaudit.errors import AuditError
from saeaudit.report.code_charts import by_change, by_tolerance, rates
from saeaudit.report.firing_charts import firing
from saeaudit.report.gather import Gathered
from saeaudit.report.marks import HEIGHT, LINE, SOFT, TYPEFACE, WIDTH, Picture, fallback_colours
from saeaudit.report.scan_charts import clusters, encoders, nearest, nearest_of_several, triples

LIBRARIES = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}
"""Module → package; the extra `report` brings all of them."""
SCALE = 3
"""Pixels of a PNG for each of the SVG."""
MOST_WITH_CODES = 4
"""SAEs whose codes have charts."""


def check_libraries() -> None:
    """See that what draws the charts is installed.

    Raises:
        AuditError: a library is missing.
    """
    for name, package in LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            raise AuditError(
                f"it needs {package}", where="report", hint="pip install 'saeaudit[report]'"
            )


def pictures(gathered: Gathered) -> list[Picture]:
    """All charts that the records allow."""
    scans = gathered.scans
    made: list[Picture | None] = []
    if scans:
        made.append(nearest(scans[0]) if len(scans) == 1 else nearest_of_several(scans))
    made += [encoders(scans), triples(scans), clusters(scans)]
    with_codes = [audited for audited in gathered.saes if audited.tokens_looked_at]
    for audited in with_codes[:MOST_WITH_CODES]:
        controls = gathered.controls.get(audited.dictionary.sae, ())
        made += [by_change(audited, controls), by_tolerance(audited)]
    made.append(rates(gathered.saes))
    made += firing(gathered)
    return _named([picture for picture in made if picture is not None])


def _named(made: list[Picture]) -> list[Picture]:
    """Charts of several SAEs, the second and further of a kind numbered: each has a file."""
    counts: Counter[str] = Counter()
    named = []
    for picture in made:
        counts[picture.name] += 1
        number = counts[picture.name]
        named.append(replace(picture, name=f"{picture.name}-{number}") if number > 1 else picture)
    return named


def svg(picture: Picture) -> str:
    """A chart as SVG, in colours that are variables of the page it stands in.

    Its marks have no text for screen readers one by one: the caption says what they show.
    """
    import altair as alt
    import vl_convert

    chart = picture.chart
    size = chart.to_dict(validate=False)
    if not {"width", "vconcat"} & size.keys():
        chart = chart.properties(width=WIDTH, height=HEIGHT)
    axis = alt.AxisConfig(
        labelColor=SOFT, titleColor=SOFT, domainColor=LINE, tickColor=LINE, gridColor=LINE,
        labelFontSize=11, titleFontSize=11, titleFontWeight="normal", tickCount=5, titlePadding=6,
    )  # fmt: skip
    legend = alt.LegendConfig(labelColor=SOFT, labelFontSize=11, rowPadding=3, offset=6)
    chart = chart.properties(background="transparent", padding=2).configure(
        font=TYPEFACE, axis=axis, legend=legend, aria=False,
        view=alt.ViewConfig(stroke=None),
    )  # fmt: skip
    drawn = str(vl_convert.vegalite_to_svg(chart.to_dict()))
    drawn = re.sub(r' (?:aria-\w+|role|class|pointer-events)="[^"]*"', "", drawn)
    drawn = re.sub(r"<(?:path)[^>]*(?: d=\"\"| d=\"M0,0h0v0h0Z\")[^>]*/>", "", drawn)
    drawn = re.sub(r' (?:font-family|opacity="1)(?:="[^"]*)?"', "", drawn)
    drawn = drawn.replace("<svg ", f'<svg font-family="{TYPEFACE}" ', 1)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", drawn)


def png(drawn: str) -> bytes:
    """A drawn chart as a PNG on white, `SCALE` pixels for each of the SVG."""
    import vl_convert

    opaque = fallback_colours(drawn).replace(
        ">", '><rect width="100%" height="100%" fill="#fff"/>', 1
    )
    return bytes(vl_convert.svg_to_png(opaque, scale=SCALE))
