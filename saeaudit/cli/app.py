"""The Typer app, and the one place where whatever a command ends in becomes an exit status."""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import typer.core

from saeaudit import __version__
from saeaudit.cli.baseline import baseline
from saeaudit.cli.config import config_app
from saeaudit.cli.exits import CLOSED_PIPE, FAILED, INTERRUPTED
from saeaudit.cli.explain import explain
from saeaudit.cli.fetch import fetch, releases
from saeaudit.cli.mediators import mediators
from saeaudit.cli.scan import scan
from saeaudit.cli.schema import schema
from saeaudit.cli.score import score
from saeaudit.cli.show import show
from saeaudit.cli.streams import Terminated, standard_streams
from saeaudit.errors import AuditError
from saeaudit.escape import LINE, escape

REFUSED = (errno.EBADF, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR)
"""What reading and writing open streams ends in, where nobody nearer knows what to say of it."""


class Group(typer.core.TyperGroup):
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
            if any(thread.name.startswith("open ") for thread in threading.enumerate()):
                # A thread inside PyTorch aborts the process if the interpreter ends under it.
                os._exit(status)
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
    except AuditError as error:
        if debug:
            _trace()
        return _fail(error.line())
    except typer.TyperException as error:
        return _fail(error.format_message(), "see saeaudit --help")
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
    help="Find and settle ambiguous explanations in sparse autoencoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(fetch)
app.command()(releases)
app.command()(scan)
app.command()(mediators)
app.command()(score)
app.command()(show)
app.command()(explain)
app.command()(baseline)
app.add_typer(config_app, name="config")
app.command()(schema)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"saeaudit {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find and settle ambiguous explanations in sparse autoencoders.

    Records go to standard output as JSON Lines; everything for people goes to standard error.
    Exit status: 0 ran, policy holds; 1 policy broken; 2 could not answer.
    """
