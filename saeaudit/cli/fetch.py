"""``saeaudit fetch`` and ``saeaudit releases``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saeaudit.cli import options
from saeaudit.cli.exits import FAILED
from saeaudit.cli.targets import check_targets, confirm_fetch
from saeaudit.escape import json_line

if TYPE_CHECKING:
    from saeaudit.sources.neuronpedia import Kind


def fetch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A release[/sae_id], hf://owner/repo[@revision][/path], the address of its page, "
            "or a local path.",
        ),
    ],
    sae: options.Sae = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, branch or tag.")
    ] = None,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Leave the encoder on the hub: half the bytes.")
    ] = False,
    explanations: Annotated[
        bool, typer.Option("--explanations", help="Also its explanations from Neuronpedia.")
    ] = False,
    features: Annotated[
        bool, typer.Option("--features", help="Also its feature statistics from Neuronpedia.")
    ] = False,
    neuronpedia: options.Neuronpedia = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Say what there is, and fetch nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched, and fetch nothing.")
    ] = False,
    offline: options.Offline = False,
    yes: options.Yes = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """Bring SAEs from the hub into its cache, every byte checked.

    \b
    Examples:
      saeaudit fetch gemma-scope-2b-pt-res --sae 'layer_16/*' --list
      saeaudit fetch gemma-2-2b/16-gemmascope-res-16k --decoder-only
    """
    check_targets([source])
    from saeaudit.audit.fetch import fetch_all, list_all
    from saeaudit.audit.open import input_files
    from saeaudit.cli.console import Watcher, console, watching
    from saeaudit.formats.output import destination
    from saeaudit.formats.screen.wording import counted
    from saeaudit.records import ErrorRecord
    from saeaudit.sources.hub import is_offline
    from saeaudit.sources.neuronpedia import give_source
    from saeaudit.sources.target import resolve

    place = destination(output)
    exports: list[Kind] = []
    if explanations:
        exports.append("explanations")
    if features:
        exports.append("features")
    people = console(quiet=quiet)
    saes = resolve(source, sae or (), offline=offline, revision=revision, note=Watcher(people).note)
    saes = give_source(neuronpedia, saes)
    place.spare(input_files(saes))
    failed = fetched = size = 0
    with place.opened() as writer:
        if listed or dry_run:
            for listing in list_all(saes):
                fetched += 1
                size += 0 if listing.cached else listing.bytes
                writer.record(listing)
            people.print(f"{counted(fetched, 'SAE', 'SAEs')}, {size:,} bytes to fetch")
            return
        confirm_fetch(saes, source, yes=yes)
        total = sum(one.remote.bytes for one in saes if one.remote)
        with watching(people, bar=not no_progress, total=total) as observer:
            records = fetch_all(
                saes,
                decoder_only=decoder_only,
                exports=exports,
                offline=is_offline(offline),
                observer=observer,
            )
            for record in records:
                writer.record(record)
                writer.flush()
                fetched += 1
                if isinstance(record, ErrorRecord):
                    failed += 1
                    observer.say(options.error_line(record))
        writer.discard = failed == fetched
    if failed:
        raise typer.Exit(FAILED)
    people.print(counted(fetched, "SAE is here", "SAEs are here"))


def releases(
    filter_: Annotated[
        str,
        typer.Argument(
            metavar="[FILTER]", help="Only releases with this in name, model or source."
        ),
    ] = "",
    form: Annotated[
        Literal["table", "jsonl"], typer.Option("--format", help="A table, or JSON Lines.")
    ] = "table",
    debug: options.Debug = False,
) -> None:
    """List the releases that can be named as targets, SAELens's too where it is installed."""
    from saeaudit.formats.output import destination
    from saeaudit.sources.registry import registry_listing
    from saeaudit.sources.releases import builtin_releases

    known = {release.name: release for release in registry_listing()} | builtin_releases()
    matching = [
        release
        for _, release in sorted(known.items())
        if any(
            filter_.lower() in text.lower()
            for text in (release.name, release.model, release.source)
        )
    ]
    width = max((len(release.name) for release in matching), default=0)
    with destination(None).opened() as writer:
        for release in matching:
            if form == "jsonl":
                row = {
                    "name": release.name, "model": release.model, "saes": sorted(release.saes),
                    "source": release.source, "revision": release.revision,
                }  # fmt: skip
                writer.text(f"{json_line(row)}\n")
                continue
            names = f"{len(release.saes)} named SAEs" if release.saes else "SAEs by path"
            model = f"{release.model:<24}  {names:<16}"
            writer.text(f"{release.name:<{width}}  {model}  {release.source}\n")
