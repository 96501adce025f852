import pytest
from markupsafe import Markup

from tests import charts
from tests.report.compared import Compared


@pytest.fixture(scope="module", autouse=True)
def drawn(no_charts):
    """Draw the charts of pages, which are looked at here."""
    no_charts.undo()
    yield
    charts.leave_out(no_charts.setattr)


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
