"""torch.compile: one graph for each part, whatever the chunks; the numbers of the plain model."""

import pytest
import torch

from fusion.models import compile_parts
from fusion.models.batchnorm import no_update, one_update
from fusion.models.davenet import DAVEnet
from fusion.models.transformer import GatedProjection

GROUP = 2
CHUNKS = (8, 2, 6, 4, 12, 10, 14, 16, 2, 20, 18, 6)  # clips; twelve, and a ragged end


class Small(torch.nn.Module):
    """DAVEnet with a narrow and a wide projection."""

    def __init__(self, group, frozen):
        super().__init__()
        self.net = DAVEnet(1, [2, 2, 2, 4, 4], 3, group, frozen)
        self.wide, self.narrow = GatedProjection(4, 9), GatedProjection(9, 5)

    def forward(self, x):
        """Embed (B, 3, F) spectrograms."""
        return self.narrow(self.wide(self.net(x).mean(dim=2)))


def make(group=GROUP, frozen=False):
    torch.manual_seed(0)
    return Small(group, frozen).double().train()


class Counting:
    """A backend that compiles nothing and counts graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def anew():
    before = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.config.recompile_limit = before
    torch._dynamo.reset()


def step(model, chunks):
    """The two passes of the exact step."""
    generator = torch.Generator().manual_seed(1)
    batch = [torch.randn(n, 3, 32, generator=generator).double() for n in chunks]
    with one_update(model):
        with torch.no_grad():
            before = [model(x) for x in batch]
        with no_update(model):
            for x in batch:
                model(x).square().sum().backward()
    assert not any(y.requires_grad for y in before)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return before, gradients, model.state_dict()


@pytest.mark.parametrize(
    ("group", "chunks"),
    [
        (GROUP, CHUNKS),
        pytest.param(1, (3, 1, 2), marks=pytest.mark.slow),
        pytest.param(None, (4,), marks=pytest.mark.slow),
    ],
)
def test_twelve_chunks_and_a_ragged_end_are_one_graph_for_each_part(group, chunks):
    backend, model = Counting(), make(group)
    compile_parts(model, backend)
    found = step(model, chunks)
    assert backend.graphs == 3  # DAVEnet and two projections
    torch.testing.assert_close(found, step(make(group), chunks), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_frozen_statistics_are_compiled_once_too():
    backend, model = Counting(), make(None, frozen=True)
    compile_parts(model, backend)
    found = step(model, (3, 1, 4))
    assert backend.graphs == 3
    torch.testing.assert_close(found, step(make(None, True), (3, 1, 4)), rtol=1e-9, atol=1e-12)
    model.eval()(torch.randn(5, 3, 32).double())
    assert backend.graphs == 3  # nothing in evaluation


@pytest.mark.slow
def test_many_parts_are_not_run_as_they_are_without_a_word():
    backend = Counting()
    wide = torch.nn.Sequential(*(GatedProjection(n, n + 1) for n in range(2, 14))).train()
    compile_parts(wide, backend)
    wide(torch.randn(5, 2))
    assert backend.graphs == 12
    equal = torch.nn.Sequential(*(GatedProjection(20, 20) for _ in range(12))).train()
    compile_parts(equal, backend)
    equal(torch.randn(5, 20))
    assert backend.graphs == 13


def test_chunks_that_cut_a_group_are_an_error():
    model = make()
    compile_parts(model, Counting())
    with pytest.raises(ValueError, match="3 clips cannot be cut into groups of 2"):
        model(torch.randn(3, 3, 32).double())
