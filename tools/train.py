"""The same as ``fusion train``, as a file for launchers."""

from fusion.cli.main import call

if __name__ == "__main__":
    call("train")
