"""Word vectors from a file, as it was published and converted: the same vectors either way."""

import pickle

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from fusion.models.word_file import MappedWords, WordVectorFile, write_word_vectors

WORDS = ["the", "a", "Zürich", "犬", "it's", "thesaurus", "th", "x" * 300]
SENTENCE = "the 犬 isn't in Zürich thesaurus the"


@pytest.fixture
def files(tmp_path):
    vectors = KeyedVectors(4)
    vectors.add_vectors(WORDS, torch.randn(len(WORDS), 4).numpy())
    vectors.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    vectors.save_word2vec_format(str(tmp_path / "v.txt"), binary=False)
    assert write_word_vectors(tmp_path / "v.bin", tmp_path / "v.safetensors") == (len(WORDS), 4)
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


def test_a_mapped_file_knows_its_words_and_no_others(files):
    index = WordVectorFile(files["safetensors"]).index
    assert isinstance(index, MappedWords)
    assert sorted(index) == sorted(WORDS)
    for word in ["", "t", "thes", "zzz", "The", "x" * 299]:
        assert word not in index
        with pytest.raises(KeyError):
            index[word]


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
    with pytest.raises(ValueError, match=r"not at .*v.safetensors any more; add text_encoder.path"):
        WordVectorFile.load(tmp_path)


def test_it_is_opened_anew_in_other_processes(files):
    encoder = WordVectorFile(files["safetensors"])
    sent = pickle.dumps(encoder)
    assert len(sent) < 1000
    assert pickle.loads(sent)(SENTENCE).equal(encoder(SENTENCE))


def test_what_is_no_file_of_vectors_is_refused(files, tmp_path):
    damaged = tmp_path / "d.bin"
    damaged.write_bytes(files["bin"].read_bytes()[:-20])
    other = tmp_path / "o.safetensors"
    other.write_bytes(b"nothing")
    for path, message in [
        (tmp_path / "none.bin", "there is no .*none.bin; GoogleNews-vectors"),
        (damaged, "d.bin is not in word2vec's format, or is damaged"),
        (other, "o.safetensors holds no word vectors"),
    ]:
        with pytest.raises(ValueError, match=message):
            WordVectorFile(path)
    with pytest.raises(ValueError, match="add text_encoder.path=FILE"):
        WordVectorFile.train()
    with pytest.raises(ValueError, match="has no copy of the word vectors"):
        WordVectorFile.load(tmp_path)
