"""A feature store of thirty videos."""

import pytest

from tests.data.features.store_fixtures import names, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "store", names(30))
    return tmp_path / "store"
