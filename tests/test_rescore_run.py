"""Rescoring as a user runs it: the ancestor's command lines, searches, proofs, what is left."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from nbestlists import Task, write_task
from waiting import PATIENCE_SECONDS

from w2ltune import rescore
from w2ltune.errors import run_command
from w2ltune.formats.beamdump import read_beam_dump


@pytest.fixture
def dev(tmp_path: Path) -> Task:
    return write_task(tmp_path / "lists")


@pytest.fixture
def test(tmp_path: Path) -> Task:
    return write_task(tmp_path / "lists", name="test")


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A search that proves already; nothing of it is left."""
    with subprocess.Popen(
        [sys.executable, "-m", "w2ltune.rescore", *map(str, arguments)], cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while "CPU seconds at most" not in (line := process.stdout.readline()):
                assert line, process.stderr.read() if process.stderr else ""
            yield process
        finally:
            process.kill()


def output(*command: object) -> str:
    """What a command prints that goes well, run as a user runs it."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it in this process, which has all that it imports."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(rescore.main, [str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def found(*arguments: object) -> dict[str, object]:
    """What a search prints as JSON."""
    done = run(*arguments, "--format=json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def errors_of(text: str, name: str) -> float:
    return float(re.search(rf"^{name}: WER ([\d.]+)", text, re.MULTILINE)[1])


@pytest.mark.main
def test_the_ancestors_evaluation(dev: Task) -> None:
    said = output(
        "w2ltune.rescore",
        f"--hyp={dev.hyp}", f"--tr={dev.tr}", f"--list={dev.list}", "--in_wts=0,0,0", "--new",
    )  # fmt: skip
    original, oracle = (errors_of(said, name) for name in ("original", "oracle"))
    assert 0 < oracle < original
    table = [line.split() for line in said.splitlines() if re.match(r"\s+(\d+|all)\s", line)]
    assert [row[0] for row in table] == [*map(str, range(1, 11)), "all"]
    assert float(table[0][1]) == original
    assert float(table[-1][2]) == oracle
    assert not list(dev.hyp.parent.glob("*rescored*"))  # nothing is written


@pytest.mark.main
def test_the_ancestors_grid_search(dev: Task) -> None:
    line = [f"--hyp={dev.hyp}", f"--tr={dev.tr}", f"--list={dev.list}", "--search",
            "--gridsearch", "--new"]  # fmt: skip
    assert "best: --in_wts=tr=" in output("w2ltune.rescore", *line)
    folder = dev.hyp.with_name("dev.lst-rescored-tr-len")
    best = json.loads((folder / "best.json").read_text())
    assert best["method"] == "grid"
    assert best["evaluations"] == 100
    grid = next(c for c in best["candidates"] if c["name"] == "grid of rescore.py")
    for name in ("tr", "len"):
        assert round(10 * grid["weights"][name], 9) in range(10)


@pytest.mark.main
@pytest.mark.parametrize(
    "method",
    [
        "certified",
        *(
            pytest.param(m, marks=pytest.mark.slow)
            for m in ("line", "tpe", "cmaes", "random", "grid")
        ),
    ],
)
def test_all_methods_give_an_answer_that_holds(dev: Task, method: str) -> None:
    best = found(*dev.arguments(), f"--method={method}", "--certify", "--n=150")
    proof = best["certified"]
    assert proof["gap"] == 0
    assert proof["errors"] == proof["bound"] <= best["errors"]
    none = next(c for c in best["candidates"] if c["name"] == "no rescoring")
    assert best["errors"] < sum(none["dev"]["counts"][:3])
    assert best["wer"] == best["errors"] / none["dev"]["counts"][3]
    low, high = best["interval"]
    assert low < best["wer"] < high
    # The weights give these errors when they are evaluated, and the rescored dump has them first.
    weights = ",".join(f"{name}={value!r}" for name, value in best["weights"].items())
    again = found(*dev.arguments(), f"--in_wts={weights}")
    assert {row["k"]: row["wer"] for row in again["by_k"]}[best["k"]] == best["wer"]
    folder = dev.hyp.with_name("dev.lst-rescored-tr-convlm-len")
    lists = read_beam_dump(folder / "dev.lst.rescored.hyp")
    reference = {row.split()[0]: row.split()[3:] for row in dev.list.read_text().splitlines()}
    total = sum(lists[name][0].wer * len(words) for name, words in reference.items())
    assert round(total) == best["errors"]
    for entries in lists.values():
        scores = [entry.score for entry in entries]
        assert scores == sorted(scores, reverse=True)
    assert (folder / "dev.lst.rescored.hyp.trn").read_text().count("\n") == len(reference)


@pytest.mark.slow
def test_the_exact_searches_find_the_same(dev: Task) -> None:
    line = found(*dev.arguments(), "--out", dev.hyp.parent / "line")
    certified = found(*dev.arguments(), "--method=certified", "--out", dev.hyp.parent / "proof")
    fewest = next(c for c in line["candidates"] if c["name"] == "fewest errors found")
    assert sum(fewest["dev"]["counts"][:3]) >= certified["certified"]["errors"]
    random = found(*dev.arguments(), "--method=random", "--n=50", "--out", dev.hyp.parent / "r")
    luckiest = [c for c in random["candidates"] if c["name"] == "fewest errors found"]
    assert all(sum(c["dev"]["counts"][:3]) >= certified["certified"]["errors"] for c in luckiest)


@pytest.mark.main
def test_a_held_out_list_is_compared_too(dev: Task, test: Task) -> None:
    done = run(*dev.arguments(), *test.arguments(test=True), "--in_wts=0.5,0,0", "--search")
    assert done.returncode == 0, done.stderr
    assert re.search(r"held-out: WER [\d.]+ \[", done.stdout)
    assert "given by --in_wts" in done.stdout
    best = json.loads(
        dev.hyp.with_name("dev.lst-rescored-tr-convlm-len").joinpath("best.json").read_text()
    )
    for candidate in best["candidates"]:
        assert candidate["test"]["counts"][3] == sum(
            len(row.split()) - 3 for row in test.list.read_text().splitlines()
        )
    assert best["candidates"][1]["chosen_against"]["interval"]
    refused = run(*dev.arguments(), *write_task(dev.hyp.parent / "x").arguments(test=True))
    assert refused.returncode == 2
    assert "60 utterances are in" in refused.stderr
    assert "what is tuned on them cannot be tested on them" in refused.stderr


@pytest.mark.slow
def test_looks_at_the_held_out_list_are_counted(dev: Task, test: Task, tmp_path: Path) -> None:
    other = write_task(tmp_path / "lists", name="other")
    command = [*dev.arguments(), *test.arguments(test=True), f"--out={tmp_path}/study"]
    for _ in range(2):  # again the same answer
        assert "; looked at once\n" in run(*command, "--method=random", "--n=3").stdout
    assert "held-out" not in run(*dev.arguments(), f"--out={tmp_path}/study").stdout
    path = tmp_path / "study/best.json"
    before = json.loads(path.read_text())
    before["looks"][0]["weights"]["tr"] += 0.1  # it was another one
    path.write_text(json.dumps(before))
    done = run(*command)
    assert "; looked at 2 times, so that it is optimistic\n" in done.stdout
    assert "looked at 2 times" in (tmp_path / "study/report.html").read_text()
    best = found(*dev.arguments(), *other.arguments(test=True), f"--out={tmp_path}/study")
    assert [look["name"] for look in best["looks"]] == ["test.lst", "test.lst", "other.lst"]
    assert best["looks"][-1]["weights"] == best["weights"]


@pytest.mark.slow
def test_intervals_are_by_what_the_ids_tell(dev: Task) -> None:
    chapters = found(*dev.arguments(), r"--cluster=-(\d\d)", "--out", dev.hyp.parent / "chapters")
    answer = chapters["candidates"][0]
    assert answer["dev"]["unit"] == "cluster (1)"
    done = run(*dev.arguments(), r"--cluster=-\d\d(\d)", "--in_wts=0.5,0.1,0.1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_collect_shows_it_again(dev: Task) -> None:
    best = found(*dev.arguments(), "--certify", "--out", dev.hyp.parent / "study")
    where = [f"--logdir={dev.hyp.parent}", "--prefix=study"]
    command = [sys.executable, "-m", "w2ltune.collect", *where]
    assert json.loads(output("w2ltune.collect", *where, "--format=json")) == best
    shown = output("w2ltune.collect", *where)
    again = run(*dev.arguments(), "--certify", "--out", dev.hyp.parent / "study")
    line = next(line for line in shown.splitlines() if line.startswith("best: "))
    assert line in again.stdout
    refused = subprocess.run([*command, "--watch"], capture_output=True, text=True, cwd=REPOSITORY)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_the_same_command_goes_on_and_another_is_refused(dev: Task) -> None:
    first = found(*dev.arguments(), "--method=tpe", "--n=30")
    again = found(*dev.arguments(), "--certify")
    assert again["certified"]["errors"] <= min(
        sum(c["dev"]["counts"][:3]) for c in first["candidates"]
    )
    refused = run(*dev.arguments(), "--ignore_case")
    assert refused.returncode == 2
    assert "use another --out" in refused.stderr
    assert "ignore_case" in refused.stderr
    dev.tr.write_text(dev.tr.read_text().replace("-1", "-2", 1))
    refused = run(*dev.arguments())
    assert refused.returncode == 2
    assert str(dev.tr) in refused.stderr


@pytest.mark.slow
def test_more_models_the_decoders_lm_and_both_lengths(dev: Task) -> None:
    copies = []
    for name in ("gpt", "deep"):
        path = dev.hyp.with_name(f"{name} model.ppl")
        path.write_text(dev.convlm.read_text())
        copies += ["--lm", f"{name}={path}"]
    best = found(
        f"--hyp={dev.hyp}", f"--list={dev.list}", f"--tr={dev.tr}", *copies, "--decoder_lm",
        "--length=both",
    )  # fmt: skip
    assert list(best["weights"]) == ["tr", "gpt", "deep", "lm", "words", "letters"]
    only = found(f"--hyp={dev.hyp}", f"--list={dev.list}", "--decoder_lm", "--length=none")
    assert list(only["weights"]) == ["lm"]
    assert best["errors"] <= only["errors"]


@pytest.mark.slow
def test_models_are_called_as_forward_calls_them(tmp_path: Path) -> None:
    dev = write_task(tmp_path / "lists", utterances=20, depth=6)
    test = write_task(tmp_path / "lists", name="test", utterances=20, depth=6)
    names = ("gpt-2", "4gram", "-x.3+é")
    files = ("tr", "convlm", "tr")
    models = [
        f"--{flag}={name}={getattr(task, file)}"
        for flag, task in (("lm", dev), ("test_lm", test))
        for name, file in zip(names, files, strict=True)
    ]
    command = [f"--hyp={dev.hyp}", f"--list={dev.list}", *models]
    command += [f"--test_hyp={test.hyp}", f"--test_list={test.list}"]
    done = run(*command, "--in_wts=4gram=0.1,gpt-2=0.3", "--search", "--certify")
    assert done.returncode == 0, done.stderr
    assert "gpt-2=" in done.stdout
    folder = dev.hyp.with_name("dev.lst-rescored-gpt-2-4gram--x.3+é-len")
    best = json.loads((folder / "best.json").read_text())
    assert list(best["weights"]) == [*names, "len"]
    given = next(c for c in best["candidates"] if c["name"] == "given by --in_wts")
    assert list(given["weights"].values()) == [0.3, 0.1, 0.0, 0.0]
    page = (folder / "report.html").read_text()
    assert all(f"Along the weight of {name}." in page for name in names[:2])
    again = found(*command)  # the study knows the names again
    assert any("went on from" in text for text in again["findings"])


def test_the_three_weights_of_the_ancestor(dev: Task) -> None:
    lists = [f"--hyp={dev.hyp}", f"--list={dev.list}"]
    expected = found(*lists, f"--tr={dev.tr}", "--in_wts=tr=0.3,len=0.2")
    assert found(*lists, f"--tr={dev.tr}", "--in_wts=0.3,0.1,0.2") == expected
    only = found(*lists, f"--convlm={dev.convlm}", "--in_wts=9,0.3,0.2")
    assert only["weights"] == {"convlm": 0.3, "len": 0.2}
    own = found(*lists, f"--tr={dev.tr}", "--decoder_lm", "--in_wts=0.3,0.1,0.2")
    assert own["weights"] == {"tr": 0.3, "lm": 0.1, "len": 0.2}
    done = run(*lists, f"--tr={dev.tr}", "--in_wts=0.3,0.1,0.2")
    assert "weights: tr=0.3,len=0.2\n" in done.stdout
    for weights, wrong in (("tr=0.3,convlm=0.1", "convlm"), ("0.3,0.1,0.2", "len")):
        length = "none" if wrong == "len" else "len"
        refused = run(*lists, f"--tr={dev.tr}", f"--length={length}", f"--in_wts={weights}")
        assert refused.returncode == 2
        assert f"there is no weight '{wrong}'" in refused.stderr


@pytest.mark.slow
def test_scores_that_know_nothing_do_no_harm(dev: Task) -> None:
    lines = [line.split() for line in dev.tr.read_text().splitlines()]
    dev.tr.write_text("".join(f"{name} -1.5\n" for name, _ in lines))
    best = found(f"--hyp={dev.hyp}", f"--list={dev.list}", f"--tr={dev.tr}", "--length=none",
                 "--certify")  # fmt: skip
    none = next(c for c in best["candidates"] if c["name"] == "no rescoring")
    assert best["errors"] <= sum(none["dev"]["counts"][:3])
    assert best["weights"]["tr"] == 0


@pytest.mark.slow
def test_scales_and_signs_of_the_scores_change_nothing(dev: Task) -> None:
    """The ancestor searched fixed boxes: on another scale it was worse than no rescoring."""
    options = ["--certify", "--method=certified"]
    first = found(*dev.arguments(), *options)
    rows = [line.split(" | ") for line in dev.hyp.read_text().splitlines()]
    dev.hyp.write_text(
        "".join(
            f"{name} | {score} | {100 * float(am):.6f} | {' | '.join(rest)}\n"
            for name, score, am, *rest in rows
        )
    )
    pairs = [line.split() for line in dev.tr.read_text().splitlines()]
    dev.tr.write_text("".join(f"{name} {-0.01 * float(score)!r}\n" for name, score in pairs))
    second = found(*dev.arguments(), *options, "--out", dev.hyp.parent / "scaled")
    assert second["certified"]["errors"] == first["certified"]["errors"]
    assert second["certified"]["weights"]["tr"] < 0 < first["certified"]["weights"]["tr"]
    assert abs(second["errors"] - first["errors"]) <= 3  # the plateau's points are others


@pytest.mark.slow
def test_a_seed_repeats_a_random_search(dev: Task) -> None:
    results = [
        found(*dev.arguments(), "--method=random", "--n=40", f"--seed={seed}",
              "--out", dev.hyp.parent / str(number))
        for number, seed in enumerate((1, 1, 2))
    ]  # fmt: skip
    for result in results:
        del result["seconds"]
    assert results[0] == results[1] != results[2]


def test_the_fewest_errors_found_are_the_fewest_of_all_that_was_evaluated(dev: Task) -> None:
    """Also of the middle of the plateau, of fewer hypotheses and of what the report draws."""
    best = found(*dev.arguments(), "--search", "--method=random", "--n=1", "--in_wts=0.1,0.1,0.1")
    errors = {c["name"]: sum(c["dev"]["counts"][:3]) for c in best["candidates"]}
    words = best["candidates"][0]["dev"]["counts"][3]
    assert errors["fewest errors found"] == min(errors.values())
    assert min(row["rate"] for row in best["by_k"]) * words >= errors["fewest errors found"] - 0.5
    journal = dev.hyp.with_name("dev.lst-rescored-tr-convlm-len") / "study.journal"
    assert '"around the' in journal.read_text()


def test_more_weights_are_not_worse(dev: Task) -> None:
    def fewest(*arguments: str) -> int:
        folder = dev.hyp.parent / "-".join(arguments).replace("/", "_")
        best = found(f"--hyp={dev.hyp}", f"--list={dev.list}", f"--out={folder}", *arguments)
        return min(sum(c["dev"]["counts"][:3]) for c in best["candidates"])

    models = f"--tr={dev.tr}", f"--convlm={dev.convlm}"
    four = fewest(*models, "--decoder_lm", "--length=both")
    for fewer in (models, (models[0], "--decoder_lm"), (models[1], "--decoder_lm")):
        assert four <= fewest(*fewer, "--length=both")


@pytest.mark.main
def test_a_signal_ends_a_proof_with_a_true_gap(tmp_path: Path) -> None:
    task = write_task(tmp_path / "lists", utterances=400, depth=30)
    many = []
    for number in range(3):
        path = task.tr.with_name(f"m{number}.ppl")
        rows = [line.split() for line in task.tr.read_text().splitlines()]
        noise = np.random.default_rng(number).normal(0, 4, len(rows))
        path.write_text("".join(
            f"{name} {float(score) + extra}\n"
            for (name, score), extra in zip(rows, noise, strict=True)
        ))  # fmt: skip
        many += ["--lm", f"m{number}={path}"]
    command = [*task.arguments(), *many, "--method=certified", "--time_limit=600"]
    with started(*command) as process:
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 75, err
    gap = int(re.search(r"at most (\d+) errors fewer are possible", out)[1])
    assert gap > 0
    assert "the same command goes on from it" in err
    folder = task.hyp.with_name("dev.lst-rescored-tr-convlm-m0-m1-m2-len")
    proof = json.loads((folder / "best.json").read_text())["certified"]
    assert proof["errors"] - proof["bound"] == gap
    # Killed, it loses nothing of what was found.
    with started(*command):
        pass
    best = found(*command, "--time_limit=1")
    assert best["certified"]["errors"] <= proof["errors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--tr=none.ppl"], "no such file 'none.ppl'"),
        (["--lm", "gpt"], "--lm='gpt': must be NAME=FILE"),
        (["--lm", "a,b=x"], "the name 'a,b' must be letters, digits, '_', '.', '+' or '-'"),
        (["--lm", "tr=x"], "there is a language model 'tr' already"),
        (["--lm", "len=x"], "cannot be called 'len'"),
        (["--in_wts=1,2"], "--in_wts=1,2: 2 weights, expected 3: tr,convlm,len"),
        (["--in_wts=1,2,x"], "'x' is no weight"),
        (["--in_wts=tr=1,tra=2"], "there is no weight 'tra'; did you mean 'tr'?"),
        (["--in_wts=inf,0,0"], "'inf' is no weight"),
        (["--in_wts=tr=1,tr=2"], "a weight is given twice"),
        (["--method=lines"], "did you mean 'line'?"),
        (["--test_hyp=x"], "missing --test_list"),
        (["--n=0"], "--n=0: must be 1 or more"),
        (["--time_limit=0"], "--time_limit=0: must be above 0 CPU seconds"),
        (["--hypp=x"], "unknown option --hypp; did you mean 'hyp'?"),
        (["--cluster=("], "--cluster=( is no regular expression"),
        (["--ancestor_wer", "--metric=cer"], "--ancestor_wer takes the WERs of the dump"),
        (["--method=random", "--length=both"], "one length"),
    ],
)
def test_mistakes_are_one_line(dev: Task, changes: list[str], message: str) -> None:
    done = run(*dev.arguments(), *changes)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(dev.hyp.parent.glob("*rescored*"))


@pytest.mark.slow
def test_all_is_all_of_another_list_too(tmp_path: Path) -> None:
    dev = write_task(tmp_path / "a", depth=3)
    test = write_task(tmp_path / "b", name="test", depth=12)
    test.list.rename(tmp_path / "b/dev.lst")  # of the same name as the other
    names = ("hyp", "tr", "convlm")
    other = [f"--test_{name}={getattr(test, name)}" for name in names]
    other.append(f"--test_list={tmp_path}/b/dev.lst")
    before = dev.hyp.read_bytes()
    best = found(*dev.arguments(), *other, "--out", dev.hyp.parent)  # the folder of the dump
    assert dev.hyp.read_bytes() == before
    weights = ",".join(f"{name}={value!r}" for name, value in best["weights"].items())
    again = found(*dev.arguments(), *other, f"--in_wts={weights}")
    assert best["k"] == best["depth"]
    assert again["test"]["errors"] == sum(best["candidates"][0]["test"]["counts"][:3])
    for name, dump in (("dev.lst", dev.hyp), ("test-dev.lst", test.hyp)):
        written = (dev.hyp.parent / f"{name}.rescored.hyp").read_text()
        assert written.count("\n") == dump.read_text().count("\n")


@pytest.mark.slow
def test_the_ancestors_ties_are_those_of_the_proof_too(tmp_path: Path) -> None:
    hyp, listed, tr = tmp_path / "a.hyp", tmp_path / "a.lst", tmp_path / "a.ppl"
    rows = [f"u{n} | {score} | 1 | 1 | {wer} | {text}" for n in range(6)
            for score, wer, text in ((2, 0, "yes"), (1, 100, "no"))]  # fmt: skip
    hyp.write_text("\n".join(rows) + "\n")
    listed.write_text("".join(f"u{n} x.wav 10 yes\n" for n in range(6)))
    tr.write_text("".join(f"u{n} -1\nu{n} -1\n" for n in range(6)))
    command = [f"--hyp={hyp}", f"--list={listed}", f"--tr={tr}", "--length=none", "--certify"]
    theirs = found(*command, "--ancestor_wer", f"--out={tmp_path}/theirs")
    assert theirs["errors"] == theirs["certified"]["errors"] == 0
    ours = found(*command, f"--out={tmp_path}/ours")
    assert ours["certified"]["errors"] == 6  # of equal scores the worse one
    assert ours["errors"] == 0  # and no rescoring is better


@pytest.mark.slow
def test_odd_lists(tmp_path: Path) -> None:
    """One utterance of one hypothesis; the oldest form of a dump; empty references; huge scores."""
    hyp, listed, tr = tmp_path / "a.hyp", tmp_path / "a.lst", tmp_path / "a.ppl"
    hyp.write_text("a | 1 | 1 | 1 | 0 | yes\n")
    listed.write_text("a a.wav 10 yes\n")
    tr.write_text("a -1.0\n")
    command = [f"--hyp={hyp}", f"--list={listed}", f"--tr={tr}", "--certify"]
    assert found(*command)["errors"] == 0
    hyp.write_text("a 1 1 1 0 yes\na 0.5 0.5 1 200 no sir\nb 3 3 3 0 \n")
    listed.write_text("a a.wav 10 yes\nb b.wav 10\n")
    tr.write_text("a -1.0\na -2\nb -3\n")
    assert found(*command, f"--out={tmp_path}/old")["errors"] == 0
    refused = run(*command, "--new", f"--out={tmp_path}/new")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    tr.write_text("a -1e300\na 1e300\nb 0\n")
    refused = run(*command, f"--out={tmp_path}/huge")
    assert refused.returncode == 2
    assert "a score 'tr' of " in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "huge").exists()


def test_the_folder_of_another_study_is_left_alone(dev: Task, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    request = {"task": "decode", "flags": {"lm": "x"}, "space": {}, "scoring": {}, "inputs": {},
               "seed": 1, "versions": {}, "commit": "", "command": [], "format": 1}  # fmt: skip
    (tmp_path / "sweep/sweep.json").write_text(json.dumps(request))
    refused = run(*dev.arguments(), f"--out={tmp_path}/sweep")
    assert refused.returncode == 2
    assert "use another --out" in refused.stderr
    assert "task was decode, is rescore" in refused.stderr


def test_a_lost_line_of_scores_is_named(dev: Task) -> None:
    lines = dev.tr.read_text().splitlines(keepends=True)
    dev.tr.write_text("".join([*lines[:20], *lines[21:]]))
    done = run(*dev.arguments(), "--in_wts=0,0,0")
    assert done.returncode == 2
    assert f"{dev.tr}:" in done.stderr
    assert "it looks as if one line was lost" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_utterances_are_deletions_unless_the_ancestor_counts(dev: Task) -> None:
    kept = [line for line in dev.hyp.read_text().splitlines() if not line.startswith("dev-0003")]
    rows = dev.list.read_text().splitlines()
    lost = len(rows[3].split()) - 3
    words = sum(len(row.split()) - 3 for row in rows)
    for path in (dev.tr, dev.convlm):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("dev-0003")]
        path.write_text("\n".join(lines) + "\n")
    dev.hyp.write_text("\n".join(kept) + "\n")
    ours = found(*dev.arguments(), "--in_wts=0,0,0")
    theirs = found(*dev.arguments(), "--in_wts=0,0,0", "--ancestor_wer")
    assert round((ours["original"] - theirs["original"]) * words) == lost
    done = run(*dev.arguments(), "--in_wts=0,0,0")
    assert "note: 1 of 60 utterances of dev.lst are not in" in done.stdout
