"""Equal clips tie, and no order, block, thread or processor changes a rank."""

import contextlib
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusion.evaluation.ranking import (
    TOLERANCE,
    cosine_blocks,
    dot_products,
    ranks_of_pairs,
)
from fusion.evaluation.ranking.exact import GALLERY_BITS, QUERY_BITS, on_grid
from fusion.evaluation.rescoring import dual_softmax, qb_norm

WAYS = ["cosine", "dot", "dual_softmax", "qb_norm"]
always_the_same = settings(derandomize=True, deadline=None, database=None, max_examples=60)


@contextlib.contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def searches(draw, widths=(1, 2, 3, 8, 33, 300), ways=WAYS, noise=(0.0,)):
    """Queries, a gallery in which rows repeat, the clips of both, and a way to compare them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    size, width = draw(st.integers(1, 40)), draw(st.sampled_from(widths))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
    distinct = torch.randn(draw(st.integers(1, size)), width, generator=generator)
    distinct *= draw(st.sampled_from([1.0, 1e-3, 1e4]))
    if draw(st.booleans()):
        distinct *= torch.rand(len(distinct), 1, generator=generator) + 0.1  # lengths differ
    rows = distinct[torch.randint(len(distinct), (size,), generator=generator)].double()
    shift = torch.randn(size, width, generator=generator, dtype=torch.float64)
    shift = torch.nn.functional.normalize(shift, dim=1) * rows.norm(dim=1, keepdim=True)
    rows += draw(st.sampled_from(noise)) * shift
    queries = torch.randn(size, width, generator=generator)
    if draw(st.booleans()):
        queries = rows + 0.1 * queries  # a model that knows something
    clips = draw(st.integers(1, size))
    owners = torch.arange(size) % clips, torch.randperm(size, generator=generator) % clips
    owners = draw(st.sampled_from([None, owners]))
    return queries.to(dtype), rows.to(dtype), owners, draw(st.sampled_from(ways)), generator


def rank(queries, gallery, owners, way, block=None, bank=None):
    bank = queries if bank is None else bank
    rescore = {
        "cosine": lambda: None,
        "dot": lambda: dot_products(gallery),
        "dual_softmax": lambda: dual_softmax(queries, gallery, 100.0, block),
        "qb_norm": lambda: qb_norm(bank, gallery, 20.0, block),
    }[way]()
    return ranks_of_pairs(queries, gallery, block, owners, rescore)


def permuted(queries, gallery, owners, asked, searched):
    """Put queries and gallery into another order; ``owners`` say which rows belong together."""
    of_queries, of_gallery = owners or (torch.arange(len(queries)), torch.arange(len(gallery)))
    return queries[asked], gallery[searched], (of_queries[asked], of_gallery[searched])


@always_the_same
@given(searches(ways=["cosine", "dot"]))
def test_ranks_are_those_of_a_naive_loop_in_which_equal_rows_tie(search):
    queries, gallery, owners, way, _ = search
    asked, searched = owners or (np.arange(len(queries)), np.arange(len(gallery)))
    exact, rows = (x.double().numpy() for x in (queries, gallery))
    lengths = np.sqrt((rows**2).sum(axis=1))
    unit = 1.0 / lengths if way == "cosine" else np.ones(len(rows))
    ranks = []
    for query, clip in zip(exact, asked, strict=True):
        scores = [float((query / np.sqrt(query @ query)) @ row) for row in rows] * unit
        own = [i for i, other in enumerate(searched) if other == clip]
        best = max(own, key=lambda i: scores[i])
        slack = TOLERANCE * (lengths * unit)[best]
        distances = scores - scores[best]
        assume(not (abs(abs(distances) / slack - 1) < 0.25).any())  # at the edge of the tolerance
        ties = [abs(d) <= slack for i, d in enumerate(distances) if i not in own]
        ranks.append(1 + (distances > slack).sum() + sum(ties) / 2)
    assert rank(queries, gallery, owners, way).tolist() == ranks


@always_the_same
@given(searches(noise=[0.0, TOLERANCE]), st.sampled_from([1, 2, 7, 100]), st.sampled_from([1, 2]))
def test_no_order_block_or_thread_changes_a_rank(search, block, number):
    """Also where rows lie as far from one another as the tolerance."""
    *whole, way, generator = search
    expected = rank(*whole, way)
    asked, searched = (torch.randperm(len(x), generator=generator) for x in whole[:2])
    bank = whole[0][torch.randperm(len(whole[0]), generator=generator)]
    with threads(number):
        ranks = rank(*permuted(*whole, asked, searched), way, block, bank)
    assert ranks.tolist() == expected[asked.numpy()].tolist()


@settings(always_the_same, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    width=st.sampled_from([1, 2, 32, 512, 2048]),
    alike=st.sampled_from([0.0, 0.01, 1.0]),
    by_clip=st.booleans(),
)
def test_float32_and_exact_sums_where_needed_give_the_ranks_of_exact_cosines(
    seed, width, alike, by_clip
):
    """Also at the edge of the tolerance: four more rows for some pairs lie up to 2^-18 away."""
    generator = torch.Generator().manual_seed(seed)
    size, queries = 900, torch.randn(120, width, generator=generator)
    gallery = torch.randn(size, width, generator=generator)
    gallery[:120] = queries + torch.randn(120, width, generator=generator)
    noise = torch.randn(4, 120, width, generator=generator)
    noise *= gallery[:120].norm(dim=1, keepdim=True) / noise.norm(dim=2, keepdim=True)
    shift = torch.rand(4, 120, 1, generator=generator) * 2 * TOLERANCE * noise
    gallery[120:600] = (gallery[:120] + width**0.5 * shift).flatten(0, 1)
    same = torch.rand(size, generator=generator) < alike
    gallery[same] = gallery[0].clone()
    of_rows = torch.arange(size) % 300 if by_clip else torch.arange(size)
    owners = torch.arange(120), of_rows
    exact = ranks_of_pairs(queries, gallery, 50, owners, lambda s: (s, torch.tensor(TOLERANCE)))
    assert ranks_of_pairs(queries, gallery, 50, owners).tolist() == exact.tolist()


@pytest.mark.parametrize("way", WAYS)
@always_the_same
@given(st.data())
def test_clips_that_differ_as_batches_make_them_differ_tie(way, data):
    """All rows lie within 2^-20 of one another, as the docstring allows."""
    size, width = data.draw(st.integers(1, 30)), data.draw(st.sampled_from([2, 8, 300, 4096]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    same = torch.randn(width, generator=generator)
    noise = torch.nn.functional.normalize(torch.randn(size, width, generator=generator), dim=1)
    gallery = same + 0.45 * 2.0**-20 * same.norm() * noise
    queries = torch.randn(size, width, generator=generator)
    queries[::2] = gallery[::2] - same  # the worst: queries along the noise
    assert rank(queries, gallery, None, way).tolist() == [(size + 1) / 2] * size


@pytest.mark.parametrize("width", [1, 7, 256, 4096])
def test_sums_are_exact_so_that_their_order_does_not_matter(width):
    queries, gallery = torch.randn(2, 60, width, generator=torch.Generator().manual_seed(width))
    queries[:30] = gallery[:30]  # the largest sums
    integers = (on_grid(queries, QUERY_BITS).long(), on_grid(gallery, GALLERY_BITS).long())
    [cosines] = cosine_blocks(queries, gallery)
    assert cosines.equal((integers[0] @ integers[1].T).double() * 2.0**-52)


def test_cosines_are_the_same_bits_on_every_machine():
    numbers = torch.arange(2 * 150 * 97)
    queries, gallery = ((numbers * 7919 + 5) % 10007 - 5000).float().view(2, 150, 97)
    digest = hashlib.sha256()
    for cosines in cosine_blocks(queries, gallery, 64):
        digest.update(cosines.numpy().tobytes())
    assert digest.hexdigest()[:16] == "bcb3287dc25a1efd"


def test_cosines_are_those_of_float64_but_for_the_grid():
    queries, gallery = torch.randn(2, 50, 4096, generator=torch.Generator().manual_seed(0))
    unit = [torch.nn.functional.normalize(x.double(), dim=1) for x in (queries, gallery)]
    [cosines] = cosine_blocks(queries, gallery)
    # Rounding to multiples of 2^-24 moves a component by at most 2^-25 (Hoeffding: 8 deviations).
    torch.testing.assert_close(cosines, unit[0] @ unit[1].T, rtol=0, atol=8 * 2.0**-25)


def test_an_embedding_of_zeros_ties_with_all():
    gallery = torch.eye(4)
    queries = torch.eye(4)
    queries[2] = 0
    assert ranks_of_pairs(queries, gallery).tolist() == [1, 1, 2.5, 1]
