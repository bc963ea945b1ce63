import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from w2ltune import files
from w2ltune.report.leaderboard import (
    as_csv,
    as_json,
    elsewhere,
    metric_line,
    rank,
    read_leaderboard,
    show_value,
    table,
)
from w2ltune.report.progress import make_console
from w2ltune.runs.trialdir import TrialDirectory, TrialResult


def result(number, value, state="COMPLETE", **more):
    return TrialResult(number=number, attempt=1, state=state, value=value, **more)


GOOD = result(
    3,
    0.0431,
    counts=(31, 5, 7, 1000),
    interval=(0.0402, 0.046),
    interval_unit="speaker (12)",
    params={"lmweight": 2.0, "smearing": "max"},
    flags={"lmweight": "2.0", "smearing": "max", "lm": "lm, 3\u2011gram.arpa"},
    seconds=1.25,
    missing=2,
)
RESULTS = [
    result(0, None, "FAIL", reason="the decoder »died«\nof it", params={"lmweight": 9.0}),
    result(1, 0.5, params={"lmweight": 0.1 + 0.2}, counts=(1, 0, 0, 2)),
    result(2, 0.01, "PRUNED", params={"lmweight": 4.0}),
    GOOD,
    result(4, 0.5),
    result(5, 0.7, "PRUNED"),
]


def text(renderable, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_order():
    board = rank(RESULTS[::-1], running=[7, 6])
    # A pruned trial's rate is that of a part of the list: it never leads.
    assert [r.number for r in board.results] == [3, 1, 4, 2, 5, 0]
    assert board.best == GOOD
    assert board.running == (7, 6)


@pytest.mark.parametrize("results", [[], [RESULTS[0]], [RESULTS[2]], [RESULTS[0], RESULTS[2]]])
def test_without_a_complete_trial_there_is_no_best(results):
    board = rank(results)
    assert board.best is None
    assert json.loads(as_json(board, "s"))["best"] is None
    assert text(table(board, metric="wer"))
    assert len(list(csv.reader(io.StringIO(as_csv(board))))) == 1 + len(results)


def test_a_study_is_read_from_its_folder(tmp_path):
    trials = tmp_path / "trials"
    for one in RESULTS:
        directory = TrialDirectory(trials, one.number)
        directory.path.mkdir(parents=True)
        directory.write_result(one)
    running = TrialDirectory(trials, 6)
    running.path.mkdir()
    files.write_text(running.flags, "--lmweight=1\n")
    TrialDirectory(trials, 7).path.mkdir()  # lost while it was asked
    (trials / "0003 copy").mkdir()
    assert read_leaderboard(tmp_path) == rank(RESULTS, [6])
    assert read_leaderboard(tmp_path / "none") == rank([])


def test_json():
    value = json.loads(as_json(rank(RESULTS, [6]), "sweeps/a"))
    assert value.keys() == {"study", "best", "running", "trials"}
    assert (value["study"], value["best"], value["running"]) == ("sweeps/a", 3, [6])
    assert value["trials"][0] == {
        "number": 3,
        "state": "COMPLETE",
        "wer": 0.0431,
        "interval": [0.0402, 0.046],
        "errors": 43,
        "reference_words": 1000,
        "params": {"lmweight": 2.0, "smearing": "max"},
        "flags": {"lmweight": "2.0", "smearing": "max", "lm": "lm, 3\u2011gram.arpa"},
        "seconds": 1.25,
        "missing": 2,
        "reason": "",
    }
    failed = value["trials"][-1]
    assert (failed["number"], failed["wer"], failed["errors"]) == (0, None, None)
    assert failed["reason"] == "the decoder »died«\nof it"


def test_csv():
    rows = list(csv.DictReader(io.StringIO(as_csv(rank(RESULTS)))))
    assert list(rows[0]) == [
        "number", "state", "wer", "low", "high", "errors", "reference_words",
        "lmweight", "smearing", "seconds", "reason",
    ]  # fmt: skip
    assert [int(row["number"]) for row in rows] == [3, 1, 4, 2, 5, 0]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["smearing"]) == ("0.0402", "0.046", "max")
    assert float(rows[1]["lmweight"]) == 0.1 + 0.2  # to the last digit
    assert (rows[-1]["wer"], rows[-1]["errors"], rows[-1]["smearing"]) == ("", "", "")
    assert rows[-1]["reason"] == "the decoder »died«\nof it"


def test_table():
    lines = text(table(rank(RESULTS), metric="wer")).strip().splitlines()
    head, best = lines[0].split(), lines[2].split()
    assert head == ["trial", "WER", "%", "95", "%", "S", "D", "I", "lmweight", "smearing", "s"]
    assert best == ["3", "4.31", "4.02-4.60", "3.10", "0.50", "0.70", "2", "max", "1.2"]
    assert lines[5].split() == ["2", "(1.00)", "4", "0.0", "pruned"]
    assert lines[7].split() == ["0", "9", "0.0", "fail"]
    short = text(table(rank(RESULTS), metric="cer", most=2)).strip().splitlines()
    assert len(short) == len(lines) - 4


@pytest.mark.parametrize("name", ["lm[v2].arpa", "[/bold]", "a [red] b", "é→日"])
def test_names_are_shown_as_they_are(name):
    assert name in text(table(rank([result(0, 0.5, params={"lm": name})]), metric="wer"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.0, "2"), (1234567.0, "1.235e+06"), (1e-5, "1e-05"), (500, "500"), (True, "True")],
)
def test_values_in_short(value, shown):
    assert show_value(value) == shown


def test_metric_line():
    assert metric_line(GOOD, "wer") == "WER 4.31 [4.02, 4.60] (S 3.10 D 0.50 I 0.70)"
    assert metric_line(result(0, 0.5), "cer") == "CER 50.00"


def test_weights_in_other_tools():
    assert elsewhere(GOOD) == (
        "elsewhere: pyctcdecode alpha = lmweight/2.303 = 0.8686, beta = wordscore = 0.0000; "
        "torchaudio lm_weight, word_score as here",
    )
    assert elsewhere(result(0, 0.5)) == ()


def test_what_files_hold_is_no_formula_and_no_command_to_the_terminal():
    evil = "=HYPERLINK(1)\x1b[2J\x9b3J"
    board = rank([result(0, 0.5, params={"a": evil, "b": "-0.5", "+c": "@x"}, reason=evil)])
    (names, row) = csv.reader(io.StringIO(as_csv(board)))
    assert names[7:10] == ["'+c", "a", "b"]
    shown = "'=HYPERLINK(1)\\u001b[2J\\u009b3J"
    assert row[7:10] == ["'@x", shown, "-0.5"]
    assert row[-1] == shown
    said = as_json(board, Path("study"))
    assert "\x9b" not in said and json.loads(said)["trials"][0]["reason"] == evil
    screen = make_console()
    screen.file = io.StringIO()
    screen.print(table(board, metric="wer"))
    screen.print(evil, markup=False)
    assert not {"\x1b", "\x9b"} & set(screen.file.getvalue())
    assert "HYPERLINK(1)\\u001b[2J" in screen.file.getvalue()
