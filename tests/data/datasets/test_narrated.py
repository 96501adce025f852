"""Clips of narrated videos whose features cannot be read: counted, named, replaced."""

import pytest
import torch
from torch.utils.data import DataLoader

from fusion.data.datasets.howto100m import HowTo100M
from tests.data.datasets.test_howto100m import VIDEOS, own_cache, root, words  # noqa: F401 (fixtures)


def remove(root, pattern):  # noqa: F811
    for file in (root / "howto").rglob(pattern):
        file.unlink()


def load(clips, num_workers):
    loader = DataLoader(
        clips,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="fork" if num_workers else None,
    )
    return [clip["id"] for clip in loader]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_clip_counts_once_whatever_it_lacks(root, num_workers):  # noqa: F811
    remove(root, "aaa_*")  # 2D, 3D and sound of a video with 10 of the 30 clips
    clips = HowTo100M(str(root), max_bad=1.0).clips("train", words)
    for epoch in (1, 2):
        load(clips, num_workers)
        assert clips.unreadable.totals == (30 * epoch, 10 * epoch, 3)
    # Two processes that add to one number lose some of what they add.
    assert bool(clips.unreadable._clips[0].any()) == (num_workers == 0)


def test_each_file_is_named_once_and_the_totals_at_the_end_of_an_epoch(root, caplog):  # noqa: F811
    remove(root, "*_3d.npz")
    (root / "howto" / "audio_features" / "cars" / "ccc" / "ccc_spec.npz").write_bytes(b"x" * 99)
    clips = HowTo100M(str(root), max_bad=1.0).clips("train", words)
    load(clips, 0)
    named = [record.getMessage() for record in caplog.records if "taken" in record.getMessage()]
    assert len(named) == 4
    for file in ("aaa_3d", "bbb_3d", "ccc_3d", "ccc_spec"):
        assert sum(file in message for message in named) == 1
    clips.end_epoch()
    assert "so far 30 of 30 clips (1e+02 %) had features that could not" in caplog.text
    assert "in 4 files" in caplog.text


def test_an_epoch_without_a_problem_ends_in_silence(root, caplog):  # noqa: F811
    clips = HowTo100M(str(root)).clips("train", words)
    load(clips, 0)
    caplog.clear()
    clips.end_epoch()
    assert not caplog.text


def test_a_clip_that_is_left_out_is_replaced_by_one_of_the_next_video(root):  # noqa: F811
    remove(root, "aaa_3d.npz")
    remove(root, "ccc_spec.npz")
    clips = HowTo100M(str(root), bad="leave_out", max_bad=1.0).clips("train", words)
    names = load(clips, 0)
    assert len(names) == 30
    assert {name.split("@")[0] for name in names} == {"food/bbb"}
    assert clips.unreadable.totals == (30, 20, 2)
    assert names == load(clips, 2)
    missing = HowTo100M(str(root), bad="missing", max_bad=1.0).clips("train", words)
    assert {name.split("@")[0] for name in load(missing, 0)} == set(VIDEOS)


def test_where_every_clip_is_left_out_the_run_ends(root):  # noqa: F811
    remove(root, "*_3d.npz")
    clips = HowTo100M(str(root), bad="leave_out").clips("train", words)
    with pytest.raises(ValueError, match="10 videos in a row, from 'food/aaa' on, .* left out"):
        clips[0]


def test_the_limit_is_a_share_of_clips(root):  # noqa: F811
    """A third of the clips lacks three files each: that is no share of 1."""
    remove(root, "aaa_*")
    for limit in (0.3, 0.4):
        clips = HowTo100M(str(root), max_bad=limit).clips("train", words)
        clips.unreadable._clips[5] = torch.tensor([990, 330])  # by another worker
        if limit == 0.3:
            with pytest.raises(ValueError, match=r"of 10[0-9]+ clips .*max_bad \(0.3\)"):
                load(clips, 0)
        else:
            load(clips, 0)


def test_an_unknown_policy_is_refused(root):  # noqa: F811
    with pytest.raises(ValueError, match="data.bad: unknown 'zeros'; choose from missing"):
        HowTo100M(str(root), bad="zeros")
