"""Commands as a user gives them, without the time that a new process takes."""

import io
import os
import runpy
import sys
from contextlib import redirect_stdout

import torch

from scripts.jobs import start


def call(command, arguments):
    """Exit status and last line of stderr of a script's command, in a copy of this process."""
    status, printed = _in_a_copy(lambda: start(command), [command.__name__, *arguments])
    return status, printed[-1] if printed else ""


def run_bundle(words):
    """Exit status and lines of stderr of ``python -m monai.bundle`` and these words, in a copy of this process."""
    work = "monai.bundle.__main__"
    return _in_a_copy(lambda: runpy.run_module(work, run_name="__main__", alter_sys=True), [work, *words])


def _in_a_copy(work, argv):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        torch.set_num_threads(1)  # the threads of the process that was copied are not here: waiting for them never ends
        sys.stderr = io.TextIOWrapper(os.fdopen(write, "wb"), write_through=True)
        sys.argv, sys.excepthook = argv, sys.__excepthook__
        status = 0
        with redirect_stdout(io.StringIO()):
            try:
                work()
            except SystemExit as error:
                status = error.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
                status = 1
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    os.close(write)
    printed = os.fdopen(read).read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), printed.replace("\r", "\n").strip().splitlines()
