"""``saeaudit mediators``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from saeaudit.cli import options


def mediators(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="One SAE; see `scan --help`.")],
    sae: options.Sae = None,
    scan: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Show the exchanges of a scan's findings; - for stdin."),
    ] = None,
    activations: options.Activations = None,
    tokens: options.Tokens = None,
    explanations: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Shown in the table: a .jsonl or .csv, an export's folder, `fetched` or `none`.",
        ),
    ] = "fetched",
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
    min_moved: Annotated[
        float, typer.Option(metavar="M", help="Write alternatives that move at least this share.")
    ] = 0.0,
    swaps: Annotated[
        int, typer.Option(metavar="N", help="Exchanges to chain when counting codes.")
    ] = 1,
    beam: Annotated[
        int, typer.Option(metavar="B", help="Codes to go on from at each further exchange.")
    ] = 4,
    max_alternatives: Annotated[
        int, typer.Option(metavar="N", help="Write at most N for a token and mode.")
    ] = 3,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Look at the first N activations; 0 for all.")
    ] = 1000,
    device: options.Device = "auto",
    offline: options.Offline = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """List every other code of the same L0 that reconstructs an activation as well.

    Example: saeaudit mediators sample | jq -c 'select(.type == "mediator" and .moved > 0.3)'
    """
    arguments = {key: value for key, value in locals().items() if key not in ("debug", "quiet")}
    from saeaudit.audit.device import pick_device
    from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
    from saeaudit.audit.mediators.options import MediatorOptions
    from saeaudit.audit.mediators.run import mediators as run
    from saeaudit.audit.open import input_files, open_single
    from saeaudit.cli.console import Watcher, console, watching
    from saeaudit.cli.scan import run_record
    from saeaudit.formats.mediators_table import MediatorsTable
    from saeaudit.formats.output import destination
    from saeaudit.formats.reading import read_records
    from saeaudit.records import Verdict
    from saeaudit.sources.target import resolve

    place = destination(output)
    chosen = MediatorOptions(
        epsilons=tuple(epsilon or (0.0, 0.01, 0.05)),
        min_moved=min_moved,
        swaps=swaps,
        beam=beam,
        max_alternatives=max_alternatives,
        max_tokens=max_tokens,
        device=pick_device(device),
    )
    people = console(quiet=quiet)
    note = Watcher(people).note
    saes = resolve(target, sae or (), offline=offline, note=note)
    encoders = {name: resolve(name, offline=offline, note=note) for name in encoder or ()}
    place.spare([
        *input_files(saes), *input_files(chain(*encoders.values())), scan, activations, tokens,
        explanations, *(codes or ()),
    ])  # fmt: skip
    dictionary = open_single(saes, target)
    findings = list(read_records(scan, "--scan", "the output of saeaudit scan")) if scan else None
    sources = MediatorSources(activations, tokens, findings, codes or (), encoders)
    table = MediatorsTable(people, _texts(explanations, dictionary))
    with place.opened() as writer, watching(people, bar=not no_progress) as observer:
        inputs = read_inputs(dictionary, sources, chosen, observer)
        writer.record(run_record("mediators", arguments, chosen.device))
        for record in run(dictionary, inputs, chosen, observer):
            writer.record(record)
            table.record(record)
        writer.record(Verdict(passed=True, rules=(), new_findings=0, known_findings=0))
    table.end()


def _texts(explanations: str, dictionary: Any) -> dict[int, str]:
    """Explanations by feature; none where none were fetched."""
    from saeaudit.sources.explanations import find_explanations, load_explanations

    if explanations == "none":
        return {}
    path = find_explanations(dictionary.sae) if explanations == "fetched" else Path(explanations)
    if path is None:
        return {}
    labels = load_explanations(path, dictionary.d_sae).labels
    return {feature: said.description for feature, said in labels.items()}
