"""``saeaudit collect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeaudit.cli import options
from saeaudit.cli.targets import check_targets, resolve_targets
from saeaudit.errors import AuditError
from saeaudit.vocabulary import COLLECTED, SEED, Bos, ModelDtype

if TYPE_CHECKING:
    from saeaudit.audit.collect.run import Collected

TEXT = "text"
"""Field of a row where its text is, where none is named."""


def collect(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="One SAE, as every command takes it.")
    ],
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What the model reads, one document a row: .txt, .jsonl, .parquet, or "
            "hf://datasets/owner/name[@revision][/path].",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    field: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Of a row, where its text is.", rich_help_panel=options.INPUT
        ),
    ] = TEXT,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The model: a folder, or owner/name[@revision] on the hub. [what the SAE's "
            "publisher says]",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Where the SAE reads: a module of the model with :in or :out, or a name of "
            "TransformerLens's. [what its publisher says]",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    sae: options.Sae = None,
    assume: options.Assume = None,
    tokens: Annotated[
        str,
        typer.Option(metavar="N", help="Stop after N activations (250000, 100k, 2M); 0 for all."),
    ] = str(COLLECTED),
    context: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Cut documents after N tokens. [what the publisher says, else 1024]",
        ),
    ] = None,
    bos: Annotated[
        Bos | None,
        typer.Option(
            help="The token that begins a document: its activation is kept or dropped, or it is "
            "not added. [what the publisher says, else drop where there is one]"
        ),
    ] = None,
    per_document: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep N activations of a document, drawn at random."),
    ] = None,
    drop_norm_above: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Drop activations of more than X times the first ones' median norm."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Collect although the SAE does not explain them.")
    ] = False,
    seed: options.Seed = SEED,
    dtype: Annotated[
        ModelDtype,
        typer.Option(
            help="What the model computes in and activations are kept in.",
            rich_help_panel=options.RUN,
        ),
    ] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Documents that are read at once. [8]", rich_help_panel=options.RUN
        ),
    ] = None,
    device: options.Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run with the same options ended.")
    ] = False,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="A new folder.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """Run a model on texts, and keep the activations that an SAE reads.

    \b
    Examples:
      saeaudit collect gemma-2-2b/16-gemmascope-res-16k --texts t.jsonl -o acts
      saeaudit score gemma-2-2b/16-gemmascope-res-16k --activations acts
    """
    if texts is None or output is None or str(output) == "-":
        name = "--texts" if texts is None else "-o"
        what = "what the model reads" if texts is None else "the folder to make"
        raise AuditError(f"{what} is to be named", where=name)
    check_targets([target])
    from saeaudit.audit.collect.options import BATCH, CollectOptions, parse_count
    from saeaudit.audit.device import check_device
    from saeaudit.cli.console import Watcher, console, watching
    from saeaudit.sources.texts import open_texts

    chosen = CollectOptions(
        model=model, hook=hook, tokens=parse_count(tokens, "--tokens"), context=context, bos=bos,
        per_document=per_document, seed=seed, dtype=dtype, batch=BATCH if batch is None else batch,
        drop_norm_above=drop_norm_above, device=check_device(device), force=force, offline=offline,
    )  # fmt: skip
    people = console(quiet=quiet)
    table = open_texts(texts, field, offline=offline, note=Watcher(people).note)
    saes = resolve_targets([target], sae, people, offline=offline, assume=assume, yes=yes)
    if len(saes) > 1:
        raise AuditError(
            f"names {len(saes)} SAEs: {saes[0].id}, {saes[1].id}, …", where=target,
            hint="--sae GLOB for one of them",
        )  # fmt: skip
    from saeaudit.audit.collect.run import collect as fill  # with torch: all is checked

    with watching(people, bar=not no_progress) as observer:
        collected = fill(saes[0], table, output, chosen, resume=resume, observer=observer)
    people.print(_outcome(collected, output), soft_wrap=True)


def _outcome(collected: Collected, folder: Path) -> str:
    """What there is now, in a line."""
    manifest, fvu = collected.manifest, collected.fit.fvu
    totals, origin = manifest.totals, manifest.origin
    rows = totals.rows if totals else 0
    documents = totals.documents if totals else 0
    explained = "" if fvu is None else f"; the SAE leaves {fvu:.3g} of the first ones' variance"
    return (
        f"{folder}: {rows:,} activations of width {manifest.width:,} in {manifest.dtype}, of "
        f"{documents:,} documents, from {origin.place} of {origin.model}{explained}"
    )
