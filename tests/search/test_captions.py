"""Captions that a model cannot read, or not whole, are counted, and the index goes on."""

import pytest

import fusion
from fusion.search.index import Index
from fusion.search.indexing import summarise
from fusion.search.storage import Storage
from tests.search.conftest import train_tiny
from tests.search.test_index import content, index
from tests.tiny import CONFIG


@pytest.fixture
def without_text(tmp_path):
    """A model of picture and sound."""
    modalities = {k: v for k, v in CONFIG["model"]["modalities"].items() if k != "text"}
    run = train_tiny(
        tmp_path,
        model__modalities=modalities,
        model__combinations=["v", "a", "va"],
        loss__terms={"v|a": 1},
        text_encoder=None,
    )
    return fusion.load(run)


def test_a_caption_without_a_known_word_is_left_out_of_the_embedding(model, films, tmp_path):
    (films / "more" / "c.csv").write_text("start,end,text\n0,0.5,zyx qqq\n1,1.5,a star\n")
    counts = index(tmp_path / "i", model, films)
    assert counts["new"] == 3 and counts["unknown"] == 1
    mine = [
        (clip.text, clip.has)
        for name, clip, _ in content(tmp_path / "i")[1]
        if name == "more/c.mp4"
    ]
    assert mine == [("zyx qqq", "va"), ("a star", "tva")]
    storage = Storage(tmp_path / "i")
    assert "1 caption without a known word" in summarise(counts, storage)
    storage.close()


def test_captions_that_the_model_cuts_are_counted(model, films, tmp_path):
    (films / "more" / "c.csv").write_text("start,end,text\n0,1.9,a red star\n1,1.5,a star\n")
    counts = index(tmp_path / "i", model, films)
    assert counts["cut"] == 1 and "unknown" not in counts
    storage = Storage(tmp_path / "i")
    assert "1 caption longer than the model takes" in summarise(counts, storage)
    storage.close()


def test_a_model_without_text_keeps_captions_for_the_eye(without_text, films, tmp_path):
    found = Index(tmp_path / "i", without_text).add(films, quiet=True)
    texts = {h.text: h for h in found.near(1, k=50)}
    assert "a red star" in texts and set(texts["a red star"].by) == {"video", "audio"}
