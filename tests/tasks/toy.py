"""A task that is not retrieval: which folder does a clip belong to?

``python tests/tasks/toy.py tools/train.py CONFIG`` runs a tool with this task in its tables, as a
package of one's own would do it.
"""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.builders import check_config
from fusion.config import ConfigError, check
from fusion.data.datasets import DATASETS
from fusion.data.datasets.dataset import collate
from fusion.evaluation.metrics import interval_over_queries
from fusion.interfaces import Loss
from fusion.losses import LOSSES
from fusion.models import MODELS
from fusion.report.gallery import GalleryItem, GalleryResult
from fusion.report.layout import FORMAT, Layout
from fusion.report.runs import pack_scores
from fusion.tasks import TASKS, Evaluation
from fusion.tasks.task import check_widths
from tests.training.doubles import ClipList

KS = (1, 5)
LAYOUT = Layout(
    title="Classification",
    row="answer",
    rows="answers",
    main="top-1",
    columns={"top-5": "Top-5"},
    compared=["top-5"],
    names={"label": "the folder of a clip"},
    groups={"Answers": ["label"]},
    counts={"queries": "clips"},
    headline=["label"],
    headline_title="label",
    lead=["label", "How often the right folder comes first."],
)


class Classifier(torch.nn.Module):
    """The mean token of a clip, and a linear layer."""

    modalities = ("video",)

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(dim, classes)

    def forward(self, inputs):
        """Give (B, K) logits."""
        padded, mask = inputs["video"].pad()
        return {"logits": self.layer(padded.sum(dim=1) / mask.sum(dim=1, keepdim=True))}


class CrossEntropy(Loss):
    """A mean over single clips, so that chunks are accumulated."""

    compares_clips = False

    def __init__(self, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities

    def __call__(self, outputs, present, targets):
        """Compare the logits with the labels."""
        value = torch.nn.functional.cross_entropy(outputs["logits"], targets["label"])
        return value, {"label": value}


class LabelledFolders:
    """``SPLIT/LABEL/CLIP.npy``: (L, D) features each."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.splits = sorted(folder.name for folder in self.root.iterdir())
        self.labels = sorted({folder.name for folder in self.root.glob("*/*")})

    def clips(self, split):
        """Read a split."""
        return ClipList(
            {
                "id": f"{file.parent.name}/{file.stem}",
                "video": torch.from_numpy(np.load(file)),
                "targets": {"label": torch.tensor(self.labels.index(file.parent.name))},
            }
            for file in sorted((self.root / split).rglob("*.npy"))
        )


def settings(examples: int = 2) -> dict[str, int]:
    """The ``evaluation`` section."""
    return {"examples": examples}


class Classification:
    """See ``fusion.tasks.task.Task``."""

    def __init__(self, config):
        self.config, self.builders = config, check_config(config)
        check("evaluation", config["evaluation"], settings)
        self.examples = settings(**config["evaluation"])["examples"]

    def build(self):
        model = self.builders["model"]()
        return model, self.builders["loss"](modalities=model.modalities)

    def check(self, model, loss, best):
        if best not in (None, *(f"label top-{k}" for k in KS)):
            raise ConfigError(f"trainer.best: unknown {best!r}; choose label top-1 or label top-5")

    def open_data(self):
        self.source = self.builders["data"]()

    def extract(self):
        pass

    @property
    def splits(self):
        return self.source.splits

    def open_encoders(self, checkpoint, own_first=False):
        return {}

    def save_encoders(self, folder):
        pass

    def fit(self, processes):
        return self.config

    def recipe(self):
        return None

    def clips(self, split):
        clips = self.source.clips(split)
        check_widths({"modalities": {"video": {"dim": self.config["model"]["dim"]}}}, clips[0])
        return clips

    def arguments(self, loss):
        return lambda clips: {}

    def measure(self, model, clips, accelerator):
        right = self._right(model, clips, accelerator)
        return {f"label top-{k}": 100 * float(right[k].mean()) for k in KS}

    def evaluate(self, model, clips, split, accelerator):
        if not accelerator.is_main_process:
            return None
        right, ids = self._right(model, clips, accelerator), [clip["id"] for clip in clips]
        row = {f"top-{k}": 100 * float(right[k].mean()) for k in KS} | {"queries": len(ids)}
        row["top-1_interval"] = list(interval_over_queries(np.where(right[1], 1.0, 2.0), len(ids)))
        rule = "every clip of the split has one right folder"
        classes = len(self.source.labels)
        result = {
            "format": FORMAT,
            "set": split,
            "protocol": rule,
            "protocol_parts": {"rule": rule, "data": "folders"},
            "counted": len(ids),
            "clips": {"total": len(ids)},
            "answers": {"label": row},
            "chance": {f"top-{k}": 100 * min(1.0, k / classes) for k in KS},
            "table": dataclasses.asdict(LAYOUT),
        }
        numbers = np.arange(len(ids))
        scores = pack_scores(ids, numbers, ids, {"label": (right[1].astype(float), numbers)})
        examples = [
            GalleryItem(
                name,
                ("hit", "right") if hit else ("far", "wrong"),
                (),
                GalleryResult(name, name, None, 0.0, 1.0, float("nan"), bool(hit)),
            )
            for name, hit in zip(ids, right[1], strict=True)
        ]
        return Evaluation(result, scores, examples[: self.examples], "The first ones.")

    def _right(self, model, clips, accelerator):
        batch = collate(list(clips)).to(accelerator.device)
        model.eval()
        with torch.no_grad():
            order = model(batch.inputs)["logits"].argsort(dim=1, descending=True)
        found = order == batch.targets["label"][:, None]
        return {k: found[:, :k].any(dim=1).cpu().numpy() for k in KS}


ENTRIES = {
    "toy_classification": Classification,
    "labelled_folders": LabelledFolders,
    "toy_classifier": Classifier,
    "cross_entropy": CrossEntropy,
}
TABLES = dict(zip(ENTRIES, (TASKS, DATASETS, MODELS, LOSSES), strict=True))

if __name__ == "__main__":
    for name, table in TABLES.items():
        table[name] = ENTRIES[name]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
