"""``saeaudit mediators``."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Annotated

import typer

from saeaudit.cli import options
from saeaudit.cli.outlets import outlets
from saeaudit.cli.policy import make_policy, read_config
from saeaudit.cli.targets import check_targets, resolve_targets
from saeaudit.cli.write import Output, run_record, write
from saeaudit.vocabulary import (
    BEAM,
    EPSILONS,
    FETCHED,
    MAX_ALTERNATIVES,
    MAX_TOKENS,
    SEED,
    SWAPS,
    MediatorControl,
)


def mediators(
    targets: options.Targets,
    sae: options.Sae = None,
    assume: options.Assume = None,
    config: options.Config = None,
    scan: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Show the exchanges of a scan's findings; - for stdin."),
    ] = None,
    activations: options.Activations = None,
    tokens: options.Tokens = None,
    explanations: options.Explanations = FETCHED,
    neuronpedia: options.Neuronpedia = None,
    codes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Other codes of the same activations to compare, or omp / nnomp to pursue them "
            "here; repeatable.",
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Another SAE's encoder to compare; repeatable."),
    ] = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(metavar="E", help="Tolerance on the error; repeatable [0 0.01 0.05]."),
    ] = None,
    min_change: Annotated[
        float,
        typer.Option(metavar="C", help="Write alternatives that differ from the refit by as much."),
    ] = 0.0,
    swaps: Annotated[
        int, typer.Option(metavar="N", help="Exchanges to chain when counting codes.")
    ] = SWAPS,
    beam: Annotated[
        int, typer.Option(metavar="B", help="Codes to go on from at each further exchange.")
    ] = BEAM,
    max_alternatives: Annotated[
        int, typer.Option(metavar="N", help="Write at most N for a token and mode.")
    ] = MAX_ALTERNATIVES,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Look at N activations, drawn; 0 for all.")
    ] = MAX_TOKENS,
    control: Annotated[
        MediatorControl | None,
        typer.Option(help="Look at this null in its place, and at what to compare it with."),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Show every mode and tolerance, and whole codes.")
    ] = False,
    seed: options.Seed = SEED,
    keep_outliers: options.KeepOutliers = False,
    fail_on: options.FailOn = None,
    exit_zero: options.ExitZero = False,
    form: options.Form = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """List every other code of the same L0 that reconstructs an activation as well.

    \b
    Examples:
      saeaudit mediators sample | jq -c 'select(.type == "mediator")'
    """
    arguments = dict(locals())
    settings = read_config(config)
    check_targets(targets)
    places = outlets(form, output)
    policy = make_policy("mediators", settings, fail_on, control=control)
    from saeaudit.audit.annotations import AnnotationSources  # with NumPy: rules are checked
    from saeaudit.audit.device import check_device, pick_device
    from saeaudit.audit.mediators.options import MediatorOptions
    from saeaudit.audit.open import input_files
    from saeaudit.cli.console import console
    from saeaudit.formats.reading import read_records
    from saeaudit.formats.screen.mediators import MediatorsScreen
    from saeaudit.sources.neuronpedia import give_source
    from saeaudit.sources.paths import activation_files

    chosen = MediatorOptions(
        epsilons=tuple(epsilon or EPSILONS), min_change=min_change, swaps=swaps, beam=beam,
        max_alternatives=max_alternatives, max_tokens=max_tokens, seed=seed,
        keep_outliers=keep_outliers, control=control, device=check_device(device),
    )  # fmt: skip
    people = console(quiet=quiet)
    saes = resolve_targets(targets, sae, people, offline=offline, assume=assume, yes=yes)
    saes = give_source(neuronpedia, saes)
    encoders = {
        name: resolve_targets([name], None, people, offline=offline, yes=yes)
        for name in encoder or ()
    }
    places.spare([
        *input_files(saes), *input_files(chain(*encoders.values())), config, scan,
        *activation_files(activations or ()), tokens, explanations, *(codes or ()),
    ])  # fmt: skip
    findings = list(read_records(scan, "--scan", "the output of saeaudit scan")) if scan else None
    from saeaudit.audit.mediators.inputs import MediatorSources  # with torch: all is checked
    from saeaudit.audit.mediators.run import mediators_all

    chosen = replace(chosen, device=pick_device(device))
    labels = AnnotationSources(explanations, neuronpedia=neuronpedia)
    sources = MediatorSources(activations or (), tokens, findings, codes or (), encoders, labels)
    write(
        run_record("mediators", arguments, chosen.device, activations=activations or ()),
        lambda observer: mediators_all(saes, sources, chosen, observer),
        policy, lambda console, place: MediatorsScreen(
            console, labels.texts, place, details=details
        ),
        Output(places, people, no_progress, exit_zero),
    )  # fmt: skip
