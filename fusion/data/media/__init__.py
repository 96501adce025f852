"""Read and write films; compute features of pictures and sound.

decode.py opens a file, chooses its streams, decodes them and counts time from second 0;
pictures.py and sound.py sample what was decoded; reader.py reads windows of a film with them, and
film.py reads a whole film in one pass.
"""

SAMPLE_RATE = 16_000  # hertz, of the sound that features are made of
