"""A sweep on a cluster that is there already: nodes come and go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killing import Ledger, Pace, Sweep, sweeps
from nodes import Nodes

Task = Callable[..., list[str]]
pytestmark = [pytest.mark.slow(seconds=40), pytest.mark.xdist_group("nodes of sweeps")]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("nodes"), head_cores=1)
    yield cluster
    cluster.close()


@pytest.fixture
def sweep_of(tmp_path: Path, nodes: Nodes) -> Iterator[Callable[[list[str]], Sweep]]:
    with sweeps(tmp_path, tmp_path / "log") as start:
        yield lambda arguments: start(arguments, environment=nodes.environment)


def test_nodes_come_and_go(
    task: Task, tmp_path: Path, nodes: Nodes, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    pace = Pace(tmp_path, tmp_path / "sweeps/small/trials")
    relative = [
        argument.replace(f"{tmp_path}/", "")
        for argument in task(n=8, pruner="none", normalize=pace.hook)
    ]
    ledger = Ledger(pace.trials)
    cluster = Sweep([], tmp_path, tmp_path / "log", mark=nodes.mark)
    sweep = sweep_of(relative)

    def wait_for_workers(number: int) -> None:
        sweep.wait_for(lambda: len(cluster.victims("worker")) == number, look_seconds=0.2)

    wait_for_workers(1)
    nodes.tell("add 2")
    wait_for_workers(3)
    pace.allow(3)
    sweep.wait_for(lambda: not ledger.look() and pace.holds())
    nodes.tell("remove")
    wait_for_workers(1)
    nodes.tell("add 1")
    wait_for_workers(2)
    pace.allow()
    assert sweep.wait() == 0, sweep.log.read_text()
    assert ledger.look() == []
    assert len(ledger.seen) == 8
    results = [json.loads(content) for content, _ in ledger.seen.values()]
    reasons = [(r["number"], r["reason"]) for r in results if r["state"] != "COMPLETE"]
    assert reasons == []  # a lost node is no trial's failure
    nodes.tell("remove")


def test_nodes_that_die_at_work_again_and_again_fail_no_trial(
    task: Task, tmp_path: Path, nodes: Nodes, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    hook = tmp_path / "deadly.py"
    hook.write_text(
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "calls = 0\n"
        "def cmdline(process): return pathlib.Path(f'/proc/{process}/cmdline').read_bytes()\n"
        "def normalize(text):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 40 and b'DecoderWorker' in cmdline('self'):\n"  # beyond the references
        "        if b'GPU' in cmdline(os.getppid()):\n"
        "            with (folder / 'died').open('a') as file: file.write('x')\n"
        "            os.kill(os.getppid(), 9)\n"
        "            os.kill(os.getpid(), 9)\n"
        "        while not (folder / 'go').exists(): time.sleep(0.1)\n"
        "    return text\n"
    )
    died = tmp_path / "died"
    died.touch()
    sweep = sweep_of(task(n=1, sampler="random", pruner="none", normalize=hook))
    for deaths in range(3):  # the head's own worker keeps its two blocks, the others go round
        nodes.tell("add 1 1")
        sweep.wait_for(lambda deaths=deaths: died.stat().st_size > deaths)
    (tmp_path / "go").touch()
    assert sweep.wait() == 0, sweep.log.read_text()
    (result,) = (tmp_path / "sweeps/small/trials").glob("*/result.json")
    assert (json.loads(result.read_text())["state"]) == "COMPLETE"


def test_sweeps_on_one_cluster_share_nothing(
    task: Task, tmp_path: Path, sweep_of: Callable[[list[str]], Sweep]
) -> None:
    rows = (tmp_path / "data/dev.lst").read_text().splitlines(keepends=True)
    (tmp_path / "data/short.lst").write_text("".join(rows[:20]))
    shutil.copy(tmp_path / "data/dev.npz", tmp_path / "data/short.npz")
    pace = Pace(tmp_path, tmp_path / "sweeps/small/trials")
    first = sweep_of(task(n=1, normalize=pace.hook, concurrent_trials=3))
    first.wait_for(pace.holds)
    second = sweep_of(task(n=1, test="short.lst", prefix="other", concurrent_trials=3))
    trials = tmp_path / "sweeps/other/trials"
    second.wait_for(lambda: list(trials.glob("0000/attempts/*")))
    pace.allow()
    assert (first.wait(), second.wait()) == (0, 0), second.log.read_text()
    for folder, lines in ((pace.trials, rows), (trials, rows[:20])):
        result = json.loads((folder / "0000/result.json").read_text())
        assert result["counts"][3] == sum(len(line.split()) - 3 for line in lines)
