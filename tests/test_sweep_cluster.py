"""A sweep on a cluster that is there already: nodes come and go."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Ledger, Sweep
from nodes import Nodes

pytestmark = pytest.mark.main


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=1)
    yield cluster
    cluster.close()


def test_nodes_come_and_go(task: Callable[..., list[str]], tmp_path: Path, nodes: Nodes) -> None:
    relative = [
        argument.replace(f"{tmp_path}/", "") for argument in task(n=30, beamsize=300, pruner="none")
    ]
    sweep = Sweep(
        relative, tmp_path, tmp_path / "log", mark="fakecluster", environment=nodes.environment
    )
    sweep.start()
    ledger = Ledger(tmp_path / "sweeps/small/trials")

    def workers() -> int:
        return len(sweep.victims("worker"))

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert sweep.alive(), sweep.log.read_text()
            assert time.monotonic() < deadline, sweep.log.read_text()
            time.sleep(0.1)

    try:
        wait_for(lambda: workers() == 1)
        nodes.tell("add 2")
        wait_for(lambda: workers() == 3)
        wait_for(lambda: not ledger.look() and len(ledger.seen) >= 3)
        nodes.tell("remove")
        wait_for(lambda: workers() == 1)
        nodes.tell("add 1")
        wait_for(lambda: workers() == 2)
        assert sweep.wait(240) == 0, sweep.log.read_text()
        assert ledger.look() == []
        assert len(ledger.seen) == 30
        results = [json.loads(content) for content, _ in ledger.seen.values()]
        reasons = [(r["number"], r["reason"]) for r in results if r["state"] != "COMPLETE"]
        assert reasons == []  # a lost node is no trial's failure
    finally:
        if sweep.alive():
            sweep.kill("driver", random.Random(0))
            sweep.wait(10)


def test_nodes_that_die_at_work_again_and_again_fail_no_trial(
    task: Callable[..., list[str]], tmp_path: Path, nodes: Nodes
) -> None:
    hook = tmp_path / "deadly.py"
    hook.write_text(
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "calls = 0\n"
        "def cmdline(process): return pathlib.Path(f'/proc/{process}/cmdline').read_bytes()\n"
        "def normalize(text):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 40 and b'DecoderWorker' in cmdline('self'):\n"  # beyond the references
        "        if b'GPU' in cmdline(os.getppid()):\n"
        "            with (folder / 'died').open('a') as file: file.write('x')\n"
        "            os.kill(os.getppid(), 9)\n"
        "            os.kill(os.getpid(), 9)\n"
        "        while not (folder / 'go').exists(): time.sleep(0.05)\n"
        "    return text\n"
    )
    died = tmp_path / "died"
    died.touch()
    sweep = Sweep(
        task(n=1, sampler="random", pruner="none", normalize=hook), REPOSITORY, tmp_path / "log",
        mark="fakecluster", environment=nodes.environment,
    )  # fmt: skip
    sweep.start()
    try:
        for _ in range(3):  # the head's own worker keeps its two blocks, the others go round
            before, deadline = died.stat().st_size, time.monotonic() + 90
            nodes.tell("add 1 1")
            while died.stat().st_size == before:
                assert sweep.alive(), sweep.log.read_text()
                assert time.monotonic() < deadline, sweep.log.read_text()
                time.sleep(0.1)
        (tmp_path / "go").touch()
        assert sweep.wait(120) == 0, sweep.log.read_text()
        (result,) = (tmp_path / "sweeps/small/trials").glob("*/result.json")
        assert (json.loads(result.read_text())["state"]) == "COMPLETE"
    finally:
        (tmp_path / "go").touch()
        if sweep.alive():
            sweep.kill("driver", random.Random(0))
            sweep.wait(10)
