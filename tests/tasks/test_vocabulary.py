"""Words that a text encoder does not know are counted before training, and limited."""

import csv
from pathlib import Path

import pytest
import torch

from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.data.captions.formats import read_caption_file
from fusion.data.demo import demo_corpus
from fusion.models import WordVectors
from fusion.report.tables import format_table
from fusion.tasks.vocabulary import count_words
from tests.tiny import write_config

CASES = Path(__file__).parents[1] / "cases" / "text"

TEXTS = ["a red star", "a red star", "Zebra", "a zebra", "", "?!"]


def encoder():
    return WordVectors(["a", "red", "star"], torch.eye(3), max_words=2, tokenizer="unicode")


def test_texts_without_a_known_word_and_unknown_words_are_counted_and_named():
    words = count_words(TEXTS, encoder())
    assert words.as_json() == {
        "texts": 4,
        "texts_without_known_words": 1,
        "words": 4,
        "unknown_words": 1,
        "examples": {"words": ["zebra"], "texts": ["Zebra"]},
    }
    said = words.describe()
    assert said.startswith("the text encoder does not know 1 of 4 words (zebra); 1 of 4 texts have")
    assert "no known word and count as missing (Zebra)" in said
    assert "2 of 4 texts have more than 2 known words, so their end is cut off" in said


def test_an_encoder_of_ones_own_is_asked_for_each_word():
    class Own:
        def unknown_words(self, sentence):
            return [word for word in sentence.split() if word != "a"]

    words = count_words(["a b", "c"], Own())
    assert (words.texts, words.num_lost, words.words, list(words.unknown)) == (2, 1, 3, ["b", "c"])
    assert count_words(["a"], object()) is None


def test_where_all_words_are_known_the_line_says_so():
    assert count_words(["a red"], encoder()).describe() == "all 2 words of 1 text are known"
    assert count_words(["", "!"], encoder()).describe() == ""


def test_more_than_the_limit_is_an_error_with_the_way_out():
    words = count_words(["zebra", "zebra", "a star"], encoder())
    words.check("train", 0.7)
    with pytest.raises(
        ValueError, match=r"^train: .* 2 of 3 texts .* than max_unknown \(0.5\) allo"
    ):
        words.check("train", 0.5)
    with pytest.raises(
        ValueError, match="text_encoder.tokenizer=unicode.* or go on by max_unknown=1"
    ):
        words.check("train", 0.5)


def read_texts(name):
    return [caption.text for caption in read_caption_file(CASES / f"chinese_{name}.csv")]


def test_vectors_learnt_from_chinese_captions_know_words_of_other_captions():
    train_texts, texts = read_texts("train"), read_texts("validation")
    words = count_words(texts, WordVectors.train(train_texts, dim=4))
    assert (words.texts, words.num_lost, list(words.unknown)) == (8, 0, ["这", "里", "是"])
    words = count_words(texts, WordVectors.train(train_texts, dim=4, tokenizer="published"))
    assert words.num_lost == 8
    with pytest.raises(ValueError, match="^validation: .*8 of 8 texts have no known word"):
        words.check("validation", 0.5)


def write_captions(path, split, texts):
    """Write captions of the smallest built-in corpus with the texts of others."""
    folder = demo_corpus(size=2)
    rows = list(csv.DictReader((folder / f"{split}.csv").open()))[: len(texts)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row, text in zip(rows, texts, strict=True):
            writer.writerow(row | {"video": str(folder / row["video"]), "text": text})
    return str(path)


def chinese_config(tmp_path, **changes):
    files = {
        split: write_captions(tmp_path / f"{split}.csv", split, read_texts(split)[:4])
        for split in ("train", "validation")
    }
    config = load_config(write_config(tmp_path, trainer={"epochs": 1}, **changes))
    return config | {"data": {"name": "videos", **files}}


def test_a_language_that_the_encoder_cannot_read_is_one_line_before_training(tmp_path):
    config = chinese_config(tmp_path, text_encoder={"tokenizer": "published"})
    with pytest.raises(ValueError, match="validation: .* 4 of 4 texts .* than max_unknown"):
        train(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_counts_are_in_the_result_and_its_table(tmp_path, caplog):
    config = chinese_config(tmp_path)
    train(config)
    assert "train: all 10 words of 4 texts are known" in caplog.text
    assert "validation: the text encoder does not know 3 of " in caplog.text
    result = evaluate(tmp_path / "run", "validation", None, quiet=True)
    assert result["clips"]["words"]["unknown_words"] == 3
    assert result["clips"]["words"]["examples"]["words"] == ["这", "里", "是"]
    assert "words are unknown: 这, 里, 是)" in format_table(result)
    assert "words are unknown: 这, 里, 是)" in (tmp_path / "run" / "report.html").read_text()


def test_a_share_that_is_none_is_refused(tmp_path):
    config = load_config(write_config(tmp_path), ["max_unknown=50"])
    with pytest.raises(ConfigError, match="max_unknown is 50; it is a share of texts from 0 to 1"):
        train(config)
