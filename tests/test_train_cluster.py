"""Trainings on several nodes with GPUs, which are numbers here: the double of the binary runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Sweep
from nodes import Nodes
from trainingtask import BINARY, make_training, write_config

pytestmark = [pytest.mark.slow(seconds=30), pytest.mark.xdist_group("trainings on nodes")]


@pytest.fixture(scope="module")
def leave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """How many updates the programs may do."""
    return tmp_path_factory.mktemp("leave") / "leave"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, leave: Path) -> Iterator[Nodes]:
    cluster = Nodes(
        tmp_path_factory.mktemp("nodes"), head_cores=4, head_gpus=2, DOUBLE_LEAVE_FILE=str(leave)
    )
    yield cluster
    cluster.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, {**make_training(tmp_path / "data"), "iter": "120"})


VISIBLE = re.compile(r"(?:^|\0)CUDA_VISIBLE_DEVICES=([^\0]*)")


def updates_in(log: Path) -> list[int]:
    text = log.read_text() if log.exists() else ""
    return [int(number) for number in re.findall(r"nupdates: +(\d+)", text)]


def test_ranks_on_two_nodes_survive_the_loss_of_one(
    tmp_path: Path, config: Path, nodes: Nodes, leave: Path
) -> None:
    leave.write_text("9")  # 3 epochs of 4 ranks
    nodes.tell("add 4 2")
    train = Sweep(
        [f"--binary={BINARY}", f"--config={config}", "--ngpu=4", "--gpus_per_node=2",
         f"--root={tmp_path / 'checkpoints'}"],
        REPOSITORY, tmp_path / "log", mark=nodes.mark, environment=nodes.environment,
        module="w2ltune.train",
    )  # fmt: skip
    train.start()
    rundir = tmp_path / "checkpoints/project/name"
    try:
        train.wait_for(lambda: updates_in(rundir / "001_log") == [3, 6, 9])
        train.wait_for(lambda: list(rundir.glob("trials/0000/snapshots/*.json")))
        assert len(train.victims("child")) == 4
        nodes.tell("remove")
        train.wait_for(lambda: not train.victims("child"))
        leave.unlink()
        nodes.tell("add 4 2")
        assert train.wait() == 0, train.log.read_text()
    finally:
        for log in rundir.glob("logs/*"):
            print(log, log.read_text()[-3000:])
        if train.alive():
            train.process.kill()
            train.wait()
        nodes.tell("remove")
    result = json.loads((rundir / "trials/0000/result.json").read_text())
    assert (result["state"], result["updates"]) == ("COMPLETE", 120)
    assert updates_in(rundir / "002_log")[0] > updates_in(rundir / "001_log")[0]
    shown = "".join(log.read_text() for log in sorted(rundir.glob("logs/*")))
    found = re.findall(r"rank (\d) of 4 on device (\d), CUDA_VISIBLE_DEVICES=(\S+)", shown)
    assert {(rank, device) for rank, device, _ in found} == {
        ("0", "0"), ("1", "1"), ("2", "0"), ("3", "1"),
    }  # fmt: skip
    assert {visible for *_, visible in found} == {"0,1"}


def test_two_trials_on_one_node_have_gpus_of_their_own(
    tmp_path: Path, config: Path, nodes: Nodes, leave: Path
) -> None:
    leave.write_text("10")
    sweep = Sweep(
        [
            "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=3", "--ngpu=1",
            "--extra=--lr=loguniform(1e-3, 0.1)", "--pruner=none",
            f"--root={tmp_path / 'checkpoints'}",
        ],
        REPOSITORY, tmp_path / "log", mark=nodes.mark, environment=nodes.environment,
    )  # fmt: skip
    sweep.start()
    trials = tmp_path / "checkpoints/project/name_sweep-lr/trials"

    def devices() -> list[str]:
        found = [Path(f"/proc/{pid}/environ").read_text() for pid in sweep.victims("child")]
        return sorted(found[1] for found in map(VISIBLE.search, found) if found)

    try:
        sweep.wait_for(lambda: len(list(trials.glob("*/run/001_model_last.bin"))) == 2)
        assert devices() == ["0", "1"]  # both stand still
        leave.unlink()
        assert sweep.wait() == 0, sweep.log.read_text()
    finally:
        if sweep.alive():
            sweep.process.kill()
            sweep.wait()
    results = [json.loads(path.read_text()) for path in sorted(trials.glob("*/result.json"))]
    assert [result["state"] for result in results] == ["COMPLETE"] * 3
