"""A training from start to end, with the double of the binary and without Ray."""

import errno
import os
import re
import signal
from pathlib import Path

import pytest
from trainingtask import BINARY, make_training
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune.errors import KilledError, StorageError
from w2ltune.formats.checkpoint import read_header
from w2ltune.runs.diskbudget import used_bytes
from w2ltune.runs.snapshots import read_snapshots, verify
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.trials import keeper
from w2ltune.trials import launch as launch_module
from w2ltune.trials.ranks import NodeRanks
from w2ltune.trials.supervisor import Supervisor
from w2ltune.trials.trainjob import TrainJob

pytestmark = pytest.mark.main

MODEL_BYTES = 210_000
"""More than a model of the double takes."""


@pytest.fixture
def flags(tmp_path):
    return make_training(tmp_path / "data")


@pytest.fixture
def supervise(tmp_path, flags):
    """Make a supervisor of trial 7; called again it is a later launch of the same trial.

    With ``leave`` the program stands still after so many updates, until the test lets it go.
    """
    made = []

    def supervise(*, environment=None, changes=None, number=7, rundir=None, leave=0, **job):
        settings = {"program": (str(BINARY),), "metric": "dev-WER", "folder": str(tmp_path), **job}
        environment = {"DOUBLE_RETRY_SECONDS": "0.01", **(environment or {})}
        if leave:
            (tmp_path / "leave").write_text(str(leave))
            environment["DOUBLE_LEAVE_FILE"] = str(tmp_path / "leave")
        directory = TrialDirectory(tmp_path / "trials", number)
        made.append(
            Supervisor(
                directory,
                rundir=rundir or directory.run,
                job=TrainJob(**settings, environment=environment),
                flags={**flags, **(changes or {})},
                launched=0,
                start_ranks=lambda job, *rest: NodeRanks(*rest),
            )
        )
        return made[-1]

    yield supervise
    for supervisor in made:
        supervisor.stop()


@pytest.fixture
def go(tmp_path):
    """Let the programs go on that stand still, for good or to so many updates."""

    def go(updates=10**6):
        (tmp_path / "leave").write_text(str(updates))

    return go


def advance(supervisor, until=lambda supervisor: False):
    def look():
        supervisor.advance()
        return supervisor.over or until(supervisor)

    wait_for(look)
    return supervisor


def kept(updates):
    """Until there is the snapshot of so many updates."""
    return lambda supervisor: updates in {one.updates for one in snapshots_of(supervisor)}


def kill(supervisor, number=signal.SIGKILL, rank=0):
    os.kill(supervisor._launch.ranks.local()[rank].pid, number)


def log_of(supervisor):
    return "\n".join(p.read_text() for p in (supervisor.rundir / "logs").glob("*.log"))


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
    script = next((done.rundir / "scripts").iterdir())
    assert "--flagsfile=" in script.read_text()


def test_a_later_launch_finds_that_it_is_finished(supervise):
    first = advance(supervise())
    again = advance(supervise())
    assert again.finished == first.finished
    assert again.directory.attempt() == 1


def test_damaged_notes_of_the_last_launch_fail_nothing(supervise, monkeypatch):
    monkeypatch.setattr(launch_module, "FENCE_SECONDS", 0)
    first = advance(supervise())
    first.stop()
    for content in ("", "[]", '{"value": "x", "pids": 1}'):
        first.directory.finished.write_text(content)
        first.directory.process.write_text(content)
        again = advance(supervise())
        assert (again.failure, again.finished.value) == ("", first.finished.value)
        again.stop()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGUSR1", "SIGSEGV"])
def test_a_killed_program_goes_on(supervise, go, name):
    running = advance(supervise(leave=30), kept(30))
    kill(running, getattr(signal, name))
    go()
    advance(running)
    assert running.failure == ""
    assert running.finished.updates == 100
    assert [epoch for epoch, _ in running.curve.by_epoch()] == list(range(1, 11))
    assert "continue after update" in log_of(running)


def test_killed_in_the_middle_of_writing_each_checkpoint(supervise, tmp_path):
    running = supervise(
        environment={"DOUBLE_WRITE_AFTER": str(tmp_path), "DOUBLE_UPDATE_SECONDS": "0.01"},
        changes={"iter": "40"},
    )
    for updates in (10, 20, 30, 40):
        advance(running, lambda s, here=updates: s.writing and s.curve.updates == here)
        assert not running.over
        kill(running)
        (tmp_path / str(updates)).touch()
    advance(running)
    assert running.failure == ""
    assert running.finished.updates == 40
    assert any((running.rundir / "torn").iterdir())


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


def test_audio_that_is_none_is_named(supervise, flags):
    (Path(flags["datadir"]) / "audio" / "dev-5.wav").write_bytes(b"<html>404")
    failed = advance(supervise())
    assert "dev-5.wav of dev.lst begins with b'<html>404', as no audio file does" in failed.failure
    assert "loadSoundInfo: unknown format" in failed.failure


def test_a_hung_program_is_started_again(supervise, tmp_path):
    hang = {"DOUBLE_HANG_AT_UPDATE": "25", "DOUBLE_HANG_ONCE": str(tmp_path / "hung")}
    done = advance(supervise(environment=hang, stall_minutes=0.15))
    assert done.finished.updates == 100
    assert "hung: no new line" in log_of(done)


def test_a_torn_checkpoint_before_any_snapshot_is_set_aside(supervise):
    running = supervise()
    running.rundir.mkdir(parents=True)
    (running.rundir / "001_model_last.bin").write_bytes(b"\x03\0\0")
    done = advance(running)
    assert done.finished.updates == 100
    assert list((done.rundir / "torn").iterdir())


def test_a_snapshot_that_cannot_be_loaded_costs_one_interval(supervise, go):
    running = advance(supervise(keep=3, leave=40), kept(40))
    go(50)
    advance(running, kept(50)).stop()
    newest = snapshots_of(running)[0]
    live = running.rundir / "001_model_last.bin"
    for path in (newest.path, live):  # of the right size, and wrong
        data = bytearray(path.read_bytes())
        data[-100:] = bytes(byte ^ 1 for byte in data[-100:])
        path.write_bytes(data)
    done = advance(supervise(keep=3))
    assert done.finished.updates == 100
    assert [epoch for epoch, _ in done.curve.by_epoch()] == list(range(1, 11))


def test_fork_begins_with_a_network_and_continues_as_itself(supervise, go):
    first = advance(supervise())
    model = str(first.directory.snapshots / first.finished.checkpoint)
    fork = supervise(number=8, mode="fork", model_path=model, changes={"iter": "60"}, leave=20)
    advance(fork, kept(20))
    kill(fork)
    go()
    advance(fork)
    assert fork.finished.updates == 60
    assert first.rundir.joinpath("001_log").read_text().count("\n") == 10  # untouched
    assert (fork.rundir / "forked_model.bin").samefile(model)


def test_several_ranks_meet_anew_at_each_launch(supervise, go):
    running = advance(supervise(gpus_per_node=3, leave=20), lambda s: s.curve.epochs >= 5)
    assert len(running._launch.ranks.local()) == 3
    kill(running, rank=1)
    go()
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
    said = done.finished.unkept
    assert re.search(r"no snapshot of 001_model_dev.bin: needs 20\d KiB", said)  # paths are in it
    assert "of the 1 KiB allowed; allow more (--disk_budget_gib)" in said
    assert said in log_of(done)
    assert done.finished.checkpoint == ""
    best = done.best()[0]
    assert read_header(done.rundir / done.finished.model).updates == best.updates


def test_an_older_launch_publishes_nothing(supervise):
    running = advance(supervise(leave=20), lambda s: s.curve.epochs >= 2)
    child = running._launch.ranks.local()[0]
    running.directory.begin_attempt("another node")
    assert child.wait(PATIENCE_SECONDS) == -9


def test_two_checkpoints_that_cannot_be_loaded_are_enough(supervise, go, tmp_path):
    running = advance(supervise(keep=5, leave=50), kept(50))
    go(60)
    advance(running, kept(60)).stop()
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


def test_a_file_server_that_stays_away_is_no_failure_of_the_training(supervise, monkeypatch):
    from w2ltune.trials import supervisor as module

    def recover_never(*arguments, **options):
        raise OSError(errno.ESTALE, "Stale file handle", "run")

    monkeypatch.setattr(module, "recover", recover_never)
    monkeypatch.setattr(module, "TROUBLE_SECONDS", 0.0)
    assert isinstance(advance(supervise()).fault, StorageError)


def test_a_full_disk_of_the_program_is_no_failure_of_the_training(supervise, tmp_path):
    model = tmp_path / "trials" / "0007" / "run" / "001_model_last.bin"
    program = tmp_path / "fl_asr_train"
    program.write_text(f'#!/bin/sh\nln -s /dev/full {model}\nexec {BINARY} "$@"\n')
    program.chmod(0o755)
    stopped = advance(supervise(program=(str(program),)))
    assert isinstance(stopped.fault, StorageError)
    assert "disk full while writing" in stopped.failure
    assert not stopped.directory.finished.exists()
    assert advance(supervise()).finished.updates == 100


def test_a_program_that_is_killed_each_time_is_tried_again_by_a_later_command(supervise):
    running = supervise(leave=20)
    for number in range(1, 6):
        advance(running, lambda s, n=number: s._launch is not None and s.attempt == n)
        kill(running)
    advance(running)
    assert isinstance(running.fault, KilledError)
    assert "killed (SIGKILL), most likely for want of memory: 5 times; the same command" in (
        running.failure
    )


def test_a_superseded_supervisor_stands_still(supervise):
    running = advance(supervise(leave=20), lambda s: s.curve.epochs >= 2)
    number = running.directory.begin_attempt("another node")
    advance(running, lambda s: "another" in s.note or "at work elsewhere" in s.note)
    for _ in range(20):
        running.advance()
    assert running.directory.attempt() == number
    assert not running.over


def test_continue_takes_over_what_the_earlier_training_of_the_folder_kept(supervise):
    first = advance(supervise(leave=50), kept(50))
    first.stop()
    live = first.rundir / "001_model_last.bin"
    live.write_bytes(live.read_bytes()[:9000])
    on = supervise(number=9, rundir=first.rundir, mode="continue", changes={"iter": "120"})
    advance(on)
    assert on.failure == ""
    assert on.finished.updates == 120
    assert "took over the snapshot after update 50" in log_of(first)


def test_twelve_launches_take_no_more_room_than_two(supervise, go):
    """Each leaves its models behind, of which there are snapshots; the program finds the newest."""
    running = supervise(changes={"iter": "130"}, leave=10)
    sizes = []
    for updates in range(10, 130, 10):
        advance(running, kept(updates))
        sizes.append(used_bytes(running.directory.path))
        kill(running)
        go(updates + 10)
    go()
    advance(running)
    assert running.failure == ""
    assert [epoch for epoch, _ in running.curve.by_epoch()] == list(range(1, 14))
    logs = sorted(path.name for path in running.rundir.glob("*_log"))
    assert logs == [f"{index:03d}_log" for index in range(1, 14)]  # none was written over
    assert max(sizes) < 12 * MODEL_BYTES  # 3 of a launch and of the one before, and snapshots
    assert used_bytes(running.directory.path) < 12 * MODEL_BYTES
    kept_updates = {snapshot.updates for snapshot in snapshots_of(running)}
    for rate in ("dev-WER", "other-WER"):
        best = min(running.curve.lines, key=lambda line: (line.rates[rate], line.updates))
        assert best.updates in kept_updates
    assert "removed 011_model_dev.bin, 011_model_last.bin, 011_model_other.bin: " in log_of(running)
    # By hand, too, the program goes on from the newest.
    models = [running.rundir / f"{index:03d}_model_last.bin" for index in range(1, 14)]
    assert all(model.exists() for model in models)
    assert read_header(models[-1]).updates == 130


def test_what_has_no_snapshot_of_the_same_bytes_stays(supervise, go):
    running = supervise(leave=10)
    advance(running, kept(10))
    rundir = running.rundir
    wait_for(lambda: len(list(rundir.glob("001_model_*.bin"))) == 3)
    other, dev = rundir / "001_model_other.bin", rundir / "001_model_dev.bin"
    kill(running)
    running.stop()
    other.write_bytes(other.read_bytes()[:-1] + b"x")  # other bytes, as many
    (rundir / "named.bin").hardlink_to(dev)
    before = {path: path.read_bytes() for path in (other, dev)}
    go()
    done = advance(supervise())
    assert done.finished.updates == 100
    assert {path: path.read_bytes() for path in before} == before
    assert (
        (rundir / "001_model_last.bin").read_text().startswith("w2ltune: the model of 10 updates")
    )


def test_what_could_not_be_copied_is_tried_again_at_the_end(supervise, go, monkeypatch):
    room, retry = ["the disk is full"], keeper.Keeper.retry
    monkeypatch.setattr(keeper, "make_room", lambda *arguments, **options: room[0])
    running = supervise(changes={"iter": "20"}, leave=10)
    said = "no snapshot of 001_model_last.bin: the disk is full"
    advance(running, lambda supervisor: said in log_of(supervisor))

    def with_room(own):
        room[0] = ""
        retry(own)

    monkeypatch.setattr(keeper.Keeper, "retry", with_room)  # the end begins with it
    go()
    done = advance(running)
    assert done.finished.unkept == ""
    best = read_header(done.directory.snapshots / done.finished.checkpoint)
    assert best.updates == 10 * done.finished.epoch
