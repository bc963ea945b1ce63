"""Whole trainings and sweeps of them on a real Ray cluster: run, continue, fork, kill, stop."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Ledger, Sweep
from runningray import running_ray
from trainingtask import BINARY, make_training, write_config
from waiting import wait_for

from w2ltune.formats.checkpoint import read_header
from w2ltune.formats.logs import read_history
from w2ltune.runs.snapshots import Snapshot, read_snapshots, verify

TWO_GPUS = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 4, "GPU": 2}'}
"""What Ray takes for this machine's processors; no program uses the GPUs."""

on_one_ray = pytest.mark.xdist_group("trainings on one Ray")

Make = Callable[..., Sweep]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, make_training(tmp_path / "data"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Make]:
    """Start a command of w2ltune with these variables; whatever the test does, nothing is left."""
    begun: list[Sweep] = []

    def start(*arguments: str, module: str = "w2ltune.train", **variables: str) -> Sweep:
        found = Sweep(
            [f"--root={tmp_path / 'runs'}", *arguments], REPOSITORY, tmp_path / f"log{len(begun)}",
            module=module, environment=variables,
        )  # fmt: skip
        begun.append(found)
        found.start()
        return found

    yield start
    for sweep in begun:
        sweep.end()


def done(sweep: Sweep, code: int = 0) -> str:
    """Wait for the end of a command and of all that it started; return what it said."""
    assert sweep.wait() == code, sweep.log.read_text()
    assert sweep.wait_until_gone() == {}
    return sweep.log.read_text()


def binary_with(folder: Path, **variables: object) -> str:
    """Write a program that is the double with these variables, wherever Ray starts it."""
    path = folder / "my binaries" / "fl_asr_train"
    path.parent.mkdir(exist_ok=True)
    exports = "".join(f"export {name}={shlex.quote(str(v))}\n" for name, v in variables.items())
    path.with_name("variables").write_text(exports)  # the program itself must stay the same
    path.write_text(f'#!/bin/sh\n. "${{0%/*}}/variables"\nexec {BINARY} "$@"\n')
    path.chmod(0o755)
    return f"--binary={path}"


def result_of(rundir: Path, number: int = 0) -> dict[str, object]:
    return json.loads((rundir / f"trials/{number:04d}/result.json").read_text())  # type: ignore[no-any-return]


def updates_of(rundir: Path) -> int:
    lines = read_history(rundir) if rundir.exists() else []
    return lines[-1].updates if lines else 0


def snapshots_of(trial: Path) -> list[Snapshot]:
    return read_snapshots(trial / "snapshots")


@pytest.mark.main(seconds=40)
@on_one_ray
def test_train_again_continue_and_fork(tmp_path: Path, start: Make) -> None:
    """All names hold what a shell or a parser could take for its own."""
    folder = tmp_path / "a b;$(touch x)'ü"
    folder.mkdir()  # a list's row is split at blanks: audio cannot lie in such a folder
    tmp_path.chmod(0o2775)  # as a folder is that a group shares
    binary = binary_with(folder)
    config = write_config(folder, make_training(tmp_path / "data"), "na me's.cfg")
    command = [binary, f"--config={config}", "--extra=--lr=0.01 --itersave", "--local"]

    assert "best: epoch 10 of 10" in done(start(*command, **running_ray()))
    (rundir,) = (tmp_path / "runs/project").glob("*_lr0.01_itersave")
    assert result_of(rundir)["updates"] == 100
    assert result_of(rundir)["state"] == "COMPLETE"
    assert read_header((rundir / "best_model.bin").resolve()).epoch == 10
    assert (rundir / "001_model_iter_010.bin").exists()
    assert (rundir / "report.html").stat().st_size > 10_000
    assert next((rundir / "logs").iterdir()).name.endswith(".log")
    assert (rundir.stat().st_mode & 0o7777, (rundir / "001_log").stat().st_mode & 0o777) == (
        0o2775, 0o664,
    )  # fmt: skip
    assert not list(tmp_path.rglob("x"))

    again = done(start(*command))  # the same command: it is finished, not even Ray is started
    assert "best: epoch 10 of 10" in again
    assert "Ray" not in again
    assert not (rundir / "trials/0001").exists()
    assert not (rundir / "002_log").exists()

    on = ["--mode=continue", f"--model_path={rundir}", binary]
    done(start(*on, "--extra=--iter=150 --lr=0.005", **running_ray()))
    assert result_of(rundir, 1)["updates"] == 150
    assert (rundir / "002_model_last.bin").exists()
    flags = (rundir / "trials/0001/flags.cfg").read_text()
    assert "--lr=0.005" in flags
    assert "--iter=150" in flags

    assert "Ray" not in done(start(*on))  # nothing is left to be done
    assert result_of(rundir, 1)["updates"] == 150

    model = rundir / "002_model_last.bin"
    before = model.read_bytes()
    other = write_config(folder, make_training(tmp_path / "more"), "forked.cfg")
    done(
        start("--mode=fork", f"--model_path={model}", f"--config={other}", binary, **running_ray())
    )
    assert result_of(tmp_path / "runs/project/forked")["updates"] == 100
    assert model.read_bytes() == before


@pytest.mark.main(seconds=60)
def test_a_sweep_survives_the_death_of_each_of_its_processes(
    tmp_path: Path, config: Path, start: Make
) -> None:
    study = tmp_path / "runs/project/name_iter100_sweep-lr"
    first = study / "trials/0000"
    leave = tmp_path / "leave"
    leave.write_text("5")
    sweep = start(
        "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=3", "--seed=3", "--ngpu=2",
        "--extra=--lr=loguniform(1e-4, 1) --iter=100", module="w2ltune.sweep", **TWO_GPUS,
        DOUBLE_LEAVE_FILE=str(leave), DOUBLE_UPDATE_SECONDS="0.01", DOUBLE_WRITE_SECONDS="0.1",
        DOUBLE_RETRY_SECONDS="0.01", DOUBLE_GRANDCHILD="setsid",
    )  # fmt: skip
    ledger = Ledger(study / "trials")
    choose = random.Random(1)
    for target in ("child", "rank 1", "trainable", "raylet"):
        saved = int(leave.read_text())
        sweep.wait_for(lambda saved=saved: saved in [s.updates for s in snapshots_of(first)])
        leave.write_text(str(saved + 5))  # an epoch
        sweep.wait_for(lambda reached=saved + 5: updates_of(first / "run") >= reached)
        assert len(sweep.victims("child")) == 2
        assert sweep.kill(target, choose), target
        leave.write_text(str(saved + 15))
    for target in ("raylet", "driver", "everything"):
        if target != "raylet":
            before = progress_of(study)
            leave.unlink()
            sweep.wait_for(
                lambda enough=before + 10: (
                    ledger.look() == [] and ledger.seen and progress_of(study) >= enough
                )
            )
            leave.write_text("0")
            assert sweep.kill(target, choose), target
        sweep.wait()
        assert sweep.wait_until_gone() == {}, target
        assert ledger.look() == []
        kept = [snapshot for trial in study.glob("trials/*") for snapshot in snapshots_of(trial)]
        assert all(verify(snapshot) for snapshot in kept), target
        if target == "raylet":
            assert max(snapshot.updates for snapshot in kept) >= saved
        sweep.start()
    leave.unlink()
    log = done(sweep)
    assert ledger.look() == []
    results = [json.loads(content) for content, _ in ledger.seen.values()]
    assert [result["state"] for result in results].count("COMPLETE") >= 1
    assert {result["state"] for result in results} <= {"COMPLETE", "PRUNED"}
    assert len(results) == 3
    history = read_history(first / "run")
    assert history[-1].updates == 100
    assert len({line.updates for line in history}) == len(history)
    assert re.search(r"^best: --lr=\S+ \(trial \d, epoch", log, re.M)
    assert (study / "best_model.bin").resolve().exists()


def progress_of(study: Path) -> int:
    """Return the updates of all trials."""
    return sum(updates_of(run) for run in study.glob("trials/*/run"))


@pytest.mark.slow(seconds=40)
@on_one_ray
def test_a_stop_waits_for_the_checkpoint_that_is_being_written(
    tmp_path: Path, config: Path, start: Make
) -> None:
    rundir = tmp_path / "runs/project/name"
    leave = tmp_path / "leave"
    leave.write_text("10")
    command = [binary_with(tmp_path, DOUBLE_LEAVE_FILE=leave), f"--config={config}"]
    train = start(*command, **running_ray())
    train.wait_for(lambda: snapshots_of(rundir / "trials/0000"))
    train.kill("driver", random.Random(0))
    train.wait()
    wait_for(lambda: not programs_in(tmp_path))

    binary_with(tmp_path, DOUBLE_LEAVE_FILE=leave, DOUBLE_WRITE_SECONDS=2)
    leave.write_text("20")
    train.start()
    model = rundir / "002_model_last.bin"
    train.wait_for(model.exists)
    train.signal(signal.SIGUSR1)
    assert "the same command continues" in done(train, 75)
    assert programs_in(tmp_path) == []
    head = read_header(model)
    assert (head.updates, model.stat().st_size - head.header_bytes) == (20, 200_000)

    binary_with(tmp_path)
    done(start(*command, **running_ray()))
    assert result_of(rundir)["updates"] == 100


@pytest.mark.slow
@on_one_ray
def test_a_training_that_fails_says_why(tmp_path: Path, config: Path, start: Make) -> None:
    crash = binary_with(tmp_path, DOUBLE_CRASH_AT_UPDATE=15)
    log = done(start(crash, f"--config={config}", **running_ray()), 1)
    assert "crash in update 15" in log
    assert "Traceback" not in log
    assert result_of(tmp_path / "runs/project/name")["state"] == "FAIL"


def programs_in(folder: Path) -> list[bytes]:
    """Return the command lines of the doubles that train there."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if b"fl_asr_train" in line and bytes(folder) in line]


@pytest.mark.slow
@on_one_ray
def test_a_disk_too_small_for_a_snapshot_is_said_and_is_no_success(
    tmp_path: Path, config: Path, start: Make
) -> None:
    """Real: a file system of its own, on which the program's own models just fit."""
    small = tmp_path / "runs"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    binary = binary_with(tmp_path, DOUBLE_PAYLOAD_BYTES=200_000)
    command = [binary, f"--config={config}", "--extra=--iter=40", "--ngpu=0"]
    try:
        said = done(start(*command, **running_ray()), 1)
        (rundir,) = (small / "project").glob("name_*")
        checkpoint = str(result_of(rundir)["checkpoint"])
        assert re.fullmatch(r"001_model_(dev|last)\.bin", checkpoint)
        assert f"model: {rundir}/best_model.bin -> {checkpoint}" in said
        assert read_header(rundir / checkpoint).epoch == result_of(rundir)["epoch"]
        reason = (
            r"no snapshot of 001_model_\w+\.bin: No space left on device: needs 20\d KiB, "
            rf"\d+ KiB free \(a reserve aside\) on the disk of {rundir}/trials/0000\S*; "
            "make room there; then the same command takes it"
        )
        assert re.search(reason, said), said
        assert re.search(reason, done(start(*command), 1))  # nothing has changed
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert "No space" not in done(start(*command))
        kept = snapshots_of(rundir / "trials/0000")
        assert [str(one.path.relative_to(rundir)) for one in kept] == [
            result_of(rundir)["checkpoint"]
        ]
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
