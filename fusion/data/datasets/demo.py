"""The built-in corpus as a data set."""

from __future__ import annotations

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.dataset import SPLITS
from fusion.data.demo import VERSION, demo_corpus


def demo(
    video_features: str = "descriptors",
    max_video_tokens: int = 12,
    max_audio_frames: int = 256,
    random_crop_seconds: float = 0.0,
    neighbours: int = 1,
    films: int | None = None,
    version: int = VERSION,
) -> CaptionedVideos:
    """Open the built-in corpus; render it on first use.

    ``films`` is the number of training films, up to 870, and of the films in each other split, as
    far as it has so many; 450, 34 and 68 if not given. ``version`` 2 is the older corpus, in which
    sight and sound are independent (up to 725 films; 320, 36 and 72). The other arguments are those
    of :class:`CaptionedVideos`.
    """
    folder = demo_corpus(size=films, version=version)
    train, validation, test = (str(folder / f"{split}.csv") for split in SPLITS)
    lengths = max_video_tokens, max_audio_frames, random_crop_seconds
    ceilings = str(folder / "ceilings.json")
    files = train, validation, test
    return CaptionedVideos(*files, video_features, *lengths, ceilings, neighbours=neighbours)
