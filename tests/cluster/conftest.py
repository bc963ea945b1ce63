"""The fixture ``slurm``: a real SLURM cluster for the tests of a module."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # bed.py and what it needs

from bed import Cluster, slurm_cluster
from bedfiles import Settings

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv")


@pytest.fixture(scope="module")
def slurm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster that is shared by the tests of a module, and idle when a test begins.

    Other settings: ``@pytest.mark.parametrize("slurm", [Settings(grace_seconds=0)],
    indirect=True)``.
    """
    reason = missing()
    if reason and os.environ.get("W2LTUNE_REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    settings = getattr(request, "param", Settings())
    with slurm_cluster(tmp_path_factory.mktemp("slurm"), settings) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _idle_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clean up after the test before; what a test writes can be read by the users."""
    before = os.umask(0o022)
    if "slurm" in request.fixturenames:
        request.getfixturevalue("slurm").reset()
    yield
    os.umask(before)


@functools.cache
def missing() -> str | None:
    """Return why no cluster can be started here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a SLURM cluster for tests needs Linux and root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if absent:
        return f"a SLURM cluster for tests needs {', '.join(absent)} (.ci/run installs them)"
    namespaces = ("--mount", "--net", "--uts", "--ipc", "--pid", "--fork")
    mount = ("mount", "-t", "tmpfs", "tmpfs", "/run")
    probe = subprocess.run(["unshare", *namespaces, *mount], capture_output=True, text=True)
    refused = probe.stderr.strip() if probe.returncode else None
    return f"a SLURM cluster for tests needs namespaces: {refused}" if refused else None
