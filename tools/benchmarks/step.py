"""One training step of EAO: forward pass, six losses, backward pass. No optimizer."""

import copy
import time

import torch

from fusion.models import compile_parts, eao_reference
from tests.losses import plain
from tools.benchmarks.measure import (
    compare_times,
    count_flop,
    deviation,
    finish,
    peak_bytes,
    product_rate,
    saved_bytes,
)
from tools.benchmarks.models import make_inputs, make_loss, make_model

COMPARED = 64  # clips at most
PAPER_BATCH = 2240  # clips; arithmetic per clip is counted at this batch


def run(arguments, device):
    """Measure ratio, memory, arithmetic and deviation; on a GPU rates as well."""
    size, davenet = arguments.size, not arguments.no_davenet
    precision = torch.bfloat16 if arguments.precision == "bf16" else None
    model, loss = make_model(size, davenet, device), make_loss()
    inputs = make_inputs(size, davenet, arguments.batch, arguments.fill, device)
    ways = {
        "plain": lambda: step(plain_step, model, loss, inputs, precision),
        "fast": lambda: step(fast_step, model, loss, inputs, precision),
    }
    if arguments.compile:
        compiled = copy.deepcopy(model)
        compile_parts(compiled)
        ways["compiled"] = lambda: step(fast_step, compiled, loss, inputs, precision)
    if arguments.channels_last:
        turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
        ways["channels_last"] = lambda: step(fast_step, turned, loss, inputs, precision)
    first = {}
    if device.type == "cuda" or arguments.compile:
        first = {name: _first_seconds(way, device) for name, way in ways.items()}
        ways = {name: way for name, way in ways.items() if first[name] is not None}
        if "fast" not in ways:
            raise ValueError(f"--batch {arguments.batch} does not fit into memory; give a smaller")
    seconds, ratios = ({}, {})
    if "plain" in ways:
        seconds, ratios = compare_times(ways, arguments.repeats, device)
    else:  # the plain way did not fit: the others alone
        seconds, _ = compare_times(ways | {"plain": lambda: None}, arguments.repeats, device)
        del seconds["plain"]
    if arguments.profile:
        print(profile(ways["fast"], device))
    flop = {name: count(arguments, name) for name in ("plain", "fast")}
    few_clips = min(arguments.batch, COMPARED)  # both gradients must fit beside the weights
    few = {name: tokens.part(0, few_clips) for name, tokens in inputs.items()}
    result = {
        "size": size,
        "davenet": davenet,
        "batch": arguments.batch,
        "fill": arguments.fill,
        "precision": arguments.precision,
        "seconds": seconds,
        "first_step_s": first,  # with what is compiled or chosen there
        "ratio": ratios,
        "GFLOP_per_clip": {name: count / 1e9 for name, count in flop.items()},
        "deviation": compare(model, loss, few, precision),
    }
    if device.type == "cuda":
        return result | rates(arguments, device, seconds, flop, ways, model)
    if precision is None:
        result["saved_MiB_per_clip"] = {
            name: saved(model, arguments, name) / 2**20 for name in ("plain", "fast")
        }
    return result


def plain_step(model, loss, inputs):
    """Embed as the paper does."""
    return eao_reference.embed(model, inputs)


def fast_step(model, loss, inputs):
    """Embed as training does."""
    return model(inputs, loss.combinations, skip_incomplete=True)


def loss_of(way, loss, embeddings, inputs):
    """Compute the loss the plain or the fast way, in float32 as training does."""
    if way is plain_step:
        return plain.combinatorial_loss(loss, embeddings, present(inputs))
    return loss(embeddings, present(inputs))[0]


def present(inputs):
    """Say which clips have which modality."""
    return {name: tokens.present for name, tokens in inputs.items()}


def step(way, model, loss, inputs, precision=None):
    """Do everything but the update."""
    model.zero_grad()
    device = inputs["text"].values.device.type
    with torch.autocast(device, precision, enabled=precision is not None):
        embeddings = way(model, loss, inputs)
    embeddings = {name: embedding.float() for name, embedding in embeddings.items()}
    loss_of(way, loss, embeddings, inputs).backward()
    return embeddings


def compare(model, loss, inputs, precision):
    """Compare outputs and gradients of both ways."""
    results = {}
    for name, way in {"plain": plain_step, "fast": fast_step}.items():
        embeddings = {
            c: torch.nn.functional.normalize(e.detach().float(), dim=-1)
            for c, e in step(way, model, loss, inputs, precision).items()
        }
        gradients = {
            n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for n, p in model.named_parameters()
        }
        results[name] = embeddings, gradients
        model.zero_grad()
    (outputs, gradients), (plain_outputs, plain_gradients) = results["fast"], results["plain"]
    largest = max((outputs[c] - plain_outputs[c]).abs().max().item() for c in plain_outputs)
    return {"outputs": largest, "gradients": deviation(gradients, plain_gradients)}


def count(arguments, name):
    """Count the operations of one clip, in a batch as large as the paper's."""
    meta = torch.device("meta")
    davenet = not arguments.no_davenet
    model, loss = make_model(arguments.size, davenet, meta), make_loss()
    inputs = make_inputs(arguments.size, davenet, 32, arguments.fill, "cpu")
    inputs = {n: repeat(tokens, PAPER_BATCH // 32).to(meta) for n, tokens in inputs.items()}
    if name == "fast":

        def run_once():
            embeddings = fast_step(model, loss, inputs)
            loss_of(fast_step, loss, embeddings, inputs).backward()

    else:

        def run_once():  # the plain loss reads values, which meta tensors lack
            embeddings = eao_reference.embed(model, inputs)
            pairs = [(embeddings[x], embeddings[y]) for x, y in loss.pairs.values()]
            sum(plain.nce(x, y, 0.05) for x, y in pairs).backward()

    return count_flop(run_once) / PAPER_BATCH


def repeat(tokens, times):
    """Make a batch ``times`` as large; values are not copied."""
    values = tokens.values[:1].expand(len(tokens.values) * times, -1)
    return type(tokens)(values, tokens.lengths.repeat(times), tokens.host_lengths.repeat(times))


def saved(model, arguments, name):
    """Measure what autograd keeps for one more clip."""
    davenet, loss = not arguments.no_davenet, make_loss()
    way = {"plain": plain_step, "fast": fast_step}[name]

    def kept(batch):
        inputs = make_inputs(arguments.size, davenet, batch, arguments.fill, "cpu")
        return saved_bytes(
            lambda: loss_of(way, loss, way(model, loss, inputs), inputs), model.parameters()
        )

    return (kept(16) - kept(8)) / 8


def rates(arguments, device, seconds, flop, ways, model):
    """Compute clips/s, FLOP/s and their share of what matrix products reach on this GPU."""
    peak = product_rate(device)
    result = {"product_TFLOP_per_s": peak / 1e12, "clips_per_s": {}, "TFLOP_per_s": {}}
    result |= {"share_of_product_rate": {}, "peak_GiB": {}}
    for name, measured in seconds.items():
        clips = arguments.batch / sorted(measured)[len(measured) // 2]
        rate = clips * flop["plain" if name == "plain" else "fast"]
        result["clips_per_s"][name] = clips
        result["TFLOP_per_s"][name] = rate / 1e12
        result["share_of_product_rate"][name] = rate / peak
        model.zero_grad()
        memory = peak_bytes(lambda start, way: (start(), way()), ways[name], device=device)
        result["peak_GiB"][name] = None if memory is None else memory / 2**30
    return result


def profile(way, device):
    """List the operations that take the most time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        way()
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60)


def _first_seconds(way, device):
    """Time the first step; None: memory ran out."""
    begun, seconds = time.perf_counter(), None
    try:
        way()
        finish(device)
        seconds = time.perf_counter() - begun
    except torch.OutOfMemoryError:
        pass
    if seconds is None:  # not before the error, which holds the tensors, is gone
        torch.cuda.empty_cache()
    return seconds
