"""Who was stopped and overtaken writes nothing when he wakes: at each write of a small study."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from w2ltune import files
from w2ltune.runs.lock import StudyLock, is_overtaken, this_process
from w2ltune.runs.recovery import recover, set_aside_failed
from w2ltune.runs.shards import ShardFolder
from w2ltune.runs.snapshots import Snapshot, discard, prune, remove, write_manifest
from w2ltune.runs.trialdir import TrialDirectory, TrialResult

STOPPED = """
import os, signal, sys
from pathlib import Path
from w2ltune import files
from w2ltune.formats.distributions import FloatRange
from w2ltune.runs.lock import StudyLock, TAKE_OVER_VARIABLE, this_process
from w2ltune.runs.outcome import Outcome, write_outcome
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.completing import asked
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import open_study, settle, tell

SPACE = SearchSpace(fixed={"lm": "a"}, distributions={"lmweight": FloatRange(0.0, 4.0)})

def go(folder, reason):
    lock = StudyLock(folder / "lock", this_process())
    lock.acquire()
    study = open_study(folder, lock)
    waiting = [trial.number for trial in settle(study, folder / "trials").interrupted]
    while len(study.get_trials()) < 2 or waiting:
        if waiting:
            number = waiting.pop()
        else:
            trial, flags = SPACE.ask(study)
            number = trial.number
        directory = TrialDirectory(folder / "trials", number)
        if not directory.was_asked():
            directory.write_flags(flags, asked=asked(study, trial))
        attempt = directory.begin_attempt()
        files.write_text(directory.utterances, reason)
        result = directory.write_result(
            TrialResult(number=number, attempt=attempt, state="COMPLETE", value=0.5, reason=reason)
        )
        tell(study, number, result)
        write_outcome(folder, Outcome(reason=reason))
    return lock

def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

def kept(folder):
    return {path: data for path, data in content(folder).items() if ".tmp-" not in path.name}

k = 0
os.fsync = lambda descriptor: None  # no power cut here
while True:
    k += 1
    folder = Path(sys.argv[1], str(k))
    folder.mkdir()
    child = os.fork()
    if not child:
        left = k

        def sync(descriptor):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGSTOP)

        os.fsync = sync
        go(folder, "the first owner")
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break  # there is no k-th write
    os.environ[TAKE_OVER_VARIABLE] = "1"
    lock = go(folder, "the next owner")
    before = kept(folder)
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    changed = [str(path) for path in before if content(folder).get(path) != before[path]]
    new = [str(path) for path in content(folder) if path not in before]
    print(k, os.waitstatus_to_exitcode(status), changed, new)
    lock.release()
    del os.environ[TAKE_OVER_VARIABLE]
"""


def test_an_owner_that_wakes_writes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) > 15
    # Before its lock is there it owns nothing, and goes on as one that is second.
    wrong = [row for row in rows[1:] if not row.endswith(" [] []")]
    assert not wrong, wrong
    # One that wakes in its first write finds nothing that is left to be done.
    assert done.stderr.count("another process took this sweep over") >= len(rows) - 2


def test_a_fence_is_asked_at_the_last_moment(tmp_path):
    inside, outside = tmp_path / "a/b/file", tmp_path / "file"
    inside.parent.mkdir(parents=True)
    ours = True

    def is_ours():
        return ours

    def leave():
        raise BlockingIOError

    files.fence(tmp_path / "a", is_ours, leave)
    try:
        with pytest.raises(BlockingIOError), files.replacing(inside) as file:
            file.write("late")
            ours = False
        with pytest.raises(BlockingIOError):
            files.create_exclusively(inside, "late")
        assert list(inside.parent.iterdir()) == []
        files.write_text(outside, "others may")
        files.unfence(tmp_path / "a", lambda: True)  # another one's
        with pytest.raises(BlockingIOError):
            files.write_text(inside, "late")
    finally:
        files.unfence(tmp_path / "a", is_ours)
    files.write_text(inside, "free")


def test_the_lock_is_a_fence_until_it_is_released(tmp_path, monkeypatch):
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()
    assert not is_overtaken(tmp_path / "lock", 1)
    left = []
    monkeypatch.setattr(os, "_exit", lambda code: left.append(code))
    files.create_exclusively(tmp_path / "lock/000002.json", "{}")
    assert is_overtaken(tmp_path / "lock", 1)
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "trials.csv", "")
    assert left == [1]
    lock.release()
    files.write_text(tmp_path / "trials.csv", "")


def test_an_older_launch_writes_nothing(tmp_path):
    from w2ltune.trials.decoding import DecodeTrial

    trial = object.__new__(DecodeTrial)
    trial._directory = directory = TrialDirectory(tmp_path, 0)
    trial._attempt, trial._blocks, trial._nbest = directory.begin_attempt(), {}, 0
    trial._write_utterances()
    directory.utterances.unlink()
    directory.begin_attempt()
    with pytest.raises(BlockingIOError):
        trial._write_utterances()
    assert not directory.utterances.exists()


def test_an_older_launch_moves_and_removes_nothing(tmp_path):
    run, kept, shards = (tmp_path / name for name in ("run", "snapshots", "shards"))
    for folder in (run, kept, shards):
        folder.mkdir()
    (run / "001_model_last.bin").write_bytes(b"torn")
    (run / ".001_model_last.bin.tmp-of-another").write_bytes(b"just being written")
    for updates in (10, 20):
        path = kept / f"{updates:08d}.bin"
        path.write_bytes(b"a model")
        snapshot = Snapshot(
            path=path, epoch=1, updates=updates, size_bytes=7, payload_bytes=7, digest=""
        )
        write_manifest(snapshot)
    (shards / "1.npy").touch()
    before = sorted(tmp_path.rglob("*"))

    def is_ours():
        return False

    def leave():
        raise BlockingIOError

    files.fence(tmp_path, is_ours, leave)
    try:
        for work in (
            lambda: recover(run, kept),
            lambda: set_aside_failed(run, 1, kept, 20),
            lambda: discard(snapshot),
            lambda: prune(kept, keep=1),
            lambda: remove(snapshot),
            ShardFolder(shards, columns=1).remove,
        ):
            with pytest.raises(BlockingIOError):
                work()
    finally:
        files.unfence(tmp_path, is_ours)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_dead_processes_left_is_swept_at_the_start(tmp_path):
    trial = TrialDirectory(tmp_path / "trials", 0)
    trial.write_flags({})
    done = subprocess.run(
        [sys.executable, "-c",
         "import os, signal, sys; from pathlib import Path; from w2ltune import files\n"
         "with files.replacing(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)",
         trial.result],
    )  # fmt: skip
    assert done.returncode == -9
    (dead,) = trial.path.glob(".result.json.tmp-*")
    living, other, old, user = (
        files.temporary(trial.result),
        *(trial.path / f".result.json.tmp-{name}" for name in ("00000000-1-ab", "999999-ab")),
        trial.path / ".notes.tmp-mine",
    )
    for path in (living, other, old, user):
        path.touch()
    for path in (old, user):
        os.utime(path, (time.time() - 7200,) * 2)
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()
    lock.release()
    assert not dead.exists() and not old.exists()
    assert living.exists() and other.exists() and user.exists()
    assert trial.write_result(TrialResult(number=0, attempt=1, state="FAIL", value=None))
    assert Path(trial.result).exists()
