"""Check a machine with a GPU in one command: tests, speed, memory that runs out, evaluation.

Each part is a program of its own, which may fail or be left out without the others. What
`fusion plan` says is put beside what was measured. Nothing is read from the network.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from fusion.report.layout import align
from fusion.words import visible
from tools.benchmarks.gpu_page import HEAD, rows_of, write_page
from tools.benchmarks.measure import product_rate

EXAMPLES = """examples:
  python tools/gpu_check.py --out gpu_check            # everything
  python tools/gpu_check.py --only step compile        # some parts
  python tools/gpu_check.py --skip tests
  python tools/gpu_check.py --cpu                      # tiny sizes, to see that the way works
"""
ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = [sys.executable, str(ROOT / "tools" / "benchmark.py")]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--numprocesses", "0"]
STEP = ["step", "--size", "paper", "--precision", "bf16", "--batch", "2240"]
GALLERY = ["gallery", "--repeats", "1"]
FULL = ["--gpu", "--workers", "8", "--width", "4096", "--clips", "2990", "--captions", "59800"]
TINY = ["--width", "64", "--clips", "20", "--captions", "60"]
PARTS = {  # of each: its line in the help, its program on a GPU, and at tiny sizes on a CPU
    "tests": (
        "tests that need a GPU",
        [*PYTEST, "tests"],
        [*PYTEST, "tests/test_gpu.py"],
    ),
    "step": (
        "a step of the paper's model, with a profile",
        [*BENCHMARK, *STEP, "--profile"],
        [*BENCHMARK, "step", "--size", "tiny", "--batch", "4", "--repeats", "1", "--profile"],
    ),
    "compile": (
        "the same, with torch.compile and without",
        [*BENCHMARK, *STEP, "--compile"],
        [*BENCHMARK, "step", "--size", "tiny", "--batch", "2", "--repeats", "1", "--compile"],
    ),
    "memory": (
        "a batch that does not fit: memory runs out, and chunks that fit give the same",
        [*BENCHMARK, "scarce", "--size", "paper", "--batch", "16384", "--precision", "bf16"],
        [*BENCHMARK, "scarce", "--size", "tiny", "--batch", "128", "--limit-mib", "130"],
    ),
    "evaluation": (
        "captions and their clips, embedded and ranked in 18 directions",
        [*BENCHMARK, *GALLERY, *FULL],
        [*BENCHMARK, *GALLERY, *TINY],
    ),
}
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"
NO_GPU = (
    "there is no CUDA device; run this on a machine with a GPU, or with --cpu, which takes tiny"
    " sizes to show that the way works"
)


def parse(words=None):
    """Read the command line."""
    parts = "\n".join(f"  {name:<12}{line}" for name, (line, *_) in PARTS.items())
    parser = Parser(description=__doc__, epilog=f"parts:\n{parts}\n\n{EXAMPLES}")
    names = list(PARTS)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder for the result")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="parts to run")
    parser.add_argument("--skip", nargs="+", choices=names, default=[], help="parts to leave out")
    text = "tiny sizes, without a GPU"
    parser.add_argument("--cpu", action="store_true", help=text)
    text = "minutes that a part may take (default: 30)"
    parser.add_argument("--minutes", type=positive, default=30, help=text)
    return parser.parse_args(words)


def describe_device(device):
    """Say what is measured on, and measure its rate of matrix products."""
    found = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if device.type == "cpu":
        rate = product_rate(device, size=512, dtype=torch.float32)
        return found | {"name": "CPU", "memory_GiB": None, "product_TFLOP_per_s": rate / 1e12}
    facts = torch.cuda.get_device_properties(device)
    found |= {"name": facts.name, "memory_GiB": facts.total_memory / 2**30}
    found |= {"cuda": torch.version.cuda, "multiprocessors": facts.multi_processor_count}
    found["product_TFLOP_per_s"] = product_rate(device) / 1e12
    torch.cuda.empty_cache()  # the parts are other processes, which need it
    return found


def add_rows(name, part, device):
    """Put the figures of a part beside what is predicted."""
    if "result" in part:
        try:
            part["rows"] = rows_of(name, part, device)
        except Exception as error:  # whatever it is, the other parts go on
            part |= {"state": FAILED, "why": f"its figures: {type(error).__name__}: {error}"}


def run_part(name, command, log, arguments):
    """Run the program of a part; its output goes to ``log``."""
    found = {"state": DONE, "why": "", "command": " ".join(command[1:]), "log": log.name}
    found["command"] = found["command"].replace(f"{ROOT}{os.sep}", "")
    begun = time.monotonic()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if arguments.cpu else {}
    with open(log, "w") as file:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = child.wait(60 * arguments.minutes)
        except subprocess.TimeoutExpired:
            code = None
            found |= {"state": FAILED, "why": f"took over {arguments.minutes} minutes (--minutes)"}
        finally:
            with contextlib.suppress(ProcessLookupError):  # also what it started and left behind
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    found["seconds"] = time.monotonic() - begun
    return found if code is None else found | read_output(name, code, log, arguments.cpu)


def read_output(name, code, log, tiny):
    """Read the result of a part from the last line that it printed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if code:
        return {"state": FAILED, "why": f"ended with {code}: {visible(last)[:300]}"}
    if name == "tests":
        said = last.strip("= ")
        if "passed" in last:
            return {"result": {"said": said}}
        why = "no test ran"
        return {"result": {"said": said}, "why": why} if tiny else {"state": FAILED, "why": why}
    try:
        return {"result": json.loads(last)}
    except ValueError:
        return {"state": FAILED, "why": f"its last line is no JSON: {visible(last)[:300]}"}


def check_machine(arguments):
    """Run all parts; return the result."""
    if not arguments.cpu and not torch.cuda.is_available():
        raise ValueError(NO_GPU)
    device = torch.device("cpu" if arguments.cpu else "cuda")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {"sizes": "tiny" if arguments.cpu else "full", "device": describe_device(device)}
    found["parts"] = {}
    for name, (what, full, tiny) in PARTS.items():
        if name in arguments.skip or name not in arguments.only:
            part = {"state": LEFT_OUT, "why": "by --only or --skip", "what": what}
        else:
            print(f"{name}: {what}", file=sys.stderr, flush=True)
            command = tiny if arguments.cpu else full
            part = run_part(name, command, arguments.out / f"{name}.log", arguments)
            part["what"] = what
            add_rows(name, part, found["device"])
        found["parts"][name] = part
        write(arguments.out, found)  # what is known stays, whatever comes next
    return found


def write(folder, found):
    """Write the result as JSON and as a page."""
    (folder / "gpu_check.json").write_text(json.dumps(found, indent=1))
    (folder / "gpu_check.html").write_text(write_page(found), encoding="utf-8")


def main():
    """Check, print the table, and say where the page is."""
    arguments = parse()
    found = check_machine(arguments)
    for name, part in found["parts"].items():
        print(f"{name}: {part['state']}{part['why'] and ', '}{part['why']}")
    rows = [[name, *row] for name, part in found["parts"].items() for row in part.get("rows", ())]
    print("\n".join(["", *align([["part", *HEAD], *rows], left=2)]))
    print(f"\n{arguments.out / 'gpu_check.html'}")
    failed = [name for name, part in found["parts"].items() if part["state"] == FAILED]
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
