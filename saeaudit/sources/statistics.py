"""How often and how strongly an SAE's features fire, from an export's folder or file."""

from __future__ import annotations

from pathlib import Path

from saeaudit.errors import AuditError
from saeaudit.sources.explanations import find_features
from saeaudit.sources.neuronpedia import FeatureStatistics, read_features
from saeaudit.vocabulary import FETCHED


def load_statistics(
    option: str, target: str, source: str | None = None
) -> tuple[dict[int, FeatureStatistics], str]:
    """Read what ``--features`` names.

    Args:
        option: a file, a folder (or the one above its ``features``), or "fetched".
        target: names one SAE.
        source: its ``model/source`` on Neuronpedia, where the user says it.

    Returns:
        Statistics by feature, and where they came from.

    Raises:
        AuditError: none were fetched, no such file, or a damaged one.
    """
    place = find_features(target, source) if option == FETCHED else Path(option)
    if place is None:
        raise AuditError(
            "no feature statistics were fetched",
            where=target,
            hint=f"saeaudit fetch {target} --features",
        )
    if not place.exists():
        raise AuditError("no such file", where=str(place))
    below = place / "features"
    return read_features(below if below.is_dir() else place), str(place)
