import numpy as np
import pytest
import torch

from fusion.data.media.film import Piece
from fusion.data.media.pictures import Sampling
from fusion.extract.backbone import Backbone, Source
from fusion.extract.rows import FilmRows


class Look(torch.nn.Module):
    """First, last and mean value of a window; remembers how much it was shown at a time."""

    def __init__(self, most=1000):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(x))
        return torch.stack([x[:, 0, 0, 0, 0], x[:, 0, -1, 0, 0], x.mean((1, 2, 3, 4))], 1)


def frames(count, size=(4, 6)):
    """Picture i is of level i + 1."""
    levels = 1 + np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (count, *size, 3)).copy()


def rows_of(count, window, stride, pieces=7, network=None, mean=0.0):
    sampling = Sampling(10, 4, frames=window, stride=stride)
    backbone = Backbone(
        "look", network or Look(), sampling, 3, (mean,) * 3, (1.0,) * 3, Source("3d")
    )
    rows = FilmRows({"3d": backbone})
    for start in range(0, count, pieces):
        rows.push(Piece("3d", frames(count)[start : start + pieces], 0.0))
    return rows.end()["3d"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 100])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (32, 10), (2, 2), (16, 15)])
def test_there_is_a_row_for_every_step_that_has_begun(count, window, stride):
    rows = rows_of(count, window, stride)
    assert rows.shape == (-(-count // stride), 3) and rows.dtype == torch.float16
    for k, (first, last, mean) in enumerate(rows.tolist()):
        levels = [i + 1 if i < count else 0 for i in range(k * stride, k * stride + window)]
        assert (first, last) == (levels[0], levels[-1])
        assert mean == pytest.approx(np.mean(levels), rel=1e-3)


def test_what_is_behind_the_end_is_black_before_the_mean_is_subtracted():
    """As published: the filling is black, not of the mean colour."""
    assert rows_of(17, 16, 16, mean=100.0)[1, 1] == -100


def test_how_pieces_come_changes_nothing():
    assert torch.equal(rows_of(50, 8, 4, pieces=1), rows_of(50, 8, 4, pieces=50))


def test_where_memory_runs_out_less_is_computed_at_a_time():
    small, large = Look(most=3), Look()
    assert torch.equal(rows_of(90, 2, 1, network=small), rows_of(90, 2, 1, network=large))
    assert large.sizes == [90]
    assert small.sizes[:2] == [2, 2] and max(small.sizes) == 2


def test_other_errors_of_a_network_are_errors():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("wrong shape")

    with pytest.raises(RuntimeError, match="wrong shape"):
        rows_of(9, 2, 1, network=Broken())


def test_what_is_not_there_has_no_rows():
    rows = FilmRows({}).end()
    assert rows["audio"].shape == (0, 40)
