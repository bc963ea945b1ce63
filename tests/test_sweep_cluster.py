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

pytestmark = pytest.mark.ray


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=1)
    yield cluster
    cluster.close()


def test_nodes_come_and_go(task: Callable[..., list[str]], tmp_path: Path, nodes: Nodes) -> None:
    sweep = Sweep(
        task(n=30, beamsize=300, pruner="none"), REPOSITORY, tmp_path / "log", mark="fakecluster",
        environment=nodes.environment,
    )  # fmt: skip
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
        states = [json.loads(content)["state"] for content, _ in ledger.seen.values()]
        assert states == ["COMPLETE"] * 30  # a lost node is no trial's failure
    finally:
        if sweep.alive():
            sweep.kill("driver", random.Random(0))
            sweep.wait(10)
