"""Word vectors in the formats of word2vec and GloVe: the same vectors, in no more memory."""

import functools
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from gensim.models import KeyedVectors

from fusion.convert import convert_word_vectors
from fusion.data.untrusted import word_vectors
from fusion.data.untrusted.word_vectors import MappedWords, read_word_vectors

TEXTS = Path(__file__).parents[2] / "cases" / "text"
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


OF_ANOTHER_KIND, DAMAGED = "holds no word vectors (", "is damaged ("


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"2 2\na " + float32(1, 2) + b"b " + float32(1), DAMAGED, "ends after 1 of 2 words"),
        (b"999999999999 300\na ", DAMAGED, "a line has 0 numbers instead of 300"),
        (b"9999999 300\na \0", DAMAGED, "it ends after 0 of 9999999 words"),
        (b"1 999999999999\na ", OF_ANOTHER_KIND, "vectors 999999999999 wide; 1 to 10000 are read"),
        (b"1 2\n\0" + b"a" * 11_000, DAMAGED, "a word is longer than 10000 bytes"),
        (b"words", OF_ANOTHER_KIND, "its lines are not each a word and numbers"),
        (b"no vectors", OF_ANOTHER_KIND, "its lines are not each a word and numbers"),
        (b"", OF_ANOTHER_KIND, "it is empty"),
        (b"<!DOCTYPE html><html>", OF_ANOTHER_KIND, "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", OF_ANOTHER_KIND, "pointer of Git LFS"),
        (b"\xba\x16\x4f\x2f\x0c\0\0\0", OF_ANOTHER_KIND, "model of fastText; take .* .vec"),
        (b"PK\x03\x04glove.6B.50d.txt", OF_ANOTHER_KIND, "zip"),
        (b"\x80\x04\x95gensim", OF_ANOTHER_KIND, "a pickle"),
        (b"2 2\na 1 2\nb 1\n", DAMAGED, "a line has 1 numbers instead of 2"),
        (b"a 1 2\nb 1 x\n", DAMAGED, "could not convert string to float"),
        (b"9 2\na 1 2\nb 1 2", DAMAGED, "it ends in line 3, in the middle of 9 words"),
        (packed(b"9 2\n\0" + b"a" * 10**7), DAMAGED, "a word is longer than 10000 bytes"),
        (packed(b"a 1\n" * 10**6), DAMAGED, "it unpacks to more than 50 times its size"),
        (packed(b"a" * 10**7), OF_ANOTHER_KIND, "its lines are not each a word and numbers"),
        (packed(b"1 1\na " + float32(1))[:-9], DAMAGED, "ended before the end-of-stream"),
    ],
)
@pytest.mark.parametrize("name", ["v.bin", "v.txt", "v.gz", "v"])
def test_damaged_and_hostile_files_are_refused_in_one_line(tmp_path, name, content, kind, message):
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_word_vectors(path)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{path} {kind}")
    assert "\n" not in str(error.value)


TEXT = b"the 1 2\na 3 4\n"
HEADED = b"2 2\n" + TEXT
BINARY = b"2 2\nthe " + float32(1, 2) + b"a " + float32(3, 4)


@pytest.mark.parametrize("name", ["v.bin", "v.txt", "v.vec", "v.gz", "v.txt.gz", "vectors"])
@pytest.mark.parametrize("compress", [bytes, packed], ids=["plain", "gz"])
@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        HEADED,
        BINARY,
        TEXT.replace(b"\n", b" \r\n"),
        b"\xef\xbb\xbf" + HEADED.replace(b"\n", b" \n"),
        TEXT.replace(b" ", b"\t"),
        TEXT.removesuffix(b"\n"),
        TEXT + b"\n",
    ],
)
def test_a_format_is_told_by_its_content_and_not_by_its_name(tmp_path, name, compress, content):
    (tmp_path / name).write_bytes(compress(content))
    index, values = read_word_vectors(tmp_path / name)
    assert index == {"the": 0, "a": 1}
    assert values.tolist() == [[1, 2], [3, 4]]


def test_converted_vectors_are_told_by_their_content(vectors, tmp_path):
    (tmp_path / "v.safetensors").rename(tmp_path / "v.bin")
    assert isinstance(read_word_vectors(tmp_path / "v.bin")[0], MappedWords)


def test_glove_without_a_header_whose_first_words_are_tags_and_numbers(tmp_path):
    (tmp_path / "v.txt").write_text("<unk> 1 2\n300 3 4\n. . . 5 6\n 7 8\n")
    index, values = read_word_vectors(tmp_path / "v.txt")
    assert index == {"<unk>": 0, "300": 1, ". . .": 2, " ": 3}
    assert values.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_word_with_a_control_character_or_in_another_encoding_makes_no_text_binary(tmp_path):
    (tmp_path / "v.vec").write_bytes(b"4 2\n\x07 1 2\na 3 4\nb 5 6\nf\xfcr 7 8\n")
    index, values = read_word_vectors(tmp_path / "v.vec")
    assert list(index)[:3] == ["\x07", "a", "b"] and values.tolist()[3] == [7, 8]


def test_numbers_one_wide_are_no_first_line(tmp_path):
    (tmp_path / "v.txt").write_text("300 3\n400 4\n")
    index, values = read_word_vectors(tmp_path / "v.txt")
    assert (index, values.tolist()) == ({"300": 0, "400": 1}, [[3], [4]])


def test_the_glove_file_of_the_case_is_read(tmp_path):
    index, values = read_word_vectors(TEXTS / "glove_no_header.txt")
    assert (len(index), values.shape) == (24, (24, 8))


def test_a_word_that_is_no_utf_8_does_not_make_a_file_damaged(tmp_path):
    (tmp_path / "v.bin").write_bytes(b"2 1\n\xc3 " + float32(1) + b"a " + float32(2))
    index, values = read_word_vectors(tmp_path / "v.bin")
    assert values[index["a"]] == 2


def test_a_text_file_that_was_shortened_line_by_line_is_read_with_a_warning(tmp_path, caplog):
    (tmp_path / "v.vec").write_bytes(b"2000000 2\n" + TEXT)
    index, _ = read_word_vectors(tmp_path / "v.vec")
    assert list(index) == ["the", "a"]
    assert "its first line says 2,000,000 words, and it has 2" in caplog.text


def test_vectors_that_need_more_memory_than_there_is_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, "STEP", 4)
    monkeypatch.setattr(word_vectors, "RESERVE", 2**62)
    (tmp_path / "v.txt").write_bytes(TEXT)
    with pytest.raises(ValueError, match="no memory left: add text_encoder.limit=.* fusion conv"):
        read_word_vectors(tmp_path / "v.txt")


def test_other_safetensors_are_no_word_vectors(tmp_path):
    path = tmp_path / "o.safetensors"
    tensors = {"letters": torch.zeros(3, dtype=torch.uint8), "ends": torch.tensor([1, 3])}
    for content, message in [
        (b"nothing", "o.safetensors holds no word vectors .its lines are not each"),
        (safetensors.torch.save(tensors), "holds no word vectors .*'vectors'"),
        (safetensors.torch.save(tensors | {"vectors": torch.zeros(3, 2)}), "2 words have vectors"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_word_vectors(path)
