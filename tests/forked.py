"""Commands as a user gives them, without the time that a new process takes."""

import io
import os
import sys
from contextlib import redirect_stdout

import torch

from scripts.jobs import start


def call(command, arguments):
    """Exit status and last line of stderr of a script's command, in a copy of this process."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        torch.set_num_threads(1)  # the threads of the process that was copied are not here: waiting for them never ends
        sys.stderr = io.TextIOWrapper(os.fdopen(write, "wb"), write_through=True)
        sys.argv, sys.excepthook = [command.__name__, *arguments], sys.__excepthook__
        status = 0
        with redirect_stdout(io.StringIO()):
            try:
                start(command)
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
    lines = printed.replace("\r", "\n").strip().splitlines()
    return os.waitstatus_to_exitcode(status), lines[-1] if lines else ""
