"""Both directions by one product against each direction by exact scores, its plain twin."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fusion.arithmetic import set_tf32, tf32_is_allowed
from fusion.evaluation.ranking import (
    TOLERANCE,
    Side,
    both_ways,
    dot_products,
    places_of_pairs,
    rank_both_ways,
    rough,
)
from fusion.evaluation.ranking.both_ways import pairs_of
from fusion.evaluation.ranking.count import count_true


def search(seed, kind):
    """Captions (Q), clips (N) in another order, and the clips of both."""
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 60, (1,), generator=generator))
    count = int(torch.randint(1, size + 1, (1,), generator=generator))
    clips = torch.randint(count, (size,), generator=generator)
    clips[:count] = torch.arange(count)
    order = torch.randperm(count, generator=generator)
    gallery = torch.randn(count, 8, generator=generator)
    gallery *= torch.rand(count, 1, generator=generator) + 0.1
    queries = torch.randn(size, 8, generator=generator)
    if kind != "random":
        queries = gallery[order.argsort()[clips]] + 0.2 * queries
    if kind == "alike":
        gallery[:] = gallery[0].clone()
        queries[1::2] = queries[0]
    if kind == "zero":
        gallery[0] = 0
        queries[-1] = 0
    return queries, gallery, (clips, order)


def plain(queries, gallery, owners, is_dot):
    """One direction, all scores exact."""
    scores = dot_products(gallery) if is_dot else lambda x: (x, torch.tensor(TOLERANCE))
    return places_of_pairs(queries, gallery, None, owners, scores)


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["random", "trained", "alike", "zero"])
@pytest.mark.parametrize("is_dot", [False, True])
def test_both_ways_are_those_of_exact_scores(monkeypatch, is_dot, kind):
    monkeypatch.setattr(both_ways, "COLUMNS", 8)
    monkeypatch.setattr(both_ways, "ROWS", 5)
    for seed in range(12):
        x, y, clips = search(seed, kind)
        there, back = rank_both_ways(Side([x]), Side([y]), clips, is_dot, block=7)
        assert same(there, plain(x, y, clips, is_dot))
        assert same(back, plain(y, x, clips[::-1], is_dot))


def test_only_the_ways_that_are_asked_for_are_ranked():
    x, y, clips = search(1, "trained")
    there, back = rank_both_ways(Side([x]), Side([y]), clips, ways=(False, True))
    assert there is None and same(back, plain(y, x, clips[::-1], False))


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_lengths_that_float32_cannot_square_change_nothing(scale):
    x, y, clips = search(3, "trained")
    for is_dot in (False, True):
        found = rank_both_ways(Side([x * scale]), Side([y * scale]), clips, is_dot)
        assert same(found[0], plain(x * scale, y * scale, clips, is_dot))


def test_near_scores_are_computed_one_by_one_or_all():
    """64 rows of which one is near, and of which all are: the two ways to be exact."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(128, 300, generator=generator)
    y[70] = y[3] + 0.4 * 2.0**-20 * y[3].norm() * torch.nn.functional.normalize(y[9], dim=0)
    x, clips = y.clone(), (torch.arange(128), torch.arange(128))
    there, _ = rank_both_ways(Side([x]), Side([y]), clips)
    assert there.tied.tolist() == [int(i in (3, 70)) for i in range(128)]
    y[:] = y[0].clone()
    assert set(rank_both_ways(Side([y]), Side([y]), clips)[1].ranks) == {64.5}


def test_wide_rows_are_summed_in_parts(monkeypatch):
    monkeypatch.setattr(rough, "SUMMED", 3)
    x, y, clips = search(3, "trained")
    assert rough.error_of_width(8) == 2.0**-23 * (3 + 3 + 6)
    torch.testing.assert_close(rough.products(x, y), x @ y.T)
    assert same(rank_both_ways(Side([x]), Side([y]), clips)[0], plain(x, y, clips, False))


def test_scores_near_the_edge_of_the_tolerance_are_exact():
    """Rows at all distances from a half to twice the tolerance, where float32 cannot tell."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(40, 2048, generator=generator)
    gallery = queries.repeat(16, 1)
    noise = torch.nn.functional.normalize(torch.randn(640, 2048, generator=generator), dim=1)
    steps = torch.linspace(0, 4, 16).repeat_interleave(40)[:, None]
    gallery += steps * 2**0.5 * TOLERANCE**0.5 * gallery.norm(dim=1, keepdim=True) * noise
    clips = torch.arange(40), torch.arange(640)
    found = rank_both_ways(Side([queries]), Side([gallery]), clips, ways=(True, False))[0]
    assert same(found, plain(queries, gallery, clips, False))
    assert (found.tied > 0).sum() > 0 and len(set(found.tied)) < 16


def test_a_device_that_rounds_products_is_not_trusted_with_them(monkeypatch):
    x, y, clips = search(5, "trained")
    expected = plain(x, y, clips, False)
    monkeypatch.setattr(rough.torch, "get_float32_matmul_precision", lambda: "high")
    assert rough.product_type(torch.device("cpu")) == torch.float64
    assert same(rank_both_ways(Side([x]), Side([y]), clips)[0], expected)


def test_tf32_of_networks_is_off_while_ranking(monkeypatch):
    x, y, clips = search(5, "trained")
    seen, choose = [], rough.product_type
    monkeypatch.setattr(both_ways, "product_type", lambda d: seen.append(choose(d)) or seen[-1])
    set_tf32(True)
    try:
        rank_both_ways(Side([x]), Side([y]), clips)
        assert seen == [torch.float32] and tf32_is_allowed()
    finally:
        set_tf32(False)


@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_scaled_some_at_a_time_are_the_same(dtype, is_safe, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(50, 24, generator=generator) for _ in range(3)]
    side = Side(parts, [None, torch.randperm(50, generator=generator), None])
    lengths = side.lengths(0, 50, torch.device("cpu"))
    whole, own = side.block(5, 46, torch.device("cpu")), lengths[5:46, None]
    fast = dtype == torch.float32 and is_safe
    expected = whole * own.reciprocal().float() if fast else (whole.double() / own).to(dtype)
    monkeypatch.setattr(rough, "AT_ONCE", 7 * 24)
    block, sizes = side.block, []
    side.block = lambda start, stop, device: (
        sizes.append(stop - start) or block(start, stop, device)
    )
    out = torch.empty(41, 24, dtype=dtype)
    assert rough.scaled_block(side, lengths, 5, is_safe, out).equal(expected)
    assert sizes == [7, 7, 7, 7, 7, 6]


@pytest.mark.parametrize(
    ("rows", "width", "held"),
    [
        (3350, 6144, (670, 168)),  # 5 blocks, of at most 682 rows; 16 MiB and 4 MiB in float32
        (838, 6144, (419, 168)),
        (838, 64, (838, 512)),
        (3350, 20_000, (479, 128)),  # 512 and 128 rows at least
        (0, 512, (1, 512)),
    ],
)
def test_the_rows_that_are_held_are_of_so_many_bytes(rows, width, held):
    side = Side([torch.ones(1, 1).expand(rows, width)])
    nothing = SimpleNamespace(sides=(side, side), device=torch.device("cpu"))
    found = both_ways._Search._rows(nothing), both_ways._Search._columns(nothing)
    assert found == held


def test_memory_that_runs_out_halves_the_block(monkeypatch, capsys):
    x, y, clips = search(7, "trained")
    expected = rank_both_ways(Side([x]), Side([y]), clips)
    compare, sizes = both_ways._Search._compare, []

    def scarce(self, start, stop):
        sizes.append(stop - start)
        compare(self, start, stop)  # counts are there when memory runs out
        if stop - start > 4:
            raise MemoryError

    monkeypatch.setattr(both_ways._Search, "_compare", scarce)
    found = rank_both_ways(Side([x]), Side([y]), clips, block=16)
    assert sizes[:3] == [16, 8, 4] and all(map(same, found, expected))
    assert "evaluation: 4 queries at a time from here on" in capsys.readouterr().err


def test_an_error_that_is_not_of_memory_is_raised(monkeypatch):
    x, y, clips = search(7, "trained")
    monkeypatch.setattr(both_ways, "count_true", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rank_both_ways(Side([x]), Side([y]), clips)


def test_a_side_is_the_mean_of_its_parts_at_their_places():
    generator = torch.Generator().manual_seed(0)
    texts, clips = torch.randn(6, 3, generator=generator), torch.randn(2, 3, generator=generator)
    of = torch.tensor([0, 0, 1, 1, 1, 0])
    side = Side([texts, clips], [None, of]).part(slice(1, 5))
    expected = torch.stack([texts, clips[of]]).mean(dim=0)[1:5]
    cpu = torch.device("cpu")
    assert side.block(0, 4, cpu).equal(expected)
    assert side.pick(torch.tensor([3, 0]), cpu).equal(expected[[3, 0]])
    assert Side([texts], [torch.arange(6)]).block(0, 6, cpu).data_ptr() == texts.data_ptr()


def test_pairs_are_all_rows_of_one_clip():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(5, (2, 30), generator=generator)
    rows, columns = pairs_of(x, y)
    expected = (x[:, None] == y).nonzero()
    found = sorted(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == [tuple(pair) for pair in expected.tolist()] and rows.equal(rows.sort()[0])


@pytest.mark.parametrize("shape", [(1, 8), (700, 16), (3, 4096), (5, 13), (0, 8)])
def test_flags_are_counted_eight_at_a_time(shape):
    flags = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.9
    for dim in (0, 1):
        assert count_true(flags, dim).equal(flags.sum(dim=dim))
        assert count_true(torch.ones_like(flags), dim).equal(torch.ones_like(flags).sum(dim=dim))
