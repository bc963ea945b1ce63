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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from killing import Sweep
from lmtask import (
    expected_scores,
    hypotheses,
    write_dump,
    write_lm,
    write_program,
)

from w2ltune.embedded.ngram import read_arpa, sentence_log10
from w2ltune.formats.lmscores import hash_path, read_hashes, read_lm_scores
from w2ltune.formats.texthash import hash_text

pytestmark = pytest.mark.main

LIMIT_SECONDS = 240


def run(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "w2ltune.forward", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=LIMIT_SECONDS,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_kenlm_scores_two_dumps(tmp_path: Path) -> None:
    folder = tmp_path / "dump's; grün"
    rows, more = hypotheses(30), hypotheses(12, seed=5)
    write_dump(folder / "dev clean.lst.hyp", rows)
    write_dump(folder / "test.lst.hyp.gz", more)
    lm = write_lm(folder / "an lm.arpa")
    done = run(
        "--hyp=dev clean.lst.hyp,test.lst.hyp.gz", "--lm=an lm.arpa", "--shards=3", cwd=folder
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

    write_dump(folder / "loud.hyp", [(name, text.upper()) for name, text in rows])
    done = run("--hyp=loud.hyp", "--lm=an lm.arpa", "--out=scores/loud.ppl", cwd=folder)
    assert done.returncode == 0
    assert "warning: most words are unknown to the LM, as in " in done.stdout
    assert names(folder / "scores") == {"loud.ppl", "loud.ppl.hash", "loud.ppl.json"}
    again = run("--hyp=loud.hyp", "--lm=an lm.arpa", "--out=scores/loud.ppl", "--case=lower",
                "--replace", cwd=folder)  # fmt: skip
    assert (again.returncode, "warning" in again.stdout) == (0, False)
    dev = (folder / "dev clean-lm.ppl").read_bytes()
    assert (folder / "scores/loud.ppl").read_bytes() == dev


def test_letters(tmp_path: Path) -> None:
    rows = [("a", "on no"), ("b", ""), ("a", "noon")]
    write_dump(tmp_path / "dev.hyp", rows)
    lm = write_lm(tmp_path / "lm.arpa", words=["o", "|"])  # does not know the n
    done = run(f"--hyp={tmp_path}/dev.hyp", f"--lm={lm}", "--unit=letters", "--name=c6")
    assert done.returncode == 0, done.stderr
    _, scores = read_lm_scores(tmp_path / "dev-c6.ppl")
    letters = [["o", "n", "|", "n", "o", "|"], [], ["n", "o", "o", "n", "|"]]
    expected = [sentence_log10(read_arpa(lm), text) * math.log(10) for text in letters]
    assert scores == pytest.approx(expected, abs=1e-4)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("dev-c6.ppl ")]
    assert row.split()[1:] == ["3", "3", "2", "36.36%"]


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
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    _, scores = read_lm_scores(tmp_path / "dev-tr.ppl")
    assert scores == pytest.approx([step_by_step(model, text) for _, text in rows], abs=1e-4)


@pytest.fixture
def forwarding(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Start forwardings by a slow program; whatever the test does, nothing of them is left."""
    folder = tmp_path / "du;mp"
    write_dump(folder / "dev.lst.hyp", hypotheses(40))
    program = write_program(tmp_path)
    started: list[Sweep] = []

    def begin(*more: str, seconds: float = 0.05) -> Sweep:
        words = [sys.executable, str(program), str(seconds)]
        command = [
            f"--hyp={folder}/dev.lst.hyp", f"--command={shlex.join(words)}", "--cores=2",
            "--shard_sentences=8", *more,
        ]  # fmt: skip
        started.append(Sweep(command, REPOSITORY, tmp_path / "log", module="w2ltune.forward"))
        started[-1].environment["LEDGER"] = str(tmp_path / "ledger")
        started[-1].start()
        return started[-1]

    yield begin
    for sweep in started:
        sweep.kill("everything", random.Random(0))
        sweep.wait(10)
        assert sweep.wait_until_gone(10) == {}


def kept(tmp_path: Path) -> dict[str, int]:
    """Return the shards that are done, with their times."""
    folder = tmp_path / "du;mp/dev-tr/shards"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.npy")}


def wait_for(condition: Callable[[], bool], sweep: Sweep, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert sweep.alive(), sweep.log.read_text()
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.02)


def programs(sweep: Sweep) -> list[int]:
    """Return the programs that score; the driver has their command line in its own."""
    found = sweep.processes().items()
    return [pid for pid, line in found if "score_it.py" in line and "w2ltune.forward" not in line]


def check_scores(tmp_path: Path) -> None:
    path = tmp_path / "du;mp/dev-tr.ppl"
    assert path.read_text() == expected_scores(hypotheses(40))  # of an undisturbed run
    assert names(path.parent) == {
        *("dev.lst.hyp", "dev-tr.ppl", "dev-tr.ppl.hash", "dev-tr.ppl.json"),
    }


def test_killed_again_and_again(tmp_path: Path, forwarding: Callable[..., Sweep]) -> None:
    choose = random.Random(7)
    sweep = forwarding()
    wait_for(lambda: len(kept(tmp_path)) >= 2, sweep)
    assert sweep.kill("scorer", choose)
    wait_for(lambda: len(kept(tmp_path)) >= 4, sweep)
    wait_for(lambda: bool(programs(sweep)), sweep)
    os.kill(programs(sweep)[0], signal.SIGKILL)
    wait_for(lambda: len(kept(tmp_path)) >= 6, sweep)
    before = kept(tmp_path)
    sweep.kill("driver", choose)
    sweep.wait(10)
    assert sweep.wait_until_gone(10) == {}
    assert kept(tmp_path).items() >= before.items()
    scored = len((tmp_path / "ledger").read_text().splitlines())
    before = kept(tmp_path)

    sweep = forwarding()
    wait_for(lambda: len(kept(tmp_path)) > len(before), sweep)
    assert kept(tmp_path).items() >= before.items()
    sweep.kill("everything", choose)
    assert sweep.wait_until_gone(10) == {}
    between = kept(tmp_path)

    sweep = forwarding()
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    assert sweep.wait_until_gone(5) == {}
    assert f"({len(between)} scored before)" in sweep.log.read_text()
    check_scores(tmp_path)
    # Each sentence once, but for those of the shards that were being scored at a kill.
    different = {text for _, text in hypotheses(40)}
    counts = Counter((tmp_path / "ledger").read_text().split("\n")[:-1])
    assert set(counts) >= different
    # At most 2 shards at work at each of 4 kills.
    assert sum(counts.values()) <= len(different) + 4 * 2 * 8
    assert scored < len(different)
    again = forwarding()
    assert again.wait(60) == 0
    assert "is there already" in " ".join(again.log.read_text().split())
    assert sum(Counter((tmp_path / "ledger").read_text().split("\n")[:-1]).values()) == sum(
        counts.values()
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_signals_stop_and_the_same_command_continues(
    tmp_path: Path, forwarding: Callable[..., Sweep], number: int, code: int
) -> None:
    sweep = forwarding()
    wait_for(lambda: len(kept(tmp_path)) >= 1, sweep)
    assert sweep.process is not None
    sweep.process.send_signal(number)
    assert sweep.wait(30) == code
    assert sweep.wait_until_gone(5) == {}
    assert "the same command continues" in sweep.log.read_text()
    before = kept(tmp_path)
    if number == signal.SIGTERM:
        sweep = forwarding()
        assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
        assert f"({len(before)} scored before)" in sweep.log.read_text()
        check_scores(tmp_path)


@pytest.mark.parametrize("target", ["raylet", "gcs"])
def test_a_lost_ray_ends_it_soon(
    tmp_path: Path, forwarding: Callable[..., Sweep], target: str
) -> None:
    sweep = forwarding(seconds=0.3)
    wait_for(lambda: len(kept(tmp_path)) >= 1, sweep)
    assert sweep.kill(target, random.Random(0))
    assert sweep.wait(60) == 75, sweep.log.read_text()
    assert sweep.wait_until_gone(10) == {}
    assert "Traceback" not in sweep.log.read_text()
    sweep = forwarding(seconds=0.3)
    assert sweep.wait(LIMIT_SECONDS) == 0, sweep.log.read_text()
    check_scores(tmp_path)


def test_one_at_a_time(tmp_path: Path, forwarding: Callable[..., Sweep]) -> None:
    sweep = forwarding()
    wait_for(lambda: len(kept(tmp_path)) >= 1, sweep)
    done = run(*sweep.arguments)
    assert done.returncode == 2
    assert f"running already (process {sweep.process.pid}" in done.stderr  # type: ignore[union-attr]
    # Another program in the same folder: its shards are its own.
    sweep.kill("driver", random.Random(0))
    sweep.wait(10)
    sweep.wait_until_gone(10)
    command = "python3 -c 'import sys; [print(1) for _ in sys.stdin]'"
    other = run(sweep.arguments[0], f"--command={command}")
    assert other.returncode == 0, other.stderr
    _, scores = read_lm_scores(tmp_path / "du;mp/dev-tr.ppl")
    assert set(scores.tolist()) == {1.0}
    assert "scored before" not in other.stdout
    assert "other scores than before: command was [" in other.stdout


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
    done = run(hyp, f"{command} {tmp_path}/all", small)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "(sentences " in line
    assert "said last: out of luck; tried 2 times, by different workers" in line
    assert "dev-tr.ppl" not in names(tmp_path)
    done = run(hyp, f"{command} {tmp_path}/once", small)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "once").read_text() == "xx"
    assert names(tmp_path) == {
        *("dev.hyp", "fail.py", "all", "once", "dev-tr.ppl", "dev-tr.ppl.hash", "dev-tr.ppl.json"),
    }
    huge = run(hyp, "--command=x", "--name=x", "--worker_cores=3", "--cores=2")
    assert (huge.returncode, "it needs 3 CPU" in huge.stderr) == (2, True)
    missing = run(hyp, "--command=no_such_program", "--name=x")
    assert (missing.returncode, "no such program" in missing.stderr) == (2, True)
    assert not any(name.startswith("dev-x") for name in names(tmp_path))
