"""Embed any combination of text, audio and video into one space."""
