import pytest
import torch

from fusion.models import WordVectors
from fusion.words import words_of

SENTENCES = ["a red star slides left", "a blue ring spins", "the red ring slides", ""] * 20


def test_words():
    assert words_of("Don't stop, it's 5 o'clock!") == ["Don't", "stop", "it's", "5", "o'clock"]


def test_a_sentence_is_the_sequence_of_its_known_words():
    words = WordVectors(["red", "star"], torch.eye(2), max_words=3)
    assert words("a star, red star").tolist() == [[0, 1], [1, 0], [0, 1]]
    assert words("red red red red").shape == (3, 2)
    assert words("nothing known").shape == (0, 2)


def test_training_depends_on_sentences_and_seed_alone():
    one, same, other = (WordVectors.train(SENTENCES, dim=4, seed=s) for s in (3, 3, 4))
    assert one.vectors.equal(same.vectors)
    assert list(one.index) == list(same.index)
    assert not one.vectors.equal(other.vectors)


def test_learnt_vectors_are_white():
    vectors = WordVectors.train(SENTENCES, dim=4).vectors
    torch.testing.assert_close(vectors.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.T @ vectors / len(vectors), torch.eye(4), atol=1e-4, rtol=0)


def test_fewer_words_than_dimensions_are_no_problem():
    vectors = WordVectors.train(["red star"] * 9, dim=8).vectors
    assert vectors.shape == (2, 8)
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors[0], -vectors[1])


def test_no_words_are_explained():
    with pytest.raises(ValueError, match="no training caption holds a word"):
        WordVectors.train(["", "..."])


def test_vocabulary_and_vectors_must_agree():
    with pytest.raises(ValueError, match="2 words cannot have 3 vectors"):
        WordVectors(["a", "b"], torch.zeros(3, 1))
