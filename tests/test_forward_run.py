"""LM forwarding as a user runs it, on a real Ray cluster: run, kill, stop, continue."""

from __future__ import annotations

import importlib.util
import math
import os
import random
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import GUARD, Sweep
from lmtask import (
    expected_scores,
    hypotheses,
    write_dump,
    write_lm,
    write_program,
)
from ngram import read_arpa, sentence_log10
from runningray import running_ray
from waiting import PATIENCE_SECONDS

from w2ltune.formats.lmscores import hash_path, read_hashes, read_lm_scores
from w2ltune.formats.texthash import hash_text

on_one_ray = pytest.mark.xdist_group("forwardings on one Ray")


def run(
    *arguments: str, cwd: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "w2ltune.forward", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": path, **variables},
    )  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.main(seconds=30)
@on_one_ray
def test_kenlm_scores_two_dumps(tmp_path: Path) -> None:
    folder = tmp_path / "dump's; grün"
    rows, more = hypotheses(30), hypotheses(12, seed=5)
    write_dump(folder / "dev clean.lst.hyp", rows)
    write_dump(folder / "test.lst.hyp.gz", more)
    lm = write_lm(folder / "an lm.arpa")
    done = run(
        "--hyp=dev clean.lst.hyp,test.lst.hyp.gz",
        "--lm=an lm.arpa",
        "--shards=3",
        cwd=folder,
        **running_ray(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    arpa = read_arpa(lm)
    for name, entries in (("dev clean", rows), ("test", more)):
        path = folder / f"{name}-lm.ppl"
        ids, scores = read_lm_scores(path)
        assert ids == [entry for entry, _ in entries]
        expected = [sentence_log10(arpa, text.split()) * math.log(10) for _, text in entries]
        assert scores == pytest.approx(expected, abs=1e-4)
        hashes = read_hashes(hash_path(path)).tolist()
        assert hashes == [hash_text(text) for _, text in entries]
    unknown = sum("on" in text.split() for _, text in rows)
    different = len({text for _, text in rows})
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("dev clean-lm.ppl ")]
    assert row.split()[2:5] == [str(len(rows)), str(different), str(unknown)]
    everything = len({text for _, text in [*rows, *more]})
    assert f"{len(rows) + len(more)} hypotheses, {everything} different" in done.stdout
    assert f"scores: {folder / 'test-lm.ppl'}" in done.stdout
    endings = ("", ".hash", ".json")
    made = {f"{name}-lm.ppl{end}" for name in ("dev clean", "test") for end in endings}
    assert names(folder) == {"dev clean.lst.hyp", "test.lst.hyp.gz", "an lm.arpa", *made}


@pytest.mark.slow
@on_one_ray
def test_the_case_of_the_letters(tmp_path: Path) -> None:
    folder = tmp_path / "loud"
    rows = hypotheses(30)
    write_dump(folder / "loud.hyp", [(name, text.upper()) for name, text in rows])
    lm = write_lm(folder / "an lm.arpa")
    done = run(
        "--hyp=loud.hyp", "--lm=an lm.arpa", "--out=scores/loud.ppl", cwd=folder, **running_ray()
    )
    assert done.returncode == 0
    assert "warning: most words are unknown to the LM, as in " in done.stdout
    assert names(folder / "scores") == {"loud.ppl", "loud.ppl.hash", "loud.ppl.json"}
    again = run("--hyp=loud.hyp", "--lm=an lm.arpa", "--out=scores/loud.ppl", "--case=lower",
                "--replace", cwd=folder, **running_ray())  # fmt: skip
    assert (again.returncode, "warning" in again.stdout) == (0, False)
    _, scores = read_lm_scores(folder / "scores/loud.ppl")
    arpa = read_arpa(lm)
    expected = [sentence_log10(arpa, text.split()) * math.log(10) for _, text in rows]
    assert scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@on_one_ray
def test_letters(tmp_path: Path) -> None:
    rows = [("a", "on no"), ("b", ""), ("a", "noon")]
    write_dump(tmp_path / "dev.hyp", rows)
    lm = write_lm(tmp_path / "lm.arpa", words=["o", "|"])  # does not know the n
    done = run(
        f"--hyp={tmp_path}/dev.hyp", f"--lm={lm}", "--unit=letters", "--name=c6", **running_ray()
    )
    assert done.returncode == 0, done.stderr
    _, scores = read_lm_scores(tmp_path / "dev-c6.ppl")
    letters = [["o", "n", "|", "n", "o", "|"], [], ["n", "o", "o", "n", "|"]]
    expected = [sentence_log10(read_arpa(lm), text) * math.log(10) for text in letters]
    assert scores == pytest.approx(expected, abs=1e-4)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("dev-c6.ppl ")]
    assert row.split()[1:] == ["3", "3", "2", "36.36%"]


@pytest.mark.slow
@on_one_ray
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="torch and transformers are not installed (pip install 'w2ltune[causal]')",
)
def test_a_causal_lm(tmp_path: Path) -> None:
    sys.path.append(str(REPOSITORY / "tests/embedded"))
    from test_causallm import make_model, step_by_step

    model = make_model(tmp_path / "tiny gpt")
    rows = hypotheses(20)
    write_dump(tmp_path / "dev.lst.hyp", rows)
    done = run(
        "--hyp=dev.lst.hyp", "--causal_lm=tiny gpt", "--shard_sentences=20", "--batch_tokens=40",
        cwd=tmp_path, **running_ray(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    _, scores = read_lm_scores(tmp_path / "dev-tr.ppl")
    assert scores == pytest.approx([step_by_step(model, text) for _, text in rows], abs=1e-4)


@pytest.fixture
def forwarding(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Start forwardings by a program that can wait; whatever a test does, nothing is left."""
    folder = tmp_path / "du;mp"
    write_dump(folder / "dev.lst.hyp", hypotheses(40))
    program = write_program(tmp_path)
    started: list[Sweep] = []

    def begin(**variables: str) -> Sweep:
        words = [sys.executable, str(program), "0", str(tmp_path / "ledger")]
        command = [
            f"--hyp={folder}/dev.lst.hyp", f"--command={shlex.join(words)}", "--cores=2",
            "--shard_sentences=8",
        ]  # fmt: skip
        started.append(
            Sweep(
                command, REPOSITORY, tmp_path / "log", module="w2ltune.forward",
                environment=variables,
            )
        )  # fmt: skip
        started[-1].start()
        return started[-1]

    yield begin
    for sweep in started:
        sweep.end()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@dataclass
class Ledger:
    """What the program scored, and how much more of it the test allows."""

    folder: Path
    leave: int = 0

    def lines(self) -> list[str]:
        path = self.folder / "ledger.txt"
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []

    def allow(self, more: int | None) -> None:
        """Let so many more sentences be scored, or all."""
        path = self.folder / "ledger.txt-leave"
        if more is None:
            path.unlink()
            return
        self.leave += more
        path.write_text(str(self.leave))

    def spent(self) -> bool:
        """Whether the programs stand still."""
        return len(self.lines()) >= self.leave


def kept(tmp_path: Path) -> dict[str, int]:
    """Return the shards that are done, with their times."""
    folder = tmp_path / "du;mp/dev-tr/shards"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.npy")}


def programs(sweep: Sweep) -> list[int]:
    """Return the programs that score; the driver has their command line in its own."""
    found = sweep.processes().items()
    return [
        pid
        for pid, line in found
        if "score_it.py" in line and "w2ltune.forward" not in line and GUARD not in line
    ]


def stopped(sweep: Sweep, code: int) -> None:
    """See that a command ended in this way and that nothing of it is left."""
    assert sweep.wait() == code, sweep.log.read_text()
    assert sweep.wait_until_gone() == {}
    assert "Traceback" not in sweep.log.read_text()
    assert "the same command continues" in sweep.log.read_text()


def check_scores(tmp_path: Path) -> None:
    path = tmp_path / "du;mp/dev-tr.ppl"
    assert path.read_text() == expected_scores(hypotheses(40))  # of an undisturbed run
    assert names(path.parent) == {
        *("dev.lst.hyp", "dev-tr.ppl", "dev-tr.ppl.hash", "dev-tr.ppl.json"),
    }


@pytest.mark.main(seconds=40)
def test_killed_and_stopped_again_and_again(
    tmp_path: Path, forwarding: Callable[..., Sweep], ledger: Ledger
) -> None:
    choose = random.Random(7)
    ledger.allow(20)
    sweep = forwarding()
    sweep.wait_for(ledger.spent)
    os.kill(programs(sweep)[0], signal.SIGKILL)
    ledger.allow(20)
    sweep.wait_for(lambda: ledger.spent() and len(kept(tmp_path)) >= 2)
    before = kept(tmp_path)
    sweep.kill("driver", choose)
    sweep.wait()
    assert sweep.wait_until_gone() == {}
    assert kept(tmp_path).items() >= before.items()
    before = kept(tmp_path)

    ledger.allow(20)
    sweep = forwarding()
    sweep.wait_for(ledger.spent)
    assert sweep.kill("scorer", choose)  # only now: a shard may fail once in a run of the command
    ledger.allow(20)
    sweep.wait_for(ledger.spent)
    assert kept(tmp_path).items() >= before.items()
    sweep.signal(signal.SIGTERM)
    stopped(sweep, 75)
    between = kept(tmp_path)
    assert between.items() >= before.items()

    ledger.allow(None)
    sweep = forwarding()
    assert sweep.wait() == 0, sweep.log.read_text()
    assert sweep.wait_until_gone() == {}
    assert f"({len(between)} scored before)" in sweep.log.read_text()
    check_scores(tmp_path)
    # Each sentence once, but for those of the shards that were being scored at a kill.
    different = {text for _, text in hypotheses(40)}
    scored = ledger.lines()
    assert set(scored) >= different
    # At most 2 shards at work at each of 4 kills.
    assert len(scored) <= len(different) + 4 * 2 * 8
    again = forwarding()
    assert again.wait() == 0
    assert "is there already" in " ".join(again.log.read_text().split())
    assert ledger.lines() == scored


@pytest.mark.slow(seconds=60)
def test_a_lost_ray_ends_it_and_a_power_cut_costs_nothing_more(
    tmp_path: Path, forwarding: Callable[..., Sweep], ledger: Ledger
) -> None:
    choose = random.Random(0)
    for target in ("raylet", "gcs", "everything"):
        ledger.allow(20)
        sweep = forwarding()
        sweep.wait_for(ledger.spent)
        before = kept(tmp_path)
        assert sweep.kill(target, choose)
        if target != "everything":
            stopped(sweep, 75)
        sweep.wait()
        assert sweep.wait_until_gone() == {}
        assert kept(tmp_path).items() >= before.items()
        before = kept(tmp_path)
    ledger.allow(None)
    sweep = forwarding()
    assert sweep.wait() == 0, sweep.log.read_text()
    assert f"({len(before)} scored before)" in sweep.log.read_text()
    check_scores(tmp_path)


@pytest.mark.slow(seconds=30)
@on_one_ray
def test_one_at_a_time_and_other_signals(
    tmp_path: Path, forwarding: Callable[..., Sweep], ledger: Ledger
) -> None:
    for number, code in ((signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        ledger.allow(20)
        sweep = forwarding(**running_ray())
        sweep.wait_for(ledger.spent)
        done = run(*sweep.arguments, **running_ray())
        assert done.returncode == 2
        assert f"running already (process {sweep.process.pid}" in done.stderr  # type: ignore[union-attr]
        sweep.signal(number)
        stopped(sweep, code)
    # Another program in the same folder: its shards are its own.
    command = "python3 -c 'import sys; [print(1) for _ in sys.stdin]'"
    other = run(sweep.arguments[0], f"--command={command}", **running_ray())
    assert other.returncode == 0, other.stderr
    _, scores = read_lm_scores(tmp_path / "du;mp/dev-tr.ppl")
    assert set(scores.tolist()) == {1.0}
    assert "scored before" not in other.stdout
    assert "other scores than before: command was [" in other.stdout


@pytest.mark.slow(seconds=20)
@on_one_ray
def test_a_program_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    write_dump(tmp_path / "dev.hyp", hypotheses(20))
    to_kill, script = tmp_path / "to_kill", tmp_path / "score.sh"
    script.write_text(
        f"if test -s {to_kill}; then sed -i 1d {to_kill}; kill -9 $$; fi\n"
        "while read -r line; do echo -1; done\n"
    )
    arguments = f"--hyp={tmp_path}/dev.hyp", f"--command=bash {script}"
    to_kill.write_text("\n" * 3)
    failed = run(*arguments, **running_ray())
    assert failed.returncode == 1
    assert "bash: killed (SIGKILL), most likely for want of memory: 3 times" in failed.stderr
    to_kill.write_text("\n" * 2)
    done = run(*arguments, **running_ray())
    assert (done.returncode, done.stderr, to_kill.read_text()) == (0, "", "")


@pytest.mark.slow(seconds=30)
@on_one_ray
def test_a_program_that_fails_is_tried_twice(tmp_path: Path) -> None:
    write_dump(tmp_path / "dev.hyp", hypotheses(20))
    script = tmp_path / "fail.py"
    script.write_text(
        "import pathlib, sys\n"
        "lines = list(sys.stdin)\n"
        "tries = pathlib.Path(sys.argv[1])\n"
        "if '$(x) no\\n' in lines or tries.name == 'all':\n"
        "    with tries.open('a') as file: file.write('x')\n"
        "    if tries.name == 'all' or len(tries.read_text()) == 1: sys.exit('out of luck')\n"
        "for line in lines: print(-len(line))\n"
    )
    rows = [*hypotheses(20), ("z", "$(x) no")]
    write_dump(tmp_path / "dev.hyp", rows)
    hyp, small = f"--hyp={tmp_path}/dev.hyp", "--shard_sentences=15"
    command = f"--command={shlex.join(['python3', str(script)])}"
    done = run(hyp, f"{command} {tmp_path}/all", small, **running_ray())
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "(sentences " in line
    assert "said last: out of luck; tried 2 times, by different workers" in line
    assert "dev-tr.ppl" not in names(tmp_path)
    done = run(hyp, f"{command} {tmp_path}/once", small, **running_ray())
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "once").read_text() == "xx"
    assert names(tmp_path) == {
        *("dev.hyp", "fail.py", "all", "once", "dev-tr.ppl", "dev-tr.ppl.hash", "dev-tr.ppl.json"),
    }
    huge = run(hyp, "--command=x", "--name=x", "--worker_cores=3", "--cores=2")
    assert (huge.returncode, "it needs 3 CPU" in huge.stderr) == (2, True)
    missing = run(hyp, "--command=no_such_program", "--name=x", **running_ray())
    assert (missing.returncode, "no such program" in missing.stderr) == (2, True)
    assert not any(name.startswith("dev-x") for name in names(tmp_path))
