"""What is outside of the captions of films."""

import pytest
import torch

from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.features.format import Field
from fusion.tasks.localisation.whole_films import outside_of_captions


class Features:
    """Twenty seconds of each film, a row a second."""

    def __init__(self, videos):
        self.videos, self.fields = videos, {"2d": Field(width=3, per_second=1.0)}

    def rows(self, video, field):
        return 20

    def read(self, video, field, first=0, last=None):
        return torch.ones(20, 3)[first:last]


class Counted(list):
    """A list that counts how often it is gone through."""

    rounds = 0

    def __iter__(self):
        self.rounds += 1
        return super().__iter__()


def clips_of(videos, captions):
    return Clips(None, captions, Features(videos), None, 8, 64)


def test_the_rest_of_each_film_is_cut():
    captions = [
        Caption(*one, "") for one in [("b", 5, 8), ("a", 0, 4), ("b", 1, 6), ("gone", 0, 1)]
    ]
    made = outside_of_captions(clips_of(["a", "b"], captions), 6.0)
    assert [(c.video, c.start, c.end) for c in made.captions] == [
        ("b", 0, 1),
        ("b", 8, 14),
        ("b", 14, 20),
        ("a", 4, 10),
        ("a", 10, 16),
        ("a", 16, 20),
    ]


@pytest.mark.parametrize("number", [2, 50])
def test_captions_are_grouped_once_however_many_films_there_are(number):
    videos = [f"film {i}" for i in range(number)]
    clips = clips_of(videos, [Caption(video, 2, 4, "") for video in videos])
    clips.captions = Counted(clips.captions)
    assert len(outside_of_captions(clips, 20.0)) == 2 * number
    assert clips.captions.rounds <= 2
