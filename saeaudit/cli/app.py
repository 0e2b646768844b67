"""The Typer app, and the one place that knows exit statuses.

0: ran, and the policy holds. 1: ran, and the policy is broken. 2: could not answer.
130: interrupted. 141: the reader closed the pipe.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from saeaudit import __version__
from saeaudit.cli.fetch import fetch, releases
from saeaudit.cli.gate import baseline, config_app
from saeaudit.cli.mediators import mediators
from saeaudit.cli.scan import scan
from saeaudit.cli.schema import schema
from saeaudit.cli.score import score
from saeaudit.errors import AuditError
from saeaudit.escape import LINE, escape

FAILED = 2
INTERRUPTED = 130
CLOSED_PIPE = 141


class Group(typer.core.TyperGroup):
    """Maps every way in which a command can end to an exit status and at most one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; catch a closed pipe before Typer's own handler (exit 1) does."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            _forget_stdout()
            raise typer.Exit(CLOSED_PIPE) from error
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
        given = list(sys.argv[1:] if args is None else args)
        try:
            status = super().main(
                given, prog_name or "saeaudit", complete_var, False, windows_expand_args, **extra
            )
        except (KeyboardInterrupt, typer.Abort):
            status = INTERRUPTED
        except AuditError as error:
            if "--debug" in given:
                _trace()
            status = _fail(error.line())
        except typer.TyperException as error:
            status = _fail(error.format_message(), "see saeaudit --help")
        except MemoryError:
            status = _fail("out of memory", "a machine with more memory, or a smaller dictionary")
        except Exception as error:
            status = _unexpected(error)
        opening = any(thread.name.startswith("open ") for thread in threading.enumerate())
        if isinstance(status, int) and opening:
            # A thread inside PyTorch aborts the process if the interpreter ends under it.
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status if isinstance(status, int) else 0)


def _unexpected(error: Exception) -> int:
    text = str(error)
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


def _forget_stdout() -> None:
    """Point standard output at nothing, so that Python's own flush at exit cannot fail."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # no file descriptor behind it, as in tests
        pass


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
