"""Windows around each second: where they lie, and the features in them."""

import pytest
import torch
import torch.nn.functional as F

from fusion.data.features.format import Field
from fusion.data.features.readers import AUDIO
from fusion.data.steps.annotation import StepError
from fusion.data.steps.windows import FilmWindows, Windows


class Rows:
    """Features whose rows are told apart; 10.4 seconds of picture and sound."""

    videos = ("film",)

    def __init__(self):
        self.fields = {"2d": Field(3, 1.0), "3d": Field(2, 1.5), "audio": AUDIO}
        torch.manual_seed(0)
        self.data = {"2d": torch.randn(11, 3), "3d": torch.randn(16, 2)}
        self.data["audio"] = torch.arange(1040.0)[:, None].expand(-1, 40)

    def rows(self, video, field):
        return len(self.data[field])

    def read(self, video, field, first=0, last=None):
        return self.data[field][max(first, 0) : last]


def test_windows_are_shifted_inwards_at_both_ends():
    windows = Windows()
    assert windows.count(20.0) == 20
    assert [windows.times(t, 20.0) for t in (0, 3, 4, 5, 16, 17, 19)] == [
        (0, 8), (0, 8), (0, 8), (1, 9), (12, 20), (12, 20), (12, 20)
    ]  # fmt: skip
    assert windows.times(2, 5.0) == (0, 5)  # a film that is shorter
    assert (windows.count(0.0), windows.count(0.05), windows.count(5.05)) == (0, 1, 5)
    half = Windows(1.0, 1.0, 0.5)
    assert half.count(3.0) == 6
    assert half.times(3, 3.0) == (0.5, 2.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"before": -1.0}, "windows begin -1 s before"),
        ({"after": 0.0}, "after above 0"),
        ({"step": 0.0}, "step must be above 0 seconds"),
        ({"pictures": "all"}, "pictures: unknown 'all'; choose from window, second"),
    ],
)
def test_impossible_windows(given, message):
    with pytest.raises(StepError, match=message):
        Windows(**given)


def test_a_window_has_the_features_of_its_time():
    rows = Rows()
    film = FilmWindows(rows, "film", Windows(2.0, 2.0), (100, 1000))
    assert len(film) == 11
    item = film[5]  # seconds 3 to 7
    assert item["video"].shape == (7, 5)  # rows 4 to 10 of 1.5 a second
    assert item["audio"][:, 0].tolist() == list(range(298, 698))
    assert film[0]["audio"].equal(film[1]["audio"])  # shifted to the same place
    with pytest.raises(IndexError):
        film[11]


def test_pictures_of_a_second_alone_are_the_maximum_over_its_rows():
    rows = Rows()
    film = FilmWindows(rows, "film", Windows(2.0, 2.0, pictures="second"), (100, 1000))
    for second, (first, last) in {0: (0, 2), 1: (1, 3), 5: (7, 9)}.items():
        expected = [
            F.normalize(rows.data["2d"][second], dim=0),
            F.normalize(rows.data["3d"][first:last].max(dim=0).values, dim=0),
        ]
        assert film[second]["video"].tolist() == torch.cat(expected)[None].tolist()
    window = FilmWindows(rows, "film", Windows(2.0, 2.0), (100, 1000))
    assert film[5]["audio"].equal(window[5]["audio"])
