"""What is known of features beside their rows: labels, firing rates, pages that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.errors import AuditError
from saeaudit.records import ClaimRecord, ClosestPair, GroupRecord, PairRecord, TripleRecord
from saeaudit.sources.explanations import Explanations, load_explanations, place_of_explanations
from saeaudit.sources.statistics import load_statistics
from saeaudit.vocabulary import FEATURE_URL, FETCHED

MOST = 10_000
"""Features of a finding beyond which its record does not say what is known of each."""

Annotated = TypeVar("Annotated", ClaimRecord, PairRecord, GroupRecord, TripleRecord, ClosestPair)


class Described(Protocol):
    """An SAE, opened or as its record describes it."""

    @property
    def sae(self) -> str:
        """Its id."""

    @property
    def d_sae(self) -> int:
        """Number of features."""

    @property
    def neuronpedia(self) -> str | None:
        """Its ``model/source`` on Neuronpedia, where that is certain."""


@dataclass(frozen=True)
class Annotations:
    """What is known of one SAE's features; None where nothing is.

    >>> pair = PairRecord("s", (1, 2), "duplicate", 0.95, 1.0, None)
    >>> Annotations(labels={2: "dogs"}).on(pair).labels
    (None, 'dogs')
    """

    labels: Mapping[int, str] | None = None
    """Feature → what its explanation says."""
    firing_rates: Mapping[int, float] | None = None
    """Feature → share of tokens on which it fires."""
    neuronpedia: str | None = None
    """``model/source`` whose pages show the features."""
    explanations: Explanations | None = None
    """What the labels were taken from: texts that can be compared."""

    def on(self, finding: Annotated) -> Annotated:
        """Return a finding with what is known of its features."""
        features, labels, rates = finding.features, self.labels, self.firing_rates
        if len(features) > MOST:
            return finding
        urls = None
        if self.neuronpedia is not None:
            urls = tuple(FEATURE_URL.format(source=self.neuronpedia, feature=f) for f in features)
        return replace(
            finding,
            labels=None if labels is None else tuple(map(labels.get, features)),
            urls=urls,
            firing_rates=None if rates is None else tuple(map(rates.get, features)),
        )


@dataclass(frozen=True)
class AnnotationSources:
    """Where the annotations of a run's SAEs are."""

    explanations: str = FETCHED
    """A file, a folder, "fetched" or "none"."""
    features: str | None = None
    """Feature statistics: a file, a folder or "fetched"; no firing rates where None."""
    neuronpedia: str | None = None
    """``model/source``, where the user says what was fetched for the SAE."""
    texts: dict[str, Mapping[int, str]] = field(default_factory=dict)
    """SAE → feature → label, for the SAEs read so far: what tables show beside codes."""

    def read(
        self, sae: Described, observer: Observer = SILENT, *, embeddings: bool = False
    ) -> Annotations:
        """Read those of one SAE.

        Args:
            sae: whose they are.
            observer: is told of texts that are left out.
            embeddings: whether texts are to be compared, by the embeddings of an export.

        Raises:
            AuditError: a file that is named is not there, damaged, or of another SAE.
        """
        labels = rates = explanations = None
        place = place_of_explanations(self.explanations, sae.sae, self.neuronpedia)
        if place is not None:
            explanations = load_explanations(place, sae.d_sae, embeddings=embeddings)
            if explanations.left_out:
                observer.note(explanations.left_out)
            labels = {f: label.description for f, label in explanations.labels.items()}
            self.texts[sae.sae] = labels
        if self.features is not None:
            statistics, where = load_statistics(self.features, sae.sae, self.neuronpedia)
            if max(statistics, default=0) >= sae.d_sae:
                raise AuditError(
                    f"has feature {max(statistics)} of {sae.d_sae}",
                    where=where,
                    hint="are these statistics of another SAE?",
                )
            rates = {feature: known.frac_nonzero for feature, known in statistics.items()}
        return Annotations(labels, rates, sae.neuronpedia, explanations)
