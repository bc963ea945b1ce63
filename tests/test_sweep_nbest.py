"""Whole sweeps with the n-best search on a real Ray: few decodes, lists, beams, dumps."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import Ledger, Pace, sweeps
from runningray import running_ray

from w2ltune.formats.beamdump import read_beam_dump
from w2ltune.formats.flagsfile import effective, parse_flagsfile
from w2ltune.formats.known_flags import is_boolean
from w2ltune.runs.outcome import read_outcome

pytestmark = [
    pytest.mark.main(seconds=40),
    pytest.mark.xdist_group("n-best sweeps on a running Ray"),
]

Task = Callable[..., list[str]]
Run = Callable[[list[str]], str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a sweep to its end and return what it printed; whatever happens, nothing is left."""
    with sweeps(REPOSITORY, tmp_path / "log") as start:

        def make(arguments: list[str]) -> str:
            (tmp_path / "log").unlink(missing_ok=True)
            sweep = start(arguments, environment=running_ray())
            found = sweep.wait()
            text = sweep.log.read_text()
            assert found == 0, text
            assert sweep.wait_until_gone() == {}
            return text

        yield make


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


def sclite(folder: Path, name: str) -> tuple[int, ...]:
    """Return substitutions, deletions, insertions and reference words by sclite."""
    if not shutil.which("sctk"):
        assert os.environ.get("W2LTUNE_REQUIRE_SLURM") != "1"
        pytest.skip("sclite is not installed (package sctk; .ci/run installs it)")
    done = subprocess.run(
        ["sctk", "sclite", "-r", f"{name}.ref.trn", "trn", "-h", f"{name}.hyp.trn", "trn",
         "-i", "rm", "-o", "rsum", "stdout"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    row = next(line for line in done.stdout.splitlines() if "| Sum " in line)
    _, words, _, substitutions, deletions, insertions, *_ = map(int, re.findall(r"\d+", row))
    return substitutions, deletions, insertions, words


def check_dumps(study: Path) -> None:
    """Lists for rescoring, and transcripts in which sclite counts the same."""
    outcome = read_outcome(study)
    choice, look = outcome.choices[0], outcome.looks[-1]
    dumps = study / "dumps"
    assert sclite(dumps, "dev.lst") == tuple(choice.counts)
    assert sclite(dumps, "test.lst") == tuple(look.counts)
    flags = json.loads((study / f"trials/{choice.trial:04d}/result.json").read_text())["flags"]
    lmweight, wordscore = float(flags["lmweight"]), float(flags["wordscore"])
    lists = read_beam_dump(dumps / "dev.lst.hyp")
    assert len(lists) == 40
    assert sum(len(entries) for entries in lists.values()) > 200
    for entries in lists.values():
        scores = [entry.score for entry in entries]
        assert scores == sorted(scores, reverse=True)
        for entry in entries:
            parts = entry.am_score + lmweight * entry.lm_score + wordscore * len(entry.words)
            assert entry.score == pytest.approx(parts, abs=1e-4)
    assert not re.search(r"\bthe\b", (dumps / "dev.lst.ref.trn").read_text())
    # What is counted is normalised; what is rescored is as it was decoded.
    assert any("the" in entry.words for entries in lists.values() for entry in entries)


def test_few_decodes_baseline_held_out_and_dumps(
    task: Task, tmp_path: Path, run: Run, heldout: str
) -> None:
    present = tmp_path / "present weights.cfg"
    present.write_text("--lmweight=0.5\n--wordscore=9\n--eosscore=1\n--am=/no/such/model.bin\n")
    normalize = tmp_path / "words.glm"
    normalize.write_text(";; of a test\n[the] => [] / [ ] __ [ ]\n")
    arguments = task(
        sampler="nbest", probe="true", n=20, baseline=present, heldout=heldout, normalize=normalize
    )
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
    assert "another decode is expected" in outcome.reason
    labels = [row.label for row in outcome.probes[-1].rows]
    assert labels[:2] == ["as searched", "beamsize 200"] and labels[-1] == "without LM"
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
    assert not (study / "dumps").exists()
    log = run([*arguments, "--look_again", "--dump"])
    assert "looked at 2 times" in log
    assert f"beam dump: {study}/dumps/dev.lst.hyp" in log
    check_dumps(study)


def test_a_part_of_the_list_comes_first(task: Task, tmp_path: Path, run: Run) -> None:
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data/more.lst").write_text("".join(rows[:100]), encoding="utf-8")
    shutil.copy(VOICE_COMMANDS / "emissions/dev.npz", tmp_path / "data/more.npz")
    arguments = task(sampler="nbest", test="more.lst", n=6)
    log = run(arguments)
    study = tmp_path / "sweeps/small"
    outcome = read_outcome(study)
    (begun,) = outcome.probes
    assert (begun.trial, begun.utterances) == (-1, 33)
    first = json.loads((study / "trials/0000/result.json").read_text())
    assert {n: float(first["flags"][n]) for n in begun.start} == pytest.approx(begun.start)
    assert sum(first["counts"][3:]) == outcome.choices[0].counts[3]  # trials are of the whole list
    assert "a part of the list worth" in log
    page = (study / "report.html").read_text()
    assert f"Before the first trial: 33 utterances, {begun.decoded} decoded in all" in page
    assert "starting Ray" not in run(arguments)
    assert read_outcome(study) == outcome


@pytest.mark.slow(seconds=30)
def test_killed_it_goes_on_with_the_same_proposals(task: Task, tmp_path: Path, run: Run) -> None:
    pace = Pace(tmp_path, tmp_path / "sweeps/small/trials")
    arguments = task(sampler="nbest", n=5, normalize=pace.hook)
    ledger = Ledger(pace.trials)
    with sweeps(REPOSITORY, tmp_path / "killed") as start:
        pace.allow(1)
        sweep = start(arguments, environment=running_ray())
        sweep.wait_for(pace.holds)
        sweep.kill("driver", random.Random(3))
        sweep.wait()
        assert ledger.look() == []
    pace.allow()
    run(arguments)
    assert ledger.look() == []
    run([*arguments, f"--logdir={tmp_path / 'undisturbed'}"])
    found = []
    for logdir in ("undisturbed", "sweeps"):
        paths = sorted((tmp_path / logdir / "small/trials").glob("*/result.json"))
        results = [json.loads(path.read_text()) for path in paths]
        found.append([(r["params"], r["value"]) for r in results])
    assert found[0] == found[1]
    assert len(found[0]) > 1
    assert read_outcome(tmp_path / "sweeps/small").choices


@pytest.mark.slow(seconds=20)
def test_several_lists(task: Task, tmp_path: Path, run: Run, heldout: str) -> None:
    names = {"dev.lst", "test.lst"}
    for tune_for, n, targets in (("each", 10, {"", *names}), ("joint", 3, {""})):
        log = run(
            task(sampler="nbest", test="dev.lst,test.lst", n=n, tune_for=tune_for, prefix=tune_for)
        )
        assert "dev.lst: " in log and "its own best is" in log
        study = tmp_path / "sweeps" / tune_for
        choices = {choice.target: choice for choice in read_outcome(study).choices}
        assert set(choices) == targets
        result = json.loads((study / "trials/0000/result.json").read_text())
        assert set(result["lists"]) == names
        assert [sum(counts) for counts in zip(*result["lists"].values(), strict=True)] == (
            result["counts"]
        )
        for target, choice in choices.items():
            name = f"best.{Path(target).stem}.cfg" if target else "best.cfg"
            chosen = json.loads((study / f"trials/{choice.trial:04d}/result.json").read_text())
            assert weights_of(study / name)["lmweight"] == chosen["flags"]["lmweight"]


@pytest.mark.slow(seconds=12)
def test_lists_called_text(task: Task, tmp_path: Path, run: Run, heldout: str) -> None:
    """As Kaldi has them, each in its folder: what is made of them goes by the folders."""
    data = tmp_path / "data"
    for name in ("dev", "test"):
        (data / name).mkdir()
        rows = [row.split(maxsplit=3) for row in (data / f"{name}.lst").read_text().splitlines()]
        text = "".join(f"{name_of} {words}\n" for name_of, _, _, words in rows)
        (data / name / "text").write_text(text)
    (data / "text.npz").write_bytes(b"of who knows what")
    given = task(sampler="nbest", n=2, test="dev/text", heldout="test/text", dump="true")
    said = run(given)
    plain = run(task(sampler="nbest", n=2, heldout=heldout, prefix="plain"))
    best = re.search(r"^  WER .* \(S .*?\)", plain, re.MULTILINE)
    assert best and best[0] in said
    look = re.search(r"^held-out test.lst (with trial .*? looked at once)", plain, re.MULTILINE)
    assert look and f"held-out test {look[1]}" in said
    dumps = tmp_path / "sweeps/small/dumps"
    assert {path.name for path in dumps.iterdir()} == {
        f"{name}{ending}" for name in ("dev", "test") for ending in (".hyp", ".hyp.trn", ".ref.trn")
    }
    assert sclite(dumps, "dev") == tuple(read_outcome(tmp_path / "sweeps/small").choices[0].counts)


@pytest.mark.slow(seconds=30)
def test_settings_and_automatic_beams(task: Task, tmp_path: Path, run: Run) -> None:
    log = run(task(sampler="nbest", beamsize="choice(5, 60)", n=8))
    assert "beamsize=5: WER" in log and "beamsize=60: WER" in log
    study = tmp_path / "sweeps/small"
    results = [json.loads(p.read_text()) for p in study.glob("trials/*/result.json")]
    assert {result["params"]["beamsize"] for result in results} == {"5", "60"}
    log = run(task(beamsize="auto", sampler="auto", probe="true", n=25, prefix="auto"))
    outcome = read_outcome(tmp_path / "sweeps/auto")
    assert "beam: " in log
    (begun,) = outcome.probes
    results = [json.loads(p.read_text()) for p in tmp_path.glob("sweeps/auto/trials/*/result.json")]
    assert {result["flags"]["beamsize"] for result in results} == {begun.raised["beamsize"]}
    assert len({row.beam["beamsize"] for row in begun.rows}) > 1
