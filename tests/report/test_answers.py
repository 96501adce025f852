import numpy as np

from fusion.report.answers import DIM, Example, confusion_chart, examples_section, shade


def test_a_picture_is_dark_where_nobody_looked():
    image = np.full((8, 8, 3), 200, np.uint8)
    look = np.array([[1.0, 0.0], [0.5, 0.25]], np.float32)
    shaded = shade(image, look)
    assert (shaded[:4, :4] == 200).all() and (shaded[:4, 4:] == round(200 * DIM)).all()
    assert (shaded[4:, :4] == round(200 * (DIM + (1 - DIM) / 2))).all()


def test_questions_are_shown_as_text_with_their_pictures():
    image = np.zeros((8, 8, 3), np.uint8)
    best = [("<b>yes</b>", 0.9), ("no", 0.1)]
    seen = Example("is it <i>?", ("yes", "yes"), best, 1.0, image, np.ones((2, 2), np.float32))
    blind = Example("what?", (), [("no", 1.0)], 0.0)
    html = examples_section([seen, blind], "a note")
    assert "is it &lt;i&gt;?" in html and "&lt;b&gt;yes&lt;/b&gt;" in html
    assert html.count("data:image/jpeg") == 2 and "no picture" in html
    assert "right: yes<" in html and "right: not known" in html and "90 %" in html
    assert examples_section([], "") == ""


def test_confusions_are_shares_of_a_row():
    chart = confusion_chart(
        ["yes", "no"], ["yes", "no", "others"], np.array([[3, 1, 0], [0, 0, 2]])
    )
    assert ">75<" in chart and ">25<" in chart and ">100<" in chart
    assert confusion_chart(["yes"], ["yes", "others"], np.array([[1, 0]])) == ""
