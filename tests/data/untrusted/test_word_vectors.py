"""Word vectors in the formats of word2vec and GloVe: the same vectors, in no more memory."""

import functools
import gzip
import tracemalloc

import numpy as np
import pytest
import safetensors.torch
import torch
from gensim.models import KeyedVectors

from fusion.convert import convert_word_vectors
from fusion.data.untrusted.word_vectors import MappedWords, read_word_vectors

WORDS = ["the", "a", "Zürich", "犬", "it's", "thesaurus", "th", "x" * 300]
packed = functools.partial(gzip.compress, mtime=0)  # test names must not depend on the time


@pytest.fixture
def vectors(tmp_path):
    """What gensim writes in word2vec's formats, and GloVe's; compressed, too."""
    vectors = KeyedVectors(4)
    vectors.add_vectors(WORDS, torch.randn(len(WORDS), 4).numpy())
    vectors.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    vectors.save_word2vec_format(str(tmp_path / "v.vec"), binary=False)
    text = (tmp_path / "v.vec").read_bytes()
    (tmp_path / "glove.txt").write_bytes(text.partition(b"\n")[2])
    (tmp_path / "v.gz").write_bytes(gzip.compress((tmp_path / "v.bin").read_bytes()))
    (tmp_path / "v.vec.gz").write_bytes(packed(text))
    convert_word_vectors(tmp_path / "v.bin", tmp_path / "v.safetensors")
    return vectors


@pytest.mark.parametrize(
    "name", ["v.bin", "v.vec", "glove.txt", "v.gz", "v.vec.gz", "v.safetensors"]
)
def test_every_format_gives_the_same_vectors(vectors, tmp_path, name):
    index, values = read_word_vectors(tmp_path / name)
    assert sorted(index) == sorted(WORDS)
    found = torch.stack([values[index[word]] for word in WORDS]).numpy()
    np.testing.assert_allclose(
        found, vectors[WORDS], rtol=1e-6 if "vec" in name or "glove" in name else 0
    )
    if name != "v.safetensors":
        index, values = read_word_vectors(tmp_path / name, limit=2)
        assert list(index) == WORDS[:2] and values.shape == (2, 4)


def test_new_lines_after_binary_vectors_and_words_that_come_twice(tmp_path):
    """As the C program of word2vec writes; of a word that comes twice gensim takes the first."""
    rows = [(b"a", [1, 2]), (b"b", [3, 4]), (b"a", [5, 6]), (b"c", [7, 8])]
    rows = [word + b" " + np.array(row, np.float32).tobytes() + b"\n" for word, row in rows]
    (tmp_path / "v.bin").write_bytes(b"4 2\n" + b"".join(rows))
    index, values = read_word_vectors(tmp_path / "v.bin")
    assert index == {"a": 0, "b": 1, "c": 2}
    assert values.tolist() == [[1, 2], [3, 4], [7, 8]]
    published = KeyedVectors.load_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    assert published.key_to_index == index


def test_a_word_of_glove_may_have_spaces(tmp_path):
    (tmp_path / "v.txt").write_text("the 1 2\n. . . 3 4\n")
    index, values = read_word_vectors(tmp_path / "v.txt")
    assert index == {"the": 0, ". . .": 1}
    assert values.tolist() == [[1, 2], [3, 4]]


def test_a_mapped_file_knows_its_words_and_no_others(vectors, tmp_path):
    index, _ = read_word_vectors(tmp_path / "v.safetensors")
    assert isinstance(index, MappedWords)
    for word in ["", "t", "thes", "zzz", "The", "x" * 299]:
        assert word not in index
        with pytest.raises(KeyError):
            index[word]


def float32(*numbers):
    return np.array(numbers, np.float32).tobytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"2 2\na " + float32(1, 2) + b"b " + float32(1), "ends after 1 of 2 words"),
        ("a.bin", b"999999999999 300\na ", "it ends after 0 of 999999999999 words"),
        ("a.bin", b"1 999999999999\na ", "vectors 999999999999 wide; 1 to 10000 are read"),
        ("a.bin", b"1 2\n" + b"a" * 11_000, "a word is longer than 10000 bytes"),
        ("a.bin", b"1 1\n\xff " + float32(1), "can't decode byte"),
        ("a.bin", b"words", "its first line does not say"),
        ("a.txt", b"2 2\na 1 2\nb 1\n", "a line has 1 numbers instead of 2"),
        ("a.txt", b"a 1 2\nb 1 x\n", "could not convert string to float"),
        ("a.txt", b"no vectors", "could not convert string to float"),
        ("a.txt", b"", "vectors -1 wide"),
        ("a.gz", b"1 2\na", "Not a gzipped file"),
        ("a.gz", packed(b"9 2\n" + b"a" * 10**7), "a word is longer than 10000 bytes"),
        ("a.txt.gz", packed(b"a 1\n" * 10**6), "it unpacks to more than 50 times its size"),
        ("a.txt.gz", packed(b"a" * 10**7), "vectors 0 wide"),
        ("a.gz", packed(b"1 1\na " + float32(1))[:-9], "ended before the end-of-stream"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_word_vectors(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{path} is not in word2vec's format, or is damaged (")
    assert "\n" not in str(error.value)


def test_other_safetensors_are_no_word_vectors(tmp_path):
    path = tmp_path / "o.safetensors"
    tensors = {"letters": torch.zeros(3, dtype=torch.uint8), "ends": torch.tensor([1, 3])}
    for content, message in [
        (b"nothing", "o.safetensors holds no word vectors"),
        (safetensors.torch.save(tensors), "holds no word vectors .*'vectors'"),
        (safetensors.torch.save(tensors | {"vectors": torch.zeros(3, 2)}), "2 words have vectors"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_word_vectors(path)
