"""``saeaudit explain``."""

from __future__ import annotations

import re
import textwrap
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from saeaudit.cli import options
from saeaudit.errors import AuditError
from saeaudit.suggest import did_you_mean

if TYPE_CHECKING:
    from saeaudit.formats.meanings import Topic

WIDTH = 80


def explain(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="[TOPIC]",
            help="A kind of finding (duplicate, triple, mediator …), or a number that rules name.",
        ),
    ] = "",
    debug: options.Debug = False,
) -> None:
    """Say what a finding or a rule means, how to check it, and what to do.

    \b
    Examples:
      saeaudit explain triple
    """
    from saeaudit.formats.meanings import MEANINGS
    from saeaudit.formats.output import destination

    topics: dict[str, Topic] = {name: name for name in MEANINGS}
    if not topic:
        text = "".join(f"{name:<11} {meaning.title}\n" for name, meaning in MEANINGS.items())
        text += "\nA number that a rule names, such as duplicate_fraction, is explained as well.\n"
    elif topic.lower() in topics:
        text = of_topic(topics[topic.lower()])
    else:
        text = of_number(topic, list(topics))
    with destination(None).opened() as writer:
        writer.text(text)


def of_topic(topic: Topic) -> str:
    """The text of one kind of finding."""
    from saeaudit.formats.meanings import MEANINGS

    meaning = MEANINGS[topic]
    sections = {
        "What it means": meaning.means,
        "How to check it": meaning.check,
        "What to do": meaning.action,
    }
    text = f"{topic}: {meaning.title}\n"
    for title, words in sections.items():
        text += f"\n{title}\n{_filled(words)}"
        if title == "How to check it":
            text += "".join(f"\n    {command}" for command in meaning.commands)
            text += "\n"
    return f"{text}\nMore: {meaning.page}\n"


def of_number(text: str, topics: list[str]) -> str:
    """The text of a number that rules name, perhaps with a comparison behind it.

    Raises:
        AuditError: there is no such number, and no such topic.
    """
    from saeaudit.policy.rules import SUMMARIES, example_of, meaning_of, names

    name = re.split(r"\s*[<>=!]", text, maxsplit=1)[0].strip()
    commands = [command for command in SUMMARIES if name in names(command)]
    if not commands:
        known = sorted({*topics, *chain.from_iterable(map(names, SUMMARIES))})
        hint = did_you_mean(name, known) or f"known: {', '.join(topics)}"
        raise AuditError(f"{name!r} is no kind of finding and no number of a rule", hint=hint)
    parts = []
    for command in commands:
        said = meaning_of(name, command)
        example = f"saeaudit {command} TARGET --fail-on '{example_of(name, command)}'"
        parts.append(
            f"{name}: a number of the summary of {command}\n\nWhat it means\n{_filled(said)}"
            f"\nAs a rule, which fails where it holds\n    {example}\n"
        )
    return "\n".join(parts) + "\nMore: docs/rules.md\n"


def _filled(text: str) -> str:
    """Text in lines of at most `WIDTH`, indented, without breaking at hyphens of options."""
    return (
        textwrap.fill(
            text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        + "\n"
    )
