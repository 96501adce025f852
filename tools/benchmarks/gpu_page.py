"""The page of ``tools/gpu_check.py``: measured beside predicted, and what failed."""

import statistics

from markupsafe import Markup

from fusion.report.page import page, render
from tools.benchmarks import gpu_plan
from tools.benchmarks.scarce import GROUP

HEAD = ("figure", "measured", "predicted", "predicted / measured")
GOAL = 0.55  # share of the device's matrix rate that a step is to reach
HEADLINE = Markup(
    "<h1>{} <span>{} TFLOP/s</span></h1>"
    '<p class="lead">{}. The rate is that of matrix products, measured.</p>'
)
NAMES = {"memory_GiB": "memory, GiB", "product_TFLOP_per_s": "matrix products, TFLOP/s"}
TINY = Markup(
    '<p class="note">Tiny sizes on a CPU: they show that the way works, and say nothing of'
    " speed.</p>"
)
NOTES = (
    f"Predictions are those of fusion plan, for {gpu_plan.UTILISATION:g} of the measured rate of"
    " matrix products. Reading and ranking are not in them, and the update of the weights only in"
    " the steps of a batch that does not fit.",
)


def rows_of(name, part, device):
    """Write the figures of a part that has a result: cells for ``HEAD``."""
    if name == "tests":
        return [["pytest", part["result"]["said"], "-", "-"]]
    make = {
        "step": _step,
        "compile": _compile,
        "memory": _memory,
        "evaluation": _evaluation,
    }[name]
    rate, size = device["product_TFLOP_per_s"], device["memory_GiB"]
    return make(part["result"], gpu_plan.machine_of(rate, size or 64.0), rate)


def _step(result, machine, rate):
    seconds = statistics.median(result["seconds"]["fast"])
    planned = gpu_plan.plan_step(result["size"], result["batch"], result["precision"], machine)
    clips = result["batch"] / seconds
    share = clips * result["GFLOP_per_clip"]["fast"] / 1e3 / rate
    rows = [
        _count("clips", result["batch"]),
        _row("seconds of a step", seconds, planned["step_s"]),
        _row("clips a second", clips, result["batch"] / planned["step_s"]),
        ["share of the rate of products", f"{100 * share:.1f} %", *_goal(share)],
        ["times as fast as the plain way", _or_dash(result["ratio"].get("fast")), "-", "-"],
    ]
    if peak := result.get("peak_GiB", {}).get("fast"):
        rows.append(_row("GiB at its peak", peak, planned["peak_GiB"]))
    return rows


def _goal(share):
    return [f"goal {100 * GOAL:.0f} %", "reached" if share >= GOAL else "not reached"]


def _compile(result, machine, rate):
    planned = gpu_plan.plan_step(result["size"], result["batch"], result["precision"], machine)
    rows = [_count("clips", result["batch"])]
    for way, words in {"fast": "without", "compiled": "with"}.items():
        if way not in result["seconds"]:
            rows.append([f"seconds of a step, {words} torch.compile", "out of memory", "-", "-"])
            continue
        seconds = statistics.median(result["seconds"][way])
        rows += [
            _row(f"seconds of a step, {words} torch.compile", seconds, planned["step_s"]),
            [f"seconds of the first step, {words}", f"{result['first_step_s'][way]:.3g}", "-", "-"],
        ]
    return rows


def _memory(result, machine, rate):
    numbers = result["size"], result["batch"], GROUP, result["precision"], machine
    planned, ways = gpu_plan.plan_chunks(*numbers), result["ways"]
    said = "yes" if result["ran_out"] else "NO: take more clips"
    rows = [
        _count("clips", result["batch"]),
        ["memory ran out", said, "-", "-"],
        ["largest deviation of a loss from small chunks", f"{result['deviation']:.1e}", "-", "-"],
        _row(
            "clips at a time, after memory ran out", ways["whole"]["chunks"][-1], planned["chunk"]
        ),
        _row("clips at a time, after a probe", ways["probe"]["chunks"][-1], planned["chunk"]),
        _row("seconds of a step, after a probe", ways["probe"]["seconds"][-1], planned["step_s"]),
    ]
    for way in ("whole", "probe"):
        if "peak_GiB" in ways[way]:
            rows.append([f"GiB at the peak, {way}", f"{ways[way]['peak_GiB']:.1f}", "-", "-"])
    return rows


def _evaluation(result, machine, rate):
    options = result["options"]
    sizes = options["clips"], options["captions"], options["width"]
    planned = gpu_plan.plan_embedding(*sizes, machine)
    rows = [
        _count("captions", options["captions"]),
        _count("clips", options["clips"]),
        _row("seconds to embed, with reading", result["embed_s"]["fast"][0], planned["embed_s"]),
        ["seconds to rank, 18 directions", f"{result['rank_s']['fast'][0]:.3g}", "-", "-"],
        ["MiB of embeddings", f"{result['embeddings_MiB']['fast']:.3g}", "-", "-"],
    ]
    if peak := result.get("peak_of_gpu_MiB"):
        rows.append(["MiB of the GPU at the peak", f"{peak:.0f}", "-", "-"])
    return rows


def _row(name, measured, predicted):
    numbers = measured, predicted, predicted / measured
    return [name, *(f"{n:,}" if isinstance(n, int) else f"{n:.3g}" for n in numbers)]


def _count(name, number):
    return [name, f"{number:,}", "-", "-"]


def _or_dash(number):
    return "-" if number is None else f"{number:.2f}"


def write_page(found):
    """Write the page; parts that are not there yet are not on it."""
    device, parts = found["device"], found["parts"]
    states = [part["state"] for part in parts.values()]
    counted = {state: states.count(state) for state in dict.fromkeys(states)}
    said = ", ".join(
        f"{count} {'part' if count == 1 else 'parts'} {state}" for state, count in counted.items()
    )
    headline = HEADLINE.format(device["name"], f"{device['product_TFLOP_per_s']:.3g}", said)
    headline += TINY if found["sizes"] == "tiny" else ""
    groups = [(part["what"], part.get("rows", [])) for part in parts.values()]
    facts = {
        NAMES.get(name, name): f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in device.items()
        if value is not None
    }
    ran = {name: _said(part) for name, part in parts.items()}
    sections = {
        "Measured and predicted": render("methods.html", head=HEAD, groups=groups, notes=NOTES),
        "Parts": render("facts.html", facts=ran),
        "Machine": render("facts.html", facts=facts),
    }
    return page(f"GPU check: {device['name']}", headline, sections)


def _said(part):
    said = [f"{part['state']}{part['why'] and ': '}{part['why']}"]
    if "seconds" in part:
        said += [f"{part['seconds']:.0f} s", part["command"], f"output: {part['log']}"]
    return said
