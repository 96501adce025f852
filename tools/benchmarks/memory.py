"""Memory of a training step against the size of the batch: whole, and in chunks of one size."""

import torch
from accelerate import Accelerator

from fusion.models.batchnorm import one_update
from fusion.tokens import Batch
from fusion.training.gradcache import backward_in_chunks
from tools.benchmarks.measure import compare_times, deviation, peak_bytes
from tools.benchmarks.models import make_inputs, make_loss, make_model


def run(arguments, device):
    """Measure peaks for batches of 1, 2, 4 … chunks, and what the largest costs in time."""
    sizes = [arguments.chunk * 2**i for i in range(arguments.doublings + 1)]
    peaks = {
        name: [
            peak_bytes(take_memory, arguments, size, chunk or size, device, device=device)
            for size in sizes
        ]
        for name, chunk in [("whole", None), ("chunks", arguments.chunk)]
    }
    model, batch = make(arguments, sizes[-1], device)
    ways = {
        "plain": lambda: step(model, batch, sizes[-1]),
        "chunks": lambda: step(model, batch, arguments.chunk),
    }
    gradients = {name: way() for name, way in ways.items()}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    values = [tokens.values for tokens in batch.inputs.values()]
    embeddings = len(model.combinations) * next(iter(model.heads.values())).gate.out_features
    inputs = sum(value.nbytes for value in values) / sizes[-1]
    return {
        "size": arguments.size,
        "chunk": arguments.chunk,
        "batches": sizes,
        "peak_MiB": {n: [b and b / 2**20 for b in each] for n, each in peaks.items()},
        "KiB_per_further_clip": {
            name: (each[-1] - each[1]) / (sizes[-1] - sizes[1]) / 2**10
            for name, each in peaks.items()
            if None not in each
        },
        "KiB_of_inputs_embeddings_and_their_gradients": (inputs + 2 * 4 * embeddings) / 2**10,
        "seconds": seconds,
        "ratio": {"chunks": 1 / ratios["chunks"]},
        "deviation": deviation(gradients["chunks"], gradients["plain"]),
    }


def make(arguments, batch, device):
    """Build the model and a batch."""
    model = make_model(arguments.size, True, device, batchnorm_group=arguments.chunk)
    return model, make_batch(arguments, batch, device)


def make_batch(arguments, batch, device):
    """Draw a batch."""
    inputs = make_inputs(arguments.size, True, batch, 1.0, device)
    return Batch(tuple(map(str, range(batch))), inputs)


def step(model, batch, chunk):
    """Do everything but the update; give the gradients."""
    model.zero_grad()
    loss = make_loss()

    def embed(clips):
        return model(clips.inputs, loss.combinations, skip_incomplete=True)

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    with one_update(model):
        backward_in_chunks(accelerator, model, embed, loss, batch.chunks(chunk))
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def take_memory(start, arguments, size, chunk, device):
    """Do one step in a process of its own, see ``peak_bytes``; the inputs count."""
    model, batch = make(arguments, arguments.chunk, device)
    step(model, batch, arguments.chunk)  # gradients and what the first call loads do not count
    del batch
    start()
    step(model, make_batch(arguments, size, device), chunk)
