"""Commands that submit themselves, on a real SLURM with the double of the binary."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import Settings
from trainingtask import BINARY, DOUBLES, make_training, write_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(grace_seconds=10)], indirect=True),
]


def wait_for(condition: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def epochs_in(rundir: Path) -> int:
    return sum(log.read_text().count("epoch:") for log in rundir.glob("[0-9][0-9][0-9]_log"))


def test_a_training_on_two_nodes_submits_itself_and_survives_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "train"
    config = write_config(folder, {**make_training(folder / "data"), "iter": "300"})
    rundir = folder / "runs/project/name"
    command = [
        sys.executable, "-m", "w2ltune.train", f"--binary={BINARY}", f"--config={config}",
        "--ngpu=4", "--gpus_per_node=2", "--partition=low", "--hours=1", f"--root={folder}/runs",
    ]  # fmt: skip
    variables = {"DOUBLE_UPDATE_SECONDS": "0.1", "DOUBLE_RETRY_SECONDS": "0.01"}
    shown = slurm.run([*command, "--dry_run"], environment=variables)
    assert shown.returncode == 0, shown.stderr
    assert "#SBATCH" in shown.stdout
    assert not rundir.exists()
    done = slurm.run(command, environment=variables)
    assert done.returncode == 0, done.stderr
    job = int(re.search(r"job (\d+)", done.stdout)[1])
    assert slurm.job(job)["JobName"] == "project:name"
    again = slurm.run(command, environment=variables)
    assert (again.returncode, str(job) in again.stderr) == (2, True)
    watch = [sys.executable, "-m", "w2ltune.collect", f"--logdir={rundir.parent}",
             f"--prefix={rundir.name}", "--watch"]  # fmt: skip
    watching = ThreadPoolExecutor().submit(slurm.run, watch, timeout=400)

    status = [sys.executable, "-m", "w2ltune", "status", str(rundir)]
    wait_for(lambda: epochs_in(rundir) >= 3)
    told = slurm.run(status).stdout
    assert f"job {job} of root (RUNNING on n" in told
    assert "0 finished, running: 0" in told
    assert "dashboard: ssh -L" in told
    other = slurm.run(
        ["sbatch", "--parsable", "--partition=high", "--exclusive", "--nodes=4",
         "--output=/dev/null", "--wrap=sleep 3"]
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    slurm.wait(job, {"RUNNING"}, timeout_seconds=60, restarts=1)
    assert not watching.done()  # it goes on across a requeue
    slurm.wait(job, {"COMPLETED"}, timeout_seconds=240, restarts=1)
    watched = watching.result(60)
    assert (watched.returncode, watched.stderr) == (0, "")
    assert "1 trials finished" in watched.stdout
    result = json.loads((rundir / "trials/0000/result.json").read_text())
    assert (result["state"], result["updates"]) == ("COMPLETE", 300)
    assert (rundir / "002_log").exists()

    told = slurm.run(status).stdout
    assert "once requeued" in told
    assert "trials: 1 finished\n" in told
    stop = slurm.run([sys.executable, "-m", "w2ltune", "stop", str(rundir)])
    assert stop.returncode == 2
    assert "no SLURM job to stop" in stop.stderr


def test_a_sweep_that_is_stopped_is_not_requeued_and_goes_on_when_submitted_again(
    slurm: Cluster,
) -> None:
    folder = slurm.folder / "sweep"
    config = write_config(folder, {**make_training(folder / "data"), "iter": "300"})
    study = folder / "runs/project/name_sweep-lr"
    command = [
        sys.executable, "-m", "w2ltune.sweep", "--task=train", f"--binary={BINARY}",
        f"--config={config}", "--extra=--lr=loguniform(1e-3,0.1)", "--n=4", "--ngpu=1", "--nodes=2",
        "--gpus_per_node=2", "--partition=low", "--hours=1", f"--root={folder}/runs", "--seed=1",
        "--pruner=none",
    ]  # fmt: skip
    variables = {"DOUBLE_UPDATE_SECONDS": "0.1", "DOUBLE_RETRY_SECONDS": "0.01"}
    done = slurm.run(command, environment=variables)
    assert done.returncode == 0, done.stderr
    job = int(re.search(r"job (\d+)", done.stdout)[1])
    # A trial on each GPU of both nodes.
    wait_for(lambda: sum(epochs_in(run) > 0 for run in study.glob("trials/*/run")) == 4)
    stop = slurm.run([sys.executable, "-m", "w2ltune", "stop", str(study)])
    assert stop.returncode == 0, stop.stderr
    slurm.wait(job, {"CANCELLED"}, timeout_seconds=60)
    for n in range(1, 5):
        wait_for(lambda n=n: not any("fl_asr_train" in line for line in slurm.processes(n)), 30)
    done = slurm.run(command, environment=variables)
    assert done.returncode == 0, done.stderr
    job = int(re.search(r"job (\d+)", done.stdout)[1])
    slurm.wait(job, {"COMPLETED"}, timeout_seconds=240)
    results = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    assert sorted(result["number"] for result in results) == [0, 1, 2, 3]
    assert {result["state"] for result in results} == {"COMPLETE"}
    assert {result["updates"] for result in results} == {300}


def test_emissions_are_made_in_the_job_and_survive_a_preemption(slurm: Cluster) -> None:
    folder = slurm.folder / "decode"
    flags = make_training(folder / "data")
    environment = {"DOUBLE_UPDATE_SECONDS": "0.0005", "DOUBLE_RETRY_SECONDS": "0.01"}
    given = [f"--{name}={value}" for name, value in flags.items()]
    rundir = folder / "data/run"
    trained = slurm.run([BINARY, "train", f"--rundir={rundir}", *given], environment=environment)
    assert trained.returncode == 0, trained.stderr
    (folder / "bin").mkdir()
    slow = folder / "bin/fl_asr_test"
    slow.write_text(f'#!/bin/sh\nsleep 8\nexec {DOUBLES}/fl_asr_test "$@"\n')
    slow.chmod(0o755)
    study = folder / "sweeps/am"
    command = [
        sys.executable, "-m", "w2ltune.sweep", f"--binary={DOUBLES}/fl_asr_decode",
        f"--test_binary={slow}", f"--am={rundir}/001_model_last.bin", f"--datadir={folder}/data",
        "--test=train.lst", "--heldout=dev.lst", "--lmweight=0", "--wordscore=uniform(-1,1)",
        "--beamsize=20", f"--logdir={study.parent}", "--prefix=am", "--n=3", "--seed=1",
        "--sampler=random", "--pruner=none", "--probe=false", "--gpu=2", "--partition=low",
        "--hours=1",
    ]  # fmt: skip
    environment["DOUBLE_PYTHON"] = sys.executable
    wrong = slurm.run([*command, "--lexicon=none"], environment=environment)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    done = slurm.run(command, environment=environment)
    assert done.returncode == 0, done.stderr
    job = int(re.search(r"job (\d+)", done.stdout)[1])
    making = study / "emissions"
    wait_for(lambda: len(list(making.glob(".making-*"))) == 2)  # a GPU for each list
    other = slurm.run(
        ["sbatch", "--parsable", "--partition=high", "--exclusive", "--nodes=4",
         "--output=/dev/null", "--wrap=sleep 3"]
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    slurm.wait(job, {"COMPLETED"}, timeout_seconds=240, restarts=1)
    assert len(list(making.glob("*.lst-*/made.json"))) == 2
    results = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    assert [result["state"] for result in results] == ["COMPLETE"] * 3
    assert (study / "best.cfg").exists()
