import numpy as np
import pytest

from fusion.config import ConfigError
from fusion.modalities import Direction
from fusion.study.plan import Plan, Setting, read_plan, spread_out, subsets

TERMS = ["t|v", "t|a", "v|a", "t|va", "v|ta", "a|tv"]
NAMES = ["text", "video", "audio"]


def test_subsets_are_all_but_the_empty_one_small_ones_first():
    found = subsets(TERMS)
    assert len(found) == len(set(found)) == 63
    sizes = [sum(s.weights) for s in found]
    assert sizes == sorted(sizes) and sizes[0] == 1


def test_a_setting_covers_the_directions_whose_modalities_it_trains():
    alone = Setting((1, 0, 0, 0, 0, 0))
    assert alone.covers(Direction(("t",), ("v",)), TERMS, NAMES)
    assert not alone.covers(Direction(("t",), ("v", "a")), TERMS, NAMES)
    assert Setting((0, 0, 0, 1, 0, 0)).covers(Direction(("a",), ("tv",)), TERMS, NAMES)
    assert alone.label(TERMS) == "t|v" and alone.folder(TERMS) == "t~v"
    assert Setting((0.1, 0, 1, 0, 0, 0)).label(TERMS) == "t|v 0.1, v|a"


def test_weights_are_far_from_one_another():
    found = spread_out(TERMS[:3], [0, 0.5, 1], 8)
    assert found[0].weights == (1, 1, 1) and len(set(found)) == 8
    assert found == spread_out(TERMS[:3], [1, 0, 0.5], 8)
    # Each is as far from those before as any other setting would be.
    every = spread_out(TERMS[:3], [0, 0.5, 1], 100)
    values = np.array([s.weights for s in every]) * 2
    for place in range(1, 8):
        before = values[:place]
        nearest = [min(np.abs(other - b).sum() for b in before) for other in values]
        assert min(np.abs(values[place] - b).sum() for b in before) == max(nearest)
    # The loss divides by the sum of weights: 27 settings without the empty one are 19 losses.
    shares = {tuple(w / sum(s.weights) for w in s.weights) for s in every}
    assert len(every) == len(shares) == 19
    with pytest.raises(ConfigError, match="must be two or more numbers from 0 on"):
        spread_out(TERMS, [1], 3)
    with pytest.raises(ConfigError, match="1,000,000 combinations, and at most 20,000"):
        spread_out(TERMS, range(10), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("terms: [t|v, t|a]\noutput: x\n", "config is missing"),
        ("config: eao\nterms: [t|v, t|a]\noutput: x\nsed: 1\n", "sed is unknown; did you mean"),
        ("config: eao\nterms: [t|v]\noutput: x\n", "terms must be 2 to 10 different terms"),
        ("config: eao\nterms: [t|v, t|a]\noutput: x\nseeds: [1, 1]\n", "seeds must be different"),
        ("config: eao\nterms: [a, b]\noutput: x\noverrides: [seed=1]\n", "seed=1 is set by the st"),
        ("config: eao\nterms: [a, b]\noutput: x\nbudget: 3\n", "got 3 with weights None"),
        ("- a\n", "must hold `key: value` lines"),
        ("a: [\n", "is not a YAML file that can be read"),
    ],
)
def test_a_wrong_study_is_one_line(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_plan(tmp_path / "s.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no study at .*none.yaml; begin with a copy"):
        read_plan(tmp_path / "none.yaml")


def test_overrides_of_the_command_come_last(tmp_path):
    text = "config: eao\nterms: [t|v, t|a]\noutput: x\noverrides: [data.films=3]\n"
    (tmp_path / "s.yaml").write_text(text)
    assert read_plan(tmp_path / "s.yaml", ["data.films=4"]) == Plan(
        "eao", ["t|v", "t|a"], "x", ["data.films=3", "data.films=4"], [0, 1]
    )


def test_the_command_line_changes_the_study_and_the_config(tmp_path):
    (tmp_path / "s.yaml").write_text("config: eao\nterms: [t|v, t|a]\noutput: x\n")
    changes = ["output=y", "data.films=3", "seeds=[4]", "weights=[0, 1, 2]", "budget=5"]
    plan = read_plan(tmp_path / "s.yaml", changes)
    assert (plan.output, plan.seeds, plan.overrides) == ("y", [4], ["data.films=3"])
    assert plan.settings() == spread_out(plan.terms, [0, 1, 2], 5)
    assert read_plan(tmp_path / "s.yaml").settings() == subsets(plan.terms)
