"""``saeaudit score``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from saeaudit.cli import options
from saeaudit.cli.outlets import outlets
from saeaudit.cli.policy import make_policy, read_config
from saeaudit.cli.targets import check_targets, resolve_targets
from saeaudit.cli.write import Output, run_record, write
from saeaudit.errors import AuditError
from saeaudit.vocabulary import (
    FETCHED,
    MARGIN,
    MAX_CHOICES,
    NONE,
    SEED,
    ScoreControl,
    Similarity,
)


def score(
    targets: options.Targets,
    sae: options.Sae = None,
    assume: options.Assume = None,
    config: options.Config = None,
    activations: options.Activations = None,
    tokens: options.Tokens = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Price by an export's histograms instead: its folder, or `fetched` for what "
            "`saeaudit fetch --features` brought.",
        ),
    ] = None,
    explanations: options.Explanations = FETCHED,
    neuronpedia: options.Neuronpedia = None,
    scan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Count how often, and how strongly, the features of a scan's findings fire; - for "
            "stdin.",
        ),
    ] = None,
    mediators: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Choose between these alternatives; - for stdin."),
    ] = None,
    bin_width: Annotated[
        float | None, typer.Option(metavar="W", help="Fix the width of the bins of values.")
    ] = None,
    distortion: Annotated[
        float | None,
        typer.Option(metavar="D", help="Quantise until the error is D of the variance."),
    ] = None,
    margin: Annotated[
        float, typer.Option(metavar="BITS", help="Lead by which the shortest code is resolved.")
    ] = MARGIN,
    canonicalise: Annotated[
        bool, typer.Option("--canonicalise", help="Exchange on while codes get shorter.")
    ] = False,
    explain: Annotated[
        int | None, typer.Option(metavar="TOKEN", help="Show one token's codes side by side.")
    ] = None,
    similarity: Annotated[Similarity, typer.Option(help="How texts are compared.")] = "auto",
    similarity_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Embeddings for `semantic` (model2vec) or `sentence-transformers`: a name on the "
            "hub, or a folder.",
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Choose on N of the tokens measured; 0 for all.")
    ] = MAX_CHOICES,
    control: Annotated[
        ScoreControl | None,
        typer.Option(help="Score this null in its place, and what to compare it with."),
    ] = None,
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
    """Measure description lengths, settle which code is canonical, and compare explanations.

    \b
    Examples:
      saeaudit score sample | jq 'select(.type == "summary") | .bits_per_token'
    """
    arguments = dict(locals())
    settings = read_config(config)
    check_targets(targets)
    places = outlets(form, output)
    policy = make_policy("score", settings, fail_on, control=control)
    from saeaudit.audit.annotations import AnnotationSources  # with NumPy: rules are checked
    from saeaudit.audit.device import check_device, pick_device
    from saeaudit.audit.open import input_files
    from saeaudit.audit.score.options import ScoreOptions
    from saeaudit.cli.console import console
    from saeaudit.formats.reading import read_records
    from saeaudit.formats.screen.score import ScoreScreen
    from saeaudit.sources.neuronpedia import give_source
    from saeaudit.sources.paths import activation_files

    chosen = ScoreOptions(
        bin_width=bin_width, distortion=distortion, margin=margin, max_tokens=max_tokens,
        seed=seed, keep_outliers=keep_outliers, canonicalise=canonicalise, explain=explain,
        control=control, device=check_device(device),
    )  # fmt: skip
    alternatives = None
    if scan == "-" == mediators:
        raise AuditError("standard input is read once", where="--scan -", hint="--scan FILE")
    if mediators is not None:
        if canonicalise:
            raise AuditError("--mediators and --canonicalise exclude each other")
        alternatives = list(
            read_records(mediators, "--mediators", "the output of saeaudit mediators")
        )
        if not any(record.type == "dictionary" for record in alternatives):
            raise AuditError("holds no records of an SAE", where=f"--mediators {mediators}")
    people = console(quiet=quiet)
    saes = resolve_targets(targets, sae, people, offline=offline, assume=assume, yes=yes)
    saes = give_source(neuronpedia, saes)
    places.spare([
        *input_files(saes), config, *activation_files(activations or ()), tokens, features,
        explanations, scan, mediators,
    ])  # fmt: skip
    findings = list(read_records(scan, "--scan", "the output of saeaudit scan")) if scan else []
    from saeaudit.audit.score.api import score_all  # with torch: all is checked
    from saeaudit.audit.score.inputs import ScoreSources

    chosen = replace(chosen, device=pick_device(device))
    sources = ScoreSources(
        activations or (), tokens, features, explanations, similarity, similarity_model, offline,
        alternatives, neuronpedia, findings,
    )  # fmt: skip
    labels = AnnotationSources(
        explanations if explain is not None else NONE, neuronpedia=neuronpedia
    )
    write(
        run_record("score", arguments, chosen.device, activations=activations or ()),
        lambda observer: score_all(saes, sources, chosen, observer, check=labels.read),
        policy, lambda console, place: ScoreScreen(console, explain, labels.texts, place),
        Output(places, people, no_progress, exit_zero),
    )  # fmt: skip
