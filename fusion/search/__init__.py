"""Search films by words, sound, picture or any of them together."""
