"""The same as ``fusion find-lr``, as a file for launchers."""

from fusion.cli.main import call

if __name__ == "__main__":
    call("find-lr")
