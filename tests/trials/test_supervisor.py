"""A training from start to end, with the double of the binary and without Ray."""

import os
import signal
import time
from pathlib import Path

import pytest
from trainingtask import BINARY, make_training

from w2ltune.formats.checkpoint import read_header
from w2ltune.runs.snapshots import read_snapshots, verify
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials.ranks import NodeRanks
from w2ltune.trials.supervisor import Supervisor
from w2ltune.trials.trainjob import TrainJob


def start_here(job, programs, attempts, attempt):
    return NodeRanks(programs, attempts, attempt)


@pytest.fixture
def flags(tmp_path):
    return make_training(tmp_path / "data")


@pytest.fixture
def supervise(tmp_path, flags):
    """Make a supervisor of trial 7; called again it is a later launch of the same trial."""
    made = []

    def supervise(*, environment=None, changes=None, start_ranks=start_here, **job):
        settings = {"program": (str(BINARY),), "metric": "dev-WER", "folder": str(tmp_path), **job}
        environment = {"DOUBLE_RETRY_SECONDS": "0.01", **(environment or {})}
        directory = TrialDirectory(tmp_path / "trials", 7)
        made.append(
            Supervisor(
                directory,
                rundir=directory.run,
                job=TrainJob(**settings, environment=environment),
                flags={**flags, **(changes or {})},
                launched=0,
                start_ranks=start_ranks,
            )
        )
        return made[-1]

    yield supervise
    for supervisor in made:
        supervisor.stop()


def advance(supervisor, until=lambda supervisor: False, seconds=30):
    deadline = time.monotonic() + seconds
    while not supervisor.over and not until(supervisor):
        assert time.monotonic() < deadline
        supervisor.advance()
        time.sleep(0.01)
    return supervisor


def log_of(supervisor):
    return "\n".join(p.read_text() for p in (supervisor._rundir / "logs").glob("*.log"))


def snapshots_of(supervisor):
    found = read_snapshots(supervisor.directory.snapshots)
    assert all(verify(snapshot) for snapshot in found)
    return found


def test_a_training_ends_with_its_best_checkpoint(supervise):
    done = advance(supervise())
    assert done.failure == ""
    assert (done.finished.epochs, done.finished.updates) == (10, 100)
    assert done.finished.value == min(value for _, value in done.curve.by_epoch()) < 0.5
    best = done.directory.snapshots / done.finished.checkpoint
    assert read_header(best).epoch == done.finished.epoch
    assert len(snapshots_of(done)) <= 3
    assert not (done.directory.path / "launches").exists()
    script = next((done._rundir / "scripts").iterdir())
    assert "--flagsfile=" in script.read_text()


def test_a_later_launch_finds_that_it_is_finished(supervise):
    first = advance(supervise())
    again = advance(supervise())
    assert again.finished == first.finished
    assert again.directory.attempt() == 1


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGUSR1", "SIGSEGV"])
def test_a_killed_program_goes_on(supervise, name):
    running = advance(supervise(), lambda s: s.curve.epochs >= 3)
    os.kill(running._launch.ranks.local()[0].pid, getattr(signal, name))
    advance(running)
    assert running.failure == ""
    assert running.finished.updates == 100
    assert [epoch for epoch, _ in running.curve.by_epoch()] == list(range(1, 11))
    assert "continue after update" in log_of(running)


def test_killed_in_the_middle_of_writing_each_checkpoint(supervise):
    slow = {"DOUBLE_WRITE_SECONDS": "0.15"}
    running, kills, seen = supervise(environment=slow, changes={"iter": "40"}), 0, set()
    deadline = time.monotonic() + 60
    while not running.over:
        assert time.monotonic() < deadline
        running.advance()
        launch = running._launch
        if launch and running.writing and (launch.index, running.curve.epochs) not in seen:
            seen.add((launch.index, running.curve.epochs))
            if len(seen) % 2:
                os.kill(launch.ranks.local()[0].pid, signal.SIGKILL)
                kills += 1
        time.sleep(0.01)
    assert running.failure == ""
    assert running.finished.updates == 40
    assert kills >= 2
    assert any((running._rundir / "torn").iterdir())


def test_a_program_that_fails_twice_in_the_same_way_has_failed(supervise):
    failed = advance(supervise(environment={"DOUBLE_CRASH_AT_UPDATE": "25"}))
    assert failed.finished is None
    assert failed.directory.attempt() == 2
    assert failed.failure


def test_a_program_that_fails_once_goes_on(supervise, tmp_path):
    once = {"DOUBLE_CRASH_AT_UPDATE": "25", "DOUBLE_CRASH_ONCE": str(tmp_path / "crashed")}
    done = advance(supervise(environment=once))
    assert done.finished.updates == 100
    assert done.directory.attempt() == 2


def test_missing_audio_is_named(supervise, flags):
    (Path(flags["datadir"]) / "audio" / "train-5.wav").unlink()
    failed = advance(supervise())
    assert "train-5.wav" in failed.failure
    assert failed.directory.attempt() == 2


def test_a_hung_program_is_started_again(supervise, tmp_path):
    hang = {"DOUBLE_HANG_AT_UPDATE": "25", "DOUBLE_HANG_ONCE": str(tmp_path / "hung")}
    done = advance(supervise(environment=hang, stall_minutes=0.02))
    assert done.finished.updates == 100
    assert "hung: no new line" in log_of(done)


def test_a_torn_checkpoint_before_any_snapshot_is_set_aside(supervise):
    running = supervise()
    running._rundir.mkdir(parents=True)
    (running._rundir / "001_model_last.bin").write_bytes(b"\x03\0\0")
    done = advance(running)
    assert done.finished.updates == 100
    assert list((done._rundir / "torn").iterdir())


def test_a_snapshot_that_cannot_be_loaded_costs_one_interval(supervise):
    running = advance(supervise(keep=3), lambda s: s.curve.epochs >= 5)
    running.stop()
    newest = snapshots_of(running)[0]
    live = running._rundir / "001_model_last.bin"
    for path in (newest.path, live):  # of the right size, and wrong
        data = bytearray(path.read_bytes())
        data[-100:] = bytes(byte ^ 1 for byte in data[-100:])
        path.write_bytes(data)
    done = advance(supervise(keep=3))
    assert done.finished.updates == 100
    assert [epoch for epoch, _ in done.curve.by_epoch()] == list(range(1, 11))


def test_fork_begins_with_a_network_and_continues_as_itself(supervise, tmp_path, flags):
    first = advance(supervise())
    model = first.directory.snapshots / first.finished.checkpoint
    directory = TrialDirectory(tmp_path / "trials", 8)
    job = TrainJob(
        program=(str(BINARY),),
        metric="dev-WER",
        folder=str(tmp_path),
        mode="fork",
        model_path=str(model),
    )
    fork = Supervisor(
        directory, rundir=directory.run, job=job, flags={**flags, "iter": "60"}, launched=0,
        start_ranks=start_here,
    )  # fmt: skip
    advance(fork, lambda s: s.curve.epochs >= 2)
    os.kill(fork._launch.ranks.local()[0].pid, signal.SIGKILL)
    advance(fork)
    assert fork.finished.updates == 60
    assert first._rundir.joinpath("001_log").read_text().count("\n") == 10  # untouched


def test_several_ranks_meet_anew_at_each_launch(supervise):
    running = supervise(gpus_per_node=3)
    advance(running, lambda s: s.curve.epochs >= 2)
    pids = [child.pid for child in running._launch.ranks.local()]
    assert len(pids) == 3
    os.kill(pids[1], signal.SIGKILL)
    advance(running)
    assert running.finished.updates == 100
    text = log_of(running)
    assert "rank 1: killed" in text
    assert text.count("rank 0 of 3 on device 0") == 2


def test_the_old_generation(supervise):
    done = advance(supervise(program=(str(BINARY.with_name("Train")),), generation="wav2letter"))
    assert done.failure == ""
    assert done.finished.updates == 100


def test_a_metric_that_the_log_lacks_is_said(supervise):
    failed = advance(supervise(metric="devv-WER"))
    assert "no finite devv-WER; there are dev-TER, dev-WER" in failed.failure


def test_a_disk_budget_that_holds_no_snapshot_is_said_and_does_no_harm(supervise):
    done = advance(supervise(disk_budget_bytes=1000))
    assert done.finished.updates == 100
    assert "no room for a snapshot" in log_of(done)
    assert done.finished.checkpoint == ""


def test_an_older_launch_publishes_nothing(supervise):
    running = advance(supervise(changes={"iter": "100000"}), lambda s: s.curve.epochs >= 2)
    child = running._launch.ranks.local()[0]
    running.directory.begin_attempt("another node")
    child.wait(10)
    assert child.poll() == -9


def test_two_checkpoints_that_cannot_be_loaded_are_enough(supervise, tmp_path):
    running = advance(supervise(keep=5), lambda s: s.curve.epochs >= 6)
    running.stop()
    good = [snapshot.updates for snapshot in snapshots_of(running)]
    broken = tmp_path / "fl_asr_train"  # as on a machine without the right library
    broken.write_text(
        '#!/bin/bash\necho "Error while loading \\"$2/001_model_last.bin\\": bad version" >&2\n'
        "kill -ABRT $$\n"
    )
    broken.chmod(0o755)
    failed = advance(supervise(program=(str(broken),), keep=5))
    assert "2 checkpoints in a row cannot be loaded" in failed.failure
    assert len(snapshots_of(failed)) >= len(good) - 2


def test_a_program_that_ends_well_too_early_has_not_finished(supervise, tmp_path):
    early = tmp_path / "fl_asr_train"
    early.write_text(f'#!/bin/bash\n{BINARY} "$@" | head -3\n')  # as tee, it swallows the code
    early.chmod(0o755)
    crash = {"DOUBLE_CRASH_AT_UPDATE": "25"}
    failed = advance(supervise(program=(str(early),), environment=crash))
    assert failed.finished is None
    assert failed.failure == "ended well after 20 of 100 updates"


def test_a_file_server_that_is_away_for_a_while_is_waited_for(supervise, monkeypatch):
    from w2ltune.trials import supervisor as module

    calls = []

    def recover_later(*arguments, **options):
        calls.append(1)
        if len(calls) < 4:
            raise OSError(5, "Input/output error", "run")
        return recover(*arguments, **options)

    recover = module.recover
    monkeypatch.setattr(module, "recover", recover_later)
    done = advance(supervise())
    assert done.finished.updates == 100
    assert len(calls) == 4


def test_a_superseded_supervisor_stands_still(supervise):
    running = advance(supervise(changes={"iter": "100000"}), lambda s: s.curve.epochs >= 2)
    number = running.directory.begin_attempt("another node")
    deadline = time.monotonic() + 10
    while "another" not in running.note and "at work elsewhere" not in running.note:
        assert time.monotonic() < deadline
        running.advance()
        time.sleep(0.05)
    for _ in range(20):
        running.advance()
    assert running.directory.attempt() == number
    assert not running.over


def test_continue_takes_over_what_the_earlier_training_of_the_folder_kept(
    supervise, tmp_path, flags
):
    first = advance(supervise(), lambda s: s.curve.epochs >= 5)
    first.stop()
    kept = snapshots_of(first)[0].updates
    live = first._rundir / "001_model_last.bin"
    live.write_bytes(live.read_bytes()[:9000])
    directory = TrialDirectory(tmp_path / "trials", 9)
    job = TrainJob(program=(str(BINARY),), metric="dev-WER", folder=str(tmp_path), mode="continue")
    on = Supervisor(
        directory, rundir=first._rundir, job=job, flags={**flags, "iter": "120"}, launched=0,
        start_ranks=start_here,
    )  # fmt: skip
    advance(on)
    assert on.failure == ""
    assert on.finished.updates == 120
    assert f"took over the snapshot after update {kept}" in log_of(first)
