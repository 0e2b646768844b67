"""Collect: a model reads texts, and its activations at an SAE's place are kept in a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch

from saeaudit import __version__
from saeaudit.audit.collect.default import site_of
from saeaudit.audit.collect.gate import Fit, check_first
from saeaudit.audit.collect.model import Model, import_transformers, load_model
from saeaudit.audit.collect.options import CONTEXT, CollectOptions
from saeaudit.audit.collect.places import Place, find_place
from saeaudit.audit.collect.reader import Reader, norms
from saeaudit.audit.collect.tokens import Tokeniser, beginning, token_text
from saeaudit.audit.misfit import TRIED
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_sae
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.site import Site
from saeaudit.sources.collected.manifest import ActivationDtype, Manifest, Origin
from saeaudit.sources.collected.writer import Document, Writer, check_folder, rows_for
from saeaudit.sources.models import find_model
from saeaudit.sources.sae import Sae
from saeaudit.sources.texts import Texts

LIBRARIES = ("torch", "transformers", "tokenizers")
"""Those whose versions a folder's manifest says."""
CHOSEN = ("tokens", "context", "bos", "per_document", "seed", "batch", "drop_norm_above")
"""Options that decide what is in a folder, as its manifest says them."""


@dataclass(frozen=True)
class Collected:
    """What has come of it."""

    manifest: Manifest
    """Of the folder, complete."""
    fit: Fit
    """How far the SAE explains the first activations."""


def collect(
    sae: Sae,
    texts: Texts,
    folder: Path,
    options: CollectOptions,
    *,
    resume: bool = False,
    observer: Observer = SILENT,
) -> Collected:
    """Fill a folder with the activations that an SAE reads.

    Args:
        sae: a resolved target; what its publisher says holds where `options` say nothing.
        texts: what the model reads, each document by itself.
        folder: a new or empty one or, to resume, one that was begun with the same arguments.
        options: what is collected.
        resume: whether to go on in a folder that was begun.
        observer: is told of steps, and what a user should read.

    Raises:
        AuditError: the model or the place is not known, or cannot be had; the SAE does not explain
            the first activations; a text is not one document; the folder holds something else, or
            cannot be written.
    """
    check_folder(folder, resume=resume)
    import_transformers()
    _check_texts(texts)
    observer.step("reading the SAE", 0)
    dictionary = open_sae(sae)
    site = site_of(sae, dictionary.weights)
    reader, options = open_reader(dictionary, site, texts, options, observer)
    observer.step("checking", 0)
    first = reader.first(TRIED)
    if options.drop_norm_above is not None:
        lengths = norms(first)
        reader = replace(reader, limit=options.drop_norm_above * float(lengths.median()))
        first = first[~(lengths > reader.limit)]
    fit = check_first(
        dictionary, first, device=reader.model.device, force=options.force, observer=observer
    )
    manifest = _manifest(reader, options, first.shape[1])
    with Writer(folder, manifest, resume=resume) as writer:
        if not writer.manifest.totals:
            _fill(writer, reader, options.tokens, observer)
        return Collected(writer.manifest, fit)


def _check_texts(texts: Texts) -> None:
    """Read the first text, before gigabytes are fetched and loaded for it.

    Raises:
        AuditError: there is none, or it cannot be read.
    """
    if next(texts.documents(), None) is None:
        raise AuditError("holds no text to read", where=texts.name)


def open_reader(
    dictionary: Dictionary, site: Site, texts: Texts, options: CollectOptions, observer: Observer
) -> tuple[Reader, CollectOptions]:
    """Load the model, and settle what options leave open.

    Args:
        dictionary: the SAE.
        site: what its publisher says of it.
        texts: what the model is to read.
        options: what is collected.
        observer: is told of steps, and of waits.

    Raises:
        AuditError: the model or the place is not known, or cannot be had; a context that the model
            does not take; a beginning that its tokeniser does not know.
    """
    name = _told(options.model or site.model, dictionary.sae, "which model it reads", "--model")
    hook = _told(options.hook or site.hook, dictionary.sae, "where it reads", "--hook")
    observer.step("reading the model", 0)
    files = find_model(name, offline=options.offline, note=observer.note)
    model = load_model(files, dtype=options.dtype, device=options.device)
    place = find_place(model.decoder, hook, centred=bool(site.centred))
    if options.hook and site.hook:
        _tell_another_place(place, model, dictionary.sae, site, observer)
    bos = options.bos or site.bos or ("drop" if beginning(model.tokenizer) else "none")
    if bos != "none" and beginning(model.tokenizer) is None:
        raise AuditError(
            f"the tokeniser of {files.name} has no token that begins a text", where=f"--bos {bos}",
            hint="--bos none",
        )  # fmt: skip
    context = _context(options.context or site.context, model)
    tokeniser = Tokeniser(model.tokenizer, bos, context, options.per_document, options.seed)
    options = replace(options, bos=bos, context=context)
    return Reader(model, place, tokeniser, texts, options.batch), options


def _tell_another_place(
    place: Place, model: Model, sae: str, site: Site, observer: Observer
) -> None:
    """Say that a place is not the publisher's: an SAE explains the layers beside its own, too."""
    try:
        published = find_place(model.decoder, str(site.hook), centred=bool(site.centred))
    except AuditError:  # of another kind of model
        published = None
    if place != published:
        observer.note(f"{sae}: its publisher says that it reads {site.hook}, not {place}")


def _told(value: str | None, sae: str, what: str, option: str) -> str:
    """What somebody says.

    Raises:
        AuditError: nobody does.
    """
    if value is None:
        raise AuditError(f"its publisher does not say {what}", where=sae, hint=f"{option} does")
    return value


def _context(asked: int | None, model: Model) -> int:
    """Most tokens of a text.

    Raises:
        AuditError: more than the model takes.
    """
    longest = int(model.tokenizer.model_max_length)
    longest = min(model.longest or longest, longest)
    if asked is not None and asked > longest:
        raise AuditError(
            f"{model.files.name} takes at most {longest:,} tokens", where=f"--context {asked}"
        )
    return min(CONTEXT, longest) if asked is None else asked


def _manifest(reader: Reader, options: CollectOptions, width: int) -> Manifest:
    """What the folder says of itself before anything is in it.

    Raises:
        AuditError: activations are not kept in what the model computes in.
    """
    model, texts = reader.model, reader.texts
    dtype = next((name for name in get_args(ActivationDtype) if name == model.dtype), None)
    if dtype is None:
        raise AuditError(
            f"{model.files.name} computes in {model.dtype}", where="--dtype", hint="--dtype float32"
        )
    chosen = {name: getattr(options, name) for name in CHOSEN}
    origin = Origin(
        model=model.files.name,
        revision=model.files.revision,
        tokenizer=type(model.tokenizer).__name__,
        place=str(reader.place),
        divide_gain=reader.place.divide_gain,
        subtract_mean=reader.place.subtract_mean,
        computed_in=model.dtype,
        attention=model.attention,
        device=model.device,
        texts=texts.name,
        texts_identity=texts.identity,
        options=chosen | {"field": texts.field},
        versions={"saeaudit": __version__, **{name: version(name) for name in LIBRARIES}},
    )
    return Manifest(origin, width, dtype, rows_for(width, getattr(torch, dtype).itemsize))


def _fill(writer: Writer, reader: Reader, enough: int, observer: Observer) -> None:
    """Append documents until there are enough activations, or no more texts."""
    for document in reader.kept(writer.document):
        room = enough - writer.rows if enough else len(document.positions)
        writer.append(_cut(document, room))
        observer.step("collecting", writer.rows / enough if enough else 0, enough or None)
        if writer.rows == enough:
            break
    else:
        if enough:
            observer.note(
                f"{reader.texts.name}: its texts give {writer.rows:,} of {enough:,} activations"
            )
    tokenizer = reader.model.tokenizer
    writer.finish(lambda token: token_text(tokenizer, token))


def _cut(document: Document, room: int) -> Document:
    """A document without the activations that are more than enough."""
    beyond = len(document.positions) - room
    if beyond <= 0:
        return document
    return document._replace(
        positions=document.positions[:room],
        activations=document.activations[:room],
        dropped={**document.dropped, "beyond": beyond},
    )
