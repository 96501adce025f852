"""Plans against what is counted by hand, and against published and logged times."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from fusion.cli.main import main
from fusion.commands.plan import count_config
from fusion.config import ConfigError, load_config
from fusion.losses import CombinatorialLoss
from fusion.plan import measured
from fusion.plan.clip import HOWTO100M, Clip, Part, clip_of, clips_of
from fusion.plan.count import Counts, count
from fusion.plan.machine import Machine
from fusion.plan.measured import Measured, machine_like, read_run
from fusion.plan.predict import BUCKET_BYTES, FREE, KEPT_IN_HALF, WORKSPACE, predict
from fusion.plan.together import LARGE, Together, measure_together, together_of
from fusion.plan.words import describe, obstacles
from fusion.plan.work import Rates, count_calls
from tests.tiny import write_config

WIDTH = 6  # of embeddings
CLIP = Clip({"text": Part(3, (4,)), "video": Part(5, (7,))}, stored_bytes=1000.0)
COUNTS = Counts(
    parameters=2000,
    trained=1500,
    forward_flop=1e9,
    step_flop=3e9,
    kept_bytes=2.0**20,
    output_values=20,
    loss_flop=1e6,
    granularity=4,
)
MACHINE = Machine(tflops=1.0, utilisation=0.5, memory_gib=2.0, cores=1, clips_per_core=1e9)
TRAINER = {"batch_size": 64, "epochs": 3, "num_workers": 2}


class Towers(nn.Module):
    """A linear layer for each modality; the embedding is the mean over its tokens."""

    combinations = ("t", "v")

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            {"text": nn.Linear(4, WIDTH, bias=False), "video": nn.Linear(7, WIDTH, bias=False)}
        )

    def forward(self, inputs, combinations):
        made = {}
        for name, layer in self.layers.items():
            rows = layer(inputs[name].values)
            made[name[0]] = rows.unflatten(0, (inputs[name].num_clips, -1)).mean(dim=1)
        return {name: made[name] for name in combinations}


def test_a_tiny_model_is_counted_as_by_hand():
    with torch.device("meta"):
        model = Towers()
    found = count(model, CombinatorialLoss(["text", "video"], {"t|v": 1}), CLIP)
    forward = 2 * (3 * 4 + 5 * 7) * WIDTH
    assert found.parameters == found.trained == (4 + 7) * WIDTH
    assert found.forward_flop == forward
    assert found.step_flop == 2 * forward  # the gradient of the weights; the inputs have none
    assert found.kept_bytes == 4 * (3 * 4 + 5 * 7)  # the inputs
    assert found.output_values == 2 * WIDTH
    assert found.loss_flop == 2 * WIDTH * 4  # a row of similarities, four times
    assert found.granularity == 1


def test_a_step_on_one_device_is_as_by_hand():
    made = predict(COUNTS, CLIP, TRAINER, MACHINE, clips=1000, evaluated=50)
    assert (made.share, made.chunk, made.steps, made.epochs) == (64, 64, 15, 3)
    assert made.flop == 64 * (3e9 + 64 * 1e6)
    assert made.seconds["arithmetic"] == made.flop / 0.5e12
    assert made.seconds["communication"] == 0 and made.sent == dict.fromkeys(made.sent, 0.0)
    assert made.seconds["update of the weights"] == 7 * 4 * 1500 / 3e12
    assert made.read == 64_000
    assert made.seconds["reading"] == 64_000 / (50e9 / 8)
    assert made.binds == "arithmetic"
    computing = made.seconds["arithmetic"] + made.seconds["update of the weights"]
    assert made.step == pytest.approx(computing)
    assert made.evaluation == 50 * (1e9 + 50 * 1e6 / 4) / 0.5e12
    assert made.hours == pytest.approx(3 * (15 * made.step + made.evaluation) / 3600)


def test_memory_and_the_largest_chunk_are_as_by_hand():
    made = predict(COUNTS, CLIP, TRAINER, MACHINE, clips=None)
    fixed = 4 * 2000 + 4 * 3 * 1500 + 4 * 2 * 64 * 20 + WORKSPACE
    room = (FREE * 2 * 2**30 - fixed) / 2**20
    assert made.largest == room // 4 * 4 and made.largest % 4 == 0 and made.largest > 500
    assert sum(made.memory.values()) == fixed + 64 * 2**20
    assert made.steps is made.hours is None
    small = dataclasses.replace(MACHINE, memory_gib=(WORKSPACE + 20 * 2**20) / 2**30 / FREE)
    tight = predict(COUNTS, CLIP, TRAINER, small, clips=None)
    assert tight.chunk == tight.largest == 16
    assert tight.flop == 64 * (4e9 + 64 * 1e6)  # each clip is embedded twice
    half = predict(COUNTS, CLIP, TRAINER | {"mixed_precision": "bf16"}, small, clips=None)
    assert predict(COUNTS, CLIP, TRAINER | {"mixed_precision": "auto"}, small, None) == half
    assert half.memory["a chunk"] == half.chunk * 2**20 * KEPT_IN_HALF and half.chunk == 36
    none = dataclasses.replace(small, memory_gib=1.0)
    assert predict(COUNTS, CLIP, TRAINER, none, clips=None).chunk == 0
    uncut = COUNTS._replace(granularity=None)
    assert predict(uncut, CLIP, TRAINER, small, clips=None).chunk == 0
    assert predict(uncut, CLIP, TRAINER, MACHINE, clips=None).chunk == 64


def test_a_loss_of_single_clips_needs_no_second_pass_and_no_exchange():
    alone = COUNTS._replace(output_values=0, loss_flop=0.0)
    made = predict(alone, CLIP, TRAINER | {"chunk_size": 8}, MACHINE, clips=None)
    assert made.chunk == 8 and made.flop == 64 * 3e9
    two = predict(alone, CLIP, TRAINER, dataclasses.replace(MACHINE, devices=2), clips=None)
    assert two.sent["embeddings"] == 0 < two.sent["gradients"]
    sgd = predict(alone, CLIP, TRAINER | {"optimizer": "sgd"}, MACHINE, clips=None)
    assert sgd.memory["gradients and optimizer"] == 4 * 2 * 1500


def test_devices_share_the_batch_and_exchange_what_they_must():
    far = dataclasses.replace(MACHINE, devices=16, per_machine=4, latency=1e-3)
    made = predict(COUNTS, CLIP, TRAINER, far, clips=None)
    assert made.share == 4 and made.flop == 4 * (3e9 + 64 * 1e6)
    assert made.sent["gradients"] == 2 * 4 * 1500 * 15 / 16
    assert made.sent["embeddings"] == made.sent["their gradients"] == 4 * 64 * 20 * 15 / 16
    moved = sum(made.sent.values()) / (400e9 / 8)
    assert made.seconds["communication"] == pytest.approx(moved + (2 * (1 + 3) + 15) * 4 * 1e-3)
    assert made.seconds["reading"] == 4 * 4 * 1000 / (50e9 / 8)  # four devices share the disks
    near = dataclasses.replace(far, per_machine=16)
    assert near.link == 3600e9 / 8 and far.link == 400e9 / 8 and near.machines == 1
    many = COUNTS._replace(trained=3 * BUCKET_BYTES // 4)
    found = predict(many, CLIP, TRAINER, near, clips=None).seconds["communication"]
    sent = sum(predict(many, CLIP, TRAINER, near, clips=None).sent.values())
    assert found == pytest.approx(sent / near.link + (2 * (3 + 3) + 15) * 4 * 1e-3)
    with pytest.raises(ConfigError, match="64 cannot be divided by 24 devices.* 48 and 72"):
        predict(COUNTS, CLIP, TRAINER, dataclasses.replace(MACHINE, devices=24), clips=None)


def test_cores_that_read_can_bind():
    slow = dataclasses.replace(MACHINE, cores=2, clips_per_core=10.0)
    made = predict(COUNTS, CLIP, TRAINER, slow, clips=6400)
    assert made.binds == "reading" and made.step == made.seconds["reading"] == 64 / 20
    alone = predict(COUNTS, CLIP, TRAINER | {"num_workers": 0}, slow, clips=6400)
    assert alone.seconds["reading"] == 64 / 10  # by the process that trains, between two steps
    assert alone.step == pytest.approx(64 / 10 + sum(made.seconds.values()) - 64 / 20)
    assert "before each step, as trainer.num_workers is 0" in describe(alone, COUNTS, CLIP, slow)
    films = dataclasses.replace(CLIP, decodes=True)
    by_default = dataclasses.replace(slow, clips_per_core=None)
    assert predict(COUNTS, films, TRAINER, by_default, clips=None).step == 64 / (2 * 20)
    said = obstacles(made, 0.5)
    assert "in 30.00 minutes a step may take 6000.00 ms; it takes 3200.00 ms" in said
    assert said.splitlines()[1] == "reading: 0.53 of it"
    assert "arithmetic: 1.31 of it, alone too long" in obstacles(made, 0.5 * 0.392 / 6 / 1.31)


def test_kinetics_in_fifteen_minutes_follows_from_the_rate_of_its_single_machine():
    """arXiv:1910.00932: 49 h 55 min on 6 V100, 14 min 13 s on 1,536, 12,288 clips a step."""
    words = ["model.num_classes=400", "data.folder=x", "trainer.batch_size=12288"]
    config = load_config("tsm/kinetics", [*words, "trainer.mixed_precision=no"])
    counts, clip = count_config(config, 20)
    assert counts.parameters == 24_327_632
    assert round(counts.forward_flop / 1e9, 1) == 65.4
    clips, epochs = 240_000, config["trainer"]["epochs"]
    alone = (49 * 60 + 55) * 60 * 6 / (clips * epochs)  # seconds of a GPU for a clip
    machine = Machine(
        devices=1536,
        tflops=counts.step_flop / alone / 1e12,
        utilisation=1.0,
        memory_gib=16,
        memory_tbps=0.9,
        network_gbps=200,
        per_machine=6,
        clips_per_core=200,
    )
    made = predict(counts, clip, config["trainer"], machine, clips)
    assert made.share == 8 and made.chunk == 8 and made.binds == "arithmetic"
    assert 0.75 <= made.hours * 3600 / (14 * 60 + 13) <= 1.25


def test_a_config_says_how_long_its_clips_are():
    published = clip_of(load_config("howto100m/eao", ["data_root=x"]))
    assert published.parts["text"] == Part(20, (300,))
    assert published.parts["video"] == Part(12, (4096,))
    assert published.parts["audio"] == Part(768, (40,))
    assert published.stored_bytes == 2 * 768 * 40 + (7.68 * 2.5 + 2) * 4096
    short = clip_of(load_config("howto100m/eao", ["data_root=x"]), words=10)
    assert short.parts["text"].count == 10
    pooled = clip_of(load_config("howto100m/mcn", ["data_root=x"]))
    assert pooled.parts["video"].count == 1 and pooled.parts["audio"].count == 1008
    assert "text" not in clip_of(load_config("howto100m/avlnet", ["data_root=x"])).parts
    frames = clip_of(load_config("tsm/eao_frames"))
    assert frames.parts["video"] == Part(8, (3, 48, 64), torch.uint8)
    films = clip_of(load_config("tsm/kinetics", ["data.folder=x"]))
    assert films.decodes and films.parts["video"].shape == (3, 256, 340)
    kept = clip_of(load_config("tsm"))
    assert not kept.decodes and kept.stored_bytes == 8 * 3 * 72 * 72
    assert clips_of(load_config("howto100m/mcn", ["data_root=x"])) == (32 * HOWTO100M, 0)
    assert clips_of(load_config("tsm")) == (1200, 160) and clips_of(load_config("eao")) == (None, 0)
    tokens = published.batch(3)["video"]
    assert tokens.values.is_meta and tokens.num_clips == 3 and tokens.longest == 12


@pytest.mark.parametrize("name", ["howto100m/mcn", "howto100m/avlnet", "tsm/eao_frames"])
def test_other_methods_are_counted(name):
    words = ["data_root=x"] if "howto" in name else []
    config = load_config(name, words)
    if "howto" in name:
        small = [4, 4, 4, 4, 8] if config["model"]["name"] else []
        words += [f"model.modalities.audio.encoder.widths={small}", "model.embedding_dim=8"]
        words += ["model.reconstruction_dim=8"] if name.endswith("mcn") else []
    counts, _ = count_config(load_config(name, words), 20)
    assert counts.forward_flop < counts.step_flop < 3 * counts.forward_flop
    assert counts.kept_bytes > 0 and counts.loss_flop > 0
    assert counts.granularity == {"tsm/eao_frames": 8}.get(name, 32)  # batchnorm_group


def test_what_a_config_leaves_to_the_data_is_asked_for():
    with pytest.raises(ConfigError, match="model.modalities.text.dim is left to the data, .* add"):
        clip_of(load_config("vqa"))
    unknown = load_config("eao", ["model.modalities.video={encoder: {name: x}}"])
    with pytest.raises(ConfigError, match=r"modalities.video \(encoder x\) cannot be planned"):
        clip_of(unknown)


def fake_run(folder, config, devices=1, speed=50.0, share=0.2):
    folder.mkdir()
    write_config(folder, **config)
    (folder / "tiny.yaml").rename(folder / "config.yaml")
    rows = [
        {"event": "train", "epoch": 1 + step // 8, "step": step, "loss": 1.0}
        | {"clips_per_second": speed + 2.5 * (step - 10) if step > 2 else 1.0}
        | {"reading_share": share}
        for step in range(2, 17, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cost.json").write_text(json.dumps({"processes": devices}))
    return folder


def test_the_rate_of_a_run_predicts_it(tmp_path, capsys):
    run = fake_run(tmp_path / "one", {})
    found = read_run(run)
    assert found.step == 4 / 50 and found.devices == 1 and found.clips == 4 * 6
    main(["plan", "--measured", str(run), "--like", str(run), "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["measured"]["predicted_by_measured"] == pytest.approx(0.8 + 4 / 1e4 / (4 / 50))
    counts, clip = count_config(found.config, 20)
    trainer = found.config["trainer"]
    machine = machine_like(found, MACHINE, lambda m: predict(counts, clip, trainer, m, None))
    assert predict(counts, clip, trainer, machine, None).seconds["arithmetic"] == pytest.approx(
        0.8 * 4 / 50
    )
    two = fake_run(tmp_path / "two", {}, devices=2)
    main(["plan", "--measured", str(two), "--like", str(run), "--local-gbps", "1"])
    out = capsys.readouterr().out
    assert "2 devices" in out and "predicted / measured" in out
    with pytest.raises(ConfigError, match="--like: the run was on 2 devices"):
        machine_like(read_run(two), MACHINE, lambda m: None)


def test_the_rate_of_a_narrow_model_on_a_cpu_is_adjusted_to_a_wide_one(monkeypatch):
    rates = Rates(products=2e9, moved=1e6, call=1e-3)
    monkeypatch.setattr(measured, "measure_rates", lambda threads: rates)
    narrow = COUNTS._replace(step_flop=1e9, moved_bytes=5e5, moved_once=2e6, calls=500.0)
    assert narrow.seconds(4, rates) == pytest.approx(2 + 4 + 0.5)
    wide = narrow._replace(step_flop=4e9, moved_bytes=1e6, moved_once=8e6)
    assert wide.seconds(4, rates) == pytest.approx(8 + 12 + 0.5)
    found = measured.adjust(MACHINE, (wide, 4), (narrow, 4))
    assert found.tflops == pytest.approx(MACHINE.tflops * (6.5 / 4) / (20.5 / 16))
    shared = Together(Rates(products=1e9, moved=5e5, call=2e-3), latency=1e-4, link=1e9)
    two, asked = dataclasses.replace(MACHINE, devices=2), []

    def together(*words):
        asked.append(words)
        return shared

    monkeypatch.setattr(measured, "measure_together", together)
    found = measured.adjust(two, (narrow, 2), (narrow, 4))  # all half as fast, half the clips
    assert narrow.seconds(2, shared.rates) == pytest.approx(2 + 6 + 1)
    assert found.tflops == pytest.approx(MACHINE.tflops * (6.5 / 4) / (9 / 2))
    assert (found.latency, found.local_gbps) == (1e-4, pytest.approx(8))
    many = dataclasses.replace(two, devices=64)
    found = measured.adjust(many, (narrow, 2), (narrow, 4), links=False)
    assert (found.latency, found.local_gbps) == (MACHINE.latency, MACHINE.local_gbps)
    measured.adjust(two, (narrow, 2), (narrow, 4), threads=8)
    assert asked == [(2, 1), (8, 1), (2, 4)]


def test_processes_of_a_cpu_are_measured_together():
    found = together_of(4, Rates(1.0, 1.0, 1.0), small=4e-3, large=4e-3 + 6e-3)
    assert found.latency == pytest.approx(1e-3) and found.link == pytest.approx(1e9)
    machine = dataclasses.replace(MACHINE, devices=4, latency=1e-3, local_gbps=8.0)
    assert machine.exchange(2 * 4 * LARGE, 2) == pytest.approx(10e-3)  # an all-reduce again
    found = measure_together(2, long=0.01)
    assert min(*found.rates, found.latency, found.link) > 0


def test_processes_that_cannot_reach_one_another_are_one_line(monkeypatch):
    def fail(*words, nprocs):
        raise ProcessRaisedException("\n\nRuntimeError: no such interface", 0, 1)

    monkeypatch.setattr("torch.multiprocessing.spawn", fail)
    with pytest.raises(ConfigError, match=r"4 processes .* \(RuntimeError: no such interface\)"):
        measure_together(4)


def test_clips_are_read_as_fast_as_in_a_run_without_workers(monkeypatch):
    monkeypatch.setattr(measured, "num_cores", lambda: 2)
    machine = dataclasses.replace(MACHINE, clips_per_core=None)
    trainer = {"trainer": {"batch_size": 32}}
    run = Measured(trainer, 1, step=0.5, reading_share=0.1, clips=64, on_cpu=True, threads=1)
    assert measured.read_like(run, machine).clips_per_core == pytest.approx(32 / 0.05)
    many = dataclasses.replace(machine, devices=8)
    assert measured.read_like(run, many).clips_per_core == pytest.approx(32 / 0.05 / 4)
    assert measured.read_like(run, MACHINE) == MACHINE  # the user says it
    trainer["trainer"]["num_workers"] = 1
    assert measured.read_like(run, machine) == machine


def test_calls_and_what_they_move_are_counted():
    x, y = torch.zeros(3, 4), torch.zeros(4, 5)

    def work():
        return (x.view(4, 3).mT @ y).add_(1)  # looking at x in another way is no work

    assert count_calls(work) == (2, 4 * (12 + 20 + 15) + 4 * (15 + 15))
    q = torch.zeros(2, 1, 3, 4, device="meta", requires_grad=True)

    def attend():
        F.scaled_dot_product_attention(q, q, q).sum().backward()

    calls, moved = count_calls(attend)
    summed = 4 * (24 + 1) + 4 * 2  # and a 1 like the sum, of which its gradient begins
    added = 2 * 4 * (24 + 24 + 24)  # three gradients are added up
    assert moved == 4 * 4 * 24 * (1 + 2) + summed + added
    assert calls == 2 + 2 + 2


def test_a_plan_is_said_in_words(capsys):
    words = ["--clips", "6400", "--device-tflops", "0.05", "--utilisation", "1"]
    main(["plan", "eao", *words, "--memory-gib", "4", "--goal-hours", "0.01"])
    out = capsys.readouterr().out
    assert "arithmetic" in out and "binds" in out and "100 steps" in out and "12 epochs" in out
    assert "arithmetic: " in out and "alone too long" in out
    main(["plan", "eao", "--devices", "16"])
    out = capsys.readouterr().out
    assert "does not run so: 4 clips are no multiple of 8, its batchnorm_group" in out
    assert "--clips N gives hours" in out and "gradients" in out
    made = predict(COUNTS, CLIP, TRAINER, dataclasses.replace(MACHINE, memory_gib=1.0), 100)
    assert "not even the smallest chunk fits" in describe(made, COUNTS, CLIP, MACHINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a config, such as howto100m/eao, or a run: --measured RUN"),
        (["eao", "--devices", "5"], "64 cannot be divided by 5 devices"),
        (["eao", "--device-tflops", "0"], "--device-tflops: must be a number above 0; got 0"),
        (["eao", "--evaluated", "-1"], "must be a whole number and at least 0; got -1"),
        (["eao", "--utilisation", "2"], "--utilisation: must be a share between 0 and 1; got 2"),
        (["eao", "trainer.epoch=3"], "did you mean"),
        (["eao", "--like", "nowhere"], "there is no run in nowhere"),
        (["tsm", "trainer.batch_size=0"], "trainer.batch_size must be at least 1; got 0"),
        (["tsm", "trainer.num_workers=-1"], "trainer.num_workers must be at least 0; got -1"),
        (["tsm", "data.frames=100"], "data.frames must be from 1 to 64 of a clip; got 100"),
        (["tsm", "data.frames=abc"], "data.frames must be from 1 to 64 of a clip; got 'abc'"),
        (["tsm/kinetics", "data.folder=x"], "model.num_classes is left to the data"),
    ],
)
def test_mistakes_are_explained(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_short_and_unfinished_runs_are_refused(tmp_path):
    run = fake_run(tmp_path / "run", {})
    (run / "cost.json").unlink()
    with pytest.raises(ConfigError, match="no cost.json that says on how many processes"):
        read_run(run)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="0 rows of training in its log, and 3 are needed"):
        read_run(run)


def test_a_machine_has_rates_above_zero():
    with pytest.raises(ValueError, match="network-gbps must be above 0; got 0"):
        Machine(network_gbps=0)
    with pytest.raises(ValueError, match="utilisation must be at most 1"):
        Machine(utilisation=1.5)
    assert Machine(devices=9).machines == 2 and Machine(devices=3).in_a_machine == 3
    assert math.isclose(Machine(tflops=2, utilisation=0.25).flops, 0.5e12)
