"""The Typer app, and the one place where whatever a command ends in becomes an exit status."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from saeaudit import __version__
from saeaudit.cli.baseline import baseline
from saeaudit.cli.card import card
from saeaudit.cli.collect import collect
from saeaudit.cli.config import config_app
from saeaudit.cli.exits import CLOSED_PIPE, FAILED, INTERRUPTED
from saeaudit.cli.explain import explain
from saeaudit.cli.fetch import fetch, releases
from saeaudit.cli.mediators import mediators
from saeaudit.cli.report import report
from saeaudit.cli.scan import scan
from saeaudit.cli.schema import schema
from saeaudit.cli.score import score
from saeaudit.cli.show import show
from saeaudit.cli.streams import Terminated, standard_streams
from saeaudit.cli.usage import Command, Commands, show_help, usage_error
from saeaudit.errors import AuditError
from saeaudit.escape import LINE, escape

REFUSED = (errno.EBADF, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR)
"""What reading and writing open streams ends in, where nobody nearer knows what to say of it."""


ALLOCATIONS = 1_000_000
"""Objects that a process makes before Python looks for cycles among them: more than its imports.

They stay, and to look at them again and again took a fifth of the start.
"""


class Group(Commands):
    """Maps every way in which a command can end to an exit status and at most one line."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Parse; help is written here."""
        with _closed_pipe():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        with _closed_pipe():
            result = super().invoke(ctx)
            sys.stdout.flush()
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit; errors that a user can mend are one line on standard error."""
        arguments = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            name = prog_name or "saeaudit"
            return super(Group, self).main(
                arguments, name, complete_var, False, windows_expand_args, **extra
            )

        with standard_streams() as streams:
            status = streams.status(_status(run, debug="--debug" in arguments))
        sys.exit(status)


@contextmanager
def _closed_pipe() -> Iterator[None]:
    """Tell of a closed pipe before Typer's own handler does, which exits 1."""
    try:
        yield
    except BrokenPipeError as error:
        raise typer.Exit(CLOSED_PIPE) from error


def _status(run: Callable[[], Any], *, debug: bool) -> int:
    """Run a command; its exit status, whatever it ends in."""
    try:
        status = run()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Terminated as signal:
        return signal.status
    except SystemExit as end:  # of the shell's completion, which ends with 1 where it fails
        return FAILED if end.code else 0
    except AuditError as error:
        if debug:
            _trace()
        return _fail(error.line())
    except typer.TyperException as error:
        return _fail(usage_error(error).line())
    except MemoryError:
        return _fail("out of memory", "a machine with more memory, or a smaller dictionary")
    except Exception as error:
        return _unexpected(error, debug=debug)
    return status if isinstance(status, int) else 0


def _unexpected(error: Exception, *, debug: bool) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.errno in REFUSED and not debug:
        name = error.filename or "standard input or output"
        return _fail(f"{name}: {error.strerror}", "a closed stream, a full disk?")
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return _fail("out of memory", "--device cpu, or a machine with more memory")
    _trace()
    return _fail(
        f"a bug in saeaudit {__version__}: {type(error).__name__}: {text}", "please report it"
    )


def _trace() -> None:
    """Print the current exception's traceback; what it quotes may come from anywhere."""
    for line in traceback.format_exc().splitlines():
        print(escape(line, LINE), file=sys.stderr)


def _fail(message: str, hint: str = "") -> int:
    line = f"{message} ({hint})" if hint else message
    print(f"saeaudit: {escape(line.strip(), LINE)}", file=sys.stderr)
    return FAILED


app = typer.Typer(
    cls=Group,
    name="saeaudit",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AUDIT, LOOK, GET = "Audit SAEs", "Look at what was found", "Get SAEs"
JUDGE, REFER = "Judge them in CI", "Look things up"


def _add(command: Callable[..., Any], group: str, summary: str) -> None:
    """Add a command; its summary fits on a line of 80 columns."""
    name = command.__name__.rstrip("_")
    app.command(name, cls=Command, rich_help_panel=group, short_help=summary)(command)


def help_(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]", help="A command's name.")
    ] = None,
) -> None:
    """Show what a command does and takes; without one, what commands there are."""
    typer.echo(show_help(ctx, words or ()))


_add(scan, AUDIT, "Find duplicates, antipodal pairs and dependent triples.")
_add(mediators, AUDIT, "List the other codes that explain activations as well.")
_add(score, AUDIT, "Measure description lengths; settle which code is canonical.")
_add(show, LOOK, "Show saved records: screens, other forms, one feature's card.")
_add(report, LOOK, "Make one page for people of saved records.")
_add(card, LOOK, "Print a section for an SAE's model card.")
_add(explain, LOOK, "Say what a kind of finding or a rule's number means.")
_add(fetch, GET, "Bring SAEs from the hub into its cache, every byte checked.")
_add(releases, GET, "List the releases that can be named as targets.")
_add(collect, GET, "Run a model on texts; keep the activations that an SAE reads.")
_add(baseline, JUDGE, "Keep a scan's findings as known.")
app.add_typer(config_app, name="config", cls=Commands, rich_help_panel=JUDGE)
_add(schema, REFER, "Print the JSON Schema of the records.")
_add(help_, REFER, "Show what a command does and takes.")


def _version(asked: bool) -> None:
    if asked:
        from saeaudit.cli.version import versions

        typer.echo(versions())
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True,
            help="Print the versions of saeaudit, Python, PyTorch and CUDA.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Find and settle ambiguous explanations in sparse autoencoders.

    \b
    Examples:
      saeaudit scan sample/stitched
      saeaudit scan gemma-scope-2b-pt-res/layer_16/width_16k/canonical
      saeaudit scan https://www.neuronpedia.org/gemma-2-2b/0-gemmascope-res-16k
      saeaudit mediators sample
      saeaudit help scan

    Records go to standard output as JSON Lines; everything for people goes to standard error.
    Exit status: 0 ran, policy holds; 1 policy broken; 2 could not answer.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run() -> None:
    """Run the command line as a process, and end it once all is written and closed.

    Python would take every module down first: with PyTorch that takes a third of a second, and a
    thread that is still inside it aborts the process.
    """
    gc.set_threshold(ALLOCATIONS)
    try:
        app()
    except SystemExit as end:
        os._exit(int(end.code or 0))
