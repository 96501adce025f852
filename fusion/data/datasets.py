"""Data sets, by the names that configs use."""

from fusion.data.captioned_videos import CaptionedVideos, demo
from fusion.data.howto100m import HowTo100M
from fusion.data.published import PickledVideos, msrvtt, youcook2

DATASETS = {
    "demo": demo,
    "videos": CaptionedVideos,
    "pickles": PickledVideos,
    "msrvtt": msrvtt,
    "youcook2": youcook2,
    "howto100m": HowTo100M,
}
