import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fusion.models.image_encoders import Places, SmallCNN, StandardisedConv, TimmImage
from fusion.tokens import Tokens


def pictures(*counts, side=32):
    torch.manual_seed(0)
    return Tokens.pack(
        [torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8) for n in counts]
    )


def test_resnet_50_has_its_published_map_and_names():
    with torch.device("meta"):
        encoder = TimmImage("resnet50", weights=None)
    assert encoder.out_dim == 2048
    names = dict(encoder.net.named_parameters())
    assert names["conv1.weight"].shape == (64, 3, 7, 7)
    assert names["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert not any(name.startswith("fc") for name in names)
    maps = encoder.feature_map(torch.empty(2, 3, 224, 224, device="meta"))
    assert maps.shape == (2, 2048, 7, 7)


@pytest.mark.parametrize(
    ("name", "side", "count", "dim"),
    [
        ("resnet18", 64, 4, 512),
        ("test_vit", 160, 100, 64),
        ("swin_tiny_patch4_window7_224", 0, 49, 768),
    ],
)
def test_any_network_of_timm_gives_a_token_for_each_cell(name, side, count, dim):
    if not side:  # large: shapes alone
        with torch.device("meta"):
            encoder = TimmImage(name, weights=None)
        maps = encoder.feature_map(torch.empty(1, 3, 224, 224, device="meta"))
        assert (maps.shape[1], maps.shape[2] * maps.shape[3]) == (dim, count)
        return
    encoder = TimmImage(name, weights=None)
    tokens = encoder(pictures(1, 0, side=side))
    assert tokens.values.shape == (count, dim) and encoder.out_dim == dim
    assert tokens.lengths.tolist() == tokens.host_lengths.tolist() == [count, 0]


def test_frozen_weights_get_no_gradient_and_trained_ones_do():
    for train in (False, True):
        encoder = TimmImage("resnet18", weights=None, train=train).train()
        encoder(pictures(2, side=32)).values.sum().backward()
        assert (encoder.net.conv1.weight.grad is not None) == train
        assert encoder.places.project.weight.grad is not None
        assert not any(module.training for module in encoder.net.modules())


@pytest.mark.parametrize("make", [SmallCNN, lambda: TimmImage("resnet18", weights=None)])
def test_an_image_does_not_depend_on_its_batch(make):
    encoder, given = make().double().train(), pictures(1, 1, 1, side=32)
    whole = encoder(given)
    alone = torch.cat([encoder(given.part(i, i + 1)).values for i in range(3)])
    assert_close(whole.values, alone, atol=1e-10, rtol=0)  # sums in another order


def test_the_image_of_several_questions_is_encoded_once_with_the_same_gradient():
    encoder, images = SmallCNN((4, 8)).double(), pictures(1, 1, 0, 1, side=16)
    order = torch.tensor([0, 0, 0, 1, 2, 2, 0])
    counts = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1])
    asked = Tokens(images.values[order], counts, counts)
    seen = []
    encoder.net.register_forward_hook(lambda net, given, output: seen.append(len(output)))
    weights = torch.randn(7 * 16, 8, dtype=torch.float64)

    def gradients(values):
        encoder.zero_grad()
        (values * weights).sum().backward()
        return [p.grad.clone() for p in encoder.parameters()]

    values = encoder(asked).values
    once = gradients(values)
    one = torch.ones(1, dtype=torch.int64)
    plain = torch.cat([encoder(Tokens(asked.values[[i]], one, one)).values for i in range(7)])
    assert seen == [4] + 7 * [1]  # 0 again at the end is no neighbour of the first ones
    assert_close(values, plain)
    assert_close(once, gradients(plain))


def test_filters_have_mean_zero_and_the_length_of_their_gain():
    conv = StandardisedConv(3, 5).double()
    with torch.no_grad():
        conv.gain.copy_(torch.arange(1.0, 6).view(5, 1, 1, 1))
    maps = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    filters = conv.weight.flatten(1)
    filters = filters - filters.mean(dim=1, keepdim=True)
    filters = (
        torch.arange(1.0, 6, dtype=torch.float64)[:, None] * filters / filters.norm(dim=1)[:, None]
    )
    expected = torch.nn.functional.conv2d(maps, filters.view_as(conv.weight), padding=1)
    assert_close(conv(maps), expected, rtol=1e-5, atol=0)  # 1e-6 is added to squared lengths


def test_after_each_relu_the_variance_is_about_one():
    torch.manual_seed(0)
    maps = torch.randn(8, 16, 32, 32)
    for _ in range(4):
        maps = StandardisedConv(16, 16)(maps).relu()
        # Inputs that are positive and alike within a map move it; 27 to 144 weights average it.
        assert 0.4 < maps.var(dim=(0, 2, 3)).mean() < 2.5


def test_places_tell_rows_from_columns():
    places = Places(3)
    added = places(torch.zeros(1, 4, 6, 3))[0]
    assert len({tuple(row) for row in added.flatten(0, 1).tolist()}) == 24
    assert not torch.allclose(added[0, 1], added[1, 0])


def test_pixels_are_normalised_by_the_numbers_of_the_network():
    encoder = TimmImage("resnet18", weights=None)
    assert_close(encoder.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert_close(encoder.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_an_unknown_network_is_explained():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet5000'; did you mean resnet50"):
        TimmImage("resnet5000", weights=None)


def test_the_small_network_is_the_plain_one_with_its_relu_before_the_pool():
    torch.manual_seed(0)
    encoder, pixels = SmallCNN((4, 8)).double(), torch.randn(3, 3, 16, 16, dtype=torch.float64)

    def plain(maps):
        for layer in encoder.net[::3]:
            maps = F.max_pool2d(layer(maps).relu(), 2)
        return maps

    (found, gradient), (expected, true) = (
        (maps := make(pixels), torch.autograd.grad(maps.sin().sum(), encoder.net.parameters()))
        for make in (encoder.feature_map, plain)
    )
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_close(gradient, true, rtol=1e-10, atol=1e-10)
