"""The program that decodes, with files whose names say what goes wrong when they are read."""

import os
import time

import psutil

from fusion.data.media.film import Film
from fusion.extract import worker

read = Film.pieces


def pieces(film):
    name = film.path.name
    if "chatty" in name:
        os.write(1, b"a library prints something\n")
    if "greedy" in name:
        bytearray(psutil.virtual_memory().total * 6 // 10)
    if "strange" in name:
        raise KeyError("something\nunexpected")
    for number, piece in enumerate(read(film)):
        if number == 1 and "crash" in name:
            os.abort()
        if number == 1 and "hang" in name:
            time.sleep(1000)
        yield piece
    if "growing" in name:
        with open(film.path, "ab") as file:
            file.write(b"more")


if __name__ == "__main__":
    Film.pieces = pieces
    worker.main()
