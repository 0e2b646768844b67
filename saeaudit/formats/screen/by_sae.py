"""Records sorted by the SAE that they are of, while they go by."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from saeaudit.records import Summary


class Audited(Protocol):
    """What a screen keeps of one SAE's records."""

    @property
    def summary(self) -> Summary | None:
        """None until all of them have gone by."""


AuditedT = TypeVar("AuditedT", bound=Audited)


class BySae(Generic[AuditedT]):
    """What is kept of each SAE, in the order in which their records begin.

    An SAE that is audited twice stands here twice: its records go to the later one.
    """

    def __init__(self) -> None:
        self._all: list[AuditedT] = []
        self._latest: dict[str, AuditedT] = {}

    def begin(self, sae: str, audited: AuditedT) -> AuditedT:
        """Give the records of an SAE that come from now on a place."""
        self._all.append(audited)
        self._latest[sae] = audited
        return audited

    def get(self, sae: str) -> AuditedT | None:
        """The place of an SAE's records; None where none has begun."""
        return self._latest.get(sae)

    @property
    def done(self) -> list[AuditedT]:
        """Those whose records have all gone by."""
        return [audited for audited in self._all if audited.summary]
