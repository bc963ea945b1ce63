"""The watcher ends a command whose Ray is lost, and none whose Ray lives."""

import socket
import subprocess
import sys

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune.cluster.watch import answers, watched
from w2ltune.errors import EXIT_STOPPED
from w2ltune.runs.lock import current_owner


def run(block, lost_seconds=0.3):
    """Run a program whose Ray lives for three looks, and then no longer."""
    program = (
        "import os, threading\n"
        "from w2ltune.cluster.watch import watched\n"
        "looks = []\n"
        "def lives(): looks.append(1); return len(looks) <= 3\n"
        f"with watched(lives, lost_seconds={lost_seconds}, look_seconds=0.02):\n"
        f"    {block}\n"
        "os.write(1, b'left')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


@pytest.mark.parametrize(
    "block",
    [
        "threading.Event().wait()",
        "os.read(os.pipe()[0], 1)",
        "while True: pass",
    ],
    ids=["a lock", "a call of the system", "a loop"],
)
def test_whatever_it_waits_for(block):
    done = run(block)
    assert (done.returncode, done.stdout) == (EXIT_STOPPED, "")
    assert done.stderr == (
        "\nw2ltune: error: Ray is lost (not there for 0.3 seconds); what was finished is kept, the "
        "same command continues\n"
    )


def test_the_study_is_free_when_it_is_ended(tmp_path):
    done = run(
        "from pathlib import Path; from w2ltune.runs.lock import StudyLock, this_process; "
        f"StudyLock(Path({str(tmp_path / 'lock')!r}), this_process()).acquire(); "
        "threading.Event().wait()"
    )
    assert done.returncode == EXIT_STOPPED
    owner = current_owner(tmp_path / "lock")
    assert owner is not None and owner.released


def test_who_leaves_in_time_is_left_alone():
    done = run("while len(looks) < 9: threading.Event().wait(0.02)", lost_seconds=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left", "")


def test_a_short_silence_is_no_loss():
    looks = 0

    def lives():  # away for most of the time, but never for long
        nonlocal looks
        looks += 1
        return looks % 5 == 0

    with watched(lives, lost_seconds=5, look_seconds=0.01):
        wait_for(lambda: looks >= 50)


def test_what_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)


def test_one_look_after_a_long_sleep_is_no_loss():
    program = (
        "import time\n"
        "from w2ltune.cluster.watch import watched\n"
        "looks = []\n"
        "def lives():\n"
        "    looks.append(1)\n"
        "    if len(looks) == 3: time.sleep(0.5)\n"  # as a process that was suspended
        "    return len(looks) != 3\n"
        "with watched(lives, lost_seconds=0.2, look_seconds=0.02):\n"
        "    while len(looks) < 6: time.sleep(0.02)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
