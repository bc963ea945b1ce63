"""LM forwarding on a cluster that is there already: nodes come and go, GPUs are shared out."""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Sweep
from lmtask import expected_scores, hypotheses, write_dump
from nodes import Nodes

pytestmark = pytest.mark.main

PROGRAM = """
import os, sys, time
lines = list(sys.stdin)
device = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
with open({ledger!r}, "a", encoding="utf-8") as file:
    print("begin", device, file=file, flush=True)
    time.sleep(0.5)
    print("end", device, file=file, flush=True)
for line in lines:
    print(-len(line.rstrip("\\n")) / 8)
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=1, head_gpus=1)
    yield cluster
    cluster.close()


def test_nodes_come_and_go_and_each_worker_has_its_gpu(tmp_path: Path, nodes: Nodes) -> None:
    rows = hypotheses(60)
    dump = write_dump(tmp_path / "dev.lst.hyp", rows)
    script, ledger = tmp_path / "score_it.py", tmp_path / "ledger"
    script.write_text(PROGRAM.replace("{ledger!r}", repr(str(ledger))), encoding="utf-8")
    command = shlex.join([sys.executable, str(script)])
    sweep = Sweep(
        [f"--hyp={dump}", f"--command={command}", "--shard_sentences=3", "--gpu=1"],
        REPOSITORY, tmp_path / "log", mark="fakecluster", module="w2ltune.forward",
        environment=nodes.environment,
    )  # fmt: skip

    def workers() -> int:
        return len(sweep.victims("scorer"))

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert sweep.alive(), sweep.log.read_text()
            assert time.monotonic() < deadline, sweep.log.read_text()
            time.sleep(0.1)

    sweep.start()
    try:
        wait_for(lambda: workers() == 1)
        nodes.tell("add 2 2")
        wait_for(lambda: workers() == 3)
        wait_for(lambda: len(list(tmp_path.glob("dev-tr/shards/[!.]*.npy"))) >= 8)
        nodes.tell("remove")
        wait_for(lambda: workers() == 1)
        assert sweep.wait(240) == 0, sweep.log.read_text()
    finally:
        if sweep.alive():
            sweep.kill("driver", random.Random(0))
    assert (tmp_path / "dev-tr.ppl").read_text() == expected_scores(rows)
    devices = [line.split()[1] for line in ledger.read_text().splitlines()]
    assert set(devices) == {"0", "1"}  # one on the head, two on the other node
    shards = -(-len({text for _, text in rows}) // 3)
    begun = sum(line.startswith("begin") for line in ledger.read_text().splitlines())
    assert shards <= begun <= shards + 2
