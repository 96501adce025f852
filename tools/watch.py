"""The same as ``fusion watch``, as a file for launchers."""

from fusion.cli.main import call

if __name__ == "__main__":
    call("watch")
