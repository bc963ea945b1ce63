"""Whole sweeps with the n-best search on a real Ray cluster: few decodes, lists, beams."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import Ledger, Sweep

from w2ltune.formats.flagsfile import effective, parse_flagsfile
from w2ltune.formats.known_flags import is_boolean
from w2ltune.runs.outcome import read_outcome

pytestmark = pytest.mark.main

Task = Callable[..., list[str]]
LIMIT_SECONDS = 240


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[list[str]], str]]:
    """Run a sweep to its end and return what it printed; whatever happens, nothing is left."""
    sweeps: list[Sweep] = []

    def make(arguments: list[str], code: int = 0) -> str:
        (tmp_path / "log").unlink(missing_ok=True)
        sweep = Sweep(arguments, REPOSITORY, tmp_path / "log")
        sweeps.append(sweep)
        sweep.start()
        found = sweep.wait(LIMIT_SECONDS)
        text = sweep.log.read_text()
        assert found == code, text
        assert sweep.wait_until_gone(10) == {}
        return text

    yield make
    for sweep in sweeps:
        sweep.kill("everything", random.Random(0))
        sweep.wait(10)
        sweep.wait_until_gone(10)


@pytest.fixture
def heldout(task: Task, tmp_path: Path) -> str:
    """A held-out list of 30 utterances beside the dev list."""
    rows = (VOICE_COMMANDS / "test.lst").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data/test.lst").write_text("".join(rows[:30]), encoding="utf-8")
    shutil.copy(VOICE_COMMANDS / "emissions/test.npz", tmp_path / "data")
    return "test.lst"


def weights_of(path: Path) -> dict[str, str]:
    flags = effective(parse_flagsfile(path, boolean=is_boolean))
    return {name: flag.value for name, flag in flags.items()}


def test_few_decodes_baseline_and_held_out(
    task: Task, tmp_path: Path, run: Callable[..., str], heldout: str
) -> None:
    present = tmp_path / "present weights.cfg"
    present.write_text("--lmweight=0.5\n--wordscore=9\n--eosscore=1\n--am=/no/such/model.bin\n")
    arguments = task(sampler="nbest", probe="true", n=20, baseline=present, heldout=heldout)
    log = run(arguments)
    study = tmp_path / "sweeps/small"
    outcome = read_outcome(study)
    results = [json.loads(p.read_text()) for p in sorted(study.glob("trials/*/result.json"))]
    assert 3 <= len(results) < 20
    # The first trial is the present weights, although they lie outside of the ranges.
    assert results[0]["flags"]["wordscore"] == "9"
    assert outcome.baseline_trial == 0
    choice = outcome.choices[0]
    assert choice.against_baseline is not None
    assert choice.against_baseline.difference < 0
    assert choice.oracle is not None and choice.oracle < results[choice.trial]["value"]
    assert "no decode is expected" in outcome.reason
    assert [row.label for row in outcome.probes[0].rows] == ["as searched", "wider", "without LM"]
    look = outcome.looks[0]
    assert (look.name, look.trial) == ("test.lst", choice.trial)
    assert look.against_baseline is not None
    for part in (", was ", "oracle", "held-out test.lst with trial", "looked at once", "greedy: "):
        assert part in log
    best = study / "best.cfg"
    assert weights_of(best)["lmweight"] == results[choice.trial]["flags"]["lmweight"]
    assert "held-out test.lst" in best.read_text()
    page = (study / "report.html").read_text()
    assert "<svg" in page and "http-equiv" not in page and "src=" not in page

    # Again: nothing is decoded, and the held-out list is not looked at once more.
    again = run(arguments)
    assert "starting Ray" not in again
    assert read_outcome(study) == outcome
    # With another answer it is looked at only on demand, and counted.
    other = 0 if choice.trial else 1
    content = json.loads((study / "outcome.json").read_text())
    content["looks"][0]["trial"] = other
    content["looks"][0]["flags"]["lmweight"] = "0.123"
    (study / "outcome.json").write_text(json.dumps(content))
    assert "--look_again decodes it once more" in run(arguments)
    assert len(read_outcome(study).looks) == 1
    assert "looked at 2 times" in run([*arguments, "--look_again"])


def test_killed_anywhere_it_goes_on_with_the_same_proposals(
    task: Task, tmp_path: Path, run: Callable[..., str]
) -> None:
    arguments = task(sampler="nbest", n=6)
    run([*arguments, f"--logdir={tmp_path / 'undisturbed'}"])
    ledger = Ledger(tmp_path / "sweeps/small/trials")
    choose = random.Random(3)
    for number, target in enumerate(("driver", "everything")):
        sweep = Sweep(arguments, REPOSITORY, tmp_path / "killed")
        sweep.start()
        while sweep.alive() and len(list(ledger.trials.glob("*/result.json"))) <= number:
            time.sleep(0.05)
        sweep.kill(target, choose)
        sweep.wait(20)
        assert sweep.wait_until_gone(20) == {}
        assert ledger.look() == []
    run(arguments)
    assert ledger.look() == []
    found = []
    for logdir in ("undisturbed", "sweeps"):
        paths = sorted((tmp_path / logdir / "small/trials").glob("*/result.json"))
        results = [json.loads(path.read_text()) for path in paths]
        found.append([(r["params"], r["value"]) for r in results])
    assert found[0] == found[1]
    assert read_outcome(tmp_path / "sweeps/small").choices


@pytest.mark.parametrize("tune_for", ["each", "joint"])
def test_several_lists(
    task: Task, tmp_path: Path, run: Callable[..., str], heldout: str, tune_for: str
) -> None:
    arguments = task(sampler="nbest", test="dev.lst,test.lst", n=10, tune_for=tune_for)
    log = run(arguments)
    assert "dev.lst: " in log and "its own best is" in log
    study = tmp_path / "sweeps/small"
    choices = {choice.target: choice for choice in read_outcome(study).choices}
    names = {"dev.lst", "test.lst"}
    assert set(choices) == ({"", *names} if tune_for == "each" else {""})
    result = json.loads((study / "trials/0000/result.json").read_text())
    assert set(result["lists"]) == names
    assert [sum(counts) for counts in zip(*result["lists"].values(), strict=True)] == (
        result["counts"]
    )
    for target, choice in choices.items():
        name = f"best.{Path(target).stem}.cfg" if target else "best.cfg"
        chosen = json.loads((study / f"trials/{choice.trial:04d}/result.json").read_text())
        assert weights_of(study / name)["lmweight"] == chosen["flags"]["lmweight"]


def test_settings_and_automatic_beams(task: Task, tmp_path: Path, run: Callable[..., str]) -> None:
    log = run(task(sampler="nbest", beamsize="choice(5, 60)", n=14))
    assert "beamsize=5: WER" in log and "beamsize=60: WER" in log
    study = tmp_path / "sweeps/small"
    results = [json.loads(p.read_text()) for p in study.glob("trials/*/result.json")]
    assert {result["params"]["beamsize"] for result in results} == {"5", "60"}
    log = run(task(beamsize="auto", sampler="auto", probe="true", n=25, prefix="auto"))
    outcome = read_outcome(tmp_path / "sweeps/auto")
    assert "beam: " in log
    assert outcome.probes and not outcome.probes[-1].raised
    beams = [probe.rows[0].beam["beamsize"] for probe in outcome.probes]
    assert beams == sorted(beams, key=int)
