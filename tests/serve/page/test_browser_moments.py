"""Questions about pictures, and the steps of a film, in a real browser."""

from tests.serve.conftest import MARKUP_ANSWER
from tests.serve.page.browser import ask, card, fits, until

STEPS = "a red star\n<img src=z onerror=alert(1)> a star"


def open_player(page):
    ask(page, "a red star")
    card(page, "a star slides left").locator(".open").click()
    page.wait_for_selector("#player[open]")


def find_steps(page, text=STEPS):
    page.fill("#steps-text", text)
    page.click("#steps-find")
    page.wait_for_selector("#curves .curve")


def test_the_steps_of_a_film_are_drawn_below_it(open_page):
    page = open_page()
    open_player(page)
    page.press("#steps-text", "m")  # a letter, and not "more like this"
    assert page.input_value("#steps-text") == "m" and page.is_visible("#player")
    find_steps(page)
    assert page.locator("#curves .step").all_inner_texts() == STEPS.split("\n")
    assert page.locator("img[src=z]").count() == 0
    assert "onerror" in page.inner_text("#steps-told")  # left out, as the model does not know it
    assert page.locator("#curves .found").count() == 2
    assert page.locator("#curves path.line").first.get_attribute("d").startswith("M")
    first = page.locator("#curves .time").first
    second = first.inner_text()
    first.click()
    minutes, seconds = map(int, second.split(":"))
    wanted = 60 * minutes + seconds
    near = f"Math.abs(document.querySelector('#video').currentTime - {wanted}) < 1"
    until(page, near)
    until(page, "Number(document.querySelector('#curves .now').getAttribute('x1')) >= 0")


def test_a_click_on_a_curve_goes_to_its_second(open_page):
    page = open_page()
    open_player(page)
    find_steps(page)
    page.evaluate("document.querySelector('#video').pause()")
    curve = page.locator("#curves .curve").last
    curve.scroll_into_view_if_needed()
    box = curve.bounding_box()
    curve.click(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
    until(page, "document.querySelector('#video').currentTime > 2.1")  # of 3 seconds


def test_another_film_has_no_steps_yet_and_another_clip_keeps_them(open_page):
    page = open_page()
    open_player(page)
    find_steps(page)
    assert page.inner_text("#player-film") == "a.mp4"
    page.keyboard.press("Escape")
    page.wait_for_selector("#player", state="hidden")
    for text, kept in (("onerror", 2), ("silent.mp4", 0)):
        card(page, text).locator(".open").click()
        page.wait_for_selector("#player[open]")
        assert page.locator("#curves .curve").count() == kept
        page.keyboard.press("Escape")
        page.wait_for_selector("#player", state="hidden")


def test_a_step_that_nobody_knows_is_told_in_one_line(open_page):
    page = open_page()
    page.watch.expected = ("Failed to load resource",)
    open_player(page)
    page.fill("#steps-text", "xyzzy")
    page.click("#steps-find")
    until(page, "document.querySelector('#steps-told').innerText.includes('xyzzy')")
    assert page.locator("#curves .curve").count() == 0 and page.is_enabled("#steps-find")


def check_replies(page, place):
    page.wait_for_selector(f"{place} .answers li")
    answers = page.locator(f"{place} .answers .answer").all_inner_texts()
    assert answers == ["red", MARKUP_ANSWER, "blue", "two", "no"]
    assert page.locator(f"{place} .answers .number").first.inner_text() == "70 %"
    assert page.locator("img[src=y]").count() == 0
    pictures = page.locator(f"{place} figure img")
    assert pictures.count() == 2
    loaded = f"[...document.querySelectorAll('{place} figure img')].every((i) => i.naturalWidth)"
    until(page, loaded)


def test_a_moment_of_a_film_is_asked_about(open_page):
    page = open_page()
    open_player(page)
    page.fill("#moment input", "what colour is it? n")
    page.press("#moment input", "Enter")
    check_replies(page, "#moment")
    page.keyboard.press("Escape")
    card(page, "sound.mp4").locator(".open").click()
    page.wait_for_selector("#player[open]")
    assert page.is_hidden("#moment")  # there is no picture


def test_a_picture_of_the_user_is_asked_about(open_page, things):
    page = open_page()
    page.watch.expected = ("Failed to load resource",)
    assert page.is_hidden("#picture-ask")
    page.set_input_files("#file", things / "ask.jpg")
    page.wait_for_selector("#picture-ask:visible")
    page.fill("#picture-ask input", "xyzzy")
    page.press("#picture-ask input", "Enter")
    until(page, "document.querySelector('#picture-ask [role=status]').innerText.includes('xyzzy')")
    page.fill("#picture-ask input", "what is / it?")
    page.press("#picture-ask input", "Enter")
    check_replies(page, "#picture-ask")
    page.click("#chips button")
    page.wait_for_selector("#picture-ask", state="hidden")
    assert page.locator("#picture-ask .answers").count() == 0


def test_no_part_is_wider_than_the_screen(open_page, things):
    page = open_page()
    page.set_input_files("#file", things / "ask.jpg")
    page.wait_for_selector("#picture-ask:visible")
    page.fill("#picture-ask input", "what is it?")
    page.press("#picture-ask input", "Enter")
    check_replies(page, "#picture-ask")
    fits(page)
    page.click("#chips button")
    open_player(page)
    find_steps(page)
    fits(page, "#player")
