"""Which forms go where: `-o`, and `--format F[=FILE]` as often as is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from saeaudit.errors import AuditError
from saeaudit.suggest import did_you_mean
from saeaudit.vocabulary import Format

if TYPE_CHECKING:
    from saeaudit.formats.output import Destination

OPTION = "--format"


@dataclass(frozen=True)
class Outlets:
    """Where a command's records go, in which forms; looked at before any work is done."""

    main: Destination | None
    """The place of `-o`, or standard output; None where every form names a file of its own."""
    form: Format | None
    """What goes there; None for what suits the place."""
    files: tuple[tuple[Destination, Format], ...]
    """Forms that name their file."""

    def spare(self, inputs: Iterable[str | Path | None]) -> None:
        """Refuse to write over what is read, and two forms to one file.

        Raises:
            AuditError: one of the inputs is one of these places, or two places are one.
        """
        places = [place for place, _ in self.files]
        if self.main is not None:
            places.append(self.main)
        read = list(inputs)
        for number, place in enumerate(places):
            place.spare(read)
            for other in places[:number]:
                if place.kind != "stream" and place.path == other.path:
                    raise AuditError("two forms for one place", where=place.where)

    @property
    def is_for_people(self) -> bool:
        """Whether there is but the screen: nobody has said what to write, and people look on."""
        return bool(
            self.form is None and self.main and self.main.is_default and self.main.is_terminal
        )

    def all_as(self, otherwise: Format) -> list[tuple[Destination, Format]]:
        """Every place with its form.

        Args:
            otherwise: the main place's form, where nobody has said.
        """
        main = [] if self.main is None else [(self.main, self.form or otherwise)]
        return [*main, *self.files]


def outlets(forms: Sequence[str] | None, output: str | None) -> Outlets:
    """Look at what `--format` and `-o` say.

    Args:
        forms: each a form, or ``FORM=FILE``.
        output: the file for the form without one.

    Raises:
        AuditError: an unknown form, two forms for the place of `-o`, or a file that cannot be
            written.
    """
    from saeaudit.formats.output import destination

    main: Format | None = None
    files = []
    for text in forms or ():
        name, equals, file = text.partition("=")
        form = _form(name)
        if equals:
            files.append((destination(file, option=f"{OPTION} {name}="), form))
        elif main is None:
            main = form
        else:
            raise AuditError(
                f"both {main} and {form} for one place", where=OPTION, hint=f"{form}=FILE"
            )
    whole = main is not None or output is not None or not files
    return Outlets(destination(output) if whole else None, main, tuple(files))


def _form(name: str) -> Format:
    known: tuple[Format, ...] = get_args(Format)
    for form in known:
        if name == form:
            return form
    raise AuditError(
        f"{name[:60]!r} is none of {', '.join(known)}", where=OPTION,
        hint=did_you_mean(name, known) or f"{OPTION} F, or F=FILE",
    )  # fmt: skip
