"""One model of each family, written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from saeaudit.audit.collect.model import Model, load_model
from saeaudit.sources.models import find_model
from tests.support.models import write_model


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Loads the model of a family; the same one each time."""

    @cache
    def load(name: str) -> Model:
        folder = write_model(tmp_path_factory.mktemp("models") / name, name)
        return load_model(find_model(str(folder)), device="cpu")

    return load
