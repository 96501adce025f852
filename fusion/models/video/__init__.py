"""Backbones that turn the frames of a video into features, and their published weights."""
