"""LM forwarding on a cluster that is there already: nodes come and go, GPUs are shared out."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Sweep
from lmtask import expected_scores, hypotheses, write_dump
from nodes import Nodes

pytestmark = pytest.mark.slow(seconds=30)

PROGRAM = """
import os, sys, time
lines = list(sys.stdin)
device = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
with open({ledger!r}, "a", encoding="utf-8") as file:
    print(device, file=file, flush=True)
while not os.path.exists({ledger!r} + "-go"):
    time.sleep(0.05)
for line in lines:
    print(-len(line.rstrip("\\n")) / 8)
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=1, head_gpus=1)
    yield cluster
    cluster.close()


def test_nodes_come_and_go_and_each_worker_has_its_gpu(tmp_path: Path, nodes: Nodes) -> None:
    rows = hypotheses(30)
    dump = write_dump(tmp_path / "dev.lst.hyp", rows)
    script, ledger = tmp_path / "score_it.py", tmp_path / "ledger"
    script.write_text(PROGRAM.replace("{ledger!r}", repr(str(ledger))), encoding="utf-8")
    ledger.touch()
    command = shlex.join([sys.executable, str(script)])
    sweep = Sweep(
        [f"--hyp={dump}", f"--command={command}", "--shard_sentences=6", "--gpu=1"],
        REPOSITORY, tmp_path / "log", mark=nodes.mark, module="w2ltune.forward",
        environment=nodes.environment,
    )  # fmt: skip

    def begun() -> list[str]:
        return ledger.read_text().split()

    sweep.start()
    try:
        sweep.wait_for(lambda: begun() == ["0"])
        nodes.tell("add 2 2")
        sweep.wait_for(lambda: Counter(begun()) == {"0": 2, "1": 1})  # on the other node two
        nodes.tell("remove")
        sweep.wait_for(lambda: len(sweep.victims("scorer")) == 1)
        (tmp_path / "ledger-go").touch()
        assert sweep.wait() == 0, sweep.log.read_text()
    finally:
        if sweep.alive():
            sweep.process.kill()  # type: ignore[union-attr]
    assert (tmp_path / "dev-tr.ppl").read_text() == expected_scores(rows)
    shards = -(-len({text for _, text in rows}) // 6)
    assert len(begun()) == shards + 2  # those that were lost with the node
