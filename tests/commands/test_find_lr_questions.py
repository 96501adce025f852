"""Learning rates for parts of a model that answers questions: from scratch, frozen, pre-trained."""

import json

import pytest
import torch

from fusion.commands.find_lr import Search, find_lr
from fusion.commands.job import Job
from fusion.config import load_config
from fusion.training.settings import Settings
from tests.models.test_language_models import save_bert
from tests.tasks.pictures import config_of, write_questions
from tests.tasks.test_pretrained import ASKED, words_of

TEXT, IMAGE = "eao.encoders.text", "eao.encoders.image"


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A config of each kind, and the parts that are tested by default."""
    folder = write_questions(tmp_path_factory.mktemp("questions"))
    mini = save_bert(tmp_path_factory.mktemp("mini"), words=ASKED)
    frozen = words_of(folder, folder / "frozen", mini, **{"text_encoder.train": "false"})
    trained = words_of(folder, folder / "trained", mini)
    return {
        "scratch": (load_config("vqa", config_of(folder, folder / "scratch")), [IMAGE]),
        "frozen": (load_config("vqa/easy_vqa_minilm", frozen), [IMAGE]),
        "trained": (load_config("vqa/easy_vqa_minilm", trained), [TEXT]),
    }


@pytest.mark.parametrize("kind", ["scratch", "frozen", "trained"])
def test_each_part_gets_a_rate_and_the_weights_are_restored(configs, kind):
    config, parts = configs[kind]
    job = Job(config, None)
    try:
        job.settle()
        job.open_data(None)
        job.fit()
        train_set = job.task.clips("train")
        job.build(None)
        before = {name: x.clone() for name, x in job.model.state_dict().items()}
        search = Search(job, train_set, None, 6, 1)
        result = search.run()
        after = job.model.state_dict()
    finally:
        job.close()
    assert [row["part"] for row in result["parts"]] == [None, *parts, ""]
    assert all(1e-7 <= row["recommended"] <= 10 for row in result["parts"])
    assert any(gain != 0 for row in result["parts"] for some in row["gains"] for gain in some)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_words_to_paste_train_with_these_rates(configs, tmp_path, capsys):
    config, _ = configs["trained"]
    find_lr(config, [TEXT, IMAGE], steps=6, repetitions=1, out=str(tmp_path / "rates"))
    result = json.loads((tmp_path / "rates" / "rates.json").read_text())
    found = {row["part"]: row["recommended"] for row in result["parts"] if row["part"]}
    words = [word.strip("'") for word in result["set"]]
    trainer = load_config("vqa", words)["trainer"]
    assert Settings(**trainer).part_rates == {
        part: pytest.approx(rate, rel=0.06) for part, rate in found.items()
    }
    assert found.keys() == {TEXT, IMAGE}
    assert TEXT in capsys.readouterr().out
