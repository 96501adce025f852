"""The same as ``fusion reliability-report``, as a file for launchers."""

from fusion.cli.main import call

if __name__ == "__main__":
    call("reliability-report")
