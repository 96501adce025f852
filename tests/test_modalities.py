import pytest

from fusion.modalities import directions, letters_of, members, parse_term, spell

NAMES = ("text", "video", "audio")


def test_three_modalities_give_the_twelve_directions_of_the_paper_and_six_late_averages():
    words = [str(direction) for direction in directions(NAMES)]
    fused = {"t->v", "t->a", "v->t", "v->a", "a->t", "a->v"}
    fused |= {"t->va", "v->ta", "a->tv", "va->t", "ta->v", "tv->a"}
    assert set(words[:12]) == fused
    assert set(words[12:]) == {"t->v+a", "v->t+a", "a->t+v", "v+a->t", "t+a->v", "t+v->a"}


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 2), (4, 3**4 - 2 * 2**4 + 1)])
def test_any_number_of_modalities(count, expected):
    names = ["text", "video", "audio", "depth"][:count]
    assert len([d for d in directions(names) if "+" not in str(d)]) == expected


def test_the_order_of_modalities_and_letters_does_not_matter():
    assert members("ta", ("audio", "video", "text")) == ("text", "audio")
    assert list(letters_of(["pose", "audio", "text", "depth"])) == ["t", "a", "d", "p"]


def test_a_combination_is_spelt_in_one_order():
    assert members("av", NAMES) == ("video", "audio")
    assert spell(members("avt", NAMES)) == "tva"
    assert parse_term("av|t", NAMES) == ("va", "t")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("x", "unknown modality 'x'; choose from t \\(text\\), v \\(video\\), a \\(audio\\)"),
        ("tt", "'tt' must name each modality once"),
        ("", "'' must name each modality once, and at least one"),
    ],
)
def test_wrong_combinations_are_explained(word, message):
    with pytest.raises(ValueError, match=message):
        members(word, NAMES)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("tv", "'tv' must be two combinations with | between them"),
        ("t|v|a", "'t|v|a' must be two combinations"),
        ("t|tv", "'t|tv' pairs overlapping combinations: text is on both sides"),
        ("t|x", "term 't|x': combination 'x' names an unknown modality 'x'"),
    ],
)
def test_wrong_terms_are_explained(term, message):
    with pytest.raises(ValueError, match=message.replace("|", "\\|")):
        parse_term(term, NAMES)


def test_two_modalities_with_one_letter_are_refused():
    with pytest.raises(ValueError, match="'text' and 'touch' have the same letter"):
        letters_of(["text", "touch"])
