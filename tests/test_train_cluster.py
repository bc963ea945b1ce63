"""Trainings on several nodes with GPUs, which are numbers here: the double of the binary runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Sweep
from nodes import Nodes
from trainingtask import BINARY, make_training, write_config

pytestmark = pytest.mark.main


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path, head_cores=4, head_gpus=2, DOUBLE_UPDATE_SECONDS="0.01")
    yield cluster
    cluster.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    flags = make_training(tmp_path / "data")
    return write_config(tmp_path, {**flags, "iter": "1200"})


def wait_for(condition: Callable[[], bool], sweep: Sweep, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert sweep.alive(), sweep.log.read_text()
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.1)


def updates_in(log: Path) -> list[int]:
    text = log.read_text() if log.exists() else ""
    return [int(number) for number in re.findall(r"nupdates: +(\d+)", text)]


def test_ranks_on_two_nodes_survive_the_loss_of_one(
    tmp_path: Path, config: Path, nodes: Nodes
) -> None:
    nodes.tell("add 4 2")
    train = Sweep(
        [f"--binary={BINARY}", f"--config={config}", "--ngpu=4", "--gpus_per_node=2",
         f"--root={tmp_path / 'checkpoints'}"],
        REPOSITORY, tmp_path / "log", mark="fakecluster", environment=nodes.environment,
        module="w2ltune.train",
    )  # fmt: skip
    train.start()
    rundir = tmp_path / "checkpoints/project/name"
    try:
        wait_for(lambda: len(updates_in(rundir / "001_log")) >= 3, train)
        assert len(train.victims("child")) == 4
        nodes.tell("remove")
        wait_for(lambda: not train.victims("child"), train, 30)
        nodes.tell("add 4 2")
        assert train.wait(240) == 0, train.log.read_text()
    finally:
        for log in rundir.glob("logs/*"):
            print(log, log.read_text()[-3000:])
        if train.alive():
            train.process.kill()
            train.wait(10)
    result = json.loads((rundir / "trials/0000/result.json").read_text())
    assert (result["state"], result["updates"]) == ("COMPLETE", 1200)
    assert updates_in(rundir / "002_log")[0] > updates_in(rundir / "001_log")[0]
    shown = "".join(log.read_text() for log in sorted(rundir.glob("logs/*")))
    found = re.findall(r"rank (\d) of 4 on device (\d), CUDA_VISIBLE_DEVICES=(\S+)", shown)
    assert {(rank, device) for rank, device, _ in found} == {
        ("0", "0"), ("1", "1"), ("2", "0"), ("3", "1"),
    }  # fmt: skip
    assert {visible for *_, visible in found} == {"0,1"}


def test_two_trials_on_one_node_have_gpus_of_their_own(
    tmp_path: Path, config: Path, nodes: Nodes
) -> None:
    sweep = Sweep(
        [
            "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=4", "--ngpu=1",
            "--extra=--lr=loguniform(1e-3, 0.1) --iter=400", "--pruner=none",
            f"--root={tmp_path / 'checkpoints'}",
        ],
        REPOSITORY, tmp_path / "log", mark="fakecluster", environment=nodes.environment,
    )  # fmt: skip
    sweep.start()
    trials = tmp_path / "checkpoints/project/name_iter400_sweep-lr/trials"
    seen = set()
    try:
        while sweep.alive():
            for pid in sweep.victims("child"):
                try:
                    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
                except OSError:
                    continue
                trial = re.search(r"trials/(\d+)/run", "".join(sweep.processes().get(pid, "")))
                found = re.search(r"CUDA_VISIBLE_DEVICES=(\S*?)\0", text)
                if trial and found:
                    seen.add((trial[1], found[1]))
            time.sleep(0.1)
        assert sweep.wait(10) == 0, sweep.log.read_text()
    finally:
        if sweep.alive():
            sweep.process.kill()
            sweep.wait(10)
    assert {device for _, device in seen} == {"0", "1"}
    results = [json.loads(path.read_text()) for path in sorted(trials.glob("*/result.json"))]
    assert [result["state"] for result in results] == ["COMPLETE"] * 4
