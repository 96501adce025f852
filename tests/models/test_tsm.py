"""What TSM promises: padding does not matter, streams equal films, chunks and groups are exact."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fusion.models import TSM
from fusion.models.batchnorm import batch_granularity, no_update, one_update
from fusion.models.tsm import shift, temporal_pool
from fusion.models.video.frame_encoder import TSMEncoder
from fusion.tokens import Tokens

SMALL = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 16, 16]}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 1, 0]]).bool()
NETWORKS = (SMALL, "test_resnet", "mobilenetv2_035")


def make(network=SMALL, num_classes=3, dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = TSM(network, num_classes, **{"dropout": 0.0} | options).to(dtype)
    for norm in model.modules():  # otherwise the last one of a block is zero: a block does nothing
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    if model.classifier is not None:
        torch.nn.init.normal_(model.classifier.weight)
    return model


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def frames(clips=4, count=5):
    return draw(clips, count, 3, 32, 32)


def spoil(x, mask=MASK):
    """Fill padding with what would show wherever it leaks."""
    return x.masked_fill(~mask[:, :, None, None, None], torch.nan)


def shift_by_hand(x, shift_div, causal, mask):
    """The definition, one value at a time."""
    clips, count, channels = x.shape[:3]
    fold, y = channels // shift_div, torch.zeros_like(x)
    for b, t, c in itertools.product(range(clips), range(count), range(channels)):
        step = 0
        if c < fold:
            step = -1 if causal else 1
        elif c < 2 * fold and not causal:
            step = -1
        source = t + step
        if mask[b, t] and 0 <= source < count and mask[b, source]:
            y[b, t, c] = x[b, source, c]
    return y


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shift_div", [2, 3, 8])
def test_shift_is_its_definition(shift_div, causal):
    x = draw(4, 5, 9, 2, 1)
    given = spoil(x).requires_grad_()
    y = shift(given, shift_div, causal, MASK)
    plain = x.clone().requires_grad_()
    expected = shift_by_hand(plain, shift_div, causal, MASK)
    assert y.equal(expected)
    weights = draw(*y.shape)
    (ours,) = torch.autograd.grad((y * weights).sum(), given)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), plain)
    assert ours.equal(theirs)


def test_temporal_pool_of_padded_clips_is_that_of_each_clip():
    x = draw(4, 5, 2, 1, 1)
    pooled = temporal_pool(spoil(x), MASK)
    assert pooled[0].equal(temporal_pool(x[:1])[0])
    assert pooled[1, :2].equal(temporal_pool(x[1:2, :3])[0])
    assert not pooled[1, 2:].any() and not pooled[2].any()


OPTIONS = (
    {},
    {"causal": True},
    {"shift_place": "block"},
    {"temporal_pool": True},
    {"non_local": True, "network": {**SMALL, "layers": [1, 2, 3, 1]}},
)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_padding_never_leaks(options, training):
    """Not through the shift, pooling or attention, nor through the statistics of BatchNorm."""
    x, mask = frames(), MASK[:2]
    x, spoilt = x[:2], spoil(x[:2], mask)
    model, other = make(**options).train(training), make(**options).train(training)
    y = model(spoilt, mask)
    if training:  # no batch of these clips without padding exists, but one with other padding
        expected = other(torch.cat([spoilt, spoilt], dim=1), torch.cat([mask, ~mask & mask], dim=1))
    else:
        expected = torch.cat([other(x[:1]), other(x[1:, :3])])
    torch.testing.assert_close(y, expected)
    gradients = [
        torch.autograd.grad(z.square().sum(), [*m.parameters()], allow_unused=True)
        for z, m in ((y, model), (expected, other))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_statistics_are_of_real_frames_alone():
    model, x = make(), frames()
    seen = []
    model.net.timm.conv1.register_forward_hook(lambda *args: seen.append(args[-1].detach()))
    model.train()(spoil(x), MASK)
    norm = model.net.timm.bn1
    before = make().net.timm.bn1.running_mean
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * seen[0].mean(dim=(0, 2, 3)))
    assert len(seen[0]) == MASK.sum()


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_stream_gives_what_the_film_gives(network):
    model, x = make(network, causal=True).eval(), frames(2, 6)
    stream = model.stream()
    parts = []
    for frame in x.unbind(dim=1):
        logits = stream.step(frame)
        parts.append((logits, stream.features))
        assert stream.seconds > 0
    logits, features = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
    torch.testing.assert_close(logits, model.frame_logits(x))
    torch.testing.assert_close(features, model.features(x))
    torch.testing.assert_close(logits.mean(dim=1), model(x))
    later = x.clone()
    later[:, 4:] += 1
    torch.testing.assert_close(model.frame_logits(later)[:, :4], logits[:, :4])
    assert not torch.allclose(model.frame_logits(later)[:, 4:], logits[:, 4:])


def test_a_stream_keeps_the_same_memory():
    stream, sizes = make(causal=True).eval().stream(), set()
    for frame in frames(1, 4).unbind(dim=1):
        stream.step(frame)
        sizes.add(sum(x.untyped_storage().nbytes() for x in stream.frames.caches.values()))
    assert sizes == {8 * (1 * 64 + 1 * 64 + 1 * 16 + 2 * 4)}  # channels x pixels of each block
    with pytest.raises(
        ValueError, match=r"keep their shape \[1, 3, 32, 32\]; got \[2, 3, 32, 32\]"
    ):
        stream.step(frames(2, 1)[:, 0])


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_order_of_frames_matters_only_with_shift(network):
    x = frames(2, 4)
    for shifts in (True, False):
        model = make(network, shift=shifts).eval()
        same = torch.allclose(model(x), model(x.flip(1)))
        assert same != shifts


def test_every_second_block_is_an_option():
    network = {**SMALL, "layers": [2, 3, 1, 1]}
    numbers = {}
    for every in (None, False, True):
        model = make(network, every_second_block=every)
        numbers[every] = sum(n.endswith("conv1.shift") for n, _ in model.named_modules())
    assert numbers == {None: 7, False: 7, True: 5}


def gradients_of(model, chunks):
    with one_update(model):
        for part, mask in chunks:
            model(part, mask).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}, dict(model.named_buffers())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("setting", [{"batchnorm_group": 2}, {"batchnorm_frozen": True}], ids=str)
def test_a_cut_between_groups_changes_nothing(setting, checkpointing):
    x, mask = frames(8), torch.cat([MASK, MASK.flip(0)])
    whole, cut = make(**setting), make(**setting, checkpointing=checkpointing)
    assert batch_granularity(cut) == setting.get("batchnorm_group", 1)
    expected = gradients_of(whole, [(x, mask)])
    found = gradients_of(cut, zip(x.split(2), mask.split(2), strict=True))
    torch.testing.assert_close(found, expected)
    moved = not whole.net.timm.bn1.running_mean.equal(make().net.timm.bn1.running_mean)
    assert moved != ("batchnorm_frozen" in setting)


def test_a_group_without_frames_counts_as_one_that_moves_no_statistics():
    """So that the average over ranks is the same wherever such a group is."""
    begun = make(batchnorm_group=2).net.timm.bn1.running_mean
    alone, both = make(batchnorm_group=2), make(batchnorm_group=2)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2:] = False
    alone(frames()[:2])
    logits = both(frames(), mask)
    logits.sum().backward()
    assert not logits.isnan().any() and not logits[2:].any()
    means = [model.net.timm.bn1.running_mean - begun for model in (alone, both)]
    torch.testing.assert_close(means[1], means[0] / 2)


def test_what_is_computed_again_does_not_count_twice():
    model = make(checkpointing=True)
    norm = model.net.timm.bn1
    model(frames(2)).sum().backward()
    assert norm.num_batches_tracked == 1
    loss = model(frames(2)).sum()
    with no_update(model):  # as in the second pass of a step in chunks
        loss.backward()
        assert norm.ignores and norm.num_batches_tracked == 2


def test_checkpointing_keeps_less():
    def kept(**options):
        sizes = {}

        def keep(x):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            make(**options)(frames(2)).sum()
        return sum(sizes.values())

    assert kept(checkpointing=True) < kept() / 3


def test_dropout_depends_on_the_clip_alone():
    model, x, seeds = make(dropout=0.5, batchnorm_frozen=True), frames(), torch.arange(4)
    together = model(x, seeds=seeds)
    alone = torch.cat([model(x[i : i + 1], seeds=seeds[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(model(x, seeds=seeds + 1), together)


def test_whole_numbers_are_normalised_on_the_way():
    model = make("test_resnet").eval()
    pixels = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model(pixels), model((pixels.double() / 255 - 0.5) / 0.5))


def test_a_clip_without_frames_has_zeros():
    model = make().eval()
    assert not model(frames(), MASK)[2].any()
    assert not model.features(frames(), MASK)[2].any()


@pytest.mark.parametrize("options", [{}, {"temporal_pool": True}], ids=str)
def test_the_encoder_gives_a_token_for_each_frame(options):
    encoder = TSMEncoder(SMALL, **options).double().eval()
    x, lengths = frames(), [5, 3, 0, 1]
    tokens = encoder(Tokens.pack([clip[:n] for clip, n in zip(x, lengths, strict=True)]))
    alone = [encoder.tsm.features(x[i : i + 1, :n])[0] for i, n in enumerate(lengths) if n]
    torch.testing.assert_close(tokens.values, torch.cat(alone))
    expected = [-(-n // 2) for n in lengths] if options else lengths
    assert tokens.lengths.tolist() == tokens.host_lengths.tolist() == expected


def test_the_encoder_of_a_batch_without_frames_gives_none():
    encoder = TSMEncoder(SMALL, batchnorm_group=2).double()
    tokens = encoder(Tokens.pack([torch.zeros(0, 3, 32, 32, dtype=torch.uint8)] * 2))
    assert tokens.values.shape == (0, 16) and tokens.lengths.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet51"}, r"timm has no model 'resnet51'; did you mean resnet51q"),
        ({"network": "vit_tiny_patch16_224"}, "TSM needs a ResNet of timm or mobilenetv2_"),
        ({"network": {"block": "basic"}}, "or a mapping of block, layers and widths"),
        ({"network": {**SMALL, "block": "b"}}, r"network.block must be one of \['basic', 'bottle"),
        ({"network": {**SMALL, "layers": [1]}}, "network.layers and network.widths need 4 numbers"),
        ({"shift_place": "inside"}, r"shift_place must be one of \['blockres', 'block'\]"),
        ({"shift_div": 1}, "shift_div must be a number from 2 on; got 1"),
        ({"causal": True, "non_local": True}, "causal and non_local contradict each other"),
        ({"causal": True, "temporal_pool": True}, "causal and temporal_pool contradict each other"),
        ({"batchnorm_group": 0}, "batchnorm_group must be a number from 1 on; got 0"),
        ({"network": "mobilenetv2_035", "non_local": True}, "non_local: true needs a ResNet"),
    ],
    ids=str,
)
def test_a_contradiction_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        TSM(**{"network": SMALL} | options)


def test_misuse_is_explained():
    with pytest.raises(ValueError, match="only a causal network can be streamed"):
        make().stream()
    with pytest.raises(
        ValueError, match=r"a value for each of \[4, 5\] frames; its shape is \[4\]"
    ):
        make()(frames(), MASK[:, 0])
    with pytest.raises(ValueError, match="an encoder of frames has no pretrained"):
        TSMEncoder(SMALL, pretrained=True)


def test_logits_are_the_mean_over_real_frames():
    model = make().eval()
    logits = model.frame_logits(frames(), MASK)
    expected = torch.stack([x[m].mean(dim=0) for x, m in zip(logits, MASK, strict=True)])
    torch.testing.assert_close(model(frames(), MASK), expected.nan_to_num())
    vectors = make(num_classes=None).eval()(frames(), MASK)
    assert vectors.shape == (4, model.num_features)
    assert F.linear(vectors, model.classifier.weight).shape == logits[:, 0].shape
