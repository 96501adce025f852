import pytest
import torch

from fusion.models.packing import Grid, Span, token_grid
from fusion.tokens import Tokens

LENGTHS = {"x": [2, 0, 1], "y": [1, 1, 1]}


def tokens(lengths=LENGTHS):
    """Token values tell modality, clip and position: x of clip 2, position 0 is 20."""
    return {
        name: Tokens.pack(
            [torch.arange(n)[:, None] + 10.0 * i + 100 * (name == "y") for i, n in enumerate(each)]
        )
        for name, each in lengths.items()
    }


def rows_for(passes, given):
    spans, names = [], []
    for group, members in enumerate(passes):
        for name in members:
            spans.append(Span(name, group, tuple(members)))
            names.append(name)
    parts = [given[name] for name in names]
    return Grid(
        spans,
        [part.longest for part in parts],
        [part.lengths for part in parts],
        [part.host_lengths for part in parts],
    )


def test_tokens_lie_clip_after_clip():
    grid, values = token_grid(tokens())
    assert values[:, 0].tolist() == [0, 1, 100, 110, 20, 120]
    assert (grid.num_slots, grid.count, grid.is_full) == (3, 6, False)
    assert grid.pad(values)[:, :, 0].tolist() == [[0, 1, 100], [0, 0, 110], [20, 0, 120]]
    assert grid.pack(grid.pad(values)).equal(values)


def test_a_full_grid_moves_nothing():
    grid, values = token_grid(tokens({"x": [2, 2], "y": [1, 1]}))
    assert grid.is_full
    assert grid.pad(values).data_ptr() == values.data_ptr()
    assert grid.attention_mask(grid) is not None  # spans without members see nothing by themselves


def test_the_mean_is_over_filled_slots():
    grid, values = token_grid(tokens())
    assert grid.mean(values)[:, :, 0].tolist() == [[0.5, 0, 20], [100, 110, 120]]


def test_the_maximum_is_over_filled_slots():
    grid, values = token_grid(tokens())
    assert grid.max(-values)[:, :, 0].tolist() == [[0, 0, -20], [-100, -110, -120]]
    full, values = token_grid(tokens({"x": [2, 2], "y": [1, 1]}))
    assert full.max(values)[:, :, 0].tolist() == [[1, 11], [100, 110]]
    bare, values = token_grid(tokens({"x": [0, 0], "y": [1, 2]}))
    assert bare.max(values)[:, :, 0].tolist() == [[0, 0], [100, 111]]


def test_rows_of_a_pass_see_its_members_alone():
    given = tokens()
    grid, values = token_grid(given)
    rows = rows_for(["x", "xy"], given)
    spread = grid.spread(grid.pad(values), rows)[:, :, 0]
    assert spread[0].tolist() == [0, 1, 0, 1, 100]
    mask = grid.attention_mask(rows)[:, 0].int().tolist()
    assert mask[0] == [[1, 1, 0]] * 2 + [[1, 1, 1]] * 3
    assert mask[1] == [[1, 1, 1]] * 2 + [[0, 0, 1]] * 3  # sees nothing in "x": whatever, unread
    assert mask[2] == [[1, 0, 0]] * 2 + [[1, 0, 1]] * 3


def test_rows_of_a_deeper_block_see_their_own_pass_alone():
    given = tokens({"x": [2, 2, 2], "y": [1, 1, 1]})
    rows = rows_for(["x", "xy", "y"], given)
    mask = rows.attention_mask(rows)[0, 0].int().tolist()
    assert mask == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 0]] * 3 + [[0, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize("passes", [["xy"], ["x", "y"]])
def test_no_mask_is_made_where_every_row_sees_all(passes):
    given = tokens({"x": [2, 2, 2], "y": [1, 1, 1]})
    rows = rows_for(passes, given)
    assert (token_grid(given)[0].attention_mask(rows) is None) == (passes == ["xy"])
