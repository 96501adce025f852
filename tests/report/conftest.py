import pytest
from markupsafe import Markup

from tests.report.compared import Compared


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the picture of a comparison, which takes longer than all the rest of it."""
    picture = Markup("<svg></svg>")
    monkeypatch.setattr("fusion.commands.compare.comparison_picture", lambda comparison: picture)


@pytest.fixture
def compared(tmp_path, no_pictures):
    return Compared(tmp_path)


@pytest.fixture
def compared_with_picture(tmp_path):
    return Compared(tmp_path)
