"""Retrieval: find a clip by any combination of modalities, in every direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Subset

from fusion.builders import check_config, learns, left_to_the_data, modalities_of, raw_video_of
from fusion.checkpoint import (
    save_text_encoder,
    trust_of,
)
from fusion.config import ConfigError, check, merge
from fusion.data.datasets.dataset import ClipSet, FirstClips, Source
from fusion.data.datasets.dropping import KEY as DROP
from fusion.data.datasets.dropping import DroppedModalities
from fusion.data.features.problems import warn
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.data.labelled.raw_video import WithFrames
from fusion.evaluation.embed import Embedded, embed, keep_complete
from fusion.evaluation.metrics import RECALLS, flatten_metrics
from fusion.evaluation.rescoring import rescored_tables
from fusion.evaluation.retrieval import Ranked, rank_directions, retrieval_table
from fusion.evaluation.settings import Settings
from fusion.interfaces import Loss
from fusion.modalities import ORDER, directions
from fusion.models.text.language_models import LanguageModel
from fusion.models.text.tower import TextReader, TextTower
from fusion.models.text.trained import TextTokens, TrainedText
from fusion.report.runs import add_arrays, pack_scores
from fusion.tasks.fit import fit_config
from fusion.tasks.frame_weights import start_frames
from fusion.tasks.retrieval.gallery import EVENLY_CHOSEN, find_examples
from fusion.tasks.retrieval.missing import check_missing, embed_without, measure_missing
from fusion.tasks.retrieval.ranking import (
    embed_clips,
    needed_for,
    rank_gallery,
    validation_ways,
)
from fusion.tasks.retrieval.result import describe_evaluation
from fusion.tasks.retrieval.tuning import (
    LEAVE_OUT,
    add_tuned_rows,
    can_tune,
    check_validation,
    with_tuned_ceilings,
)
from fusion.tasks.task import Evaluation, check_widths
from fusion.tasks.text_encoder import find_text_encoder
from fusion.tasks.vocabulary import KnownWords, count_words
from fusion.tokens import Batch
from fusion.training.launch import main_first
from fusion.training.settings import LAST


class Retrieval:
    """Rank clips in every direction between modalities, see :class:`fusion.tasks.task.Task`."""

    reads_frames = True  # data.raw_video
    encodes_beside = True  # texts, if a frozen transformer reads them: in batches, on the device
    _tower: TextTower | None = None

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config, self.builders = config, check_config(config)
        check("evaluation", config["evaluation"], Settings)
        self.settings = Settings(**config["evaluation"])
        if names := modalities_of(config["model"]):
            check_missing(self.settings, names)
        self.text_encoder: Any = None
        self._words: dict[str, KnownWords | None] = {}  # of each split that was read
        self.source: Source
        self._is_new = True  # whether the run begins without a checkpoint

    def build(self) -> tuple[nn.Module, Loss]:
        """Build the model and the loss."""
        model: nn.Module = self.builders["model"]()
        if isinstance(self.text_encoder, TextTokens):
            for part in model.modules():
                if isinstance(part, TrainedText):
                    self.text_encoder.start(part)
        self._read_texts(model)
        if self._is_new:
            start_frames(model)
        return model, self.builders["loss"](modalities=model.modalities)

    def check(self, model: Any, loss: Any, best: str | None) -> None:
        """Check that the model embeds what the loss and ``trainer.best`` need."""
        embedded = set(model.combinations)
        if lacking := sorted(set(loss.combinations) - embedded):
            raise ConfigError(
                f"loss.terms needs the combination {lacking[0]!r}, which model.combinations lacks;"
                " add it there, or take its terms out by a weight of 0"
            )
        ways = [d for d in directions(model.modalities) if {*d.query, *d.gallery} <= embedded]
        if best not in (None, LAST) and best not in [
            f"{way} R@{k}" for way in ways for k in RECALLS
        ]:
            raise ConfigError(
                f"trainer.best: {best!r} is not evaluated with these modalities and"
                f" model.combinations; choose a direction of {', '.join(map(str, ways))} and a"
                f" metric of {', '.join(f'R@{k}' for k in RECALLS)}"
            )
        validation_ways(self.settings, model, best)

    def open_data(self) -> None:
        """Open the data set."""
        if not 0 <= (share := self.config["max_unknown"]) <= 1:
            raise ConfigError(
                f"max_unknown is {share:g}; it is a share of texts from 0 to 1, such as 0.5"
            )
        self.source = self.builders["data"]()
        self.source.max_clips = self.config["max_clips"]

    def extract(self) -> None:
        """Compute the features that are missing."""
        self.source.extract()

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits of the data."""
        return self.source.splits

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read the text encoder of a checkpoint, or train one on the training texts."""
        self._is_new = checkpoint is None
        if (spec := self.config["text_encoder"]) is None:
            return {}
        if checkpoint is not None:
            self.text_encoder = find_text_encoder(
                checkpoint, spec, own_first, trust_of(self.config)
            )
        else:
            texts = self.source.texts("train") if learns(spec) else ()
            build = self.builders["text_encoder"]
            self.text_encoder = build(sentences=texts, seed=self.config["seed"])
        if self.encodes_beside and isinstance(self.text_encoder, LanguageModel):
            self._tower = TextTower(self.text_encoder)
        # A model only understands the vectors that it was trained with.
        return {"texts": getattr(self.text_encoder, "path", None) or f"encoder in {checkpoint}"}

    def _read_texts(self, model: nn.Module) -> None:
        """Let a model read the numbered tokens of texts, if the text encoder is a transformer."""
        if self._tower is not None:
            self._tower.beside(model)

    def save_encoders(self, folder: Path) -> None:
        """Write the text encoder."""
        save_text_encoder(folder, self.text_encoder)

    def fit(self, processes: int) -> Mapping[str, Any]:
        """Fill in widths, lengths and the size of a batch, see :func:`.fit.fit_config`."""
        if self.settings.tune_late_average:
            check_validation(self.source)
        config = self.config
        if self._tower is not None and ("text", "dim") in left_to_the_data(config["model"]):
            width = {"text": {"dim": self.text_encoder.width}}
            config = {**config, "model": merge(config["model"], {"modalities": width})}
        config = fit_config(config, self.source, self._read, processes)
        if config is not self.config:
            self.config, self.builders = config, check_config(config)
        return config

    def recipe(self) -> Mapping[str, Any] | None:
        """Say how a clip's input is made."""
        recipe, settings = self.source.recipe(), raw_video_of(self.config)
        if recipe is None or settings is None:
            return recipe
        return {**recipe, "features": {**recipe["features"], RAW: settings.recipe()}}

    def clips(self, split: str) -> ClipSet:
        """Read a split and check that its features fit the model."""
        clips = self._read(split)
        first = clips[0]
        if self._tower is not None and "text" in first:
            first = {**first, "text": first["text"].new_empty(0, self.text_encoder.width)}
        check_widths(self.config["model"], first)
        if split not in self._words:  # once, however often it is read
            texts = (caption.text for caption in clips.captions)
            self._words[split] = words = count_words(texts, self.text_encoder)
            if words is not None:
                words.check(split, self.config["max_unknown"])
                if said := words.describe():
                    warn(f"{split}: {said}")
        if (number := self.config["max_clips"]) is not None:
            clips = FirstClips(clips, number)
        return self._with_dropping(clips) if split == "train" else clips

    def _with_dropping(self, clips: ClipSet) -> ClipSet:
        """Let training clips lose modalities at random, see ``data.drop_modalities``."""
        if not (shares := self.config["data"].get(DROP)):
            return clips
        names = modalities_of(self.config["model"])
        return DroppedModalities(clips, shares, names or [k for k in clips[0] if k in ORDER])

    def _read(self, split: str) -> ClipSet:
        encoder = TextReader(self.text_encoder) if self._tower is not None else self.text_encoder
        clips = self.source.clips(split, encoder)
        specs = self.config["model"].get("modalities", {})
        clips.further = [name for name in specs if specs[name] and name not in ORDER]
        settings = raw_video_of(self.config)
        if settings is None:
            return clips
        if (number := self.config["max_clips"]) is not None:
            clips = FirstClips(clips, number)  # before films are decoded
        return WithFrames(clips, settings)

    def arguments(self, loss: Any) -> Callable[[Batch], Mapping[str, Any]]:
        """Compute only the combinations that the loss reads, with the seeds of the clips."""
        return lambda clips: {
            "combinations": loss.combinations,
            "skip_incomplete": not getattr(loss, "keep_incomplete", False),
            "seeds": clips.seeds,
        }

    def measure(
        self, model: nn.Module, clips: ClipSet, accelerator: Accelerator
    ) -> dict[str, float]:
        """Rank what ``trainer.best`` and the curves need, without intervals."""
        self._read_texts(model)
        ways = validation_ways(self.settings, model, self.config["trainer"].get("best"))
        embedded = embed_clips(model, clips, *self._where(accelerator), needed_for(ways))
        only, device = {str(way) for way in ways}, accelerator.device
        ranked = rank_directions(embedded, only=only, device=device, together=True)
        counted = embedded.num_clips
        return flatten_metrics(retrieval_table(ranked, counted, embedded.captions, intervals=False))

    def _where(self, accelerator: Accelerator) -> tuple[Accelerator, int, int]:
        """Return on which device, how many clips at a time, and how many processes read them."""
        workers = self.settings.num_workers
        if workers is None:
            workers = self.config["trainer"].get("num_workers") or 0
        return accelerator, self.settings.batch_size, workers

    def evaluate(
        self, model: nn.Module, clips: ClipSet, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Rank the clips of a split in every direction, as its protocol says."""
        settings, bank = self.settings, None
        self._read_texts(model)
        if "qb_norm" in (settings.rescoring or ()):
            queries = self._bank_clips(accelerator, settings.qb_norm_bank)
            bank = embed(model, queries, accelerator, settings.batch_size)
        embedded = embed_clips(model, clips, *self._where(accelerator))
        validation = None
        if settings.tune_late_average and can_tune(self.source, split):
            held = self._validation_clips(accelerator)
            validation = embed_clips(model, held, *self._where(accelerator))
        names = modalities_of(self.config["model"]) or list(embedded.present)
        losing = check_missing(settings, names)
        where = (accelerator, settings.batch_size)
        without = embed_without(model, clips, *where, losing, embedded)
        ranked = rank_gallery(self.source, split, embedded, accelerator)
        if not accelerator.is_main_process:
            return None
        known = self._words.get(split)
        about = (self.source, split, embedded, settings, bank, known, validation, ranked)
        result, gallery, ranked = describe_result(*about)
        examples, number = [], settings.queries_in_report
        for way in result["table"]["lead"][:1]:
            examples = find_examples(gallery, way, ranked[way], clips.folder, number)
        rows = {way: (found.ranks, found.rows.numpy()) for way, found in ranked.items()}
        texts = [item.text for item in gallery.items or ()]
        scores = pack_scores(gallery.ids, gallery.clips.numpy(), texts, rows, kind="ranks")
        if losing:
            protocol = self.source.protocol_of(split)
            result["missing"], arrays = measure_missing(embedded, without, losing, protocol)
            scores = add_arrays(scores, arrays)
        return Evaluation(result, scores, examples, EVENLY_CHOSEN)

    def _validation_clips(self, accelerator: Accelerator) -> ClipSet:
        try:
            with main_first(accelerator, "reading the validation clips"):
                return self.clips("validation")
        except ValueError as error:
            raise ConfigError(f"validation cannot be read: {error}; {LEAVE_OUT}") from None

    def _bank_clips(self, accelerator: Accelerator, most: int) -> Subset[Any]:
        """Read at most ``most`` training clips, evenly spaced."""
        lacking = "evaluation.rescoring: qb_norm takes its bank of queries from the training split"
        if "train" not in self.splits:
            raise ConfigError(
                f"{lacking}, which the data lacks; name one under data.train, or leave qb_norm out"
            )
        try:
            with main_first(accelerator, "reading the training clips"):
                clips = self._read("train")
        except ValueError as error:
            raise ConfigError(f"{lacking}: {error}") from None
        number = min(most, len(clips))
        return Subset(clips, [place * len(clips) // number for place in range(number)])


def describe_result(
    source: Source,
    split: str,
    embedded: Embedded,
    settings: Settings,
    bank: Embedded | None,
    words: KnownWords | None = None,
    validation: Embedded | None = None,
    ranked: Mapping[str, Ranked] | None = None,
) -> tuple[dict[str, Any], Embedded, dict[str, Ranked]]:
    """Rank the clips of a split as the protocol of its data says; ``bank`` is for QB-Norm.

    ``words`` are those of the split that the text encoder knows. Late averages are tuned on
    ``validation``; None: they are not. ``ranked`` are the ranks of :func:`rank_gallery`, if they
    are known.

    Returns:
        The result, ready for JSON, the clips of the gallery, and the ranks of its rows. The result
        has the ``rule`` and the ``data`` of its ``protocol`` apart too, as comparable results may
        differ in their data.
    """
    protocol = source.protocol_of(split)
    counted, captions = protocol.counted or embedded.num_clips, embedded.captions
    gallery = keep_complete(embedded, protocol.needs)
    plain = rank_directions(gallery) if ranked is None else ranked
    ranked, tuning = add_tuned_rows(gallery, plain, split, validation)
    table = retrieval_table(ranked, counted, captions)
    rescored = rescored_tables(gallery, settings, bank, counted, captions)
    parts = {"rule": protocol.describe(gallery.num_clips), "data": source.describe(split)}
    said = f"{parts['rule']}; {parts['data']}; ties count as their mean place"
    by_cosine = None
    if gallery.similarity != "cosine":
        by_cosine = retrieval_table(rank_directions(gallery.by_cosine()), counted, captions)
    ceiling = with_tuned_ceilings(source.ceiling(split), table)
    known = words.as_json() if words else None
    found = (gallery, table, ceiling, counted, rescored, by_cosine, known)
    result = describe_evaluation(split, said, *found)
    return result | {"protocol_parts": parts, **tuning}, gallery, ranked
