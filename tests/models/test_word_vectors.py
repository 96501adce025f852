import json
import pickle
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from gensim.models import KeyedVectors

from fusion.convert import convert_word_vectors
from fusion.models import WordVectors
from fusion.models.text.encoders import WordVectorFile
from fusion.words import words_of
from tests.models.test_language_models import save_tokenizer

WORDS = ["the", "a", "Zürich", "犬", "it's", "thesaurus", "th", "x" * 300]
SENTENCE = "the 犬 isn't in Zürich thesaurus the"
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


def test_learnt_vocabularies_fold_case(tmp_path):
    composed, decomposed = "Caf\u00e9", "CAFE\u0301"
    words = WordVectors.train([f"Red STAR {composed}", f"a red star {decomposed}"] * 20, dim=2)
    assert sorted(words.index) == ["a", "caf\u00e9", "red", "star"]
    assert words("RED Caf\u00e9").equal(words(f"red {decomposed}"))
    assert words.unknown_words("Blue star") == ["blue"]
    lower = WordVectors.train([s.lower() for s in SENTENCES], dim=4)
    assert lower.vectors.equal(WordVectors.train([s.title() for s in SENTENCES], dim=4).vectors)
    words.save(tmp_path)
    assert WordVectors.load(tmp_path)("RED").equal(words("red"))


def test_vectors_of_older_versions_do_not_fold_case(tmp_path):
    safetensors.torch.save_file(
        {"vectors": torch.eye(2)}, tmp_path / "word_vectors.safetensors", {"max_words": "20"}
    )
    (tmp_path / "vocabulary.txt").write_text("Red\nred\n")
    words = WordVectors.load(tmp_path)
    assert words("Red red RED").tolist() == [[1, 0], [0, 1]]


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


# --- From a file ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    vectors = KeyedVectors(4)
    vectors.add_vectors(WORDS, torch.randn(len(WORDS), 4).numpy())
    vectors.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    vectors.save_word2vec_format(str(tmp_path / "v.txt"), binary=False)
    convert_word_vectors(tmp_path / "v.bin", tmp_path / "v.safetensors")
    return {"kv": vectors, **{k: tmp_path / f"v.{k}" for k in ("bin", "txt", "safetensors")}}


@pytest.mark.parametrize("kind", ["bin", "txt", "safetensors"])
def test_a_sentence_is_the_vectors_of_its_known_words(files, kind):
    encoder = WordVectorFile(files[kind])
    expected = [files["kv"][word] for word in ["the", "犬", "Zürich", "thesaurus", "the"]]
    tolerance = 1e-6 if kind == "txt" else 0
    torch.testing.assert_close(
        encoder(SENTENCE), torch.tensor(np.array(expected)), rtol=tolerance, atol=tolerance
    )
    assert len(WordVectorFile(files[kind], max_words=2)(SENTENCE)) == 2
    assert encoder("nothing known").shape == (0, 4)


def test_only_the_first_words_are_taken(files):
    encoder = WordVectorFile(files["bin"], limit=2)
    assert len(encoder("the a Zürich")) == 2


def test_a_checkpoint_says_where_the_file_is(files, tmp_path):
    encoder = WordVectorFile(files["safetensors"], max_words=3)
    encoder.save(tmp_path)
    again = WordVectorFile.load(tmp_path)
    assert again(SENTENCE).equal(encoder(SENTENCE))
    assert len(again(SENTENCE)) == 3
    files["safetensors"].unlink()
    with pytest.raises(
        ValueError,
        match=r"cannot be opened: .* there is no .*v.safetensors; add text_encoder.path",
    ):
        WordVectorFile.load(tmp_path)


def test_a_key_of_a_checkpoint_that_is_unknown_is_explained(files, tmp_path):
    WordVectorFile(files["safetensors"]).save(tmp_path)
    file = tmp_path / WordVectorFile.reference
    file.write_text(file.read_text().replace("max_words", "most_words"))
    with pytest.raises(ValueError, match=r"cannot be opened: .*argument 'most_words'"):
        WordVectorFile.load(tmp_path)


def test_it_is_opened_anew_in_other_processes(files):
    encoder = WordVectorFile(files["safetensors"])
    sent = pickle.dumps(encoder)
    assert len(sent) < 1000
    assert pickle.loads(sent)(SENTENCE).equal(encoder(SENTENCE))


def test_a_file_that_is_not_there_is_explained(files, tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*none.bin; .*\(GoogleNews-vectors"):
        WordVectorFile(tmp_path / "none.bin")
    with pytest.raises(ValueError, match="add text_encoder.path=FILE"):
        WordVectorFile()
    with pytest.raises(
        ValueError, match="has no word_vectors.json, which names .* add text_encoder.path="
    ):
        WordVectorFile.load(tmp_path)


# --- What cuts the sentences ----------------------------------------------------------------------

CHINESE = ["我听到第一个音", "我听到第二个音"]


def test_learnt_vectors_know_the_characters_of_a_language_without_spaces(tmp_path):
    words = WordVectors.train(CHINESE, dim=4)
    assert sorted(words.index) == sorted({*"我听到第一二个音"})
    assert len(words("这里是第一个音")) == 4
    assert words.unknown_words("这里是第一个音") == ["这", "里", "是"]
    words.save(tmp_path)
    assert WordVectors.load(tmp_path)("第二个音").equal(words("第二个音"))


def test_a_file_of_vectors_cuts_a_language_without_spaces_into_its_longest_words(tmp_path):
    (tmp_path / "zh.vec").write_text("4 2\n听到 1 0\n听 2 0\n第一 3 0\n音 4 0\n", encoding="utf-8")
    encoder = WordVectorFile(tmp_path / "zh.vec")
    assert encoder("我听到第一个音")[:, 0].tolist() == [1, 3, 4]
    assert encoder.unknown_words("我听到第一个音") == ["我", "个"]


def test_the_published_rule_cuts_as_before_and_is_that_of_older_checkpoints(files, tmp_path):
    encoder = WordVectorFile(files["bin"], tokenizer="published")
    assert encoder.unknown_words("The don\u2019t 犬 Z\u0075\u0308rich") == [
        "The",
        "don",
        "t",
        "Zu",
        "rich",
    ]
    assert len(WordVectorFile(files["bin"])("The 犬 Zu\u0308rich")) == 3
    encoder.save(tmp_path)
    assert WordVectorFile.load(tmp_path).cutter.name == "published"
    file = tmp_path / WordVectorFile.reference
    arguments = json.loads(file.read_text())
    del arguments["tokenizer"]  # as an older version wrote it
    file.write_text(json.dumps(arguments))
    assert WordVectorFile.load(tmp_path).cutter.name == "published"
    assert WordVectorFile.tokenizer_of(tmp_path) == "published"
    assert WordVectorFile(files["bin"]).cutter.name == "unicode"


def test_vectors_may_be_those_of_the_pieces_of_a_tokenizer_of_transformers(tmp_path):
    save_tokenizer(tmp_path / "tokenizer_of_others")
    name = str(tmp_path / "tokenizer_of_others")
    words = WordVectors.train(["a red star", "a star"] * 9, dim=2, tokenizer=name)
    pieces = words.cutter.words("a red star")
    assert pieces and set(words.index) == {*pieces}
    (tmp_path / "saved").mkdir()
    words.save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "tokenizer_of_others")
    again = WordVectors.load(tmp_path / "saved")  # it has a copy
    assert again("a red star").equal(words("a red star"))
    assert again.unknown_words("zebra") == ["[UNK]"]


def test_a_tokenizer_that_is_not_there_is_one_line():
    with pytest.raises(
        ValueError, match="text_encoder.tokenizer=unicod is neither unicode nor pub"
    ):
        WordVectors.train(["a"], tokenizer="unicod")
