"""Read and write films; compute features of pictures and sound.

decode.py opens a file, chooses its streams, decodes them and counts time from second 0;
pictures.py and sound.py sample what was decoded; film.py reads a film or a window with them.
"""

SAMPLE_RATE = 16_000  # hertz, of the sound that features are made of
