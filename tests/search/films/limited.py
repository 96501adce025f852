"""``fusion index`` by a process whose files cannot grow beyond some bytes, its first argument."""

import resource
import sys

from fusion.cli.main import call

if __name__ == "__main__":
    size = int(sys.argv[1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        call("index", sys.argv[2:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage writes a file at the end
