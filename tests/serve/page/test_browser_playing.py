"""Playing and moving about in a real browser: by the pointer, by keys, by the history."""

import itertools

from tests.serve.page.browser import ask, card, times_of, until


def test_a_thumbnail_plays_the_seconds_of_its_clip_while_the_pointer_is_on_it(open_page):
    page = open_page()
    ask(page, "a red star")
    hit = card(page, "a star slides left")
    hit.locator(".open").hover()
    page.wait_for_selector(".open video.shown")
    times = times_of(page, ".open video", samples=14)  # longer than the clip: it begins again
    assert min(times) >= 1.95 and max(times) <= 2.8, times
    assert any(later < earlier for earlier, later in itertools.pairwise(times)), times
    assert page.evaluate("document.querySelector('.open video').muted")
    page.mouse.move(0, 0)
    until(page, "!document.querySelector('.open video')")


def test_the_player_plays_from_the_second_and_stops_or_goes_on(open_page):
    page = open_page()
    ask(page, "a red star")
    card(page, "onerror").locator(".open").click()
    until(page, "document.querySelector('#video').paused === false")
    until(page, "document.querySelector('#video').paused === true")
    stopped = page.evaluate("document.querySelector('#video').currentTime")
    assert 1.7 <= stopped <= 1.8
    assert not page.evaluate("document.querySelector('#video').muted")
    page.check("input[name=at-end][value=on]", force=True)
    until(page, "document.querySelector('#video').currentTime > 2")
    page.check("input[name=at-end][value=repeat]", force=True)
    page.click("#player-again")
    times = times_of(page, "#video", samples=16)[2:]
    assert min(times) >= 1.15 and max(times) <= 1.95, times
    page.reload()
    page.wait_for_selector("#player[open]")  # the address names the clip
    assert page.is_checked("input[name=at-end][value=repeat]")


def test_back_and_forward_bring_the_searches_back(open_page):
    page = open_page()
    ask(page, "a red star")
    ask(page, "a star slides left")
    page.locator(".hit .open").first.click()
    page.wait_for_selector("#player[open]")
    page.go_back()
    page.wait_for_selector("#player", state="hidden")
    assert page.input_value("#words") == "a star slides left"
    page.locator(".hit .open").first.click()
    page.wait_for_selector("#player[open]")
    page.keyboard.press("Escape")
    until(page, "!location.search.includes('clip')")
    page.go_back()
    until(page, "document.querySelector('#words').value === 'a red star'")
    page.wait_for_selector(".hit[data-id]")
    page.go_forward()
    until(page, "document.querySelector('#words').value === 'a star slides left'")


def test_all_is_done_by_keys_alone(open_page):
    page = open_page()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("a red star")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit[data-id]")
    page.keyboard.press("ArrowDown")
    at = "document.activeElement.closest('.hit') && [...document.querySelectorAll('.hit')]"
    place = f"{at}.indexOf(document.activeElement.closest('.hit'))"
    assert page.evaluate(place) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    moved = page.evaluate(place)
    assert moved > 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("#player[open]")
    page.keyboard.press("Escape")
    until(page, "!location.search.includes('clip')")
    assert page.evaluate(place) == moved
    page.keyboard.press("m")
    page.wait_for_selector("#chips .chip")
    until(page, f"({place}) === 0")  # the first of the new hits
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "words"


def test_a_film_that_the_browser_cannot_play_says_so(open_page):
    page = open_page()
    ask(page, "a red star")
    odd = card(page, "odd.mkv")
    odd.locator(".open").hover()
    odd.locator(".cannot").wait_for()
    assert odd.locator(".open img:not(.behind)").count() == 1
    odd.locator(".open").click()
    page.wait_for_selector("#player-notice:visible")
    assert "cannot play" in page.inner_text("#player-notice")
    assert page.inner_text("#player-time")
    assert page.get_attribute("#video", "poster").startswith("/thumbnails/")


def test_dark_and_light_are_remembered_and_motion_can_be_refused(open_page):
    page = open_page(color_scheme="dark", reduced_motion="reduce")
    paint = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paint)
    page.click("#theme")
    assert page.evaluate(paint) != dark
    page.reload()
    assert page.evaluate(paint) != dark
    ask(page, "a red star")
    page.locator(".hit .open").first.hover()
    page.wait_for_timeout(400)
    assert page.locator(".open video").count() == 0
