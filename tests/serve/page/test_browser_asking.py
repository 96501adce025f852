"""Asking in a real browser: words, files, films, clips that are like a hit."""

import re

import pytest

from tests.serve.page.browser import ask, card, drop, fits, paste, until
from tests.serve.page.conftest import MARKUP


def test_words_find_clips_with_their_reasons(open_page):
    page = open_page()
    assert page.evaluate("document.activeElement.id") == "words"
    page.keyboard.type("a red star")
    page.keyboard.press("Enter")
    first = page.locator(".hit").first
    first.wait_for()
    assert re.search(r"^\d+ hits in", page.inner_text("#status"))
    assert "q=a+red+star" in page.url
    assert first.locator("dt").all_inner_texts() == ["together", "seen", "heard", "said"]
    assert re.match(r"-?\d\.\d\d$", first.locator("dd").first.inner_text())
    assert card(page, "sound.mp4").locator(".silent").count() == 1
    assert card(page, "silent.mp4").locator(".lacks").count() == 2  # heard and said


def test_unknown_words_are_named(open_page):
    page = open_page()
    page.watch.expected = ("Failed to load resource",)
    ask(page, "a red star xyzzy")
    assert "xyzzy" in page.inner_text("#status")
    page.fill("#words", "xyzzy")
    page.press("#words", "Enter")
    page.wait_for_selector("#notice:visible")
    assert "xyzzy" in page.inner_text("#notice")
    assert page.locator(".hit").count() == 0


@pytest.mark.parametrize("name", ["ask.m4a", "ask.jpg", "ask.mp4"])
def test_a_sound_a_picture_and_a_film_find_clips(name, open_page, things):
    page = open_page()
    page.set_input_files("#file", things / name)
    page.wait_for_selector(".hit[data-id]")
    chip = page.locator("#chips .chip")
    assert name in chip.inner_text()
    assert chip.locator("audio, img, video").count() == 1
    ask(page, "a red star")  # together with words
    assert page.locator("#chips .chip").count() == 1
    page.click("#chips button")
    until(page, "!document.querySelector('#chips .chip')")
    page.wait_for_selector(".hit[data-id]")


def test_files_can_be_dropped_and_pictures_pasted(open_page, things):
    page = open_page()
    drop(page, things / "ask.m4a", "audio/mp4")
    page.wait_for_selector("#chips audio")
    paste(page, things / "ask.jpg", "image/jpeg")
    page.wait_for_selector("#chips img")
    assert page.locator("#chips .chip").count() == 2
    page.wait_for_selector(".hit[data-id]")


def test_a_bad_upload_is_told_in_one_line(open_page, things):
    page = open_page()
    page.watch.expected = ("Failed to load resource",)
    page.set_input_files("#file", things / "bad.mp4")
    page.wait_for_selector("#notice:visible")
    told = page.locator("#notice span").inner_text()
    assert told and "\n" not in told and "Traceback" not in told
    assert page.locator(".hit").count() == 0
    page.set_input_files("#file", things / "notes.txt")
    until(page, "document.querySelector('#notice').innerText.includes('notes.txt')")


def test_f31_markup_of_a_caption_is_only_text(open_page):
    page = open_page("/?q=a+red+star")
    shown = card(page, "onerror")
    assert shown.locator(".text").inner_text() == MARKUP
    shown.locator(".open").click()
    page.wait_for_selector("#player[open]")
    assert page.locator("#player-facts .text").inner_text() == MARKUP
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hacked") is None


def test_one_film_is_searched_alone(open_page):
    page = open_page()
    ask(page, "a red star")
    everything = page.locator(".hit").count()
    card(page, "a red star").locator(".film").click()
    page.wait_for_selector("#film:visible")
    until(page, "document.querySelectorAll('.hit[data-id]').length === 3")
    assert set(page.locator(".hit .film .base").all_inner_texts()) == {"a.mp4"}
    page.click("#film button")
    until(page, f"document.querySelectorAll('.hit[data-id]').length === {everything}")
    page.click("#films")
    page.wait_for_selector("#names button")
    page.keyboard.type("silent")
    until(page, "document.querySelectorAll('#names button').length === 1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#film:visible")
    assert "silent.mp4" in page.inner_text("#film")
    until(page, f"document.querySelectorAll('.hit').length < {everything}")
    page.reload()
    until(page, "document.querySelector('#film').innerText.includes('silent.mp4')")


def test_more_like_this_leaves_out_the_clip_itself(open_page):
    page = open_page()
    ask(page, "a red star")
    clip = page.locator(".hit").first.get_attribute("data-id")
    page.locator(".hit .like").first.click()
    page.wait_for_selector("#chips .chip")
    until(page, f"!document.querySelector('.hit[data-id=\"{clip}\"]')")
    assert f"near={clip}" in page.url
    assert page.input_value("#words") == ""
    page.reload()
    page.wait_for_selector("#chips .chip")
    page.wait_for_selector(".hit[data-id]")


def test_nothing_is_wider_than_the_screen(open_page):
    page = open_page()
    fits(page)
    ask(page, "a red star")
    fits(page)
    page.click("#films")
    page.wait_for_selector("#names button")
    fits(page)
    page.keyboard.press("Escape")
    page.locator(".hit .open").first.click()
    page.wait_for_selector("#player[open]")
    fits(page, "#player")


def test_a_server_that_is_gone_is_told_and_asked_again(open_page, address):
    page = open_page()
    page.watch.expected = ("Failed to load resource",)
    page.route("**/api/search*", lambda route: route.abort())
    page.fill("#words", "a red star")
    page.press("#words", "Enter")
    page.wait_for_selector("#notice:visible")
    assert "does not answer" in page.inner_text("#notice")
    page.unroute("**/api/search*")
    page.click("#notice button")
    page.wait_for_selector(".hit[data-id]")
    assert page.is_hidden("#notice")
