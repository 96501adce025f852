"""No file of others is read but through ``fusion/data/untrusted``, which refuses what is hostile.

A rule of the linter for calls that it cannot tell apart: what may run code of a file, or fills the
memory as its header says. Each exception is named here with its reason.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "fusion").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
# The whole name of a function, or its last part after a dot
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("shelve.open", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "np.load", "np.loadtxt", "np.genfromtxt"),
    *("np.fromfile", "np.lib.format.read_array"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.safe_load"),
    *("OmegaConf.load", "json.load", "KeyedVectors.load", "Word2Vec.load"),
    *("zipfile.ZipFile", "tarfile.open", "gzip.open", "bz2.open", "lzma.open"),
    *("shutil.unpack_archive", "Image.open", "av.open", "eval", "exec", "os.system"),
    *("safetensors.torch.load_file", "safetensors.numpy.load_file", "safetensors.safe_open"),
    *("safetensors.torch.load", "pandas.read_csv", "pd.read_csv"),
}
OPTIONS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}
GATE = "fusion/data/untrusted/"
ALLOWED = {
    ("fusion/extract/ray_cluster.py", "pickle.loads"): "messages of our own processes",
    ("fusion/data/media/device.py", "av.open"): "the one place where films are opened for reading",
    ("fusion/data/media/encode.py", "av.open"): "writes",
    ("fusion/data/demo/film.py", "av.open"): "writes",
    ("fusion/data/demo/orders/folder.py", "av.open"): "writes",
    ("fusion/inference/items.py", "av.open"): "writes",
    ("fusion/data/questions/decode.py", "Image.open"): "the one place for pictures of questions",
    ("fusion/serve/decoder.py", "Image.open"): "in a program with limits, of chosen formats",
    ("fusion/serve/demo.py", "Image.open"): "a thumbnail that we made",
    ("fusion/serve/asking.py", "Image.open"): "a thumbnail that we made",
    ("fusion/report/score_curves.py", "Image.open"): "a picture that we made",
    ("fusion/data/features/computed.py", "safetensors.safe_open"): "our cache, a digest",
    ("fusion/models/text/encoders.py", "safetensors.safe_open"): "beside checked weights",
    ("fusion/checkpoint.py", "torch.load"): "weights_only, of the state of a run",
    ("fusion/checkpoint.py", "safetensors.torch.load_file"): "shapes are compared first",
    ("fusion/study/plan.py", "yaml.safe_load"): "a value of the command line",
    ("fusion/training/safety/changes.py", "yaml.safe_load"): "a text that was just written",
    ("tools/faults/hostile.py", "zipfile.ZipFile"): "writes a bomb",
    ("tools/faults/hostile.py", "os.system"): "written into files that must not run it",
    ("tools/faults/hostile.py", "np.load"): "what the guard is compared with, on our own bomb",
    ("tools/faults/runs.py", "safetensors.torch.load_file"): "weights of a run of the trial",
}
TOOLS = "tools/benchmarks/"  # measures files that it has made itself


def dotted(node):
    """Write the name of a function as it is called: ``np.load``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def aliases(tree):
    """Map the names that a file gives to modules and functions to their own."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {short: full for short, full in found.items() if not full.startswith("fusion.")}


def forbidden_in(text):
    """Name the forbidden calls of a file, also those that are passed on without a call."""
    tree = ast.parse(text)
    names, found = aliases(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = dotted(node)
            first, dot, rest = name.partition(".")
            full = f"{names.get(first, first)}{dot}{rest}"
            for known in (name, full.replace("numpy.", "np.")):
                found |= {known} & FORBIDDEN
                parts = known.split(".")
                found |= {".".join(parts[-2:])} & FORBIDDEN if len(parts) > 2 else set()
        elif isinstance(node, ast.Call):
            for option in node.keywords:
                wrong = option.arg in OPTIONS and not (
                    isinstance(option.value, ast.Constant)
                    and option.value.value is not OPTIONS[option.arg]
                )
                found |= {f"{option.arg}="} if wrong else set()
    return found


def test_files_of_others_are_read_through_the_gate_alone():
    assert len(FILES) > 300
    found, wrong = set(), []
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith((GATE, TOOLS)):
            continue
        for call in forbidden_in(path.read_text()):
            found.add((name, call))
            if (name, call) not in ALLOWED:
                wrong.append(f"{name}: {call}")
    assert not wrong, "read it through fusion/data/untrusted, or say here why not"
    assert found == set(ALLOWED), "an exception that nothing needs"


def test_inside_the_gate_nothing_runs_code_of_a_file():
    for path in (ROOT / GATE).glob("*.py"):
        assert not forbidden_in(path.read_text()) & {
            *("pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "np.load", "os.system"),
            *("allow_pickle=", "shell=", "weights_only=", "trust_remote_code=", "joblib.load"),
        }, path


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("from pickle import loads\nloads(x)", "pickle.loads"),
        ("import pickle as p\np.Unpickler(f)", "pickle.Unpickler"),
        ("import numpy as np\nnp.load(f)", "np.load"),
        ("import numpy\nnumpy.load(f)", "np.load"),
        ("from numpy import load as read\nread(f)", "np.load"),
        ("import torch as t\nt.load(f)", "torch.load"),
        ("import functools, torch\nfunctools.partial(torch.load)", "torch.load"),
        ("from PIL import Image\nImage.open(f)", "Image.open"),
        ("from safetensors.torch import load_file\nload_file(f)", "safetensors.torch.load_file"),
        ("read(f, allow_pickle=True)", "allow_pickle="),
        ("run(f, shell=flag)", "shell="),
        ("load(f, weights_only=False)", "weights_only="),
    ],
)
def test_the_rule_finds_what_it_forbids(text, call):
    assert call in forbidden_in(text)


@pytest.mark.parametrize(
    "text", ["fusion.load(x)", "json.loads(x)", "load(x, weights_only=True)", "run(x, shell=False)"]
)
def test_the_rule_leaves_the_rest_alone(text):
    assert not forbidden_in(text)
