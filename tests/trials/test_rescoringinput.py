"""What decoding the best trainings again needs, and how its errors are counted; without Ray."""

import sys
from pathlib import Path

import pytest
from trainingtask import BINARY, DOUBLES, make_training

from w2ltune.errors import InputError, UsageError
from w2ltune.runs.trialdir import TrialResult
from w2ltune.trials.rescoringinput import prepare_rescoring, read_hypotheses, with_counts
from w2ltune.trials.trainjob import TrainJob

WEAK = Path(__file__).parents[1] / "data" / "weak"
EMBEDDED = (sys.executable, "-m", "w2ltune.embedded.train")


def result(number=0, **changes):
    values = {"attempt": 1, "state": "COMPLETE", "value": 0.2, **changes}
    return TrialResult(number=number, **values)


@pytest.fixture
def prepare(tmp_path):
    flags = make_training(tmp_path)

    def prepare(*, program=(str(BINARY),), metric="dev-WER", test_binary=None, changes=None, **job):
        return prepare_rescoring(
            TrainJob(program=program, metric=metric, folder=str(tmp_path), **job),
            top=2,
            lists={"dev": "dev.lst", "other": "other.lst"},
            flags={**flags, **(changes or {})},
            test_binary=test_binary,
        )

    return prepare


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("six stop (tsta-0007)", {"tsta-0007": ("six", "stop")}),
        (" (emp-1)", {"emp-1": ()}),
        ("(emp-1)", {"emp-1": ()}),
        ("so (called) it (a(1))", {"a(1)": ("so", "(called)", "it")}),
        ("größer (ü)", {"ü": ("größer",)}),
    ],
)
def test_a_row_of_hypotheses(tmp_path, row, expected):
    path = tmp_path / "dev.lst.hyp"
    path.write_text(f"{row}\n", encoding="utf-8")
    assert read_hypotheses(path) == expected


def test_hypotheses_that_cannot_be_read(tmp_path):
    path = tmp_path / "dev.lst.hyp"
    with pytest.raises(InputError, match="did not write it"):
        read_hypotheses(path)
    path.write_text("one (a)\ntwo (b\n")
    with pytest.raises(InputError, match=r"dev\.lst\.hyp:2: not 'words \(utterance\)': 'two \(b'"):
        read_hypotheses(path)


def test_errors_are_those_that_the_binary_counted():
    references = read_hypotheses(WEAK / "decode.ref")
    counted = with_counts(result(), references, read_hypotheses(WEAK / "decode.hyp"))
    errors, words = sum(counted.counts[:3]), counted.counts[3]
    assert round(100 * errors / words, 4) == 63.4146
    assert counted.interval[0] < errors / words < counted.interval[1]
    assert (counted.value, counted.missing) == (0.2, 0)
    assert counted.interval_unit == "utterance (28)"


def test_errors_are_those_of_the_test_program(captures):
    folder = captures / "extra/sclw/t"
    references = read_hypotheses(folder / "a.lst,b.lst.viterbi.ref")
    counted = with_counts(result(), references, read_hypotheses(folder / "a.lst,b.lst.hyp"))
    assert f"{100 * sum(counted.counts[:3]) / counted.counts[3]:.6g}" == "97.561"
    assert "WER: 97.561%" in (captures / "extra/02_test_weak.stderr").read_text()


def test_a_missing_utterance_is_all_deletions():
    references = {"1-1-1": ("a", "b"), "1-1-2": ("c",), "2-1-1": ("d",)}
    counted = with_counts(result(), references, {"1-1-2": ("c", "x"), "2-1-1": (), "9-9-9": ("y",)})
    assert counted.counts == (0, 3, 1, 4)
    assert counted.missing == 1
    assert counted.interval_unit == "speaker (2)"


def test_a_list_without_words_has_no_interval():
    counted = with_counts(result(), {"a": ()}, {"a": ("x",)})
    assert (counted.counts, counted.interval) == ((0, 0, 1, 0), None)


def test_the_best_that_are_not_done(prepare):
    done = {"counts": (1, 0, 0, 10)}
    results = [
        result(0, value=0.3),
        result(1, value=0.1, state="PRUNED"),
        result(2, value=None, state="FAIL"),
        result(3, value=0.2, **done),
        result(5, value=0.25),
        result(4, value=0.25),
    ]
    assert [r.number for r in prepare().due(results)] == [4]
    assert prepare().due(results[3:4]) == []
    assert prepare().due([]) == []


@pytest.mark.parametrize(
    ("job", "program"),
    [
        ({}, (str(DOUBLES / "fl_asr_test"),)),
        (
            {"program": (str(DOUBLES / "Train"),), "generation": "wav2letter"},
            (str(DOUBLES / "Test"),),
        ),
        ({"test_binary": DOUBLES / "Test"}, (str(DOUBLES / "Test"),)),
        ({"program": EMBEDDED}, (*EMBEDDED[:2], "w2ltune.embedded.test")),
    ],
)
def test_the_program(prepare, job, program):
    assert prepare(**job).program == program


def test_the_command_line(prepare, tmp_path):
    rescoring = prepare(metric="other-WER")
    assert list(rescoring.references)[:2] == ["other-0", "other-1"]
    assert rescoring.references["other-1"] == ("two", "three")
    arguments = rescoring.arguments({"tokens": "t.txt", "lr": "0.1"}, Path("/s/1.bin"))
    assert arguments[:5] == (
        str(DOUBLES / "fl_asr_test"),
        "--flagsfile=",
        "--am=/s/1.bin",
        f"--datadir={tmp_path}",
        "--test=other.lst",
    )
    assert "--tokens=t.txt" in arguments
    assert not any(argument.startswith(("--lexicon", "--lr")) for argument in arguments)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"metric": "dev-TER"}, "--metric=dev-TER must be one of dev-WER, other-WER"),
        ({"metric": "dev-WER-decoded"}, "--metric=dev-WER-decoded must be one of"),
        ({"metric": "test-WER"}, "--metric=test-WER must be one of"),
        ({"program": ("/bin/sh",)}, "--rescore_top=2 needs /bin/fl_asr_test: no such program; "),
        ({"program": ("/bin/sh",), "generation": "wav2letter"}, "needs /bin/Test: no such program"),
        ({"test_binary": Path("none")}, "--test_binary=none: no such program"),
        ({"test_binary": Path(__file__)}, "may not be executed"),
        ({"program": EMBEDDED, "test_binary": BINARY}, "goes with the --binary that made"),
        ({"changes": {"datadir": "nowhere"}}, "no such file 'nowhere/dev.lst'"),
    ],
)
def test_what_is_refused(prepare, job, message):
    with pytest.raises(UsageError) as refused:
        prepare(**job)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_ids_with_a_slash_are_refused(prepare, tmp_path):
    with (tmp_path / "dev.lst").open("a") as file:
        file.write("a/b x.wav 100 one\n")
    with pytest.raises(InputError, match=r"dev\.lst: the id 'a/b' has a '/'"):
        prepare()
