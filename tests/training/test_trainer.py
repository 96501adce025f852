import json
import signal
import time

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator

from fusion.data.datasets.dataset import collate
from fusion.losses import CombinatorialLoss
from fusion.models.batchnorm import GroupedBatchNorm
from fusion.tokens import Batch
from fusion.training.launch import Stopped
from fusion.training.log import RunLog, read_metrics
from fusion.training.optim import MOST
from fusion.training.run_folder import RunFolder
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer
from tests.training.doubles import ClipList

NAMES = ("text", "video")


class Towers(torch.nn.Module):
    """Two linear maps, with dropout so that random numbers matter, and one that no loss needs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map = torch.nn.ModuleDict({name[0]: torch.nn.Linear(4, 3) for name in NAMES})
        self.norm = GroupedBatchNorm(3)
        self.unused = torch.nn.Linear(3, 3)
        self.dropout = torch.nn.Dropout(0.3)

    def forward(self, inputs):
        outputs = {}
        for name, tokens in inputs.items():
            mapped = self.map[name[0]](self.dropout(tokens.values))
            outputs[name[0]] = self.norm(mapped[..., None, None])[..., 0, 0]
        return outputs | {"other": self.unused(outputs["t"])}


def items(count=24, poison=None):
    generator = torch.Generator().manual_seed(1)
    clips = []
    for i in range(count):
        x = torch.randn(1, 4, generator=generator)
        clips.append({"id": str(i), "text": x, "video": x + 0.1})
    if poison is not None:
        for clip in clips:
            clip["text"] = clip["text"] * poison
    return ClipList(clips)


def make(folder, resume=False, data=None, evaluate=None, **settings):
    chosen = {"epochs": 3, "batch_size": 6, "learning_rate": 0.05, "log_every": 1} | settings
    chosen.setdefault("best", "score")
    accelerator = Accelerator(cpu=True)
    run = RunFolder(folder, {"seed": 7, "resume": resume, "overwrite": False, "output": "x"})
    run.path.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model=Towers(),
        loss=CombinatorialLoss(NAMES, {"t|v": 1.0}),
        train_set=data or items(),
        collate=collate,
        settings=Settings(**chosen),
        seed=7,
        accelerator=accelerator,
        folder=run,
        write_model=lambda path, model: save(path, model),
        evaluate=evaluate or (lambda model: {"score": model.map["t"].weight.sum().item()}),
    )
    if resume:
        trainer.resume()
    return trainer


def save(path, model):

    safetensors.torch.save_file(model.state_dict(), path / "model.safetensors")


def losses(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["step"], float(row["loss"]).hex()) for row in rows if row["event"] == "train"]


def state(trainer):
    return {name: tensor.clone() for name, tensor in trainer.unwrapped.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = make(folder)
    before = state(trainer)
    trainer.fit()
    return folder, before, state(trainer)


def test_training_lowers_the_loss_and_moves_what_the_loss_needs(undisturbed):
    folder, before, after = undisturbed
    values = [float.fromhex(value) for _, value in losses(folder)]
    assert len(values) == 12
    assert values[-1] < values[0]
    assert not after["map.t.weight"].equal(before["map.t.weight"])
    assert after["unused.weight"].equal(before["unused.weight"])


class Interrupter(ClipList):
    """Data that sends this process a signal when a clip is read for the n-th time."""

    def __init__(self, clips, after):
        super().__init__(clips)
        self.left = after

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)
        return super().__getitem__(index)


@pytest.mark.parametrize("read", [3, 20, 24, 50, 71])
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(tmp_path, undisturbed, read):
    with pytest.raises(Stopped) as stop:
        make(tmp_path, data=Interrupter(items(), read)).fit()
    assert stop.value.signal == signal.SIGTERM
    resumed = make(tmp_path, resume=True)
    assert 0 < resumed.steps_done <= 12
    resumed.fit()
    assert losses(tmp_path) == losses(undisturbed[0])
    for name, tensor in state(resumed).items():
        assert tensor.equal(undisturbed[2][name]), name


def test_f01_a_run_that_was_killed_repeats_what_it_had_not_saved(tmp_path, undisturbed):
    trainer = make(tmp_path, save_every=3)
    step = trainer.step

    def die(batch: Batch):
        if trainer.steps_done == 7:
            raise KeyboardInterrupt
        return step(batch)

    die.probe = step.probe
    trainer.step = die
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    resumed = make(tmp_path, resume=True, save_every=3)
    assert resumed.steps_done == 6
    resumed.fit()
    assert losses(tmp_path) == losses(undisturbed[0])


def test_the_best_checkpoint_is_that_of_the_best_evaluation(tmp_path):
    scores = iter([1.0, 5.0, 3.0])
    seen = []

    def evaluate(model):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"score": next(scores)}

    trainer = make(tmp_path, evaluate=evaluate)
    trainer.fit()

    best = safetensors.torch.load_file(tmp_path / "best" / "model.safetensors")
    for name, tensor in best.items():
        assert tensor.equal(seen[1][name])
    assert trainer.best.score == 5.0


def test_f15_a_gradient_that_is_not_finite_is_skipped_and_leaves_the_weights(tmp_path, capsys):
    data = items(6 * (MOST - 1), poison=float("nan"))
    trainer = make(tmp_path, data=data, epochs=1)
    before = state(trainer)
    trainer.fit()
    after = state(trainer)
    for name, parameter in before.items():
        if "num_batches" not in name:
            torch.testing.assert_close(after[name], parameter, rtol=1e-6, atol=0)
    assert (
        "1 step up to step 1 left out, as the gradient was not finite (nan; 1 in a row)"
        in capsys.readouterr().err
    )


def test_bad_gradients_are_counted_where_the_loop_logs(tmp_path, capsys):
    data = items(6 * (MOST - 1), poison=float("nan"))
    make(tmp_path, data=data, epochs=1, log_every=4).fit()
    said = capsys.readouterr().err
    assert "4 steps up to step 4 left out" in said
    assert "4 steps up to step 8 left out, as the gradient was not finite (nan; 8 in a row)" in said
    assert "1 step up to step 9 left out" in said  # at the end of the epoch


def test_a_fused_optimizer_steps_as_a_plain_one_does(tmp_path):
    trainer = make(tmp_path, epochs=1)
    plain = torch.optim.Adam([p.detach().clone() for p in trainer.model.parameters()], lr=0.05)
    for ours, theirs in zip(
        trainer.model.parameters(), plain.param_groups[0]["params"], strict=True
    ):
        ours.grad, theirs.grad = torch.ones_like(ours), torch.ones_like(theirs)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.05
    trainer.guard.check(trainer.model.parameters(), trainer.optimizer.optimizer)
    trainer.optimizer.step()
    plain.step()
    for ours, theirs in zip(
        trainer.model.parameters(), plain.param_groups[0]["params"], strict=True
    ):
        torch.testing.assert_close(ours.detach(), theirs)


def test_too_many_bad_gradients_end_the_run(tmp_path):
    data = items(6 * (MOST + 2), poison=float("nan"))
    with pytest.raises(FloatingPointError, match=r"10 steps in a row, up to step 10; lower"):
        make(tmp_path, data=data, epochs=1).fit()


def test_data_are_drawn_anew_in_each_epoch(tmp_path):
    seeds, ends, begun = [], [], []

    class Drawn(ClipList):
        def begin_epoch(self, number):
            begun.append((number, len(seeds)))

        def set_epoch(self, seed):
            seeds.append(seed)

        def end_epoch(self):
            ends.append(len(seeds))

    make(tmp_path, data=Drawn(items())).fit()
    assert len(set(seeds)) == len(seeds) == 3
    assert ends == [1, 2, 3]
    assert begun == [(0, 0), (1, 1), (2, 2)]


def test_a_best_that_is_not_evaluated_is_explained(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.best: .* no 'R@1'; choose from score"):
        make(tmp_path, best="R@1").fit()


def test_the_first_result_picks_the_best_if_none_is_named(tmp_path):
    trainer = make(tmp_path, best=None, evaluate=lambda model: {"first": 3.0, "second": 9.0})
    trainer.fit()
    assert trainer.best.score == 3.0


def test_the_last_epoch_counts_if_that_is_asked(tmp_path):
    scores = iter([9.0, 3.0, 5.0])
    make(tmp_path, best="last", evaluate=lambda model: {"score": next(scores)}).fit()
    load = safetensors.torch.load_file
    best, last = (load(tmp_path / name / "model.safetensors") for name in ("best", "last"))
    assert best.keys() == last.keys() and all(torch.equal(best[k], last[k]) for k in best)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("epochs", 0, "trainer.epochs must be at least 1; got 0"),
        ("log_every", 0, "trainer.log_every must be at least 1; got 0"),
        ("warmup_steps", -3, "trainer.warmup_steps must be at least 0; got -3"),
        ("learning_rate", 0, "trainer.learning_rate must be above 0; got 0"),
    ],
)
def test_settings_out_of_range_are_explained(tmp_path, setting, value, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **{setting: value})


def test_f08_a_full_disk_is_explained_and_leaves_the_last_checkpoint(tmp_path):
    trainer = make(tmp_path, epochs=2)
    write, count = trainer.write_model, []

    def full(path, model):
        count.append(path)
        if len(count) > 2:  # best and last of the first epoch fit
            raise RuntimeError("[enforce fail] unexpected pos 640 vs 534")
        write(path, model)

    trainer.write_model = full
    with pytest.raises(OSError, match=r"cannot be written .*; make room there and go on with"):
        trainer.fit()
    assert make(tmp_path, resume=True, epochs=2).steps_done == 4
    assert not list(tmp_path.glob("*.new-*"))


def test_a_validation_is_logged_once_when_a_run_dies_before_saving_it(tmp_path):
    trainer = make(tmp_path, save_every=4, epochs=2)
    trainer.write_model, write = (lambda *_: 1 / 0), trainer.write_model
    trainer.folder.last = tmp_path / "last"
    save_mid_epoch = trainer._save

    def save():
        trainer.write_model = write if trainer.batch else (lambda *_: 1 / 0)
        save_mid_epoch()

    trainer._save = save
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    make(tmp_path, resume=True, save_every=4, epochs=2).fit()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows if row["event"] == "validation"] == [1, 2]


def test_f34_a_torn_last_line_of_the_metrics_is_left_out(tmp_path):
    row = {"event": "train", "epoch": 1, "step": 1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + '\n{"event": "train", "step": 2, "lo')
    assert read_metrics(tmp_path / "metrics.jsonl") == [row]


def test_without_results_the_last_epoch_is_the_best(tmp_path):
    make(tmp_path, epochs=2, evaluate=lambda model: {}, best=None).fit()
    best, last = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("best", "last"))
    assert best == last


def test_a_run_of_few_steps_has_a_loss_of_each_epoch(tmp_path):
    make(tmp_path, epochs=2, log_every=10).fit()
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["event"] == "train"]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 8)]
    assert all(row["loss"] > 0 for row in rows)


def test_too_many_workers_are_one_line_and_no_warning_of_torch(
    tmp_path, capsys, monkeypatch, recwarn
):
    monkeypatch.setattr("fusion.training.sampler.num_cores", lambda: 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    trainer = make(tmp_path, epochs=1, num_workers=2)
    said = "trainer.num_workers=2, but this machine has 1 core:"
    assert capsys.readouterr().err.count(said) == 1
    next(iter(trainer.loader))
    assert not [str(w.message) for w in recwarn]


def test_the_log_says_how_long_steps_waited_for_their_clips(tmp_path):
    class Slow(ClipList):
        def __getitem__(self, index):
            time.sleep(0.02)
            return super().__getitem__(index)

    shares = {}
    for name, data in {"slow": Slow(items()), "fast": ClipList(items())}.items():
        make(tmp_path / name, data=data, epochs=1, log_every=1).fit()
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        shares[name] = [row["reading_share"] for row in rows if row["event"] == "train"]
    assert all(0 < share <= 1 for values in shares.values() for share in values)
    assert min(shares["slow"]) > max(shares["fast"])
    for row in rows:
        if row["event"] == "train":  # alone there is nobody to communicate with
            assert row["communication_share"] == row["waiting_share"] == 0


def test_the_log_says_how_long_steps_communicated_and_waited(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl", Accelerator(cpu=True), 2, 0, 0)
    log._since -= 8.0  # that long ago
    log.step(4, reading=1.0, communication=2.0, waiting=4.0)
    log.train(1, 1, {"loss": 0.5})
    log.close()
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    shares = [row[f"{name}_share"] for name in ("reading", "communication", "waiting")]
    assert shares == pytest.approx([1 / 8, 2 / 8, 4 / 8], rel=0.2)
