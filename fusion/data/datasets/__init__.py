"""Data sets, by the names that configs use."""

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.demo import demo
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.msrvtt_youcook2 import PickledVideos, msrvtt, youcook2

DATASETS = {
    "demo": demo,
    "videos": CaptionedVideos,
    "pickles": PickledVideos,
    "msrvtt": msrvtt,
    "youcook2": youcook2,
    "howto100m": HowTo100M,
}
