"""Whole sweeps on a real Ray cluster: run, continue, kill, stop, watch."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from killing import Ledger, Sweep

from w2ltune import collect
from w2ltune.errors import run_command
from w2ltune.formats.flagsfile import effective, parse_flagsfile
from w2ltune.formats.known_flags import is_boolean

pytestmark = pytest.mark.main

Task = Callable[..., list[str]]
LIMIT_SECONDS = 240


@pytest.fixture
def sweep_of(tmp_path: Path) -> Iterator[Callable[[list[str]], Sweep]]:
    """Start sweeps; whatever the test does, nothing of them is left."""
    sweeps: list[Sweep] = []

    def make(arguments: list[str]) -> Sweep:
        sweep = Sweep(arguments, REPOSITORY, tmp_path / "log")
        sweeps.append(sweep)
        sweep.start()
        return sweep

    yield make
    for sweep in sweeps:
        sweep.kill("everything", random.Random(0))
        sweep.wait(10)
        sweep.wait_until_gone(10)


def leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    arguments = [f"--logdir={tmp_path / 'sweeps'}", "--prefix=small", *more]
    assert run_command(collect.main, arguments) == 0
    return capsys.readouterr().out


def finished(tmp_path: Path) -> int:
    return len(list((tmp_path / "sweeps/small/trials").glob("*/result.json")))


def wait_for(condition: Callable[[], bool], sweep: Sweep, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert sweep.alive(), sweep.log.read_text()
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.05)


def test_a_sweep_from_start_to_report(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sweep = sweep_of(task(pruner="none"))
    wait_for(lambda: "dashboard" in sweep.log.read_text(), sweep)
    assert sweep.wait(LIMIT_SECONDS) == 0
    assert sweep.wait_until_gone(5) == {}
    log = sweep.log.read_text()
    for part in (
        "greedy",
        "reference words outside the lexicon: 0",
        "best: --lmweight=",
        "best.cfg",
    ):
        assert part in log
    study = tmp_path / "sweeps" / "small"
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

    # The same command again: nothing is done again, and no Ray is started.
    ledger = Ledger(study / "trials")
    ledger.look()
    again = sweep_of(task(pruner="none"))
    assert again.wait(60) == 0
    assert "6 trials finished before" in again.log.read_text()
    # A larger budget goes on; another sampler may take over.
    more = sweep_of(task(pruner="none", n=8, sampler="random"))
    assert more.wait(LIMIT_SECONDS) == 0
    assert ledger.look() == []
    assert finished(tmp_path) == 8


def test_killed_at_random_and_moved(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    arguments = task(n=14, beamsize=200)
    choose = random.Random(5)
    ledger = Ledger(tmp_path / "sweeps/small/trials")
    sweep = sweep_of(arguments)
    for target, after in [("worker", 1), ("pool", 2), ("trial", 3), ("driver", 4)]:
        wait_for(lambda after=after: finished(tmp_path) >= after, sweep)
        assert sweep.kill(target, choose)
        assert ledger.look() == []
    sweep.wait(30)
    assert sweep.wait_until_gone(10) == {}
    shutil.move(tmp_path / "sweeps", tmp_path / "moved")
    ledger.trials = tmp_path / "moved/small/trials"
    arguments = [*arguments, f"--logdir={tmp_path / 'moved'}"]
    sweep = sweep_of(arguments)
    wait_for(lambda: bool(sweep.victims("worker")), sweep)
    assert sweep.kill("everything", choose)
    assert sweep.wait_until_gone(10) == {}
    sweep = sweep_of(arguments)
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    assert ledger.look() == []
    assert len(ledger.seen) == 14
    states = {json.loads(content)["state"] for content, _ in ledger.seen.values()}
    assert states <= {"COMPLETE", "PRUNED"}  # a killed process is no trial's failure


def test_a_lost_gcs_ends_it_to_be_continued(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    arguments = task(n=12, beamsize=300, pruner="none")
    sweep = sweep_of(arguments)
    wait_for(lambda: finished(tmp_path) >= 1, sweep)
    assert sweep.kill("gcs", random.Random(0))
    assert sweep.wait(60) == 75, sweep.log.read_text()  # 1 would be final for a job of SLURM
    assert sweep.wait_until_gone(10) == {}
    assert "the same command continues" in " ".join(sweep.log.read_text().split())
    sweep = sweep_of(arguments)
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    assert finished(tmp_path) == 12


def test_one_at_a_time_is_repeatable_across_a_kill(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = task(n=14, concurrent_trials=1)
    sweep = sweep_of([*arguments, f"--logdir={tmp_path / 'undisturbed'}"])
    assert sweep.wait(LIMIT_SECONDS) == 0
    sweep = sweep_of(arguments)
    wait_for(lambda: finished(tmp_path) >= 11, sweep)  # beyond the random start of TPE
    sweep.kill("driver", random.Random(0))
    sweep.wait(10)
    assert sweep.wait_until_gone(10) == {}
    sweep = sweep_of(arguments)
    assert sweep.wait(LIMIT_SECONDS) == 0
    results = []
    for logdir in ("undisturbed", "sweeps"):
        paths = sorted((tmp_path / logdir / "small/trials").glob("*/result.json"))
        contents = [json.loads(path.read_text()) for path in paths]
        results.append([c["params"] for c in contents])  # a kill in asking leaves a gap in numbers
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_signals_stop_and_the_same_command_continues(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep], number: int, code: int
) -> None:
    sweep = sweep_of(task(n=200, beamsize=100))
    wait_for(lambda: finished(tmp_path) >= 1, sweep)
    assert sweep.process is not None
    sweep.process.send_signal(number)
    assert sweep.wait(30) == code
    assert sweep.wait_until_gone(5) == {}
    assert "the same command continues" in sweep.log.read_text()
    ledger = Ledger(tmp_path / "sweeps/small/trials")
    ledger.look()
    if number == signal.SIGTERM:
        done = finished(tmp_path)
        sweep = sweep_of(task(n=done + 3, beamsize=100))
        assert sweep.wait(LIMIT_SECONDS) == 0
        assert ledger.look() == []


@pytest.mark.parametrize("seen", ["starting Ray", "stopped because"])
def test_a_signal_before_and_after_the_trials(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep], seen: str
) -> None:
    sweep = sweep_of(task(n=2))
    wait_for(lambda: seen in sweep.log.read_text(), sweep)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGTERM)
    code = sweep.wait(30)
    report = tmp_path / "sweeps/small/report.html"
    # Written within a second after the last line: then nothing is left to be stopped.
    assert code == 75 or (code == 0 and report.exists() and seen != "starting Ray")
    assert sweep.wait_until_gone(5) == {}
    sweep = sweep_of(task(n=2))
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    assert report.exists()


def test_nothing_listens_beyond_loopback_or_without_a_token(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    sweep = sweep_of(task(n=500, beamsize=100))
    wait_for(lambda: finished(tmp_path) >= 1, sweep)
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
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=10)
    request = urllib.request.Request(
        f"{address}/api/jobs/",
        headers={"Authorization": f"Bearer {Path(token_file).read_text()}"},
    )
    jobs = json.loads(urllib.request.urlopen(request, timeout=10).read())
    assert jobs[0]["metadata"]["job_name"] == "sweep:small"


def test_a_trial_that_cannot_work_fails_alone(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    good = tmp_path / "data/lm.arpa"
    cut = tmp_path / "data/cut lm.arpa"
    text = good.read_text()
    cut.write_text(text[: len(text) // 2] + "\n\\end\\\n")
    sweep = sweep_of(
        task(lm=f"choice('{good}', '{cut}')", sampler="grid", n=4, lmweight="quniform(1, 2, 1)",
             wordscore=1)
    )  # fmt: skip
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    trials = json.loads(leaderboard(tmp_path, capsys, "--format=json"))["trials"]
    states = [trial["state"] for trial in trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    assert all("KenLM cannot load" in t["reason"] for t in trials if t["state"] == "FAIL")


def test_a_block_that_kills_its_workers_ends_the_sweep_with_the_reason(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep]
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
    sweep = sweep_of(task(normalize=hook, n=5))
    assert sweep.wait(LIMIT_SECONDS) == 1
    assert "2 decoder workers died on the same block" in sweep.log.read_text()
    assert sweep.wait_until_gone(5) == {}


def test_disk_full_loses_nothing(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real: a file system of its own that is too small, made larger afterwards."""
    small = tmp_path / "sweeps"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    try:
        command = [sys.executable, "-m", "w2ltune.sweep", *task(n=12, pruner="none")]
        full = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        assert full.returncode == 1
        last = full.stderr.strip().splitlines()[-1]
        assert last.startswith("w2ltune: error: disk full")
        assert "Traceback" not in full.stderr
        ledger = Ledger(small / "small/trials")
        ledger.look()
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        assert done.returncode == 0, done.stderr
        assert ledger.look() == []
        assert len(ledger.seen) == 12
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_space_script_and_a_character_metric(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    script = tmp_path / "my space.py"
    script.write_text(
        "def space(trial):\n"
        "    flags = {'lmweight': trial.suggest_float('lmweight', 0, 5)}\n"
        "    if trial.suggest_categorical('words', [True, False]):\n"
        "        flags['wordscore'] = trial.suggest_float('wordscore', -2, 4)\n"
        "    return flags\n"
    )
    arguments = task(space=script, lmweight=None, wordscore=None, metric="cer", n=5, sampler="qmc")
    sweep = sweep_of(arguments)
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    trials = json.loads(leaderboard(tmp_path, capsys, "--format=json"))["trials"]
    assert {("wordscore" in trial["flags"]) for trial in trials} == {True, False}
    assert trials[0]["reference_words"] > 900  # characters
    assert "CER %" in leaderboard(tmp_path, capsys)
    assert os.environ.get("RAY_ADDRESS") is None
