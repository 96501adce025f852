"""The classifier around TSM: crops, views, seeds, missing films, predictions over time."""

import pytest
import torch

from fusion.models.batchnorm import GroupedBatchNorm, one_update
from fusion.models.classifier import CLASSES, VideoClassifier
from fusion.models.frame_transforms import Box, crop_for_test, crop_for_training, cut, draw_box
from fusion.tokens import Tokens

NETWORK = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 8]}


def classifier(**changes):
    torch.manual_seed(0)
    given = {"num_classes": 3, "crop_size": 32, "crop_scales": [0.9], "dropout": 0.0} | changes
    model = VideoClassifier(NETWORK, **given)
    torch.nn.init.normal_(model.tsm.classifier.weight)
    for module in model.modules():  # timm begins the last of each block with 0
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return model


def films(lengths=(4, 4, 4), side=36, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
        for n in lengths
    ]


def packed(clips):
    return {"video": Tokens.pack(clips)}


def test_a_training_crop_belongs_to_the_seed_of_the_film():
    model, clips, seeds = classifier(batchnorm_frozen=True).train(), films(), torch.arange(3)
    together = model(packed(clips), seeds)[CLASSES]
    turned = model(packed(clips[::-1]), seeds.flip(0))[CLASSES].flip(0)
    torch.testing.assert_close(turned, together)
    other = model(packed(clips), seeds + 5)[CLASSES]
    assert not torch.allclose(other, together)


def test_crops_of_several_sizes_in_one_call_are_those_of_single_clips():
    clips = torch.stack(films((4,) * 6, side=40))
    seeds = torch.arange(6) * 977
    together = crop_for_training(clips, 24, (1.0, 0.8, 0.6), True, seeds)
    boxes = [draw_box(40, 40, 24, (1.0, 0.8, 0.6), True, seed) for seed in seeds.tolist()]
    assert len({(box.height, box.width) for box in boxes}) > 2
    assert {box.mirrored for box in boxes} == {True, False}
    for clip, box, got in zip(clips, boxes, together, strict=True):
        part = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
        if box.mirrored:
            part = part.flip(-1)
        plain = torch.nn.functional.interpolate(
            part.float(), (24, 24), mode="bilinear", antialias=True
        )
        assert (got.float() - plain).abs().max() <= 0.51  # rounded to whole numbers


def test_a_box_of_the_right_size_is_cut_and_not_scaled():
    clips = torch.stack(films((2, 2)))
    got = cut(clips, 20, [Box(1, 2, 20, 20), Box(3, 0, 20, 20, True)])
    assert got[0].equal(clips[0, :, :, 1:21, 2:22])
    assert got[1].equal(clips[1, :, :, 3:23, 0:20].flip(-1))


def test_sides_of_boxes_are_the_published_ones():
    boxes = [draw_box(256, 340, 224, (1.0, 0.875, 0.75, 0.66), False, seed) for seed in range(300)]
    sides = {(box.height, box.width) for box in boxes}
    own = [256, 224, 192, 168]  # 0.66 * 256 is 168.96
    assert sides == {(h, w) for i, h in enumerate(own) for j, w in enumerate(own) if abs(i - j) < 2}
    assert all(0 <= b.top <= 256 - b.height and 0 <= b.left <= 340 - b.width for b in boxes)
    assert not any(box.mirrored for box in boxes)


def test_three_crops_lie_along_the_longer_side():
    frames = torch.arange(10).expand(1, 1, 3, 6, 10)
    assert [crop[0, 0, 0, 0].tolist() for crop in crop_for_test(frames, 4, 3)] == [
        [0, 1, 2, 3, 4, 5],
        [2, 3, 4, 5, 6, 7],
        [4, 5, 6, 7, 8, 9],
    ]
    tall = crop_for_test(frames.mT, 4, 3)
    assert [crop[0, 0, 0, :, 0].tolist()[0] for crop in tall] == [0, 2, 4]
    (middle,) = crop_for_test(frames, 4, 1)
    assert middle[0, 0, 0, 0].tolist() == [3, 4, 5, 6]


def test_several_clips_and_crops_are_averaged():
    model, clips = classifier().eval(), films((12, 12))
    with model.viewing(3, 3):
        got = model(packed(clips))[CLASSES]
    expected = torch.zeros(2, 3)
    for part in range(3):
        frames = torch.stack(clips)[:, 4 * part : 4 * part + 4]
        for crop in crop_for_test(frames, 32, 3):
            expected += model.tsm(crop) / 9
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, model(packed(clips))[CLASSES])  # one clip of 12 frames


@pytest.mark.parametrize("training", [False, True])
def test_a_film_that_cannot_be_read_gets_zeros_and_changes_no_other(training):
    model = classifier(batchnorm_frozen=True).train(training)
    seeds = torch.arange(3)
    clips = films((4, 0, 4))
    got = model(packed(clips), seeds)[CLASSES]
    alone = model(packed([clips[0], clips[2]]), seeds[[0, 2]])[CLASSES]
    assert not got[1].any()
    torch.testing.assert_close(got[[0, 2]], alone)
    nothing = model(packed(films((0, 0))), seeds[:2])[CLASSES]
    assert nothing.shape == (2, 3) and not nothing.any() and nothing.requires_grad


@pytest.mark.parametrize("more", [{}, {"non_local": True, "checkpointing": True}])
def test_running_statistics_do_not_depend_on_the_chunks_of_films_that_cannot_be_read(more):
    clips, seeds, found = films((4, 0)), torch.arange(2), []
    for chunk in (1, 2):
        model = classifier(batchnorm_group=1, **more).train()
        with one_update(model):
            for i in range(0, 2, chunk):
                out = model(packed(clips[i : i + chunk]), seeds[i : i + chunk])[CLASSES]
                out.sum().backward()
        norms = [m for m in model.modules() if isinstance(m, GroupedBatchNorm)]
        found.append([(m.running_mean, m.running_var) for m in norms])
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert any(mean.abs().max() > 0.01 for mean, _ in found[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_causal_network_says_over_time_what_it_says_of_the_beginning():
    model, (clip,) = classifier(causal=True).eval(), films((6,))
    over_time = model.over_time(packed([clip]))[0]
    for seen in (1, 3, 6):
        torch.testing.assert_close(over_time[seen - 1], model(packed([clip[:seen]]))[CLASSES][0])
    ahead = classifier().eval()
    assert not torch.allclose(
        ahead.over_time(packed([clip]))[0, 2], ahead(packed([clip[:3]]))[CLASSES][0]
    )


@pytest.mark.parametrize("change", [{"crop_size": 0}, {"crop_scales": []}, {"crop_scales": [1.5]}])
def test_impossible_crops_are_explained(change):
    with pytest.raises(ValueError, match="crop_size must be pixels"):
        classifier(**change)
