"""Recall of known captions through an index: as evaluation counts it, and by a naive search."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import fusion
from fusion.checkpoint import load_model
from fusion.config import load_config
from fusion.data.captions.table import Caption
from fusion.evaluation.embed import keep_complete
from fusion.evaluation.metrics import retrieval_metrics
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.search.recall import Content, ask_captions, ask_own_captions, centre, overlap
from fusion.search.storage import SearchError, Storage
from fusion.tasks import make_task
from fusion.tasks.retrieval.ranking import embed_clips


@pytest.fixture(scope="module")
def corpus_index(run, tmp_path_factory):
    """An index of the corpus' test films, cut at their captions, and the clips as data."""
    task = make_task(load_config(run / "config.yaml"))
    task.open_encoders(run / "best")
    task.open_data()
    clips = task.clips("test")
    folder = tmp_path_factory.mktemp("corpus")
    with open(folder / "test.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "start", "end", "text"])
        table.writerows([Path(c.video).name, c.start, c.end, c.text] for c in clips.captions)
    films = sorted({clips.folder / clip.video for clip in clips.captions})
    index = fusion.Index(folder / "i", run)
    index.add(*films, captions=folder / "test.csv", quiet=True)
    return folder / "i", clips


def read(folder):
    storage = Storage(folder)
    content = Content.read(storage)
    storage.close()
    return content


def part(content, kept):
    return Content(
        [content.films[i] for i in kept],
        content.times[kept],
        [content.texts[i] for i in kept],
        [content.has[i] for i in kept],
        {c: rows[kept] for c, rows in content.vectors.items()},
    )


def table_of(asked):
    total = len(asked.captions)
    found = {way: ranks[np.isfinite(ranks)] for way, ranks in asked.ranks.items()}
    return {way: retrieval_metrics(ranks, total) for way, ranks in found.items() if len(ranks)}


def test_recall_through_the_index_is_that_of_evaluation(run, corpus_index):
    folder, clips = corpus_index
    model = load_model(run / "best")
    embedded = embed_clips(model, clips, Accelerator(cpu=True), 64)
    content = read(folder)
    assert len(content.films) == len(clips) > 10
    whole = retrieval_table(rank_directions(embedded), len(clips))
    found = table_of(ask_own_captions(content))
    for way in ("t->v", "t->a"):
        assert found[way] == pytest.approx({k: whole[way][k] for k in found[way]})
    # Evaluation embeds va also of a clip without sound; a search compares its picture.
    complete = [i for i, has in enumerate(content.has) if set(has) >= set("tva")]
    kept = keep_complete(embedded, ["text", "video", "audio"])
    assert len(complete) == len(kept.ids) > 5
    table = retrieval_table(rank_directions(kept), len(complete))
    found = table_of(ask_own_captions(part(content, complete)))
    for way in ("t->v", "t->a", "t->va", "t->v+a"):
        assert found[way] == pytest.approx({k: table[way][k] for k in found[way]})
    assert found["t->largest"] == found["t->va"]  # where every clip has both


def test_the_largest_is_what_a_search_ranks(run, films, tmp_path):
    """Films with captions, one of them without sound: places are those of ``fusion search``."""
    (films / "a.csv").write_text("start,end,text\n0,0.5,a star\n0.5,1,a blue bell\n1,1.5,a ball\n")
    (films / "silent.csv").write_text("start,end,text\n0,0.5,a green star\n0.5,1,a red ball\n")
    index = fusion.Index(tmp_path / "i", run).add(films, quiet=True)
    content = read(tmp_path / "i")
    asked = ask_own_captions(content)
    assert {"v", "va"} <= {"".join(x for x in has if x != "t") for has in content.has}
    for place, caption in enumerate(asked.captions):
        if np.isfinite(asked.ranks["t->largest"][place]):
            hits = index.nearest(content.vectors["t"][place].numpy(), k=50)
            found = [(Path(h.video).name, h.start) for h in hits]
            right = found.index((Path(caption.video).name, caption.start)) + 1
            assert abs(asked.ranks["t->largest"][place] - right) <= 0.5
    assert len(asked.captions) == 7


def test_windows_are_right_by_their_overlap_or_their_centre():
    clips, asked = np.array([[0.0, 4], [2, 6], [4, 8], [3, 5]]), np.array([[2.0, 6.0], [0, 40]])
    assert overlap(clips, asked).tolist() == [[False, True, False, True], [False] * 4]
    assert centre(clips, asked).tolist() == [[True, True, True, True], [True] * 4]
    assert not centre(np.array([[0.0, 3.9]]), np.array([[2.0, 6.0]])).any()
    assert overlap(np.array([[0.0, 2]]), np.array([[1.0, 2.0], [0, 4]])).all()  # just a half
    assert not overlap(np.array([[0.0, 2]]), np.array([[1.02, 2.0], [0, 4.1]])).any()


class Words:
    """Embeds words as given."""

    def __init__(self, **words):
        self.words = words

    def encode(self, inputs):
        if inputs["text"] not in self.words:
            raise ValueError("no known word")
        return torch.tensor(self.words[inputs["text"]])


def content_of(films, times, has, **vectors):
    tensors = {c: torch.tensor(rows, dtype=torch.float32) for c, rows in vectors.items()}
    return Content(films, np.array(times, float), [""] * len(films), has, tensors)


def test_the_best_right_window_is_ranked_among_the_wrong_ones():
    content = content_of(
        ["a", "a", "a", "b"],
        [[0, 2], [1, 3], [2, 4], [1, 3]],
        ["v"] * 4,
        v=[[1, 0], [0.8, 0.6], [0, 1], [0.9, math.sqrt(0.19)]],
    )
    captions = [Caption("a", 1, 3, "x"), Caption("a", 1.5, 9, "y"), Caption("b", 0, 1, "x")]
    captions += [Caption("c", 0, 9, "x"), Caption("a", 0, 2, "unknown")]
    asked = ask_captions(content, captions, Words(x=[1.0, 0.0], y=[0.0, 1.0]))
    assert asked.candidates == 4
    # x, film a, 1-3 s: only the second window overlaps by half; the first and b's are better.
    # y: 1.5 s to the end of the film at 4 s, of which the third window is 0.8.
    expected = [3, 1, np.nan, np.nan, np.nan]
    for way in ("t->v", "t->largest"):
        np.testing.assert_array_equal(asked.ranks[f"{way} IoU>=0.5"], expected)
    # The first window's centre, at 1 s, is at the border of 1-3 s, so it is right too.
    np.testing.assert_array_equal(asked.ranks["t->v centre"], [1, 1, np.nan, np.nan, np.nan])


def test_a_clip_that_lacks_a_part_is_compared_by_what_it_has():
    content = content_of(
        ["a", "b", "c"],
        [[0, 1]] * 3,
        ["va", "v", ""],
        v=[[1, 0], [0, 1], [0, 0]],
        a=[[1, 0], [0, 0], [0, 0]],
        va=[[1, 0], [0, 0], [0, 0]],
    )
    captions = [Caption(film, 0, 1, "x") for film in "abc"]
    ranks = ask_captions(content, captions, Words(x=[0.6, 0.8])).ranks
    assert ranks["t->va IoU>=0.5"].tolist()[:2] == [2, 1]  # b by its picture
    assert ranks["t->v+a IoU>=0.5"].tolist()[:2] == [2, 1]
    assert ranks["t->a IoU>=0.5"][0] == 1 and np.isnan(ranks["t->a IoU>=0.5"][1:]).all()
    assert all(np.isnan(values[2]) for values in ranks.values())


def test_captions_of_one_clip_share_a_candidate(run, films, tmp_path):
    (films / "more" / "c.csv").write_text(
        "start,end,text\n0,0.5,a red star\n0,0.5,a star\n1,1.5,a bell\n"
    )
    fusion.Index(tmp_path / "i", run).add(films / "more", quiet=True)
    asked = ask_own_captions(read(tmp_path / "i"))
    assert asked.candidates == 2 and asked.clips.tolist() == [0, 0, 1]


def test_an_index_without_captions_says_so(run, films, tmp_path):
    fusion.Index(tmp_path / "i", run).add(films / "a.mp4", quiet=True)
    with pytest.raises(SearchError, match="no clip has a caption that the model reads"):
        ask_own_captions(read(tmp_path / "i"))
