"""A Ray that is there already, for tests that are not about starting, losing or ending one.

A command on it takes a third of the processor time of one that starts its own. It lives as long as
the tests' process, so those of a file stay together (``pytest.mark.xdist_group``).
"""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path

from nodes import Nodes

DOUBLES_ENVIRONMENT = {
    "DOUBLE_PYTHON": sys.executable,
    "DOUBLE_RETRY_SECONDS": "0.001",
    "DOUBLE_UPDATE_SECONDS": "0.0005",
}


@functools.cache
def _nodes() -> Nodes:
    folder = Path(tempfile.mkdtemp(prefix="w2ltune-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Nodes(folder, head_cores=1, **DOUBLES_ENVIRONMENT)  # ends when its input is closed


def running_ray() -> dict[str, str]:
    """Return the environment of commands that are to run on it."""
    return _nodes().environment
