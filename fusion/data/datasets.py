"""Data sets, by the names that configs use."""

from fusion.data.clips import CaptionedVideos, demo

DATASETS = {"demo": demo, "videos": CaptionedVideos}
