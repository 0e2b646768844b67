"""What the command line says of itself: help in groups, and usage errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import typer
import typer.core

from saeaudit.cli.options import GROUPS
from saeaudit.errors import AuditError
from saeaudit.suggest import did_you_mean

DEFAULT_GROUP = "Options"
"""Heading of the options that no group is named for."""
NUMBERS = {"float_parsing": "no number", "int_parsing": "no whole number"}
"""Kinds of validation errors, and what a value is then."""


class Command(typer.core.TyperCommand):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each group under its heading."""
        _write_parameters(self.get_params(ctx), ctx, formatter)


class Commands(typer.core.TyperGroup):
    """A group of commands that says which one was meant."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options, and the commands of each group under its heading."""
        _write_parameters(self.get_params(ctx), ctx, formatter)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if not command.hidden:
                heading = getattr(command, "rich_help_panel", None) or "Commands"
                groups.setdefault(heading, []).append((name, command.get_short_help_str(200)))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that a user typed.

        Raises:
            AuditError: there is none of this name.
        """
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise AuditError(
                f"there is no command {args[0][:40]!r}",
                where=_words(ctx),
                hint=did_you_mean(args[0], self.commands) or _help_of(ctx),
            )
        return super().resolve_command(ctx, args)


def _write_parameters(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:
    """Write each group of parameters under its heading, those of the command itself first."""
    groups: dict[str, list[tuple[str, str]]] = {
        heading: [] for heading in ("Arguments", DEFAULT_GROUP, *GROUPS)
    }
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        is_argument = parameter.param_type_name == "argument"
        heading = getattr(parameter, "rich_help_panel", None) or DEFAULT_GROUP
        if is_argument:  # without its type in Python
            record = (parameter.display_name_raw, parameter.help or "")
        groups.setdefault("Arguments" if is_argument else heading, []).append(record)
    for heading, rows in groups.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


def show_help(ctx: typer.Context, words: Sequence[str]) -> str:
    """The help of a command, or of the whole command line.

    Args:
        ctx: of any command.
        words: the command's name, with that of its group before it; none for the whole.

    Raises:
        AuditError: there is no such command.
    """
    context: Any = ctx.find_root()
    for word in words:
        command: Any = context.command
        if not isinstance(command, Commands):
            raise AuditError(f"{_words(context)} has no commands", hint=_help_of(context))
        name, subcommand, _ = command.resolve_command(context, [word])
        context = typer.Context(subcommand, parent=context, info_name=name)
    return str(context.get_help())


def usage_error(error: typer.TyperException) -> AuditError:
    """What a user typed wrong, in one line of our own words.

    Args:
        error: whatever the library that parses raises.
    """
    ctx: Any = getattr(error, "ctx", None)
    where, hint = (_words(ctx), _help_of(ctx)) if ctx else ("", "see saeaudit --help")
    option, parameter = getattr(error, "option_name", ""), getattr(error, "param", None)
    if hasattr(error, "possibilities"):
        options = [name for one in ctx.command.get_params(ctx) for name in one.opts] if ctx else []
        what = f"there is no option {option[:40]}"
        return AuditError(what, where=where, hint=did_you_mean(option, options) or hint)
    if option:
        takes = "no value" if "does not take" in error.message else "a value"
        return AuditError(f"takes {takes}", where=option, hint=hint)
    if hasattr(error, "param_type"):  # of what is missing
        return AuditError(f"{_name(parameter)} is missing", where=where, hint=hint)
    if parameter is not None:
        return _bad_value(error, parameter, hint)
    extra = re.search(r"\) \((.*)\)$", error.message, re.DOTALL)
    what = f"cannot use {extra[1][:80]!r}" if extra else error.message
    return AuditError(what, where=where, hint=hint)


def _bad_value(error: typer.TyperException, parameter: Any, hint: str) -> AuditError:
    """A value that is none of those that an option takes."""
    errors: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    kind, value = (errors[0]["type"], errors[0]["input"]) if errors else ("", "")
    shown = repr(value)[:60]
    choices = [str(choice) for choice in parameter.type_descriptor.choices or ()]
    where = _name(parameter)
    if choices:
        close = did_you_mean(str(value), choices)
        return AuditError(
            f"{shown} is none of {', '.join(choices)}", where=where, hint=close or hint
        )
    return AuditError(f"{shown} is {NUMBERS.get(kind, 'no value for it')}", where=where, hint=hint)


def _name(parameter: Any) -> str:
    """What a user calls a parameter."""
    if parameter is None:
        return "something"
    if parameter.param_type_name == "argument":
        return str(parameter.display_name_raw).removesuffix("...")
    return str(max(parameter.opts, key=len))


def _words(ctx: Any) -> str:
    """The words of a command, without the program's name: "config check"."""
    return str(ctx.command_path).partition(" ")[2]


def _help_of(ctx: Any) -> str:
    return f"see saeaudit {_words(ctx)} --help".replace("  ", " ")
