"""Pages of runs without their charts, which take longer to draw than a tiny training.

Tests of pages draw them (``tests/report``), and so does a tool that is started as a user does.
"""

from markupsafe import Markup

CHART = Markup('<svg role="img"></svg>')


def leave_out(replace=setattr):
    """Leave the charts out of the pages of runs, by ``replace``; their titles stay."""
    from fusion.report import plots, run_page

    replace(plots, "_line_chart", lambda title, curves, from_zero: CHART)
    replace(run_page, "bar_chart", lambda result: CHART)
