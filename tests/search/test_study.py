import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.trial import TrialState
from waiting import PATIENCE_SECONDS

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.distributions import FloatRange, IntegerRange
from w2ltune.formats.flagsfile import format_flagsfile
from w2ltune.runs.lock import TAKE_OVER_VARIABLE, StudyLock, this_process
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.completing import LOST, asked
from w2ltune.search.samplers import make_sampler
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import (
    JOURNAL,
    counted,
    open_study,
    repair_journal,
    settle,
    tell,
)

SPACE = SearchSpace(
    fixed={"lm": "lm.arpa"},
    distributions={
        "lmweight": FloatRange(0.0, 4.0),
        "wordscore": FloatRange(-1.0, 1.0, step=1.0),
        "beamsize": IntegerRange(10, 500),
    },
)

PRELUDE = """
import os, signal, sys
from pathlib import Path
from w2ltune import files
from w2ltune.errors import StudyMismatchError
from w2ltune.formats.distributions import FloatRange, IntegerRange
from w2ltune.formats.flagsfile import format_flagsfile
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import open_study, tell

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def begin(folder):
    folder.mkdir()
    lock = StudyLock(folder / "lock", this_process())
    lock.acquire()
    return open_study(folder, lock)

def ask(study, folder):
    trial, flags = SPACE.ask(study)
    directory = TrialDirectory(folder / "trials", trial.number)
    directory.path.mkdir(parents=True)
    files.write_text(directory.flags, format_flagsfile(flags))
    return trial.number, directory
"""

# In each of several folders a process asks for a trial and is killed at its k-th write.
KILLED_IN_ASK = """
fsync = os.fsync
for k in range(1, int(sys.argv[2]) + 1):
    folder = Path(sys.argv[1], str(k))
    if not os.fork():
        study = begin(folder)
        left = k

        def sync(descriptor):
            global left
            fsync(descriptor)
            left -= 1
            if not left:
                die()

        os.fsync = sync
        ask(study, folder)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""

KILLED_BEFORE_TELL = """
for state, value in {"COMPLETE": 0.25, "PRUNED": 0.5, "FAIL": None}.items():
    folder = Path(sys.argv[1], state)
    if not os.fork():
        number, directory = ask(begin(folder), folder)
        attempt = directory.begin_attempt()
        directory.write_result(
            TrialResult(number=number, attempt=attempt, state=state, value=value)
        )
        die()
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""

OVERTAKEN = """
folder = Path(sys.argv[1])
study = begin(folder)
number, _ = ask(study, folder)
print("ready", flush=True)
sys.stdin.readline()
tell(study, number, TrialResult(number=number, attempt=0, state="COMPLETE", value=0.5))
print("told")
"""

DISK_FULL = """
import errno
folder = Path(sys.argv[1]) / "study"
study = begin(folder)
filler = folder / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(512))
    except OSError:
        pass
asked = 0
try:
    while True:
        study.ask()
        asked += 1
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    assert not (folder / "study.journal").read_bytes().endswith(b"\\n")
    # Room for the cut bytes and the lock, and on it goes in the same process.
    filler.unlink()
    for number in range(asked):
        tell(study, number, TrialResult(number=number, attempt=1, state="COMPLETE", value=0.5))
    study.ask()
    print(asked, len(study.trials))
"""


def script(text):
    return [sys.executable, "-c", f"{PRELUDE}\nSPACE = {SPACE!r}\n{text}"]


def run(text, *arguments):
    done = subprocess.run([*script(text), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@contextmanager
def owned(folder):
    """The study of a folder, as a start of the sweep opens it."""
    lock = StudyLock(folder / "lock", this_process())
    lock.acquire()
    try:
        yield open_study(folder, lock)
    finally:
        lock.release()


@pytest.fixture
def lock(tmp_path):
    """A lock to open many studies with."""
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()
    yield lock
    lock.release()


def ask(study, folder):
    """Ask for a trial as the tuner does."""
    trial, flags = SPACE.ask(study)
    directory = TrialDirectory(folder / "trials", trial.number)
    directory.path.mkdir(parents=True)
    files.write_text(directory.flags, format_flagsfile(flags))
    return directory


def finish(study, directory, state="COMPLETE", value=0.5):
    result = TrialResult(number=directory.number, attempt=1, state=state, value=value)
    directory.write_result(result)
    tell(study, directory.number, result)


def states(study):
    return [trial.state for trial in study.get_trials()]


@pytest.fixture
def journal(tmp_path, lock):
    """The bytes of a journal with two finished trials."""
    folder = tmp_path / "first"
    folder.mkdir()
    study = open_study(folder, lock)
    for _ in range(2):
        finish(study, ask(study, folder))
    return (folder / JOURNAL).read_bytes()


def test_a_whole_journal_is_left_alone(tmp_path, journal):
    assert repair_journal(tmp_path / "none") == 0
    for content in (b"", journal):
        path = tmp_path / JOURNAL
        path.write_bytes(content)
        assert repair_journal(path) == 0
        assert path.read_bytes() == content
    assert not list(tmp_path.glob("*.torn-*"))


def test_a_journal_without_any_line_end_is_emptied(tmp_path):
    path = tmp_path / JOURNAL
    path.write_bytes(b"x" * 200_000)
    assert repair_journal(path) == 200_000
    assert path.read_bytes() == b""


def cuts(journal):
    """Every byte of the last line, and some of those before, down to the first line."""
    last_line = len(journal) - (journal.rindex(b"\n", 0, -1) + 1)
    return [*range(1, last_line), *range(last_line, len(journal), 61), len(journal)]


def test_a_journal_cut_anywhere_is_mended(tmp_path, journal, lock, monkeypatch):
    # Not mended, the next record is joined to the torn line, and Optuna reads the journal never
    # again (JSONDecodeError at each opening).
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here; a thousand cost
    folder = tmp_path / "study"
    for cut in cuts(journal):
        folder.mkdir()
        path = folder / JOURNAL
        left = journal[:-cut]
        whole = left[: left.rfind(b"\n") + 1]
        path.write_bytes(left)
        study = open_study(folder, lock)
        torn = [kept.read_bytes() for kept in folder.glob("*.torn-*")]
        assert torn == ([left[len(whole) :]] if left != whole else [])
        assert path.read_bytes().startswith(whole)
        told = whole.count(b'"values":[0.5]')
        assert states(study).count(TrialState.COMPLETE) == told
        study.tell(study.ask(), 0.25)
        again = open_study(folder, lock)
        assert states(again) == states(study)
        assert states(again).count(TrialState.COMPLETE) == told + 1
        assert len(list(folder.glob("*.torn-*"))) == len(torn)
        shutil.rmtree(folder)


def test_several_records_in_one_append_cut_in_the_middle(tmp_path, journal, lock):
    lines = journal.splitlines(keepends=True)
    path = tmp_path / JOURNAL
    path.write_bytes(b"".join(lines[:-2]) + lines[-2] + lines[-1][:10])
    assert len(states(open_study(tmp_path, lock))) == 2
    assert path.read_bytes().startswith(b"".join(lines[:-1]))


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\n", b"\xff\0\n", b"3\n", b"{}\n"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_damaged_line_is_named(tmp_path, journal, lock, garbage, where):
    lines = journal.splitlines(keepends=True)
    place = {"first": 0, "middle": 2, "last": len(lines)}[where]
    path = tmp_path / JOURNAL
    path.write_bytes(b"".join([*lines[:place], garbage, *lines[place:]]))
    with pytest.raises(InputError, match=rf"journal:{place + 1}: damaged.*or move it away"):
        open_study(tmp_path, lock)
    TrialDirectory(tmp_path / "trials", 0).write_flags({"lmweight": "1"})
    with pytest.raises(InputError, match=rf"journal:{place + 1}: damaged.*or remove the line"):
        open_study(tmp_path, lock)
    # What the message says is true.
    path.write_bytes(journal)
    assert len(states(open_study(tmp_path, lock))) == 2
    shutil.rmtree(tmp_path / "trials")
    path.unlink()
    assert states(open_study(tmp_path, lock)) == []


def test_locks_that_optuna_left_hold_nobody_up(tmp_path, monkeypatch):
    with owned(tmp_path) as study:
        finish(study, ask(study, tmp_path))
    (tmp_path / f"{JOURNAL}.lock").symlink_to(JOURNAL)

    def waits(seconds):
        raise AssertionError("it waits for the lock")

    monkeypatch.setattr(time, "sleep", waits)
    with owned(tmp_path) as study:
        finish(study, ask(study, tmp_path))
        assert states(study) == [TrialState.COMPLETE] * 2


def test_a_moved_study_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    with owned(Path("here")) as study:
        finish(study, ask(study, Path("here")))
        ask(study, Path("here"))
    Path("here").rename("there")
    with owned(Path("there")) as study:
        settled = settle(study, Path("there/trials"))
        assert (settled.finished, len(settled.interrupted)) == (1, 1)
        finish(study, ask(study, Path("there")))
    assert not Path("here").exists()


def test_an_overtaken_owner_ends_before_it_writes(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    process = subprocess.Popen(
        [*script(OVERTAKEN), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        monkeypatch.setenv(TAKE_OVER_VARIABLE, "1")
        with owned(folder) as study:
            torn = b'{"op_code":'  # what the new owner is writing must not be "mended" either
            with (folder / JOURNAL).open("ab") as file:
                file.write(torn)
            before = (folder / JOURNAL).read_bytes()
            output, errors = process.communicate("go on\n", timeout=PATIENCE_SECONDS)
            assert (process.returncode, output) == (1, "")
            assert errors == (
                "w2ltune: error: another process took this sweep over; this one ends\n"
            )
            assert (folder / JOURNAL).read_bytes() == before
            assert states(study) == [TrialState.RUNNING]
    finally:
        process.kill()
        process.communicate()


def test_killed_while_asking(tmp_path):
    # The writes of an ask: the trial, its three values, its flags. With the fifth on the disk but
    # not yet renamed the trial is lost; a process that is killed later leaves it to be resumed.
    writes = 5
    codes = run(KILLED_IN_ASK, tmp_path, writes + 1)
    assert codes == [str(-signal.SIGKILL)] * writes + ["0"]
    for k in range(1, writes + 2):
        folder = tmp_path / str(k)
        budget = 3
        with owned(folder) as study:
            (trial,) = study.get_trials()
            assert len(trial.params) == min(k - 1, 3)
            settled = settle(study, folder / "trials")
            lost = k <= writes
            assert lost_ones(study) == ([0] if lost else [])
            assert [frozen.number for frozen in settled.interrupted] == ([] if lost else [0])
            assert settled.finished == 0
            assert len(list(counted(study))) == (0 if lost else 1)
            for frozen in settled.interrupted:
                finish(study, TrialDirectory(folder / "trials", frozen.number))
            while len(list(counted(study))) < budget:
                number = len(study.get_trials())
                study.sampler = make_sampler(
                    "random", seed=1, number=number, distributions={}, trial_count=budget
                )
                finish(study, ask(study, folder))
            assert states(study).count(TrialState.COMPLETE) == budget
            assert len(states(study)) == budget + lost


def lost_ones(study):
    return [trial.number for trial in study.get_trials() if LOST in trial.user_attrs]


def test_killed_between_result_and_tell(tmp_path):
    assert run(KILLED_BEFORE_TELL, tmp_path) == [str(-signal.SIGKILL)] * 3
    for state, value in {"COMPLETE": 0.25, "PRUNED": None, "FAIL": None}.items():
        folder = tmp_path / state
        with owned(folder) as study:
            settled = settle(study, folder / "trials")
            assert (settled.finished, settled.interrupted) == (1, ())
            assert lost_ones(study) == []
            (trial,) = study.get_trials()
            assert trial.state is TrialState[state]
            assert trial.value == value
            assert len(trial.params) == 3
        with owned(folder) as study:
            before = (folder / JOURNAL).read_bytes()
            assert settle(study, folder / "trials").finished == 1
            assert (folder / JOURNAL).read_bytes() == before


def test_a_pruned_trial_is_told_as_pruned_whatever_its_value(tmp_path):
    with owned(tmp_path) as study:
        directory = ask(study, tmp_path)
        finish(study, directory, "PRUNED", value=0.001)
        finish(study, ask(study, tmp_path), value=0.5)
        assert states(study) == [TrialState.PRUNED, TrialState.COMPLETE]
        assert study.best_trial.number == 1


def test_settling_twice_changes_nothing(tmp_path):
    with owned(tmp_path) as study:
        finish(study, ask(study, tmp_path))
        ask(study, tmp_path)  # interrupted
        SPACE.ask(study)  # lost
        told = ask(study, tmp_path)
        told.write_result(TrialResult(number=3, attempt=1, state="COMPLETE", value=0.5))
    with owned(tmp_path) as study:
        first = settle(study, tmp_path / "trials")
        assert (first.finished, lost_ones(study)) == (2, [2])
        assert study.get_trials()[3].state is TrialState.COMPLETE
        before = (tmp_path / JOURNAL).read_bytes()
        second = settle(study, tmp_path / "trials")
        assert (second.finished, lost_ones(study)) == (2, [2])
        for settled in (first, second):
            assert [trial.number for trial in settled.interrupted] == [1]
        assert (tmp_path / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("journal", ["whole", "gone"])
def test_what_was_killed_from_outside_is_tried_again(tmp_path, journal):
    with owned(tmp_path) as study:
        for again in (True, False):
            trial, flags = SPACE.ask(study)
            directory = TrialDirectory(tmp_path / "trials", trial.number)
            directory.write_flags(flags, asked=asked(study, trial))
            failed = TrialResult(
                number=trial.number, attempt=1, state="FAIL", value=None, reason="killed",
                again=again,
            )  # fmt: skip
            assert directory.write_result(failed) == failed == directory.read_result()
            if not again:
                tell(study, trial.number, failed)
    if journal == "gone":
        (tmp_path / JOURNAL).unlink()
    with owned(tmp_path) as study:
        settled = settle(study, tmp_path / "trials", SPACE)
        assert [trial.number for trial in settled.interrupted] == [0]
        assert settled.finished == 1
        directory = TrialDirectory(tmp_path / "trials", 0)
        assert not directory.result.exists()
        assert directory.write_result(TrialResult(number=0, attempt=2, state="FAIL", value=None))
        assert not directory.reopen()


def test_a_disk_that_was_full_for_a_while(tmp_path):
    if os.getuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c",
         'mount -t tmpfs -o size=128k none "$0" && exec "$@"',
         str(tmp_path), *script(DISK_FULL), str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, trials = map(int, done.stdout.split())
    assert trials == asked + 1


def test_a_journal_that_is_gone_is_not_begun_anew(tmp_path, lock):
    TrialDirectory(tmp_path / "trials", 0).write_flags({"lmweight": "1"})
    settled = settle(open_study(tmp_path, lock), tmp_path / "trials")
    assert [trial.number for trial in settled.interrupted] == [0]
