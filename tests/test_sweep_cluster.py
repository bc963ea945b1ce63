"""A sweep on a cluster that is there already: nodes come and go."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import MARK, Ledger, Sweep

pytestmark = pytest.mark.ray


class Nodes:
    """A fake cluster of several nodes in a process of its own."""

    def __init__(self, folder: Path, head_cores: int) -> None:
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4, encoding="ascii")
        token.chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fakecluster.py")), str(head_cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment, MARK: "fakecluster"},
            text=True,
        )
        self.environment["RAY_ADDRESS"] = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)
        assert self._answer() == "ok"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=1)
    yield cluster
    cluster.process.communicate(timeout=60)


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
