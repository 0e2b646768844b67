"""The page: one file that asks for nothing, and that its own policy would not let."""

from __future__ import annotations

import base64
import hashlib
import shlex
from importlib import resources
from typing import Any, NamedTuple

from saeaudit.escape import LINE, NAME, escape, visible
from saeaudit.formats.items import broken
from saeaudit.formats.meanings import MEANINGS, Meaning, Topic
from saeaudit.formats.screen.claims import claim_lines
from saeaudit.formats.screen.mediators import strictest
from saeaudit.formats.screen.scan import TITLES
from saeaudit.formats.screen.wording import control_lines, counted, percent
from saeaudit.records import DictionaryRecord, Run
from saeaudit.report.contested import contested
from saeaudit.report.figures import UNMEASURED, figures
from saeaudit.report.gather import Audited, Gathered
from saeaudit.report.marks import Picture
from saeaudit.report.rows import (
    KINDS,
    Packed,
    first_rows,
    packed,
    page_of_features,
    rate_text,
    rows,
    together_text,
)
from saeaudit.report.verdict import answers, headline

BYTES, BYTES_EACH = 450_000, 7.5
"""Size of a page, and what each finding may add: 0.6 MB for 20,000 findings, 1.2 MB for 100,000."""
MOST_IN_FULL = 4
"""SAEs whose sentences and figures are all on the page; of more, figures are compared."""


class Chart(NamedTuple):
    """A chart that has been drawn."""

    title: str
    caption: str
    svg: str


class Source(NamedTuple):
    """Where an SAE came from."""

    name: str
    facts: list[tuple[str, str]]


class Command(NamedTuple):
    """A run whose records the page is made of."""

    command: str
    how: str
    """With what, and when."""


def page(gathered: Gathered, drawn: list[tuple[Picture, str]], version: str) -> str:
    """The page as HTML.

    Args:
        gathered: at least one SAE.
        drawn: charts and their SVG.
        version: of saeaudit.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, keep_trailing_newline=True)  # fmt: skip
    template = environment.from_string(_asset("page.html.jinja"))
    script, style = _asset("table.js"), _asset("page.css")
    listed = rows(gathered)
    values = {
        **_top(gathered),
        "script": script, "style": style,
        "script_hash": content_hash(script), "style_hash": content_hash(style),
        "charts": [Chart(picture.title, picture.caption, _labelled(svg, picture.caption))
                   for picture, svg in drawn],
        "total": len(listed), "rows": first_rows(listed), "rate_text": rate_text,
        "together_text": together_text,
        "kinds": [(place, TITLES[kind][0]) for place, kind in enumerate(KINDS)
                  if any(row.kind == place for row in listed)],
        "incomplete": any(audited.scanned.summary and not audited.scanned.summary.complete
                          for audited in gathered.saes),
        "names": [audited.name for audited in gathered.saes],
        "pages": [page_of_features(audited) for audited in gathered.saes],
        "tokens": contested(gathered),
        "claims": [claim_lines(claim, visible) for audited in gathered.saes
                   for claim in audited.scanned.claims],
        "meanings": _meanings(gathered, {KINDS[row.kind] for row in listed}),
        "sources": [Source(audited.name, _provenance(audited)) for audited in gathered.saes],
        "runs": [_command(run) for run in gathered.runs],
        "version": version,
    }  # fmt: skip
    titles = {"verdict": "Verdict", "figures": "Figures", "pictures": "Pictures",
              "claims": "Claims", "findings": "Findings", "tokens": "Tokens",
              "meanings": "What it means", "made": "How it was made"}  # fmt: skip
    present = {"pictures": drawn, "claims": values["claims"], "findings": listed,
               "tokens": values["tokens"]}  # fmt: skip
    parts = [(part, name) for part, name in titles.items() if present.get(part, True)]
    bare = template.render(parts=parts, packed="", described=0, **values)
    room = int(BYTES + BYTES_EACH * len(listed)) - len(bare.encode())
    table = packed(listed, gathered, room) if listed else Packed("", 0)
    return template.render(parts=parts, packed=table.text, described=table.described, **values)


def content_hash(text: str) -> str:
    """The source expression that lets exactly this script or style through.

    Example: 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' for the empty text.
    """
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return resources.files("saeaudit.report").joinpath(name).read_text(encoding="utf-8")


def _labelled(svg: str, caption: str) -> str:
    """An SVG that screen readers take for one picture, which its caption describes."""
    from markupsafe import escape as html

    return svg.replace("<svg ", f'<svg role="img" aria-label="{html(caption)}" ', 1)


def _top(gathered: Gathered) -> dict[str, Any]:
    """Title, verdict and figures."""
    saes = gathered.saes
    full = len(saes) <= MOST_IN_FULL
    folder = escape(saes[0].folder, NAME)
    several = counted(len(saes), "SAE", "SAEs") + (f" of {folder.rstrip('/')}" if folder else "")
    tables = [
        (audited.name, figures(audited, gathered.controls.get(audited.dictionary.sae, ())))
        for audited in saes
    ]
    notes = [escape(note) for audited in saes for note in audited.dictionary.notes]
    for audited in (control for listed in gathered.controls.values() for control in listed):
        notes += control_lines(audited.dictionary)
    return {
        "title": saes[0].name if len(saes) == 1 else several,
        "about": _provenance(saes[0], short=True) if len(saes) == 1 else _versions(gathered),
        "headline": headline(gathered),
        "verdicts": [(audited.name, answers(audited)) for audited in saes],
        "figure_tables": tables if full else [],
        "compared": _compared(saes) if len(saes) > 1 else [],
        "notes": list(dict.fromkeys(notes)),
        "errors": [
            {"sae": escape(error.sae, NAME), "reason": escape(error.reason),
             "hint": escape(error.hint)}
            for error in gathered.errors
        ],
        "broken": [f"{escape(rule.sae, NAME)}: {broken(rule)}"
                   for rule in gathered.rules if not rule.passed],
    }  # fmt: skip


def _compared(saes: list[Audited]) -> list[tuple[str, ...]]:
    """Figures of several SAEs: the titles, then a row for each."""
    titles = ("SAE", "features", "dead", "duplicates", "antipodal", "triples", "could go",
              "neighbour", "random", "another code", "bits a token", "error")  # fmt: skip
    table: list[tuple[str, ...]] = [titles]
    for audited in saes:
        dictionary, summary = audited.dictionary, audited.scanned.summary
        cells = [f"{dictionary.d_sae:,} x {dictionary.d_in:,}"]
        cells += [UNMEASURED] * 7 if summary is None else [
            f"{summary.dead_features:,}", f"{summary.pairs:,}", f"{summary.antipodal_pairs:,}",
            f"{summary.triples:,}", percent(summary.duplicate_fraction),
            f"{summary.max_cosine.quantiles.p50:.3f}", f"{summary.random_control.p50:.3f}",
        ]  # fmt: skip
        codes, score = strictest(audited.listed.summary), audited.scored.summary
        cells.append(percent(codes.non_unique_fraction) if codes else UNMEASURED)
        cells.append(f"{score.bits_per_token:.1f}" if score else UNMEASURED)
        error = score.fvu_quantised if score else None
        cells.append(UNMEASURED if error is None else percent(error))
        table.append((audited.name, *cells))
    used = [any(row[place] != UNMEASURED for row in table[1:]) for place in range(len(titles))]
    return [tuple(c for c, keep in zip(row, used, strict=True) if keep) for row in table]


def _provenance(audited: Audited, *, short: bool = False) -> list[tuple[str, str]]:
    """What an SAE is and where it came from; in short for the top of the page."""
    dictionary, source = audited.dictionary, audited.dictionary.source
    model = (dictionary.neuronpedia or "").split("/")[0]
    facts = [
        ("Features", f"{dictionary.d_sae:,} of width {dictionary.d_in:,}"),
        ("Encoder", _encoder(dictionary)),
        ("Model", escape(model, NAME)),
        ("Source", escape(source.uri, NAME)),
        ("Revision", escape((source.revision or "")[: 12 if short else None], NAME)),
        ("sha256", source.sha256[:12] + "…" if short else escape(source.sha256, NAME)),
    ]
    if not short:
        facts += [
            ("File", f"{escape(source.path, NAME)}, {source.bytes:,} bytes"),
            ("Format", f"{escape(dictionary.format, NAME)}, {escape(dictionary.dtype, NAME)}"),
            ("Neuronpedia", escape(dictionary.neuronpedia or "", NAME)),
        ]
    return [(name, value) for name, value in facts if value]


def _encoder(dictionary: DictionaryRecord) -> str:
    if dictionary.architecture == "decoder-only":
        return "none in the file"
    return escape(dictionary.architecture, NAME) + (f", k = {dictionary.k}" if dictionary.k else "")


def _versions(gathered: Gathered) -> list[tuple[str, str]]:
    """By what, and when, several SAEs were audited."""
    if not gathered.runs:
        return []
    versions = sorted({escape(run.version, NAME) for run in gathered.runs})
    days = sorted({escape(run.started[:10], NAME) for run in gathered.runs})
    return [("saeaudit", ", ".join(versions)),
            ("Audited", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")]  # fmt: skip


def _command(run: Run) -> Command:
    """A run: the command and its targets, and its other arguments as the record names them."""
    targets = run.arguments.get("targets") or run.arguments.get("target") or []
    words = [str(word) for word in (targets if isinstance(targets, list) else [targets])]
    others = [
        f"{name}={value}"
        for name, value in run.arguments.items()
        if name not in ("targets", "target") and value not in (None, False, [], "")
    ]
    how = (f"saeaudit {run.version}, {run.started}, on {run.device}, Python {run.python}, "
           f"PyTorch {run.torch}; {', '.join(others)}")  # fmt: skip
    return Command(escape(shlex.join(["saeaudit", run.command, *words]), LINE), escape(how, LINE))


def _meanings(gathered: Gathered, kinds: set[str]) -> list[Meaning]:
    """Texts on what the page shows."""
    shown: dict[Topic, bool] = {
        "duplicate": "duplicate" in kinds, "antipodal": "antipodal" in kinds,
        "group": "group" in kinds, "triple": "triple" in kinds,
        "mediator": any(audited.listed.summary for audited in gathered.saes),
        "choice": any(audited.scored.summary for audited in gathered.saes),
        "firing": any(audited.firing for audited in gathered.saes),
        "collapsed": any(audited.dictionary.collapsed_rows for audited in gathered.saes),
        "policy": any(not rule.passed for rule in gathered.rules),
        "error": bool(gathered.errors),
    }  # fmt: skip
    return [MEANINGS[topic] for topic, present in shown.items() if present]
