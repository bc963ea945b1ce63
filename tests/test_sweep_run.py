"""Whole sweeps on a real Ray cluster: run, continue, kill, stop, watch."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from killing import Ledger, Pace, Sweep, sweeps
from runningray import running_ray
from waiting import PATIENCE_SECONDS

from w2ltune import collect
from w2ltune.errors import run_command
from w2ltune.formats.flagsfile import effective, parse_flagsfile
from w2ltune.formats.known_flags import is_boolean

on_running_ray = pytest.mark.xdist_group("sweeps on a running Ray")

Task = Callable[..., list[str]]
Start = Callable[..., Sweep]


@pytest.fixture
def sweep_of(tmp_path: Path) -> Iterator[Start]:
    with sweeps(REPOSITORY, tmp_path / "log") as start:
        yield start


@pytest.fixture
def pace(tmp_path: Path) -> Pace:
    return Pace(tmp_path, tmp_path / "sweeps/small/trials")


def leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    arguments = [f"--logdir={tmp_path / 'sweeps'}", "--prefix=small", *more]
    assert run_command(collect.main, arguments) == 0
    return capsys.readouterr().out


def check_what_listens(sweep: Sweep) -> None:
    """Nothing listens beyond loopback, or answers without a token."""
    address = token_file = ""
    for line in sweep.log.read_text().splitlines():
        if line.startswith("Ray dashboard: "):
            address, _, rest = line.removeprefix("Ray dashboard: ").partition(" (token in ")
            token_file = rest.rstrip(")")
    mode = Path(token_file).stat().st_mode
    assert mode & 0o777 == 0o600
    assert Path(token_file).parent.stat().st_mode & 0o777 == 0o700
    listening = []
    for pid in sweep.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            for connection in psutil.Process(pid).net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.append(connection.laddr.ip)
    assert listening
    assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=PATIENCE_SECONDS)
    request = urllib.request.Request(
        f"{address}/api/jobs/",
        headers={"Authorization": f"Bearer {Path(token_file).read_text()}"},
    )
    jobs = json.loads(urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).read())
    assert jobs[0]["metadata"]["job_name"] == "sweep:small"


def check_report(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path = study.parents[1]
    board = json.loads(leaderboard(tmp_path, capsys, "--format=json"))
    assert board["study"] == str(study)
    assert len(board["trials"]) == 6
    rates = [trial["wer"] for trial in board["trials"]]
    assert rates == sorted(rates)
    best = board["trials"][0]
    assert best["number"] == board["best"]
    assert set(best) == {
        "number", "state", "wer", "interval", "errors", "reference_words", "params", "flags",
        "seconds", "missing", "reason",
    }  # fmt: skip
    assert best["wer"] == best["errors"] / best["reference_words"]
    assert best["interval"][0] <= best["wer"] <= best["interval"][1]
    flags = effective(parse_flagsfile(study / "best.cfg", boolean=is_boolean))
    assert float(flags["lmweight"].value) == best["params"]["lmweight"]
    assert "# WER" in (study / "best.cfg").read_text()
    rows = (study / "trials.csv").read_text().splitlines()
    assert len(rows) == 7
    assert rows == leaderboard(tmp_path, capsys, "--format=csv").splitlines()
    assert "6 trials finished" in leaderboard(tmp_path, capsys, "--watch")


@pytest.mark.main(seconds=45)
@on_running_ray
def test_a_sweep_from_start_to_report(
    task: Task, tmp_path: Path, sweep_of: Start, pace: Pace, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**changes: object) -> list[str]:
        return task(**{"pruner": "none", "normalize": pace.hook, "concurrent_trials": 3} | changes)

    sweep = sweep_of(command(), environment={"W2LTUNE_DASHBOARD": "1"})
    sweep.wait_for(lambda: sweep.victims("worker") and sweep.victims("trial"), look_seconds=0.2)
    check_what_listens(sweep)
    pace.allow()
    assert sweep.wait() == 0
    assert sweep.wait_until_gone() == {}
    log = sweep.log.read_text()
    for part in (
        "greedy",
        "reference words outside the lexicon: 0",
        "best: --lmweight=",
        "best.cfg",
    ):
        assert part in log
    check_report(tmp_path / "sweeps" / "small", capsys)

    # The same command again: nothing is done again, and no Ray is started.
    ledger = Ledger(pace.trials)
    ledger.look()
    again = sweep_of(command())
    assert again.wait() == 0
    assert "6 trials finished before" in again.log.read_text()
    assert again.log.read_text().count("starting Ray") == 1
    # A larger budget goes on, on another Ray; another sampler may take over. A signal stops it.
    pace.allow(8)
    ray = running_ray()
    more = sweep_of(command(n=200, sampler="random", concurrent_trials=1), environment=ray)
    more.wait_for(pace.holds)
    more.signal(signal.SIGUSR1)
    assert more.wait() == 75
    assert "the same command continues" in more.log.read_text()
    assert ledger.look() == []
    assert len(ledger.seen) == 8
    pace.allow()
    rest = sweep_of(command(n=9, sampler="random"), environment=ray)
    assert rest.wait() == 0, rest.log.read_text()
    assert ledger.look() == []
    assert len(ledger.seen) == 9


@pytest.mark.main(seconds=90)
def test_killed_at_random_and_moved(
    task: Task, tmp_path: Path, sweep_of: Start, pace: Pace
) -> None:
    arguments = task(n=8, normalize=pace.hook, concurrent_trials=3)
    choose = random.Random(5)
    ledger = Ledger(pace.trials)
    sweep = sweep_of(arguments)
    for target in ("worker", "pool", "trial", "driver"):
        pace.allow(pace.finished() + 1)
        sweep.wait_for(lambda: not ledger.look() and pace.holds())
        assert sweep.kill(target, choose)
        assert ledger.look() == []
    sweep.wait()
    assert sweep.wait_until_gone() == {}

    shutil.move(tmp_path / "sweeps", tmp_path / "moved")
    pace.trials = ledger.trials = tmp_path / "moved/small/trials"
    pace.allow(pace.finished())
    arguments = [*arguments, f"--logdir={tmp_path / 'moved'}", "--cores=1"]
    sweep = sweep_of(arguments)
    sweep.wait_for(lambda: sweep.victims("worker"), look_seconds=0.2)
    assert sweep.kill("everything", choose)
    assert sweep.wait_until_gone() == {}

    pace.allow(pace.finished() + 1)
    sweep = sweep_of(arguments)
    sweep.wait_for(pace.holds)
    assert sweep.kill("gcs", choose)
    assert sweep.wait() == 75, sweep.log.read_text()  # 1 would be final for a job of SLURM
    assert sweep.wait_until_gone() == {}
    assert "the same command continues" in " ".join(sweep.log.read_text().split())

    pace.allow()
    sweep = sweep_of(arguments)
    assert sweep.wait() == 0, sweep.log.read_text()
    assert ledger.look() == []
    assert len(ledger.seen) == 8
    states = {json.loads(content)["state"] for content, _ in ledger.seen.values()}
    assert states <= {"COMPLETE", "PRUNED"}  # a killed process is no trial's failure


@pytest.mark.slow(seconds=40)
@on_running_ray
def test_one_at_a_time_is_repeatable_across_a_kill(
    task: Task, tmp_path: Path, sweep_of: Start, pace: Pace
) -> None:
    arguments = task(n=13, normalize=pace.hook)
    pace.allow(11)  # beyond the random start of TPE
    ray = running_ray()
    sweep = sweep_of(arguments, environment=ray)
    sweep.wait_for(pace.holds)
    sweep.kill("driver", random.Random(0))
    sweep.wait()
    pace.allow()
    assert sweep_of(arguments, environment=ray).wait() == 0
    other = sweep_of([*arguments, f"--logdir={tmp_path / 'undisturbed'}"], environment=ray)
    assert other.wait() == 0
    results = []
    for logdir in ("undisturbed", "sweeps"):
        paths = sorted((tmp_path / logdir / "small/trials").glob("*/result.json"))
        contents = [json.loads(path.read_text()) for path in paths]
        results.append([c["params"] for c in contents])  # a kill in asking leaves a gap in numbers
    assert results[0] == results[1]
    assert len(results[0]) == 13


@pytest.mark.slow(seconds=40)
@on_running_ray
def test_a_signal_before_in_and_after_the_trials(
    task: Task, tmp_path: Path, sweep_of: Start, pace: Pace
) -> None:
    arguments = task(n=2, normalize=pace.hook)
    report = tmp_path / "sweeps/small/report.html"

    def stopped(number: int, ready: Callable[[], object], **more: object) -> int:
        (tmp_path / "log").unlink(missing_ok=True)
        sweep = sweep_of(arguments, **more)
        sweep.wait_for(ready)
        sweep.signal(number)
        code = sweep.wait()
        assert sweep.wait_until_gone() == {}
        return code

    def said(part: str) -> bool:
        return part in (tmp_path / "log").read_text()

    assert stopped(signal.SIGTERM, lambda: said("starting Ray")) == 75
    pace.allow(1)
    assert stopped(signal.SIGINT, pace.holds) == 130
    assert said("the same command continues")
    assert pace.finished() == 1
    pace.allow()
    ray = {"environment": running_ray()}
    code = stopped(signal.SIGTERM, lambda: said("stopped because"), **ray)
    # Written within a second after the last line: then nothing is left to be stopped.
    assert code == 75 or (code == 0 and report.exists())
    assert sweep_of(arguments, **ray).wait() == 0
    assert report.exists()
    assert pace.finished() == 2


def outlives_terminal(pid: int) -> bool:
    """Whether a process blocks or ignores HUP."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [line.split()[1] for line in lines if line.startswith(("SigBlk:", "SigIgn:"))]
    return any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in masks)


@pytest.mark.slow(seconds=40)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed(
    task: Task, tmp_path: Path, sweep_of: Start, pace: Pace, ignored: bool
) -> None:
    """The HUP goes to all that the command started, and what it writes to the terminal fails."""
    arguments = task(n=3, normalize=pace.hook)
    pace.allow(1)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    said = bytearray()

    def holds() -> bool:
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(ours, 1 << 16))
        return pace.holds()

    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    sweep = sweep_of(arguments, terminal=theirs)
    signal.signal(signal.SIGHUP, handler)
    os.close(theirs)
    sweep.wait_for(holds)
    for kind in ("gcs", "raylet", "worker", "trial"):  # else nothing is stopped in order
        assert all(map(outlives_terminal, sweep.victims(kind))), kind
    os.close(ours)
    if ignored:
        pace.allow()
    assert sweep.wait() == (0 if ignored else 75)
    assert sweep.wait_until_gone() == {}
    assert pace.finished() == (3 if ignored else 1), said.decode()
    pace.allow()
    assert sweep_of(arguments, environment=running_ray()).wait() == 0
    assert pace.finished() == 3


@pytest.mark.slow
@on_running_ray
def test_a_trial_that_cannot_work_fails_alone(
    task: Task, tmp_path: Path, sweep_of: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "data/lm.arpa"
    cut = tmp_path / "data/cut lm.arpa"
    text = good.read_text()
    cut.write_text(text[: len(text) // 2] + "\n\\end\\\n")
    sweep = sweep_of(
        task(lm=f"choice('{good}', '{cut}')", sampler="grid", n=4, lmweight="quniform(1, 2, 1)",
             wordscore=1),
        environment=running_ray(),
    )  # fmt: skip
    assert sweep.wait() == 0, sweep.log.read_text()
    trials = json.loads(leaderboard(tmp_path, capsys, "--format=json"))["trials"]
    states = [trial["state"] for trial in trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    assert all("KenLM cannot load" in t["reason"] for t in trials if t["state"] == "FAIL")


@pytest.mark.slow
@on_running_ray
def test_a_block_that_kills_its_workers_ends_the_sweep_with_the_reason(
    task: Task, tmp_path: Path, sweep_of: Start
) -> None:
    hook = tmp_path / "deadly.py"
    hook.write_text(
        "import os, sys\n"
        "calls = 0\n"
        "def normalize(text):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 40 and 'ray' in sys.modules:\n"  # beyond the references
        "        os.kill(os.getpid(), 9)\n"
        "    return text\n"
    )
    sweep = sweep_of(task(normalize=hook, n=1), environment=running_ray())
    assert sweep.wait() == 1
    assert "decoder workers died on the same block of" in (said := sweep.log.read_text())
    assert "3 times; the same command tries it again" in said
    assert sweep.wait_until_gone() == {}


@pytest.mark.slow(seconds=40)
@on_running_ray
def test_disk_full_loses_nothing(task: Task, tmp_path: Path) -> None:
    """Real: a file system of its own that is too small, made larger afterwards."""
    small = tmp_path / "sweeps"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "w2ltune.sweep", *task_of_12, *more], cwd=REPOSITORY,
            env={**os.environ, **running_ray()}, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip

    task_of_12 = task(n=12, pruner="none")
    try:
        ledger = Ledger(small / "small/trials")
        # First where no other trial is at work, so that Tune hears nothing more.
        for concurrent_trials, room in ((1, "80k"), (4, "8m")):
            full = run(f"--concurrent_trials={concurrent_trials}")
            assert full.returncode == 75
            last = full.stderr.strip().splitlines()[-1]
            assert last.startswith("w2ltune: error: disk full")
            assert "Traceback" not in full.stderr
            assert ledger.look() == []
            subprocess.run(["mount", "-o", f"remount,size={room}", str(small)], check=True)
        done = run()
        assert done.returncode == 0, done.stderr
        assert ledger.look() == []
        assert len(ledger.seen) == 12
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


FAULTS = {
    "full": (
        "try:\n"
        "    with open(small / 'filler', 'wb', buffering=0) as file:\n"
        "        while file.write(bytes(4096)): pass\n"
        "except OSError: pass\n",
        "disk full while writing",
    ),
    "read-only": (
        "subprocess.run(['mount', '-o', 'remount,ro', small], check=True)\n",
        "Read-only file system",
    ),
}


@pytest.mark.slow(seconds=20)
@on_running_ray
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_while_a_trial_is_at_work(task: Task, tmp_path: Path, fault: str) -> None:
    """Real: it fails as soon as the last trial has hypotheses, which are to be written then."""
    small, control, hook = tmp_path / "sweeps", tmp_path / "fails", tmp_path / "fault.py"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    body, message = FAULTS[fault]
    hook.write_text(
        "import pathlib, subprocess\n"
        f"control, small = pathlib.Path({str(control)!r}), pathlib.Path({str(small)!r})\n"
        "worker = b'DecoderWorker' in pathlib.Path('/proc/self/cmdline').read_bytes()\n"
        "def fail():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "\n"
        "def normalize(text):\n"
        "    done = len(list(small.glob('small/trials/*/result.json')))\n"
        "    if worker and done == 2 and control.exists():\n"
        "        control.unlink()\n"
        "        fail()\n"
        "    return text\n"
    )
    command = [sys.executable, "-m", "w2ltune.sweep", *task(n=3, pruner="none", normalize=hook,
               concurrent_trials=1)]  # fmt: skip
    run = functools.partial(
        subprocess.run, command, cwd=REPOSITORY, env={**os.environ, **running_ray()},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    try:
        ledger = Ledger(small / "small/trials")
        control.touch()
        stopped = run()
        assert not control.exists()
        assert stopped.returncode == 75, stopped.stderr
        (line,) = stopped.stderr.splitlines()
        assert line.startswith("w2ltune: error: ")
        assert message in line
        assert f"{small}/small" in line
        assert ledger.look() == []
        assert len(ledger.seen) == 2
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        (small / "filler").unlink(missing_ok=True)
        done = run()
        assert done.returncode == 0, done.stderr
        assert ledger.look() == []
        results = [
            json.loads(path.read_text()) for path in small.glob("small/trials/*/result.json")
        ]
        assert [result["state"] for result in results] == ["COMPLETE"] * 3
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.slow
@on_running_ray
def test_a_space_script_and_a_character_metric(
    task: Task, tmp_path: Path, sweep_of: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "my space.py"
    script.write_text(
        "def space(trial):\n"
        "    flags = {'lmweight': trial.suggest_float('lmweight', 0, 5)}\n"
        "    if trial.suggest_categorical('words', [True, False]):\n"
        "        flags['wordscore'] = trial.suggest_float('wordscore', -2, 4)\n"
        "    return flags\n"
    )
    arguments = task(space=script, lmweight=None, wordscore=None, metric="cer", n=5, sampler="qmc")
    sweep = sweep_of(arguments, environment=running_ray())
    assert sweep.wait() == 0, sweep.log.read_text()
    trials = json.loads(leaderboard(tmp_path, capsys, "--format=json"))["trials"]
    assert {("wordscore" in trial["flags"]) for trial in trials} == {True, False}
    assert trials[0]["reference_words"] > 900  # characters
    assert "CER %" in leaderboard(tmp_path, capsys)
