"""The best trainings decoded again on a real Ray, by doubles of the binary and our own program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import ray
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import Sweep
from nodes import PROGRAM
from trainingtask import BINARY, DOUBLES, make_training, write_config
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune.errors import StoppedError, StorageError
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.trials.rescoring import rescore
from w2ltune.trials.rescoringinput import prepare_rescoring
from w2ltune.trials.trainjob import TrainJob

pytestmark = [pytest.mark.main, pytest.mark.xdist_group("rescoring on one Ray")]

QUICK = {"DOUBLE_RETRY_SECONDS": "0.01", "DOUBLE_UPDATE_SECONDS": "0.0005"}


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster without GPUs in a process of its own, whose driver this process is."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "2", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**plain, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    with process:
        process.address = process.stdout.readline().strip()
        ray.init(process.address, log_to_driver=False, logging_level="ERROR")
        yield process
        ray.shutdown()
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def study(tmp_path, cluster):
    """Two trainings of the double, as a sweep leaves them; returns their results and flags."""
    flags = make_training(tmp_path / "data")
    results = [trained(tmp_path, flags, number, BINARY) for number in range(2)]
    return results, flags


def trained(folder, flags, number, binary):
    directory = TrialDirectory(folder / "trials", number)
    directory.snapshots.mkdir(parents=True)
    texts = [f"--{name}={value}" for name, value in flags.items()]
    command = [binary, "train", "--flagsfile=", f"--rundir={directory.run}", *texts]
    subprocess.run(command, check=True, env={**os.environ, **QUICK}, capture_output=True)
    snapshot = directory.snapshots / "00000100.bin"
    (directory.run / "001_model_last.bin").rename(snapshot)
    result = TrialResult(
        number=number, attempt=1, state="COMPLETE", value=0.1 + number / 10, flags=flags,
        checkpoint=str(snapshot.relative_to(folder)),
    )  # fmt: skip
    directory.write_result(result)
    return result


def prepare(folder, flags, *, program=(str(BINARY),), test_binary=None, **job):
    return prepare_rescoring(
        TrainJob(program=program, metric="dev-WER", folder=str(folder), environment=QUICK, **job),
        top=2,
        lists={"dev": "dev.lst"},
        flags=flags,
        test_binary=test_binary,
    )


def script(folder, text):
    path = folder / "test.sh"
    path.write_text(f"#!/bin/sh\nfor word; do case $word in --sclite=*) out=${{word#*=}};; esac; "
                    f"done\n{text}\n")  # fmt: skip
    path.chmod(0o755)
    return path


def read(folder, number):
    return TrialDirectory(folder / "trials", number).read_result()


def run(rescoring, results, folder, **options):
    shown = []
    options = {"gpu": False, **options}
    notes = rescore(rescoring, results, folder, progress=shown.append, say=print, **options)
    assert shown == sorted(shown)
    return notes


@pytest.mark.parametrize("job", [{}, {"test_binary": DOUBLES / "Test"}])
def test_results_get_counts_and_keep_their_value(tmp_path, study, job):
    results, flags = study
    rescoring = prepare(tmp_path, flags, **job)
    assert run(rescoring, rescoring.due(results), tmp_path) == []
    for before in results:
        after = read(tmp_path, before.number)
        launch = tmp_path / f"trials/000{before.number}/rescored/0001"
        summary = re.search(r"WER: ([\d.]+)", (launch / "log").read_text())
        assert 100 * sum(after.counts[:3]) / after.counts[3] == pytest.approx(
            float(summary[1]), rel=1e-5
        )
        assert after.interval[0] <= sum(after.counts[:3]) / after.counts[3] <= after.interval[1]
        assert (after.value, after.interval_unit) == (before.value, "utterance (8)")
        assert {path.name for path in launch.iterdir()} == {
            "log", "dev.lst.hyp", "dev.lst.viterbi.ref",
        }  # fmt: skip
    assert rescoring.due([read(tmp_path, 0), read(tmp_path, 1)]) == []


def test_one_that_fails_is_a_note(tmp_path, study):
    results, flags = study
    (tmp_path / results[0].checkpoint).write_bytes(b"no model")
    notes = run(prepare(tmp_path, flags), results, tmp_path)
    assert len(notes) == 1
    assert re.match("trial 0 could not be decoded again: could not load .*00000100.bin", notes[0])
    assert read(tmp_path, 0) == results[0]
    assert read(tmp_path, 1).counts is not None


def test_one_without_a_snapshot_is_a_note(tmp_path, study):
    results, flags = study
    (tmp_path / results[1].checkpoint).unlink()
    notes = run(prepare(tmp_path, flags), results, tmp_path)
    assert notes == ["trial 1 cannot be decoded again: it has no snapshot"]
    assert read(tmp_path, 0).counts is not None


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("exit 0", "0001/dev.lst.hyp: the program ended well, but did not write it"),
        ("kill -ABRT $$", "aborted (SIGABRT), and it said nothing (log: "),
        ("echo 'no words' > $out/dev.lst.hyp", "0001/dev.lst.hyp:1: not 'words (utterance)'"),
    ],
)
def test_programs_that_do_wrong(tmp_path, study, text, note):
    results, flags = study
    rescoring = prepare(tmp_path, flags, test_binary=script(tmp_path, text))
    (said,) = run(rescoring, results[:1], tmp_path)
    assert note in said
    assert said.startswith("trial 0 could not be decoded again: ")
    assert "\n" not in said
    assert read(tmp_path, 0) == results[0]


def test_a_program_that_is_killed_is_begun_again(tmp_path, study):
    results, flags = study
    to_kill = tmp_path / "to_kill"
    text = (
        f"if test -s {to_kill}; then sed -i 1d {to_kill}; kill -9 $$; fi\n"
        "echo 'one (dev-0)' > $out/dev.lst.hyp"
    )
    rescoring = prepare(tmp_path, flags, test_binary=script(tmp_path, text))
    to_kill.write_text("\n" * 3)
    (said,) = run(rescoring, results[:1], tmp_path)
    assert "killed (SIGKILL), most likely for want of memory" in said
    assert said.endswith(": 3 times; the same command tries it again")
    assert rescoring.due([read(tmp_path, 0)]) == results[:1]
    to_kill.write_text("\n" * 2)
    (said,) = run(rescoring, results[:1], tmp_path)
    assert "7 of 8 utterances have no hypothesis" in said


def test_a_full_disk_is_no_note(tmp_path, study):
    results, flags = study
    program = script(tmp_path, "exec python3 -c \"open('/dev/full', 'w').write('x' * 9999)\"")
    with pytest.raises(StorageError, match=r"disk full \(No space left on device\) \(log: "):
        run(prepare(tmp_path, flags, test_binary=program), results[:1], tmp_path)
    assert read(tmp_path, 0) == results[0]


def test_missing_utterances_are_told(tmp_path, study):
    results, flags = study
    program = script(tmp_path, "echo 'one (dev-0)' > $out/dev.lst.hyp")
    notes = run(prepare(tmp_path, flags, test_binary=program), results[:1], tmp_path)
    assert notes == ["trial 0: 7 of 8 utterances have no hypothesis and count as deletions"]
    after = read(tmp_path, 0)
    assert (after.missing, after.counts) == (7, (0, after.counts[3] - 1, 0, after.counts[3]))


def test_the_program_has_a_gpu_of_its_own(tmp_path, study, cluster):
    results, flags = study
    program = script(tmp_path, 'echo "GPU $CUDA_VISIBLE_DEVICES (dev-0)" > $out/dev.lst.hyp')
    rescoring = prepare(tmp_path, flags, test_binary=program)
    tell(cluster, "add 2 2")
    run(rescoring, results, tmp_path, gpu=True)
    tell(cluster, "remove")
    seen = {path.read_text() for path in tmp_path.glob("trials/*/rescored/0001/dev.lst.hyp")}
    assert seen <= {"GPU 0 (dev-0)\n", "GPU 1 (dev-0)\n"}
    assert len(seen) > 0
    run(rescoring, results, tmp_path, gpu=False)
    for path in tmp_path.glob("trials/*/rescored/0002/dev.lst.hyp"):
        assert path.read_text() == "GPU  (dev-0)\n"


def test_without_a_node_for_it_the_command_stops(tmp_path, study):
    results, flags = study
    with pytest.raises(StoppedError, match="no node can decode since 0 minutes"):
        run(prepare(tmp_path, flags), results, tmp_path, gpu=True, node_wait_minutes=0)
    assert [read(tmp_path, number) for number in (0, 1)] == results


def test_a_stop_ends_the_programs(tmp_path, study):
    results, flags = study
    program = script(tmp_path, "echo $$ > $out/pid; exec sleep 600")
    pids = tmp_path / "trials"

    def stopped():
        return "signal SIGTERM" if len(list(pids.glob("*/rescored/*/pid"))) == 2 else ""

    with pytest.raises(StoppedError, match=r"stopped \(signal SIGTERM\) after 0 of 2") as stop:
        run(prepare(tmp_path, flags, test_binary=program), results, tmp_path, stopped=stopped)
    assert stop.value.exit_code == 75
    wait_for(lambda: not any(map(lives, pids.glob("*/*/*/pid"))))
    assert [read(tmp_path, number) for number in (0, 1)] == results


def test_a_lost_worker_is_replaced(tmp_path, study, cluster):
    results, flags = study
    text = f"""case $out in */0001) echo $$ > $out/pid; exec sleep 600;; esac
exec {DOUBLES}/fl_asr_test "$@" """
    rescoring = prepare(tmp_path, flags, test_binary=script(tmp_path, text))
    pid = tmp_path / "trials/0000/rescored/0001/pid"
    thread = threading.Thread(target=run, args=(rescoring, results[:1], tmp_path))
    thread.start()
    wait_for(lambda: pid.exists() and pid.read_text())
    children = psutil.Process(cluster.pid).children(recursive=True)
    workers = [child for child in children if "ray::rescoring" in " ".join(child.cmdline())]
    assert len(workers) == 1
    workers[0].send_signal(signal.SIGKILL)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert read(tmp_path, 0).counts is not None
    assert (tmp_path / "trials/0000/rescored/0002/dev.lst.hyp").exists()
    wait_for(lambda: not lives(pid))


def test_our_own_program(tmp_path, cluster):
    for name, count in (("train", 24), ("dev", 8)):
        rows = (VOICE_COMMANDS / f"{name}.lst").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{name}.lst").write_text("\n".join(rows[:count]) + "\n", encoding="utf-8")
    flags = {
        "datadir": str(tmp_path), "features_dir": str(VOICE_COMMANDS / "features"),
        "tokens": str(VOICE_COMMANDS / "tokens.txt"), "train": "train.lst", "valid": "dev:dev.lst",
        "lexicon": str(VOICE_COMMANDS / "lexicon.txt"), "criterion": "ctc", "netoptim": "adam",
        "lr": "0.01", "batchsize": "8", "maxgradnorm": "5", "iter": "12", "framestridems": "16",
        "hidden": "16",
    }  # fmt: skip
    directory = TrialDirectory(tmp_path / "trials", 0)
    directory.path.mkdir(parents=True)
    program = (sys.executable, "-m", "w2ltune.embedded.train")
    texts = [f"--{name}={value}" for name, value in flags.items()]
    command = [*program, "train", "--flagsfile=", f"--rundir={directory.run}", *texts]
    subprocess.run(command, check=True, capture_output=True)
    last = (directory.run / "001_log").read_text().splitlines()[-1]
    result = TrialResult(
        number=0, attempt=1, state="COMPLETE", value=0.5, flags=flags,
        checkpoint="trials/0000/run/001_model_last.bin",
    )  # fmt: skip
    assert run(prepare(tmp_path, flags, program=program), [result], tmp_path) == []
    after = read(tmp_path, 0)
    wer = 100 * sum(after.counts[:3]) / after.counts[3]
    assert f"dev-WER: {wer:5.2f} |" in last


@pytest.mark.slow(seconds=30)
def test_a_sweep_stopped_while_it_decodes_goes_on_there(tmp_path, cluster):
    flag = tmp_path / "go"
    text = f"""echo $$ > $out/pid
test -e {flag} || exec sleep 600
exec {DOUBLES}/fl_asr_test "$@" """
    config = write_config(tmp_path, make_training(tmp_path / "data"))
    sweep = Sweep(
        [
            "--task=train", f"--binary={BINARY}", f"--config={config}", "--n=3", "--seed=1",
            "--extra=--lr=loguniform(1e-3, 0.1) --iter=100", "--pruner=none", "--rescore_top=2",
            f"--logdir={tmp_path / 'sweeps'}", "--prefix=s",
            f"--test_binary={script(tmp_path, text)}",
        ],
        tmp_path, tmp_path / "log",
        environment={"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    trials = tmp_path / "sweeps/s/trials"
    sweep.start()
    sweep.wait_for(lambda: len(list(trials.glob("*/rescored/0001/pid"))) == 2)
    sweep.signal(signal.SIGTERM)
    assert sweep.wait() == 75
    assert "stopped (signal SIGTERM) after 0 of 2 trainings" in sweep.log.read_text()
    wait_for(lambda: not any(map(lives, trials.glob("*/rescored/0001/pid"))))
    flag.touch()
    sweep.start()
    assert sweep.wait() == 0, sweep.log.read_text()
    shown = sweep.log.read_text()
    assert "decoded %" in shown
    assert "95 % interval by utterance (8)" in shown
    counted = [path.parent.name for path in trials.glob("*/result.json")
               if TrialDirectory(trials, int(path.parent.name)).read_result().counts]  # fmt: skip
    assert len(counted) == 2
    # Nothing is left to do: not even Ray is started.
    sweep.log.write_text("")
    del sweep.environment["RAY_ADDRESS"]
    sweep.start()
    assert sweep.wait() == 0
    assert "Ray" not in sweep.log.read_text()
    assert len(list(trials.glob("*/rescored/*"))) == 4


def tell(cluster, command):
    print(command, file=cluster.stdin, flush=True)
    assert cluster.stdout.readline() == "ok\n"


def lives(path: Path) -> bool:
    """Return whether the process lives whose number stands in a file."""
    text = path.read_text()
    return text != "" and psutil.pid_exists(int(text))
