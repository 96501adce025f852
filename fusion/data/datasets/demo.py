"""The built-in corpus as a data set."""

from __future__ import annotations

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.dataset import SPLITS
from fusion.data.demo import demo_corpus


def demo(
    video_features: str = "descriptors",
    max_video_tokens: int = 12,
    max_audio_frames: int = 256,
    random_crop_seconds: float = 0.0,
    films: int | None = None,
) -> CaptionedVideos:
    """Open the built-in corpus; render it on first use.

    ``films`` is the number of training films, up to 725, and of the films in each other split, as
    far as it has so many; 320, 36 and 72 if not given. The other arguments are those of
    :class:`CaptionedVideos`.
    """
    folder = demo_corpus(size=films)
    train, validation, test = (str(folder / f"{split}.csv") for split in SPLITS)
    lengths = max_video_tokens, max_audio_frames, random_crop_seconds
    ceilings = str(folder / "ceilings.json")
    return CaptionedVideos(train, validation, test, video_features, *lengths, ceilings)
