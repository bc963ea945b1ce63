"""The start of a local Ray: patient, and with the reason where it fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from nodes import Nodes
from waiting import PATIENCE_SECONDS

import w2ltune
from w2ltune.cluster import raystart, scratch
from w2ltune.errors import W2LTuneError

START = """
import sys, time
from pathlib import Path

from ray._private import node, ray_constants, services

from w2ltune.cluster import raystart, session
from w2ltune.errors import run_command

class Fast:  # Ray's own patience of 30 s ends in a fifth of one
    def __getattr__(self, name):
        return getattr(time, name)
    def monotonic(self):
        return 150 * time.monotonic()

def instead(name, line):  # a script in the place of a program of Ray's, which it knows as $real
    path = Path(sys.argv[1], name)
    known = f"real='{getattr(services, name)}' here='{path.parent}'"
    path.write_text(f"#!/bin/sh\\n{known}\\n{line}\\n")
    path.chmod(0o755)
    setattr(services, name, str(path))

def main(arguments):
    node.time = Fast()
    exec(sys.argv[2], globals())
    with session.connect("test", cores=1) as found:
        print("dashboard", found.dashboard or "none")
    return 0

sys.exit(run_command(main, []))
"""
SLOWLY = 'sleep 3; exec "$real" "$@"'
SECOND_TIME = 'if mkdir "$here/once"; then exit 3; fi; exec "$real" "$@"'


def start_ray(folder: Path, fault: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a real Ray of which something is slow or broken."""
    return subprocess.run(
        [sys.executable, "-c", START, str(folder), fault],
        env={
            **os.environ,
            "RAY_AUTH_MODE": "token",  # Ray is imported before `connect` says so
            raystart.DASHBOARD_VARIABLE: "0",
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("program", ["RAYLET_EXECUTABLE", "GCS_SERVER_EXECUTABLE"])
@pytest.mark.parametrize("line", [SLOWLY, SECOND_TIME], ids=["slow", "broken once"])
def test_ray_starts_however_slowly_and_once_more_where_it_failed(
    tmp_path: Path, program: str, line: str
) -> None:
    done = start_ray(
        tmp_path, f"instead({program!r}, {line!r})", RAY_gcs_server_port_wait_time_s="1"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "dashboard none\n", "")


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize(
    ("line", "patience_seconds", "code", "said"),
    [
        (
            'for a; do case $a in --log_dir=*) echo "Check failed: 0 == 1" '
            ">${a#*=}/raylet.err;; esac; done; exit 3",
            300,
            1,
            r"its raylet ended with code -?\d+; raylet said last: .*Check failed: .*",
        ),
        ("exec sleep 60", 1, 75, "its raylet was not ready in 1 seconds; .*the same command"),
    ],
    ids=["broken", "too slow"],
)
def test_why_ray_did_not_start_is_said_in_its_own_words(
    tmp_path: Path, line: str, patience_seconds: int, code: int, said: str
) -> None:
    fault = f"raystart.START_SECONDS = {patience_seconds}; instead('RAYLET_EXECUTABLE', {line!r})"
    done = start_ray(tmp_path, fault)
    assert done.returncode == code, done.stderr
    message = rf"w2ltune: error: cannot start Ray on this machine: {said}.*\n"
    assert re.fullmatch(message, done.stderr), done.stderr


@pytest.mark.slow(seconds=60)
def test_a_node_of_a_job_says_why_it_did_not_start() -> None:
    short = tempfile.mkdtemp(prefix="r", dir="/tmp")  # for Ray's sockets
    code = START[: START.index("def main")] + (
        "instead('RAYLET_EXECUTABLE', 'exit 4')\n"
        "sys.argv = ['ray', 'start', '--head', '--block', '--num-cpus=1', '--port=0',\n"
        "    '--include-dashboard=false', '--temp-dir=' + sys.argv[1]]\n"
        "node.time = Fast()\n"
        "raystart.start_node()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, short],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    shutil.rmtree(short)
    said = r"^cannot start Ray on \S+: its raylet ended with code 4$"
    assert re.search(said, done.stderr, re.MULTILINE), done.stderr


@pytest.mark.slow(seconds=40)
def test_ray_starts_however_slow_its_agents_are(tmp_path: Path) -> None:
    slow = """
build = services._build_python_executable_command_memory_profileable
services._build_python_executable_command_memory_profileable = lambda *given, **named: [
    "/bin/sh", "-c", 'sleep 33; exec "$@"', "-", *build(*given, **named)]
"""
    done = start_ray(tmp_path, slow)
    assert (done.returncode, done.stdout, done.stderr) == (0, "dashboard none\n", "")


@pytest.mark.main(seconds=10)
def test_without_a_dashboard_that_does_not_start(tmp_path: Path) -> None:
    fault = "ray_constants.DEFAULT_DASHBOARD_PORT = 70000"
    done = start_ray(tmp_path, fault, **{raystart.DASHBOARD_VARIABLE: "1"})
    assert (done.returncode, done.stdout) == (0, "dashboard none\n"), done.stderr
    said = (
        r"w2ltune: Ray's dashboard did not start: going on without it; .*port must be 0-65535.*\n"
    )
    assert re.fullmatch(said, done.stderr), done.stderr


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize(
    ("module", "has"),
    [
        ("raise ModuleNotFoundError('No module named this')", "no w2ltune .*No module named this"),
        ("__version__ = '0.0.1'; __path__ = [{!r}]", "0.0.1, this command is w2ltune 0.1"),
    ],
    ids=["none", "another"],
)
def test_a_node_that_cannot_run_what_is_ours_is_named_at_once(
    tmp_path: Path, module: str, has: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "w2ltune.py").write_text(module.format(w2ltune.__path__[0]))
    cluster = Nodes(tmp_path, 1, PYTHONPATH=str(theirs))
    try:
        done = start_ray(tmp_path, "", **cluster.environment)
    finally:
        cluster.close()
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    said = rf"w2ltune: error: node \S+ of Ray \(RAY_ADDRESS\): \S+ has {has}.*: install that .*\n"
    assert re.fullmatch(said, done.stderr), done.stderr


def test_what_a_dead_command_left_is_removed_but_not_what_a_worker_of_another_node_uses(
    tmp_path: Path,
) -> None:
    left, used = (
        tmp_path / "w2ltune-999999999-1-aaaaaaaa",
        tmp_path / "w2l-999999999-1-bbbbbbbb",
    )
    left.mkdir()
    with scratch.in_use(used), scratch.in_use(used):
        scratch.remove_abandoned(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [used.name]
    scratch.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "taken"),
    [("/t", "/t"), ("/scratch/job12345678", "/tmp"), ("/scratch/of/a/long/name", "/tmp")],
)
def test_a_local_ray_lives_where_its_sockets_have_short_paths(
    folder: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: folder)
    monkeypatch.setattr(scratch.os, "getpid", lambda: 1234567)
    monkeypatch.setattr(scratch, "process_start", lambda pid: "10022400000")  # 3 years of uptime
    monkeypatch.setattr(scratch.os, "access", lambda place, mode: True)
    made: list[str] = []

    def mkdtemp(*, prefix: str, dir: str) -> str:
        made.append(dir)
        return f"{dir}/{prefix}12345678"

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", mkdtemp)
    longest = f"{scratch.make_scratch()}{scratch._SOCKET.format(pid=1234567)}"
    assert (made, len(longest) <= 107) == ([taken], True)
    monkeypatch.setattr(
        scratch.os, "access", lambda place, mode: place == folder and folder != "/t"
    )
    with pytest.raises(W2LTuneError, match=r"may have 107 bytes: .*set TMPDIR to a folder"):
        scratch.make_scratch()
