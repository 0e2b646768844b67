"""``saeaudit scan``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from saeaudit.cli import options
from saeaudit.cli.outlets import outlets
from saeaudit.cli.policy import make_policy, read_config, thresholds
from saeaudit.cli.targets import check_targets, resolve_targets
from saeaudit.cli.write import Output, run_record, write
from saeaudit.errors import AuditError
from saeaudit.vocabulary import (
    FETCHED,
    MAX_FINDINGS,
    MAX_RESIDUAL,
    MIN_COSINE,
    MIN_GAIN,
    ScreenChoice,
)

FEATURE = re.compile(r"[0-9]{1,12}")


def scan(
    ctx: typer.Context,
    targets: options.Targets,
    sae: options.Sae = None,
    assume: options.Assume = None,
    config: options.Config = None,
    min_cosine: Annotated[
        float, typer.Option(metavar="T", help="Report pairs with |cosine| of at least T.")
    ] = MIN_COSINE.default,
    max_residual: Annotated[
        float, typer.Option(metavar="R", help="Report triples dependent to within R.")
    ] = MAX_RESIDUAL.default,
    min_gain: Annotated[
        float,
        typer.Option(metavar="G", help="... that explain G times better than one feature alone."),
    ] = MIN_GAIN.default,
    triple: Annotated[
        list[str] | None,
        typer.Option(metavar="I,J,K", help="Is K = beta (J - alpha I)? Repeatable."),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="I,J", help="Are I and J duplicates? Repeatable."),
    ] = None,
    include_collapsed: Annotated[
        bool, typer.Option("--include-collapsed", help="Let rows of very small norm take part.")
    ] = False,
    max_findings: Annotated[
        int, typer.Option(metavar="N", help="Write at most N pairs and N triples for an SAE.")
    ] = MAX_FINDINGS,
    device: options.Device = "auto",
    screen: Annotated[
        ScreenChoice,
        typer.Option(help="Arithmetic of the screening pass; no finding depends on it."),
    ] = "auto",
    explanations: options.Explanations = FETCHED,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Firing rates to write beside features: an export's folder, or `fetched` for "
            "what `saeaudit fetch --features` brought.",
        ),
    ] = None,
    neuronpedia: options.Neuronpedia = None,
    fail_on: options.FailOn = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Findings that are known; made by saeaudit baseline."),
    ] = None,
    baseline_any_revision: Annotated[
        bool,
        typer.Option(
            "--baseline-any-revision",
            help="Compare although the SAE's shape or revision is another, or it is not in it.",
        ),
    ] = False,
    exit_zero: options.ExitZero = False,
    form: options.Form = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """Find every duplicate, antipodal pair and dependent triple of a decoder.

    \b
    Examples:
      saeaudit scan sample | jq -c 'select(.type == "pair" or .type == "triple")'
    """
    arguments = dict(locals())
    settings = read_config(config)
    check_targets(targets)
    places = outlets(form, output)
    policy = make_policy("scan", settings, fail_on, baseline, baseline_any_revision)
    arguments |= (limits := thresholds(ctx, settings))
    from saeaudit.audit.annotations import AnnotationSources  # with NumPy: rules are checked
    from saeaudit.audit.device import check_device, pick_device
    from saeaudit.audit.open import input_files
    from saeaudit.audit.scan.options import ScanOptions
    from saeaudit.cli.console import console
    from saeaudit.formats.screen.scan import ScanScreen
    from saeaudit.sources.neuronpedia import give_source

    chosen = ScanOptions(
        min_cosine=limits["min_cosine"],
        max_residual=limits["max_residual"],
        min_gain=limits["min_gain"],
        triples=tuple(map(_triple, triple or ())),
        pairs=tuple(map(_pair, pair or ())),
        include_collapsed=include_collapsed,
        max_findings=max_findings,
        screen=screen,
        device=check_device(device),
    )
    people = console(quiet=quiet)
    saes = resolve_targets(targets, sae, people, offline=offline, assume=assume, yes=yes)
    saes = give_source(neuronpedia, saes)
    known = settings.baseline if settings else None
    places.spare([*input_files(saes), config, baseline, known, explanations, features])
    annotated = AnnotationSources(explanations, features, neuronpedia)
    from saeaudit.audit.scan.run import scan_all  # with torch: all is checked

    chosen = replace(chosen, device=pick_device(device))
    name = None if screen == "auto" else screen
    write(
        run_record("scan", arguments, chosen.device, name),
        lambda observer: scan_all(
            saes, chosen, name, observer, annotated=annotated,
            check=policy.baseline.check if policy.baseline else None,
        ),
        policy, ScanScreen, Output(places, people, no_progress, exit_zero),
    )  # fmt: skip


def _triple(text: str) -> tuple[int, int, int]:
    numbers = _numbers(text)
    if len(numbers) != 3:
        raise AuditError(
            f"{text!r} is not three feature numbers", where="--triple", hint="--triple 3,14,15"
        )
    first, second, third = numbers
    return first, second, third


def _pair(text: str) -> tuple[int, int]:
    numbers = _numbers(text)
    if len(numbers) != 2:
        raise AuditError(f"{text!r} is not two feature numbers", where="--pair", hint="--pair 3,14")
    first, second = numbers
    return first, second


def _numbers(text: str) -> list[int]:
    """Feature numbers with commas between them; none where it is something else."""
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(map(FEATURE.fullmatch, parts)) else []
