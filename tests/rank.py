"""Run one of the processes that a test starts as `torchrun` would; `Ranks` in `conftest.py` runs this file.

`Ranks` defines the globals `ENVIRONMENT`; `OUTPUT`, the file for stdout and stderr; and `ARGUMENTS`: `zoo` or the path
of a script, and its arguments.
"""

import os
import runpy
import sys

os.environ.update(ENVIRONMENT)  # noqa: F821
with open(OUTPUT, "wb", buffering=0) as file:  # noqa: F821, PTH123
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))

import torch  # noqa: E402

torch.set_num_threads(1)
sys.argv = list(ARGUMENTS)  # noqa: F821
if sys.argv[0] == "zoo":
    runpy.run_module("zoo", run_name="__main__", alter_sys=False)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
