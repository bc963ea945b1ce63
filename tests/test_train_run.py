"""Whole trainings and sweeps of them on a real Ray cluster: run, continue, fork, kill, stop."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Ledger, Sweep
from trainingtask import BINARY, make_training, write_config

from w2ltune.formats.checkpoint import read_header
from w2ltune.formats.logs import read_history
from w2ltune.runs.snapshots import read_snapshots, verify

pytestmark = pytest.mark.main

LIMIT_SECONDS = 240
TWO_GPUS = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 4, "GPU": 2}'}
"""What Ray takes for this machine's processors; no program uses the GPUs."""

Make = Callable[..., Sweep]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, make_training(tmp_path / "data"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Make]:
    """Start a command of w2ltune; whatever the test does, nothing of it is left."""
    begun: list[Sweep] = []

    def start(
        *arguments: str, module: str = "w2ltune.train", wait: bool = True, **variables: str
    ) -> Sweep:
        command = [f"--root={tmp_path / 'runs'}", *arguments]
        log = tmp_path / f"log{len(begun)}"
        found = Sweep(command, REPOSITORY, log, module=module, environment=variables)
        begun.append(found)
        found.start()
        if wait:
            assert found.wait(LIMIT_SECONDS) == 0, log.read_text()
            assert found.wait_until_gone(8) == {}
        return found

    yield start
    for sweep in begun:
        sweep.kill("everything", random.Random(0))
        sweep.wait(10)
        sweep.wait_until_gone(10)


def wait_for(condition: Callable[[], bool], sweep: Sweep, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert sweep.alive(), sweep.log.read_text()
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.02)


def result_of(rundir: Path, number: int = 0) -> dict[str, object]:
    return json.loads((rundir / f"trials/{number:04d}/result.json").read_text())  # type: ignore[no-any-return]


def updates_of(rundir: Path) -> int:
    lines = read_history(rundir) if rundir.exists() else []
    return lines[-1].updates if lines else 0


def test_train_again_continue_and_fork(tmp_path: Path, config: Path, start: Make) -> None:
    binary = f"--binary={BINARY}"
    rundir = tmp_path / "runs/project/name_lr0.01"
    command = [binary, f"--config={config}", "--extra=--lr=0.01", "--local"]

    log = start(*command).log.read_text()
    assert "best: epoch 10 of 10" in log
    assert result_of(rundir)["updates"] == 100
    assert read_header((rundir / "best_model.bin").resolve()).epoch == 10
    assert (rundir / "report.html").stat().st_size > 10_000
    assert next((rundir / "logs").iterdir()).name.endswith(".log")
    assert (rundir.stat().st_mode & 0o7777, (rundir / "001_log").stat().st_mode & 0o777) == (
        0o2775, 0o664,
    )  # fmt: skip

    again = start(*command)  # the same command: it is finished, nothing is started
    assert "best: epoch 10 of 10" in again.log.read_text()
    assert not (rundir / "trials/0001").exists()
    assert not (rundir / "002_log").exists()

    on = ["--mode=continue", f"--model_path={rundir}", binary]
    start(*on, "--extra=--iter=150 --lr=0.005")
    assert result_of(rundir, 1)["updates"] == 150
    assert (rundir / "002_model_last.bin").exists()
    flags = (rundir / "trials/0001/flags.cfg").read_text()
    assert "--lr=0.005" in flags
    assert "--iter=150" in flags

    start(*on)  # nothing is left to be done
    assert result_of(rundir, 1)["updates"] == 150

    model = rundir / "002_model_last.bin"
    before = model.read_bytes()
    other = write_config(tmp_path, make_training(tmp_path / "more"), "forked.cfg")
    start("--mode=fork", f"--model_path={model}", f"--config={other}", binary)
    assert result_of(tmp_path / "runs/project/forked")["updates"] == 100
    assert model.read_bytes() == before


def test_names_with_anything_in_them(tmp_path: Path, start: Make) -> None:
    folder = tmp_path / "a b;$(touch x)'ü"
    folder.mkdir()  # a list's row is split at blanks: audio cannot lie in such a folder
    config = write_config(folder, make_training(tmp_path / "data"), "na me's.cfg")
    odd = folder / "my binary"
    odd.symlink_to(BINARY)
    start(f"--binary={odd}", f"--config={config}", "--extra=--lr=0.01 --itersave")
    found = next((tmp_path / "runs").glob("project/*/trials/0000/result.json"))
    assert json.loads(found.read_text())["state"] == "COMPLETE"
    assert not list(tmp_path.rglob("x"))


def test_a_training_survives_the_death_of_each_of_its_processes(
    tmp_path: Path, config: Path, start: Make
) -> None:
    rundir = tmp_path / "runs/project/name_iter600"
    command = [f"--binary={BINARY}", f"--config={config}", "--extra=--iter=600", "--ngpu=2"]
    variables = {
        **TWO_GPUS, "DOUBLE_UPDATE_SECONDS": "0.02", "DOUBLE_WRITE_SECONDS": "0.1",
        "DOUBLE_RETRY_SECONDS": "0.01", "DOUBLE_GRANDCHILD": "setsid",
    }  # fmt: skip
    train = start(*command, wait=False, **variables)
    choose = random.Random(1)
    for target in ("child", "rank 1", "trainable", "raylet", "driver", "everything"):
        reached = updates_of(rundir)
        wait_for(lambda reached=reached: updates_of(rundir) >= reached + 20, train)
        lost = updates_of(rundir)
        assert train.kill(target, choose), target
        if target in ("raylet", "driver", "everything"):
            train.wait(90)
            assert train.wait_until_gone(10) == {}, target
            snapshots = read_snapshots(rundir / "trials/0000/snapshots")
            assert all(verify(snapshot) for snapshot in snapshots)
            assert lost - snapshots[0].updates <= 10, target  # an epoch
            train.start()
    assert train.wait(LIMIT_SECONDS) == 0, train.log.read_text()
    assert train.wait_until_gone(10) == {}
    assert result_of(rundir)["state"] == "COMPLETE"
    assert [line.updates for line in read_history(rundir)][-1] == 600
    assert len({line.updates for line in read_history(rundir)}) == len(read_history(rundir))


def test_a_stop_waits_for_the_checkpoint_that_is_being_written(
    tmp_path: Path, config: Path, start: Make
) -> None:
    rundir = tmp_path / "runs/project/name"
    command = [f"--binary={BINARY}", f"--config={config}"]
    slow = {"DOUBLE_UPDATE_SECONDS": "0.05", "DOUBLE_WRITE_SECONDS": "3"}
    train = start(*command, wait=False, **slow)
    wait_for(lambda: (rundir / "001_model_last.bin").exists(), train)
    train.process.send_signal(signal.SIGUSR1)  # type: ignore[union-attr]
    assert train.wait(60) == 75, train.log.read_text()
    assert train.wait_until_gone(8) == {}
    head = read_header(rundir / "001_model_last.bin")
    whole = (rundir / "001_model_last.bin").stat().st_size - head.header_bytes
    assert (head.updates, whole) == (10, 200_000)
    assert "the same command continues" in train.log.read_text()
    start(*command)
    assert result_of(rundir)["updates"] == 100


def test_a_training_that_fails_says_why(tmp_path: Path, config: Path, start: Make) -> None:
    train = start(
        f"--binary={BINARY}", f"--config={config}", wait=False, DOUBLE_CRASH_AT_UPDATE="15"
    )
    assert train.wait(LIMIT_SECONDS) == 1
    log = train.log.read_text()
    assert "crash in update 15" in log
    assert "Traceback" not in log
    assert result_of(tmp_path / "runs/project/name")["state"] == "FAIL"


def test_a_sweep_that_is_killed_again_and_again(tmp_path: Path, config: Path, start: Make) -> None:
    study = tmp_path / "runs/project/name_iter200_sweep-lr"
    command = [
        "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=8", "--seed=3",
        "--extra=--lr=loguniform(1e-4, 1) --iter=200",
    ]  # fmt: skip
    variables = {"DOUBLE_UPDATE_SECONDS": "0.01", "DOUBLE_RETRY_SECONDS": "0.01"}
    sweep = start(*command, module="w2ltune.sweep", wait=False, **variables)
    ledger = Ledger(study / "trials")
    choose = random.Random(2)
    for target in ("child", "trainable", "driver", "child", "everything"):
        done = len(ledger.seen)
        wait_for(lambda done=done: not ledger.look() and len(ledger.seen) > done, sweep)
        sweep.kill(target, choose)
        if target in ("driver", "everything"):
            sweep.wait(60)
            assert sweep.wait_until_gone(10) == {}
            assert ledger.look() == []
            sweep.start()
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    assert ledger.look() == []
    states = [json.loads(content)["state"] for content, _ in ledger.seen.values()]
    assert len(states) == 8
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert re.search(r"^best: --lr=\S+ \(trial \d, epoch", sweep.log.read_text(), re.M)
    assert (study / "best_model.bin").resolve().exists()
    assert os.environ.get("RAY_ADDRESS") is None
