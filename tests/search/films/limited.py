"""``fusion index`` by a process whose files cannot grow beyond some bytes, its first argument."""

import resource
import sys

from fusion.cli.main import call

if __name__ == "__main__":
    size = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    call("index", sys.argv[2:])
