"""Processes that tests start: like those of a command line, forked where a fork is safe."""

import json
import multiprocessing
import socket
import sys

import pytest

from tests.processes import ROOT


def script(folder, text):
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_a_script_has_its_words_environment_outputs_and_exit_code(tool, tmp_path):
    path = script(
        tmp_path,
        "import multiprocessing, os, sys\n"
        "print(__name__, *sys.argv[1:], os.environ['COLOUR'], os.getcwd())\n"
        "print(multiprocessing.get_start_method())\n"
        "sys.exit('a mistake')\n",
    )
    code, output, errors = tool(path, "one", 2, COLOUR="red")
    assert code == 1 and errors.startswith("a mistake\n")
    method = multiprocessing.get_start_method()
    assert output.splitlines() == [f"__main__ one 2 red {ROOT}", method]


def test_ranks_see_each_other(tool, tmp_path):
    path = script(
        tmp_path,
        "import torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "found = [None] * dist.get_world_size()\n"
        "dist.all_gather_object(found, dist.get_rank())\n"
        "print(found)\n"
        "dist.destroy_process_group()\n",
    )
    code, output, errors = tool(path, processes=3)
    assert (code, output) == (0, "[0, 1, 2]\n" * 3), errors


def test_f30_no_test_and_no_tool_that_it_starts_reaches_another_machine(tool, tmp_path):
    reach = (
        "import socket, urllib.request\n"
        "for reach in (lambda: socket.create_connection(('240.0.0.1', 80)),\n"
        "              lambda: urllib.request.urlopen('https://huggingface.co')):\n"
        "    try:\n        reach()\n"
        "    except OSError as error:\n        print('tests have no network' in str(error))\n"
    )
    code, output, errors = tool(script(tmp_path, reach))
    assert (code, output) == (0, "True\nTrue\n"), errors
    with pytest.raises(OSError, match="tests have no network: 240.0.0.1"):
        socket.create_connection(("240.0.0.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_the_first_rank_that_fails_ends_the_others(tool, tmp_path):
    path = script(
        tmp_path,
        "import os, sys, time\nif os.environ['RANK'] == '0':\n    time.sleep(100)\nsys.exit(7)\n",
    )
    assert tool(path, processes=2, timeout=60)[0] == 7


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
def test_what_is_forked_has_one_thread_and_has_left_cuda_alone(tool, tmp_path):
    path = script(
        tmp_path,
        "import json, os, sys, torch\n"
        "threads = len(os.listdir(f'/proc/{os.getppid()}/task'))\n"
        "print(json.dumps([threads, torch.cuda._is_in_bad_fork(), torch.cuda.is_initialized()]))\n",
    )
    code, output, errors = tool(path)
    assert code == 0, errors
    assert json.loads(output) == [1, False, False]
