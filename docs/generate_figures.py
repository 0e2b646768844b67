"""Write the figures of README.md, docs/ and the sample's PROVENANCE.md between their marks.

``python docs/generate_figures.py`` runs what is quick (a minute); ``--measure`` first runs what is
not, and keeps what comes out in figures/measured.json. docs/findings.md has its own,
generate_findings.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = "saeaudit/sample/PROVENANCE.md"


def pages() -> dict[str, Callable[[], dict[str, str]]]:
    """Page → what makes its figures, by their marks."""
    from figures import (
        collect,
        controls,
        mediators,
        performance,
        reading,
        readme,
        sample,
        score,
        search,
        tutorial,
    )

    return {
        "README.md": readme.figures,
        "docs/collect.md": collect.figures,
        "docs/controls.md": controls.figures,
        "docs/mathematics.md": search.figures,
        "docs/mediators.md": mediators.figures,
        "docs/performance.md": performance.figures,
        "docs/reading.md": reading.figures,
        "docs/score.md": score.figures,
        "docs/tutorial.md": tutorial.figures,
        SAMPLE: sample.figures,
    }


def page(name: str) -> str:
    """A whole page with its figures as they are now."""
    from figures.marks import filled

    return filled((ROOT / name).read_text(), pages()[name]())


def main() -> None:
    """Measure if asked to, and write all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--page", action="append", choices=pages())
    asked = parser.parse_args()
    if asked.measure:
        from figures import measured

        measured.measure()
    for name in asked.page or pages():
        (ROOT / name).write_text(page(name))


if __name__ == "__main__":
    main()
