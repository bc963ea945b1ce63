"""Several commands at the same time on one Ray cluster, whose nodes come and go: as if alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from killing import Pace, sweeps
from lmtask import expected_scores, hypotheses, write_dump, write_program
from nbestlists import write_task
from nodes import Nodes
from runningray import DOUBLES_ENVIRONMENT
from trainingtask import BINARY, make_training, write_config
from waiting import PATIENCE_SECONDS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.formats.logs import parse_train_line
from w2ltune.trials.dataset import Dataset
from w2ltune.trials.findtask import find_task

pytestmark = [pytest.mark.slow(seconds=70)]

Task = Callable[..., list[str]]


@pytest.fixture
def leave(tmp_path: Path) -> Path:
    """How many updates trainings may do."""
    path = tmp_path / "leave"
    path.write_text("25")
    return path


@pytest.fixture
def nodes(tmp_path: Path, leave: Path) -> Iterator[Nodes]:
    """A head without a core: all that works goes with its node."""
    variables = {**DOUBLES_ENVIRONMENT, "DOUBLE_LEAVE_FILE": str(leave)}
    cluster = Nodes(tmp_path, head_cores=0, **variables)
    yield cluster
    cluster.close()


def noisy(folder: Path) -> Path:
    """Write other emissions of the same utterances."""
    known = open_emissions(folder / "dev.npz")
    choose = np.random.default_rng(0)
    other = folder.with_name("noisy")
    other.mkdir()
    write_emissions(
        other / "dev.npz",
        ((name, (e := known.emission(name)) + choose.normal(0, 2, e.shape)) for name in known.ids),
        dtype=np.float32,
    )
    return other


def results_in(trials: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(trials.glob("*/result.json"))]


def counted_alone(flags: dict[str, str]) -> list[int]:
    """Decode a list here and count its errors."""
    task = find_task(flags, metric="wer", normalize=None, ignore_case=False)
    dataset, weights = Dataset(task), decoder_flags(flags)
    decoder = Decoder(weights)
    indices = range(len(dataset.ids))
    best = [decoder.decode(dataset.emission(index), weights, nbest=1)[0] for index in indices]
    counts = dataset.count(indices, [" ".join(entry.words) for entry in best])
    return [int(count) for count in counts.sum(axis=0)]


def trained_alone(flags: dict[str, str], rundir: Path) -> float:
    """Let the program train without w2ltune and return the best rate that it logs."""
    given = [f"--{name}={value}" for name, value in flags.items()]
    subprocess.run(
        [BINARY, "train", f"--rundir={rundir}", *given, "--enable_distributed=false"],
        env={**os.environ, **DOUBLES_ENVIRONMENT}, check=True, capture_output=True,
    )  # fmt: skip
    lines = (rundir / "001_log").read_text().splitlines()
    return min(line.rates["dev-WER"] for line in map(parse_train_line, lines) if line)


def rescored(folder: Path, **environment: str) -> dict[str, Any]:
    """Search the weights of a small task and return what is printed."""
    arguments = [*write_task(folder).arguments(), "--format=json"]
    done = subprocess.run(
        [sys.executable, "-m", "w2ltune.rescore", *arguments], cwd=REPOSITORY, text=True,
        capture_output=True, timeout=PATIENCE_SECONDS, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.replace(str(folder), ""))
    del found["seconds"]
    return found


def test_all_commands_at_the_same_time_while_nodes_come_and_go(
    task: Task, tmp_path: Path, nodes: Nodes, leave: Path
) -> None:
    paces, folders = {}, {"clean": tmp_path / "data", "noisy": noisy(tmp_path / "data")}
    for name in folders:
        (tmp_path / name).mkdir(exist_ok=True)
        paces[name] = Pace(tmp_path / name, tmp_path / "sweeps" / name / "trials")
    config = write_config(tmp_path, {**make_training(tmp_path / "train"), "iter": "40"})
    rows, ledger = hypotheses(20), tmp_path / "ledger.txt"
    dump = write_dump(tmp_path / "dumps/dev.lst.hyp", rows)
    held = tmp_path / "ledger.txt-leave"
    held.write_text("0")
    command = [sys.executable, str(write_program(tmp_path)), "0", str(tmp_path / "ledger")]
    environment = nodes.environment
    nodes.tell("add 2")
    with sweeps(REPOSITORY, tmp_path / "log") as start:
        training = start(
            [
                "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=2", "--seed=1",
                "--extra=--lr=loguniform(1e-3, 0.1)", "--pruner=none", "--rescore_top=1",
                f"--root={tmp_path / 'checkpoints'}",
            ],
            environment=environment,
        )  # fmt: skip
        trained = tmp_path / "checkpoints/project/name_sweep-lr"
        kept = "trials/*/snapshots/*.json"
        training.wait_for(lambda: len({path.parent for path in trained.glob(kept)}) == 2)
        decodes = {
            name: start(
                task(
                    n=2, sampler="random", prefix=name, emission_dir=folder,
                    normalize=paces[name].hook, pruner="none",
                ),
                environment=environment,
            )
            for name, folder in folders.items()
        }  # fmt: skip
        forward = start(
            [
                f"--hyp={dump}", f"--command={shlex.join(command)}", "--name=tr",
                "--shard_sentences=8",
            ],
            environment=environment, module="w2ltune.forward",
        )  # fmt: skip
        every = [*decodes.values(), training, forward]
        training.wait_for(lambda: all(pace.holds() for pace in paces.values()) and ledger.exists())
        assert all(sweep.alive() for sweep in every), training.log.read_text()
        during = rescored(tmp_path / "lists", **environment)
        nodes.tell("remove")
        nodes.tell("add 2")
        for pace in paces.values():
            pace.allow()
        held.unlink()
        leave.unlink()
        assert [sweep.wait() for sweep in every] == [0] * 4, training.log.read_text()

    flags = []
    for name in folders:
        results = results_in(paces[name].trials)
        assert [result["state"] for result in results] == ["COMPLETE"] * 2
        for result in results:
            assert result["counts"] == counted_alone(result["flags"])
        flags.append([result["params"] for result in results])
    assert flags[0] == flags[1]
    results = results_in(trained / "trials")
    assert [result["updates"] for result in results] == [40, 40]
    for result in results:
        rundir = tmp_path / f"alone{result['number']}"
        assert result["value"] == pytest.approx(trained_alone(result["flags"], rundir))
    assert sum(result["counts"] is not None for result in results) == 1  # decoded again
    assert (tmp_path / "dumps/dev-tr.ppl").read_text() == expected_scores(rows)
    assert during == rescored(tmp_path / "others")
