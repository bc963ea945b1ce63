"""Commands that submit themselves, on a real SLURM with the double of the binary.

Each at a site that preempts otherwise: without a time of grace, or by cancelling the job.
"""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from bed import Cluster
from bedfiles import Settings
from trainings import preempt, training
from trainingtask import BINARY, DOUBLES, make_training
from waiting import wait_for


@pytest.mark.slow(seconds=80)
@pytest.mark.parametrize("slurm", [Settings(grace_seconds=0)], indirect=True)
def test_a_training_on_two_nodes_submits_itself_and_survives_a_preemption(slurm: Cluster) -> None:
    run = training(slurm, "train", "--ngpu=4", hold_at=31)
    shown = slurm.run([*run.command, "--dry_run"], environment=run.environment)
    assert shown.returncode == 0, shown.stderr
    assert "#SBATCH" in shown.stdout
    assert not run.study.exists()
    job = run.submit()
    assert slurm.job(job)["JobName"] == "project:name"
    again = slurm.run(run.command, environment=run.environment)
    assert (again.returncode, str(job) in again.stderr) == (2, True)
    watch = [sys.executable, "-m", "w2ltune.collect", f"--logdir={run.study.parent}",
             f"--prefix={run.study.name}", "--watch"]  # fmt: skip
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(slurm.run, watch)
        wait_for(run.has_epochs(1, 3), shown=run.output, look_seconds=0.2)
        code, told = run.w2ltune("status")
        assert code == 0
        assert f"job {job} of root (RUNNING on n" in told
        assert "0 finished, running: 0" in told
        assert "dashboard: " not in told  # of the test cluster's jobs
        preempt(slurm)
        slurm.wait(job, "RUNNING", restarts=1)
        assert not watching.done()  # it goes on across a requeue
        run.release()
        slurm.wait(job, "COMPLETED", restarts=1)
    watched = watching.result()
    assert (watched.returncode, watched.stderr) == (0, "")
    assert "1 trials finished" in watched.stdout
    run.is_whole(1, 120)
    assert "stopping: SLURM ends this run" in run.output()
    assert (run.study / "002_log").exists()

    code, told = run.w2ltune("status")
    assert "once requeued" in told
    assert "trials: 1 finished\n" in told
    code, said = run.w2ltune("stop")
    assert code == 2
    assert "no SLURM job to stop" in said


@pytest.mark.slow(seconds=60)
@pytest.mark.parametrize("slurm", [Settings(preempt_mode="CANCEL")], indirect=True)
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
    hold = folder / "hold"
    hold.touch()
    slow.write_text(
        f"#!/bin/sh\nwhile [ -e '{hold}' ]; do sleep 0.1; done\nexec {DOUBLES}/fl_asr_test \"$@\"\n"
    )
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
    wait_for(
        lambda: len(list(making.glob(".making-*"))) == 2, look_seconds=0.2
    )  # a GPU for each list
    preempt(slurm)
    slurm.wait(job, "RUNNING", restarts=1)
    hold.unlink()
    slurm.wait(job, "COMPLETED", restarts=1)
    output = next((study / "slurm").glob("of-*/*.out")).read_text()
    assert output.count("requeued: SLURM ends this run") == 1
    assert len(list(making.glob("*.lst-*/made.json"))) == 2
    results = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    assert [result["state"] for result in results] == ["COMPLETE"] * 3
    assert (study / "best.cfg").exists()
