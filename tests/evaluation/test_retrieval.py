import pytest
import torch
from accelerate import Accelerator

from fusion.evaluation.embed import Embedded, average_parts, embed, keep_complete
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.models import EAO
from fusion.report import run_page
from fusion.report.tables import BY_COSINE, format_table
from fusion.tasks.retrieval.result import describe_evaluation
from tests.evaluation.naive import ranks_of_matrix

NAMES = ("text", "video", "audio")


class Mean(torch.nn.Module):
    """Embeds a combination as the mean of what its modalities' means are."""

    def forward(self, inputs, combinations=None):
        means = {}
        for name, tokens in inputs.items():
            padded, mask = tokens.pad(max(tokens.longest, 1))
            means[name[0]] = padded.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        chosen = combinations or ["t", "v", "a", "tv", "ta", "va"]
        return {c: torch.stack([means[x] for x in c]).mean(dim=0) for c in chosen}


def clips(count, missing=()):
    generator = torch.Generator().manual_seed(0)
    items = []
    for i in range(count):
        center = torch.randn(5, generator=generator)
        item = {"id": f"clip{i}"}
        for name in NAMES:
            length = 0 if (i, name) in missing else 1 + i % 3
            item[name] = center + 0.01 * torch.randn(length, 5, generator=generator)
        items.append(item)
    return items


def run(count=7, missing=(), batch_size=3):
    return embed(Mean(), clips(count, missing), Accelerator(cpu=True), batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_clip_is_embedded_once_in_the_order_of_the_data(batch_size):
    embedded = run(batch_size=batch_size)
    assert embedded.ids == tuple(f"clip{i}" for i in range(7))
    torch.testing.assert_close(embedded.embeddings["va"], run(batch_size=7).embeddings["va"])


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_the_same_clip_ties_with_itself_in_whatever_batch_it_is(batch_size):
    """Eight clips, each three times; a batch of another size rounds otherwise."""
    torch.manual_seed(0)
    modalities = {"text": {"dim": 12}, "video": {"dim": 200}, "audio": {"dim": 40}}
    model = EAO(modalities, ["t", "v", "va"], token_dim=128, embedding_dim=192, num_heads=2)
    lengths = {"text": 5, "video": 3, "audio": 2}
    distinct = [
        {m: torch.randn(lengths[m], modalities[m]["dim"]) for m in modalities} for _ in range(8)
    ]
    items = [distinct[i % 8] | {"id": str(i)} for i in torch.randperm(24).tolist()]
    embedded = embed(model, items, Accelerator(cpu=True), batch_size)
    whole = embed(model, sorted(items, key=lambda i: int(i["id"])), Accelerator(cpu=True))
    for name, ranked in rank_directions(embedded).items():
        ranks = dict(zip(map(int, embedded.ids), ranked.ranks, strict=True))
        assert [ranks[i] for i in range(24)] == [ranks[i % 8] for i in range(24)]
        assert [ranks[i] for i in range(24)] == rank_directions(whole)[name].ranks.tolist()
        assert all(rank == int(rank) for rank in ranks.values())  # two others tie


def test_perfect_embeddings_give_a_perfect_table_in_all_directions():
    embedded = run()
    table = retrieval_table(rank_directions(embedded), 7)
    assert len(table) == 18
    assert all(row["R@1"] == 100 for row in table.values())


def test_clips_without_a_side_are_left_out_and_count_as_misses():
    embedded = run(missing={(2, "audio"), (4, "video"), (4, "audio")})
    ranked = rank_directions(embedded)
    assert ranked["t->a"][1].tolist() == [0, 1, 3, 5, 6]
    assert ranked["t->va"][1].tolist() == [0, 1, 2, 3, 5, 6]  # 2 still has its picture
    table = retrieval_table(ranked, 7)
    assert table["t->a"]["R@1"] == pytest.approx(100 * 5 / 7)
    assert table["t->a"]["gallery"] == 5
    assert table["t->a"]["MedR"] == 1


def test_a_gallery_of_those_with_sound_counts_the_others_as_misses():
    """As MSR-VTT's 968 clips over 1000: also where sound is neither asked nor found."""
    embedded = run(missing={(2, "audio"), (4, "audio")})
    gallery = keep_complete(embedded, ["audio"])
    assert gallery.ids == tuple(embedded.ids[i] for i in (0, 1, 3, 5, 6))
    table = retrieval_table(rank_directions(gallery), 7)
    assert table["t->v"]["gallery"] == 5
    assert table["t->v"]["R@1"] == pytest.approx(100 * 5 / 7)
    result = describe_evaluation("test", "five of seven", gallery, table, None, 7)
    assert "5 clips in the gallery, 7 counted" in format_table(result)
    assert result["chance"]["R@1"] == pytest.approx(100 / 7)


def test_parts_of_a_clip_are_averaged_over_those_that_say_something():
    rows = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 1.0]])
    present = {
        "text": torch.tensor([True, True, False, False]),
        "video": torch.tensor([True, False, True, True]),
    }
    parts = Embedded(("x", "x", "x", "y"), {"t": rows, "v": rows, "tv": rows}, present)
    whole = average_parts(parts, [0, 0, 0, 1])
    assert whole.ids == ("x", "y")
    assert whole.embeddings["t"].tolist() == [[2.0, 1.0], [0.0, 0.0]]
    assert whole.embeddings["v"].tolist() == [[3.0, 2.5], [7.0, 1.0]]
    assert whole.embeddings["tv"].tolist() == [[3.0, pytest.approx(7 / 3)], [7.0, 1.0]]
    assert {m: flags.tolist() for m, flags in whole.present.items()} == {
        "text": [True, False],
        "video": [True, True],
    }


def test_a_model_without_pairs_gets_the_directions_that_it_can():
    embeddings = {c: torch.eye(3) for c in "tva"}
    embedded = Embedded(("x", "y", "z"), embeddings, {n: torch.ones(3).bool() for n in NAMES})
    assert len(rank_directions(embedded)) == 6 + 6


def test_a_modality_that_no_clip_has_leaves_its_directions_out():
    embedded = run(missing={(i, "audio") for i in range(7)})
    table = retrieval_table(rank_directions(embedded), 7)
    assert "t->a" not in table
    assert "t->v" in table


def test_the_table_says_what_it_is_of():
    embedded = run(missing={(2, "audio")})
    table = retrieval_table(rank_directions(embedded), 7)
    result = describe_evaluation("test", "all clips", embedded, table, {"t->v": {"R@1": 88.0}}, 7)
    assert result["clips"]["missing"] == {"text": 0, "video": 0, "audio": 1}
    text = format_table(result)
    for part in ["all clips", "7 clips", "1 without audio", "t->v+a", "chance", "14.3", "88.0"]:
        assert part in text


def test_dot_products_count_lengths_and_cosines_do_not():
    """A long vector wins by its length; by cosine every clip finds itself."""
    text = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    video = torch.tensor([[1.0, 0.2], [2.0, 10.0]])
    present = {m: torch.ones(2, dtype=torch.bool) for m in ("text", "video")}
    embedded = Embedded(("a", "b"), {"t": text, "v": video}, present, similarity="dot")
    assert rank_directions(embedded)["t->v"].ranks.tolist() == [2, 1]
    assert rank_directions(embedded.by_cosine())["t->v"].ranks.tolist() == [1, 1]


def test_late_averages_of_dot_products_are_sums():
    generator = torch.Generator().manual_seed(0)
    t, v, a = (
        torch.randn(3, 30, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.5])[:, None, None]
    )
    present = {m: torch.ones(30, dtype=torch.bool) for m in ("text", "video", "audio")}
    names = tuple(map(str, range(30)))
    embedded = Embedded(names, {"t": t, "v": v, "a": a}, present, similarity="dot")
    ranks = rank_directions(embedded)["t->v+a"].ranks
    assert ranks.tolist() == ranks_of_matrix(t @ (v + a).T)
    units = [torch.nn.functional.normalize(x, dim=-1) for x in (t, v, a)]
    by_cosine = rank_directions(embedded.by_cosine())["t->v+a"].ranks
    late = torch.nn.functional.normalize(units[1] + units[2], dim=-1)
    assert by_cosine.tolist() == ranks_of_matrix(units[0] @ late.T)
    assert by_cosine.tolist() != ranks.tolist()


def test_a_table_of_dot_products_has_that_of_cosines_beside_it():
    present = {m: torch.ones(2, dtype=torch.bool) for m in ("text", "video")}
    text = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    video = torch.tensor([[1.0, 0.2], [2.0, 10.0]])
    embedded = Embedded(("a", "b"), {"t": text, "v": video}, present, similarity="dot")
    table, cosine = (
        retrieval_table(rank_directions(one), 2) for one in (embedded, embedded.by_cosine())
    )
    result = describe_evaluation("test", "all", embedded, table, None, 2, by_cosine=cosine)
    assert (result["directions"]["t->v"]["R@1"], result["by_cosine"]["t->v"]["R@1"]) == (50, 100)
    above, below = format_table(result).split(BY_COSINE)
    assert "compared  by dot product" in above
    assert "t->v   50.0" in above and "t->v  100.0" in below


def test_a_table_shows_ties_broken_at_random_only_where_they_change_a_recall():
    present = {m: torch.ones(98, dtype=torch.bool) for m in ("text", "video")}
    names = tuple(map(str, range(98)))
    clips = torch.randn(98, 8, generator=torch.Generator().manual_seed(0))
    for video, shown in [(torch.ones(98, 8), True), (clips, False)]:
        embedded = Embedded(names, {"t": clips, "v": video}, present)
        table = retrieval_table(rank_directions(embedded), 98)
        result = describe_evaluation("test", "all", embedded, table, None, 98)
        assert ("if ties are broken at random" in format_table(result)) is shown
        assert ("if ties are broken at random" in str(section_of(result))) is shown
        plain = {name: table["t->v"][name] for name in ("R@1", "R@5", "R@10", "R@50")}
        if shown:
            assert plain == {"R@1": 0, "R@5": 0, "R@10": 0, "R@50": 100}
            assert "t->v  1.0  5.1  10.2  51.0" in format_table(result)
        else:
            assert table["t->v"]["expected"] == pytest.approx(plain)


def section_of(result):
    """Write the part of a report that shows a result."""
    return run_page._result(result)
