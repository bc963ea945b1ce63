import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune import files
from w2ltune.errors import InputError, StudyOwnedError
from w2ltune.runs import lock as lock_module
from w2ltune.runs.lock import StudyLock, current_owner, process_start, this_process

OWNER = """
import sys, time
from pathlib import Path
from w2ltune.runs.lock import StudyLock, this_process

lock = StudyLock(Path(sys.argv[1]), this_process())
lock.acquire()
print(lock.generation, flush=True)
time.sleep(100)
"""

# Each round: an owner dies, three processes try at one moment to follow it. Printed are their
# exit codes: 0 owns the study, 3 was refused. The winner lives until the others are done.
RACE = """
import os, select, signal, sys, time
from pathlib import Path
from w2ltune.errors import StudyOwnedError
from w2ltune.runs.lock import StudyLock, this_process

for number in range(int(sys.argv[2])):
    folder = Path(sys.argv[1], str(number))
    if not os.fork():
        StudyLock(folder, this_process()).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    start = time.monotonic() + 0.02
    wait, release = os.pipe()
    for _ in range(3):
        if not os.fork():
            os.close(release)
            lock = StudyLock(folder, this_process())
            while time.monotonic() < start:
                pass
            try:
                lock.acquire()
            except StudyOwnedError:
                os._exit(3)
            select.select([wait], [], [], 60)
            os._exit(0 if lock.is_ours() else 4)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)]
    os.close(release)
    os.close(wait)
    print(*codes, os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", lock_module.TAKE_OVER_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "lock"


@pytest.fixture
def start_owner(folder):
    """Start a process that owns the study; return it when it does."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline().strip().isdigit()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def write_owner(folder, **changes):
    """Write the owner's file as another process would have done."""
    owner = replace(this_process(), **changes)
    folder.mkdir(exist_ok=True)
    files.write_json(folder / f"{owner.generation:06d}.json", asdict(owner))
    return owner


@pytest.fixture
def clock(monkeypatch):
    """Time passes for the lock only as it sleeps; its hours strike what stands in the list."""

    class Clock:
        now = 0.0

        def __init__(self):
            self.strikes = []

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds
            for strike in self.strikes:
                strike()

    found = Clock()
    monkeypatch.setattr(lock_module, "time", found)
    return found


def acquired(folder, **options):
    lock = StudyLock(folder, this_process())
    lock.acquire(**options)
    return lock


def test_the_first_owner(folder):
    assert current_owner(folder) is None
    lock = acquired(folder)
    assert (lock.generation, lock.is_ours()) == (1, True)
    assert current_owner(folder).pid == os.getpid()
    lock.release()
    assert current_owner(folder).released


@pytest.mark.main
def test_a_second_owner_is_refused_and_the_first_named(folder, start_owner):
    process = start_owner()
    with pytest.raises(StudyOwnedError) as caught:
        acquired(folder)
    message = str(caught.value)
    owner = current_owner(folder)
    assert f"running already (process {process.pid} of {owner.user} on {owner.host})" in message
    assert f"set {lock_module.TAKE_OVER_VARIABLE}=1 for this command" in message
    assert caught.value.exit_code == 2
    assert current_owner(folder) == owner


@pytest.mark.main
def test_a_killed_owner_is_followed_at_once(folder, start_owner, clock):
    kill(start_owner())
    lock = acquired(folder)
    assert (lock.generation, clock.now) == (2, 0)
    lock.release()


@pytest.mark.main
def test_a_killed_owner_that_nobody_buried_is_followed_at_once(folder, start_owner, clock):
    process = start_owner()
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert process_start(process.pid) is None
    lock = acquired(folder)
    assert (lock.generation, clock.now) == (2, 0)
    lock.release()


@pytest.mark.main
def test_a_stopped_owner_is_not_dead(folder, start_owner):
    start_owner().send_signal(signal.SIGSTOP)
    with pytest.raises(StudyOwnedError):
        acquired(folder)


def test_a_number_that_another_process_got_is_not_the_owner(folder):
    # This test's own process number, with another start time.
    write_owner(folder, generation=4, process_start="1")
    lock = acquired(folder)
    assert lock.generation == 5
    lock.release()


def _damage(path, content):
    """Put what no owner writes where the newest one stands."""
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        path.write_text(json.dumps({**asdict(this_process()), "generation": 2, **content}))
    else:
        content(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("null", "damaged, restore or remove it: null"),
        ("[]", "damaged, restore or remove it: "),
        ("{}", "damaged, restore or remove it: .*missing"),
        ("7", "damaged, restore or remove it: "),
        ({"pid": "x"}, "damaged, restore or remove it: pid is 'x'"),
        ({"generation": 1}, "damaged, restore or remove it: generation is 1"),
        (lambda path: path.symlink_to("nowhere"), "is a link to 'nowhere' made by .*: remove it"),
        (os.mkfifo, "is a pipe made by .*: remove it"),
        (Path.mkdir, "is a folder made by .*: remove it"),
    ],
)
@pytest.mark.parametrize("ask", [acquired, current_owner])
def test_what_no_owner_has_written_is_named_and_waited_for_by_nobody(folder, content, reason, ask):
    write_owner(folder, generation=1, released=True)
    _damage(folder / "000002.json", content)
    with pytest.raises(InputError, match=f"lock/000002.json: {reason}"):
        ask(folder)


def test_a_file_that_has_no_number_for_a_name_is_no_owner(folder):
    acquired(folder).release()
    for name in ("1x.json", "0².json", "99.json", f"{'9' * 5000}.json"[-250:]):
        (folder / name).write_text("null")
    lock = acquired(folder)
    assert (lock.generation, lock.is_ours()) == (2, True)
    lock.release()


def test_generations_only_grow(folder):
    for generation in range(1, 6):
        lock = acquired(folder)
        assert lock.generation == generation
        lock.release()
        assert [path.name for path in folder.iterdir()] == [f"{generation:06d}.json"]


@pytest.mark.main
def test_of_many_that_follow_a_dead_owner_one_wins(tmp_path):
    rounds = 15
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), str(rounds)],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["3 3 0"] * rounds, done.stderr


def test_an_owner_is_seen_at_any_time_while_owners_change(folder):
    acquired(folder).release()
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            seen.append(current_owner(folder))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        acquired(folder).release()
    over.set()
    reader.join()
    assert None not in seen
    generations = [owner.generation for owner in seen]
    assert generations == sorted(generations)


def test_a_slow_process_does_not_take_a_number_of_the_past(folder):
    for _ in range(3):
        acquired(folder).release()
    # It looked when 1 was the newest and comes to write 2 only now, when 2 has come and gone.
    slow = StudyLock(folder, this_process())
    assert not slow._create(2)
    assert [path.name for path in folder.iterdir()] == ["000003.json"]


@pytest.mark.parametrize(
    "other",
    [
        {"job_id": ""},
        {"job_id": "42", "restart_count": 1},  # this very start of the job
        {"job_id": "42", "restart_count": 2},
        {"job_id": "43"},
    ],
)
def test_an_owner_on_another_host_is_not_followed(folder, monkeypatch, other):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    owner = write_owner(
        folder, generation=7, host="node7", boot_id="another", **{"restart_count": 0, **other}
    )
    with pytest.raises(StudyOwnedError) as caught:
        acquired(folder, wait_seconds=0.0)
    assert f"on node7{f', SLURM job {owner.job_id}' if owner.job_id else ''})" in str(caught.value)
    assert current_owner(folder) == owner


def test_a_requeued_job_follows_its_earlier_start_when_the_heart_stands_still(
    folder, monkeypatch, clock
):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    other = {"generation": 7, "host": "node7", "boot_id": "another", "restart_count": 0}
    write_owner(folder, **other)

    def beat():
        if clock.now in (50, 100, 150):
            write_owner(folder, **other, heartbeat=int(clock.now))

    clock.strikes.append(beat)
    lock = acquired(folder)
    assert lock.generation == 8
    assert 210 <= clock.now <= 212  # a minute after the last beat
    lock.release()


def test_a_requeued_job_need_not_wait_for_an_owner_that_released(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    write_owner(folder, generation=7, host="node7", boot_id="b", restart_count=0, released=True)
    lock = acquired(folder)
    assert lock.generation == 8
    lock.release()


def test_override(folder, monkeypatch):
    write_owner(folder, generation=7, host="node7", boot_id="another")
    monkeypatch.setenv(lock_module.TAKE_OVER_VARIABLE, "6")
    with pytest.raises(StudyOwnedError):
        acquired(folder)
    monkeypatch.setenv(lock_module.TAKE_OVER_VARIABLE, "7")
    lock = acquired(folder)
    assert lock.generation == 8
    # The same command once more must not push out the owner that it made.
    with pytest.raises(StudyOwnedError):
        acquired(folder)
    lock.release()


def test_the_heart_beats_until_the_study_is_taken_over(folder, monkeypatch):
    def leave():
        raise BlockingIOError("which ends the first owner, and not the process of both")

    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(lock_module, "leave_to_another", leave)
    first = acquired(folder)
    wait_for(lambda: current_owner(folder).heartbeat >= 3)
    monkeypatch.setenv(lock_module.TAKE_OVER_VARIABLE, "1")
    second = acquired(folder)
    time.sleep(0.1)
    assert not first.is_ours()
    assert second.is_ours()
    assert max(path.name for path in folder.glob("*.json")) == "000002.json"
    first.release()  # too late to release anything
    assert not current_owner(folder).released
    second.release()


def test_the_study_is_not_ours_where_its_folder_is_gone(folder):
    lock = acquired(folder)
    folder.rename(folder.with_name("moved"))
    assert not lock.is_ours()
    lock.release()


@pytest.mark.main
def test_start_time_of_processes(start_owner):
    assert process_start(os.getpid()).isdigit()
    assert process_start(os.getpid()) == process_start(os.getpid())
    process = start_owner()
    assert process_start(process.pid).isdigit()
    kill(process)
    assert process_start(process.pid) is None


def test_an_owner_from_before_the_last_boot_is_followed_when_its_heart_stands_still(folder, clock):
    write_owner(folder, boot_id="another boot", pid=1, generation=1)
    lock = acquired(folder)
    assert lock.generation == 2
    assert 60 <= clock.now <= 61
    lock.release()
