"""The tools as a user meets them: other processes, exit codes, one line for a mistake."""

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from fusion.checkpoint import load_model
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.demo import VERSION
from tests.conftest import PYTHON
from tests.processes import start
from tests.tiny import write_config

LINKS = re.compile(r"""(?:src|href|poster|url)\s*[=(]\s*["']?([^"'>)\s]+)""")
TRAIN, EVALUATE = "tools/train.py", "tools/evaluate.py"
TWO = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch")


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["event"] == "train"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tool):
    """A finished run on the smallest corpus: (folder of the run, config, output)."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder, evaluation={"queries_in_report": 2})
    code, output, errors = tool(TRAIN, config, launcher=PYTHON)
    assert code == 0, errors
    return folder / "run", config, output


def test_a_run_leaves_what_it_promises(finished):
    run, _, output = finished
    for name in ["config.yaml", "metrics.jsonl", "results.json", "report.html", "tensorboard"]:
        assert (run / name).exists(), name
    for checkpoint in ["best", "last"]:
        assert (run / checkpoint / "model.safetensors").exists()
    assert (run / "last" / "trainer.pt").exists()
    result = json.loads((run / "results.json").read_text())
    assert result["arithmetic"] == {
        **{"mixed_precision": "no", "tf32": False, "autotuning": False, "loss": "float32"}
    }
    assert "t->va" in output
    assert "chance" in output
    assert not list(run.glob("*.new-*"))


def test_f30_the_report_opens_offline(finished):
    page = (finished[0] / "report.html").read_text()
    assert "<video" in page
    assert len(LINKS.findall(page)) > 5
    assert all(link.startswith(("data:", "#")) for link in LINKS.findall(page))


def test_evaluation_prints_a_table_and_writes_json(finished, tool, tmp_path):
    run, _, _ = finished
    code, output, errors = tool(EVALUATE, run, "--json", tmp_path / "out.json")
    assert code == 0, errors
    result = json.loads((tmp_path / "out.json").read_text())
    assert result == json.loads((run / "results.json").read_text())
    assert {"protocol", "gallery", "directions", "chance", "ceiling", "clips"} <= result.keys()
    assert len(result["directions"]) == 18
    keys = {"R@1", "R@5", "R@10", "R@50", "MedR", "MeanR", "GeoMean", "R@1_interval"}
    assert keys <= result["directions"]["t->va"].keys()
    assert result["protocol"] in output


def test_a_version_of_the_corpus_that_there_is_not_is_one_line(tool, tmp_path):
    code, _, errors = tool(TRAIN, "eao", "data.version=7", f"output={tmp_path / 'run'}")
    assert (code, errors.strip()) == (2, "error: data.version is 7; choose from 2, 3")
    assert not [*tmp_path.iterdir()]


def test_another_split_or_other_videos_can_be_evaluated(finished, tool, tmp_path):
    run, config, _ = finished
    code, output, _ = tool(EVALUATE, run / "last", "--set", "validation")
    assert code == 0
    assert "validation: 16 clips" in output
    other = tmp_path / "other.yaml"
    demo = Path(os.environ["FUSION_CACHE"]) / f"demo-v{VERSION}-2"
    other.write_text(
        f"base: {config}\ndata: {{name: videos, films: null, test: {demo / 'validation.csv'}}}\n"
    )
    code, output, errors = tool(EVALUATE, run, "--set", other)
    assert code == 2
    assert "data.films is unknown" in errors
    text = config.read_text().replace("films: 2\n", f"test: {demo / 'validation.csv'}\n")
    other.write_text(text.replace("name: demo", "name: videos"))
    code, output, errors = tool(EVALUATE, run, "--set", other)
    assert code == 0, errors
    assert "validation.csv, video features: descriptors" in output


def test_a_run_begins_with_the_weights_of_another(finished, tool, tmp_path):
    run, config, _ = finished
    words = ["trainer.learning_rate=1e-20", f"init={run}", f"output={tmp_path / 'second'}"]
    words += ["trainer.mixed_precision=no"]  # which YAML reads as False
    code, _, errors = tool(TRAIN, config, *words)
    assert code == 0, errors
    first, second = (load_model(r).state_dict() for r in (run, tmp_path / "second"))
    for name, weight in first.items():
        if "running" not in name and "num_batches" not in name:
            assert second[name].equal(weight), name
    changed = load_config(config, ["init=nowhere", f"output={tmp_path / 'third'}"])
    said = r"init: there is no checkpoint at nowhere.*fusion convert"
    with pytest.raises(ValueError, match=said):
        train(changed)


def test_an_evaluation_changes_the_config(finished, tool):
    run = finished[0]
    code, _, errors = tool(EVALUATE, run, "--set", "validation", "evaluation.batch_size=3")
    assert code == 0, errors
    with pytest.raises(ValueError, match="did you mean 'batch_size'"):
        evaluate(run, None, None, ["evaluation.batchsize=3"])
    change = "evaluation.model={modalities: {audio: {encoder: {num_frames: 100}}}}"
    with pytest.raises(ValueError, match="num_frames"):
        evaluate(run, None, None, [change])


def test_a_folder_with_a_run_is_not_overwritten(finished, tool):
    code, _, errors = tool(TRAIN, finished[1])
    assert code == 2
    assert errors.strip().endswith("or delete it by overwrite=true")
    assert "Traceback" not in errors


def test_overwriting_with_a_mistake_costs_nothing(finished, tool):
    run, config, _ = finished
    before = (run / "results.json").read_text()
    code, _, errors = tool(TRAIN, config, "overwrite=true", "trainer.batch_size=10000")
    assert code == 2, errors
    assert (run / "results.json").read_text() == before
    assert (run / "best").exists()


def test_resuming_a_finished_run_changes_nothing(finished, tool):
    run, config, _ = finished
    before = losses(run), (run / "results.json").read_text()
    code, _, errors = tool(TRAIN, config, "resume=true")
    assert code == 0, errors
    assert (losses(run), (run / "results.json").read_text()) == before


def test_a_finished_run_goes_on_for_more_epochs_without_its_damaged_checkpoint(
    finished, tool, tmp_path
):
    run = shutil.copytree(finished[0], tmp_path / "run")
    with open(run / "last" / "trainer.pt", "r+b") as file:
        file.seek(1000)
        file.write(b"?")
    words = ["resume=true", f"output={run}", "trainer.epochs=3", "evaluation.batch_size=7"]
    code, _, errors = tool(TRAIN, finished[1], *words)
    assert code == 0, errors
    assert "going on with evaluation.batch_size: None -> 7, trainer.epochs: 2 -> 3 (the" in errors
    assert f"{run / 'last' / 'trainer.pt'} is damaged: its SHA-256 is not that" in errors
    assert [step for step, _ in losses(run)] == list(range(1, 13))
    assert losses(run)[:4] == losses(finished[0])[:4]
    code, _, errors = tool(TRAIN, finished[1], *words, "trainer.epochs=2")
    assert (code, errors.count("its epoch is 3, not from 0 to trainer.epochs=2")) == (2, 1)


def test_f07_a_damaged_checkpoint_is_not_evaluated(finished, tool, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    file = run / "best" / "word_vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")
    code, _, errors = tool(EVALUATE, run)
    assert (code, len(errors.strip().splitlines())) == (2, 1)
    assert errors.startswith(f"error: {file} is damaged: its SHA-256 is not that of what was writ")
    assert f"take {run / 'last'}" in errors


def test_f01_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(
    finished, tool, tmp_path
):
    config = write_config(tmp_path, trainer={"save_every": 1})
    undisturbed = losses(finished[0])
    for steps in (2, 5):
        process = start(TRAIN, config, "resume=true")
        metrics = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if metrics.exists() and len(metrics.read_text().splitlines()) >= steps:
                process.kill()
            time.sleep(0.01)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    code, _, errors = tool(TRAIN, config, "resume=true")
    assert code == 0, errors
    assert losses(tmp_path / "run") == undisturbed
    results = (finished[0] / "results.json", tmp_path / "run" / "results.json")
    assert results[0].read_text() == results[1].read_text()


def test_two_processes_train_and_evaluate(finished, tool, tmp_path):
    config = write_config(tmp_path)
    code, output, errors = tool(TRAIN, config, processes=2)
    assert code == 0, errors
    assert output.count("chance") == 1  # one process speaks
    one, two = losses(finished[0]), losses(tmp_path / "run")
    assert [step for step, _ in two] == [step for step, _ in one]
    # That of the sound is 0 in the first step, and Adam makes steps of what rounding leaves.
    assert two[0][1] == pytest.approx(one[0][1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "chunk"),
    [(TWO, 2), (TWO, None), ((sys.executable,), 4)],
    ids=["two processes in chunks", "two processes", "chunks"],
)
def test_chunks_and_processes_change_nothing(tool, tmp_path, launcher, chunk):
    """With BatchNorm over groups, one run is the same curve however it is cut."""
    curves = []
    for name, how, size in [("whole", (sys.executable,), None), ("cut", launcher, chunk)]:
        (tmp_path / name).mkdir()
        trainer = {"batch_size": 8, "chunk_size": size}
        config = write_config(tmp_path / name, trainer=trainer)
        code, _, errors = tool(TRAIN, config, launcher=how)
        assert code == 0, errors
        curves.append(dict(losses(tmp_path / name / "run")))
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


@pytest.mark.slow
def test_a_loss_that_needs_no_audio_trains_on_two_processes(tool, tmp_path):
    """DDP waits for a gradient of every parameter, those of the audio encoder too."""
    config = write_config(tmp_path, loss={"terms": {"t|v": 1}}, trainer={"epochs": 1})
    code, _, errors = tool(TRAIN, config, launcher=TWO)
    assert code == 0, errors
    assert len(losses(tmp_path / "run")) > 2


@pytest.mark.slow  # .ci/run does it, too
def test_one_checkpoint_has_the_same_results_on_two_processes(finished, tool, tmp_path):
    code, _, errors = tool(EVALUATE, finished[0], "--json", tmp_path / "two.json", launcher=TWO)
    assert code == 0, errors
    assert (tmp_path / "two.json").read_text() == (finished[0] / "results.json").read_text()


@pytest.mark.slow  # .ci/run does it, too
def test_f11_a_launch_of_fewer_processes_than_were_asked_for_is_refused(tool, tmp_path):
    code, _, errors = tool(
        TRAIN,
        write_config(tmp_path, trainer={"num_processes": 2}),
        launcher=(*ACCELERATE, "--cpu", "--num_processes", "2"),
    )
    assert code != 0
    assert "2 processes were asked for but 1 started" in errors
    assert "torchrun --nproc_per_node 2 tools/train.py" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "how",
    [{"processes": 2}, pytest.param({"launcher": TWO}, marks=pytest.mark.slow)],
    ids=["forked", "torchrun"],
)
def test_a_wrong_config_is_one_line_on_two_processes(tool, tmp_path, how):
    config = write_config(tmp_path, trainer={"epoch": 1})
    code, _, errors = tool(TRAIN, config, **how)
    assert code != 0
    assert errors.count("error: trainer.epoch is unknown; did you mean 'epochs'?") == 1


def test_bf16_is_close_to_full_precision(finished, tool, tmp_path):
    config = write_config(tmp_path, trainer={"mixed_precision": "bf16"})
    code, _, errors = tool(TRAIN, config)
    assert code == 0, errors
    bf16, full = losses(tmp_path / "run"), losses(finished[0])
    assert bf16 != full
    assert bf16[0][1] == pytest.approx(full[0][1], rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f12_two_processes_end_well_every_time(finished, tool):
    """Over gloo, processes that are taken apart in another order abort in one run of five."""
    codes = [tool(EVALUATE, finished[0], launcher=TWO)[0] for _ in range(12)]
    assert codes == [0] * 12


def test_fp16_without_cuda_goes_on_in_full_precision_and_says_so(tool, tmp_path):
    config = write_config(tmp_path, trainer={"epochs": 1, "mixed_precision": "fp16"})
    code, _, errors = tool(TRAIN, config, CUDA_VISIBLE_DEVICES="")
    assert code == 0, errors
    assert errors.count("fp16 needs a CUDA device and there is none") == 1


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [(TRAIN, ["--help"], 0), (EVALUATE, [], 2)],
    ids=["train", "evaluate"],
)
def test_help(tool, name, words, code):
    ended, output, errors = tool(name, *words)
    assert ended == code
    assert "usage:" in output + errors
