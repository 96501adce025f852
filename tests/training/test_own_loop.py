"""Training without a config: the examples of docs/own_loop.md, and that they are exact."""

import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fusion.batches import as_batch
from fusion.evaluation import embed_dataset
from fusion.losses import CombinatorialLoss, MCNLoss, nce
from fusion.models.batchnorm import GroupedBatchNorm
from fusion.tokens import Tokens
from fusion.training import Settings, exact_backward, fit
from fusion.training.launch import Stopped
from fusion.training.memory import OutOfMemory
from tests.training import own_loops

FIT, FORWARD, TRAINER, LARGE, PLAIN, TABLE = own_loops.EXAMPLES
COUNT = 12
SGD = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1}


class Towers(nn.Module):
    """Two maps of a batch that is a dict, or a tuple of tensors in the same order."""

    def __init__(self, most=COUNT):
        super().__init__()
        torch.manual_seed(0)
        self.t, self.v = nn.Linear(4, 3).double(), nn.Linear(5, 3).double()
        self.most = most  # rows that fit into memory

    def forward(self, batch):
        words, frames = batch.values() if isinstance(batch, dict) else batch
        if len(words) > self.most:
            raise torch.OutOfMemoryError(f"{len(words)} rows")
        return {"t": self.t(words), "v": self.v(frames)}


def pairs(count=COUNT):
    generator = torch.Generator().manual_seed(1)
    words, noise = (torch.randn(count, n, generator=generator).double() for n in (4, 1))
    return [words, torch.cat([words, noise], dim=1)]


def contrast(rows):
    return nce(rows["t"], rows["v"])


def expected_gradients(loss=contrast):
    model = Towers()
    loss(model(pairs())).backward()
    return gradients(model)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def gradients_of_a_fit(model, **options):
    """Take one step of SGD and give back by how much the weights moved."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = Settings(epochs=1, batch_size=COUNT, **SGD, **options.pop("settings", {}))
    fit(model, options.pop("loss", contrast), TensorDataset(*pairs()), settings, **options)
    return {name: (before[name] - p.detach()) / 0.1 for name, p in model.named_parameters()}


def test_the_first_example_is_short_and_learns():
    assert len(FIT.splitlines()) <= 25
    names = own_loops.train()
    assert names["recall"](names["model"])["R@1"] > 20


@pytest.mark.parametrize("chunk_size", [None, 5, COUNT])
def test_fit_takes_the_gradient_of_the_whole_batch(chunk_size):
    got = gradients_of_a_fit(Towers(), settings={"chunk_size": chunk_size})
    torch.testing.assert_close(got, expected_gradients())


def test_fit_takes_it_when_memory_runs_out():
    torch.testing.assert_close(gradients_of_a_fit(Towers(most=3)), expected_gradients())
    with pytest.raises(OutOfMemory):
        gradients_of_a_fit(Towers(most=0))


@pytest.mark.parametrize("chunk_size", [1, 5, COUNT])
@pytest.mark.parametrize("named", [False, True], ids=["tuple", "dict"])
def test_exact_backward_takes_the_gradient_of_the_whole_batch(chunk_size, named):
    model = Towers(most=chunk_size)
    batch = dict(zip(("words", "frames"), pairs(), strict=True)) if named else pairs()
    loss = CombinatorialLoss(["text", "video"], {"t|v": 1.0})
    value, terms = exact_backward(model, loss, batch, chunk_size)
    torch.testing.assert_close(gradients(model), expected_gradients())
    torch.testing.assert_close(value, contrast(Towers()(pairs())).detach())
    assert terms.keys() == {"t|v"}
    exact_backward(model, loss, batch, chunk_size)  # it adds up, as backward() does
    torch.testing.assert_close(
        gradients(model), {name: 2 * g for name, g in expected_gradients().items()}
    )


def test_two_processes_do_what_one_does(tool, tmp_path):
    results = []
    for count in (1, 2):
        file = tmp_path / f"{count}.pt"
        code, _, errors = tool("tests/training/own_loops.py", file, processes=count)
        assert code == 0, errors
        results.append(torch.load(file))
    torch.testing.assert_close(results[1]["weights"], results[0]["weights"], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[1]["gradients"], results[0]["gradients"])


def test_the_same_dropout_is_drawn_when_a_chunk_is_embedded_again():
    model = Towers()
    seen = []

    def forward(batch):
        mask = nn.functional.dropout(torch.ones_like(batch[1]))
        seen.append(mask)
        return {"t": model.t(batch[0]), "v": model.v(mask * batch[1])}

    model.forward = forward
    for _ in range(2):
        exact_backward(model, contrast, pairs(), 6)
    assert seen[0].equal(seen[2])
    assert seen[1].equal(seen[3])
    assert not seen[0].equal(seen[1])  # of another chunk
    assert not seen[0].equal(seen[4])  # of another batch


def test_a_loss_with_parameters_gets_their_gradient_in_one_and_is_refused_by_the_other():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, rows):
            logits = self.scale * rows["t"] @ rows["v"].T
            return nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    whole, cut = Scaled(), Scaled()
    expected = expected_gradients(whole)
    model = Towers()
    exact_backward(model, cut, pairs(), 5)
    torch.testing.assert_close(gradients(model), expected)
    torch.testing.assert_close(cut.scale.grad, whole.scale.grad)
    with pytest.raises(ValueError, match="Scaled has parameters"):
        gradients_of_a_fit(Towers(), loss=Scaled())


def test_what_a_loss_remembers_is_committed():
    loss = MCNLoss(["text", "video"], clusters=2, queue_batches=1, reconstruction_weight=0)
    states = []
    for _ in range(2):
        exact_backward(Towers(), loss, pairs(), 4)
        states.append(loss.state_dict())
    assert states[0]
    assert repr(states[0]) != repr(states[1])


def test_a_loss_of_single_items_is_embedded_once():
    class Mean:
        compares_clips = False

        def __call__(self, rows, present):
            return (rows["t"] * rows["v"]).sum(dim=1).exp().mean(), {}

        def commit(self):
            self.done = True

    model, loss = Towers(), Mean()
    exact_backward(model, loss, pairs(), 5)
    torch.testing.assert_close(
        gradients(model), expected_gradients(lambda rows: Mean()(rows, {})[0])
    )
    assert loss.done


def test_batchnorm_that_any_cut_would_change_is_refused_unless_it_is_frozen():
    model = Towers()
    model.norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="chunks of 4 items would change the result"):
        exact_backward(model, contrast, pairs(), 4)
    exact_backward(model, contrast, pairs(), COUNT)
    model.norm.eval()
    exact_backward(model, contrast, pairs(), 4)
    with pytest.raises(ValueError, match="chunk_size .4. would change the result"):
        gradients_of_a_fit(model.eval(), settings={"chunk_size": 4})  # fit trains it
    model.norm = GroupedBatchNorm(3, group=3)
    with pytest.raises(ValueError, match="chunk_size to a multiple of 3"):
        exact_backward(model, contrast, pairs(), 4)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda rows: tuple(rows.values()), "a dict of named .* got a tuple"),
        (lambda rows: rows | {"scale": torch.tensor(1.0)}, r"'scale' .* 6 items; got shape \[\]"),
        (lambda rows: rows | {"t": rows["t"][1:]}, r"'t' .* 6 items; got shape \[5, 3\]"),
        (lambda rows: rows | {"text": ["a"]}, "'text' .* got list"),
    ],
)
def test_outputs_that_are_not_named_rows_are_an_error(outputs, message):
    model = Towers()
    model.forward = lambda batch: outputs(Towers.forward(model, batch))
    with pytest.raises(ValueError, match=message):
        exact_backward(model, contrast, pairs(), 6)
    with pytest.raises(ValueError, match=message):
        gradients_of_a_fit(model, settings={"chunk_size": 6})


def test_batches_of_any_structure_are_cut_and_moved():
    words = Tokens.pack([torch.ones(n, 2) for n in (1, 0, 2)])
    inputs = {"a": (torch.arange(3), [{"b": torch.ones(3, 2)}]), "text": list("xyz"), "k": 7}
    batch = as_batch(inputs | {"words": words, "one": torch.tensor(5)})
    assert batch.ids == ("0", "1", "2")
    first, second = (chunk.inputs for chunk in batch.to("cpu").chunks(2))
    assert first["a"][0].tolist() == [0, 1]
    assert second["a"][0].tolist() == [2]
    assert (first["text"], second["text"], second["k"]) == (["x", "y"], ["z"], 7)
    assert second["a"][1][0]["b"].shape == (1, 2)
    assert second["words"].lengths.tolist() == [2]
    assert first["one"] == 5
    assert batch.present["words"].tolist() == [True, False, True]
    assert as_batch(batch) is batch


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"a": torch.ones(3), "b": torch.ones(2, 1)}, r"shape \[3\] 3, a tensor of shape \[2, 1\]"),
        ({"a": 3}, "must hold tensors with a row for each item"),
        ([torch.ones(3), torch.ones(2)], "Tokens.pack"),
    ],
)
def test_batches_without_a_row_for_each_item_are_an_error(inputs, message):
    with pytest.raises(ValueError, match=message):
        as_batch(inputs)


def test_a_collate_that_drops_items_is_an_error():
    with pytest.raises(ValueError, match="the batch 12, a tensor of shape"):
        gradients_of_a_fit(
            Towers(), collate=lambda items: [torch.stack(x[1:]) for x in zip(*items, strict=True)]
        )


def test_a_data_set_without_a_length_is_an_error():
    with pytest.raises(ValueError, match="generator has no __len__"):
        fit(Towers(), contrast, (i for i in pairs()), Settings(1, COUNT, 0.1))


def test_a_folder_has_the_checkpoints_and_a_run_goes_on(tmp_path):
    settings = Settings(epochs=3, batch_size=4, learning_rate=0.1, log_every=1)
    data, score = TensorDataset(*pairs()), {"score": 1.0}
    whole = Towers()
    rows = fit(whole, contrast, data, settings)
    assert [row["step"] for row in rows if row["event"] == "train"] == list(range(1, 10))

    class Stopping(Towers):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            if self.calls == 5:
                signal.raise_signal(signal.SIGTERM)
            return super().forward(batch)

    one_by_one = {"folder": tmp_path, "evaluate": lambda model: score}
    with pytest.raises(Stopped):
        fit(Stopping(), contrast, data, settings, **one_by_one)
    with pytest.raises(ValueError, match="holds a run already"):
        fit(Towers(), contrast, data, settings, **one_by_one)
    model = Towers()
    fit(model, contrast, data, settings, **one_by_one, resume=True)
    torch.testing.assert_close(model.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {
        "best",
        "last",
        "last.1",
        "metrics.jsonl",
    }


def test_tied_weights_can_be_saved(tmp_path):
    model = Towers()
    model.again = model.t
    data, settings = TensorDataset(*pairs()), Settings(1, COUNT, 0.1)
    fit(model, contrast, data, settings, folder=tmp_path)
    fit(model, contrast, data, settings, folder=tmp_path, resume=True)


def test_embed_dataset_embeds_in_order_and_keeps_what_is_frozen():
    model = Towers()
    model.norm = nn.BatchNorm1d(3).eval()
    embedded = embed_dataset(model, TensorDataset(*pairs()), 5, modalities=["text", "video"])
    torch.testing.assert_close(dict(embedded.embeddings), dict(model(pairs())))
    assert {name: bool(have.all()) for name, have in embedded.present.items()} == {
        "text": True, "video": True,
    }  # fmt: skip
    assert (model.training, model.norm.training) == (True, False)


def test_what_a_loss_needs_is_passed_on_by_the_model():
    names = {}
    exec(FORWARD, names)
    batch = {"words": 2, "frames": 3, "label": 4}
    towers = SimpleNamespace(text=lambda x: -x, video=lambda x: -x)
    assert names["forward"](towers, batch) == {"t": -2, "v": -3, "label": 4}

    have = torch.arange(COUNT) % 3 > 0
    loss = CombinatorialLoss(["text", "video"], {"t|v": 1.0})
    model = Towers()
    model.forward = lambda batch: Towers.forward(model, batch[:2]) | {"has": batch[2]}
    exact_backward(
        model,
        lambda rows: loss(rows, {"text": rows["has"], "video": rows["has"]})[0],
        [*pairs(), have],
        5,
    )
    expected = expected_gradients(lambda rows: nce(rows["t"], rows["v"], valid=have))
    torch.testing.assert_close(gradients(model), expected)


class ThreeTowers(nn.Module):
    """What the Trainer of Hugging Face trains: names of a batch are arguments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.t, self.v, self.a = (nn.Linear(4, 3) for _ in "tva")

    def forward(self, text, video, audio):
        rows = {"t": self.t(text), "v": self.v(video), "a": self.a(audio)}
        return rows | {"va": rows["v"] + rows["a"]}


def test_the_examples_of_hugging_face_run_and_take_the_same_steps(tmp_path):
    import transformers

    names = {}
    names_of = ("text", "video", "audio")
    items = [dict(zip(names_of, torch.randn(3, 4), strict=True)) for _ in range(16)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=0.05,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    weights = []
    for kind in ("ContrastiveTrainer", "LargeBatchTrainer"):
        model = ThreeTowers()
        before = model.t.weight.detach().clone()
        exec(TRAINER + LARGE.replace("chunk_size=64", "chunk_size=3"), names)
        names[kind](model=model, args=arguments, train_dataset=items).train()
        assert not model.t.weight.equal(before)
        weights.append(model.state_dict())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


def test_the_plain_example_runs():
    names = {"model": Towers(), "loader": [pairs()] * 60, "test_batch": pairs()}
    exec(PLAIN.replace("chunk_size=64", "chunk_size=5") + TABLE, names)
    assert names["terms"].keys() == {"t|v"}
    assert names["table"]["t->v"]["R@1"] > 50
