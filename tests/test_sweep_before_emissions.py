"""Mistakes in a command are told before emissions are made, and before a job is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from binarytask import Flags, arguments, make_model, run
from conftest import VOICE_COMMANDS

from w2ltune import sweep
from w2ltune.commandline import parse
from w2ltune.decodeinput import prepare
from w2ltune.decodeprogram import emission_sources
from w2ltune.errors import run_command
from w2ltune.search.decodespace import build_space
from w2ltune.sweepoptions import SweepOptions

REQUEST = {
    "task": "decode", "flags": {"beamsize": "500"}, "space": {}, "scoring": {}, "inputs": {},
    "seed": 1, "versions": {}, "commit": "", "format": 1,
}  # fmt: skip
STUDY = "sweeps/am/sweep.json"
DECIDED = "sweeps/am/decoder.json"
DECISION = {"decoder": "process", "why": "", "compared": False}
ROW = {"id": "dev-0", "text": "one"}
ROWS = "a-1 {audio} 1000 one two\na-2 {audio} 1000 three\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def flags(model: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flags:
    """The flags of a sweep of ``data/dev.lst`` and what is in ``tmp_path``, where it runs.

    The program that writes the emissions leaves ``made`` there, and fails.
    """
    monkeypatch.chdir(tmp_path)
    write({"data/dev.lst": ROWS})
    program = tmp_path / "fl_asr_test"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/made\nexit 3\n")
    program.chmod(0o755)
    return {
        **model,
        "test_binary": program,
        "datadir": "data",
        "test": "dev.lst",
        "logdir": "sweeps",
    }


def write(files: dict[str, str]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.replace("{audio}", str(VOICE_COMMANDS / "dev.lst")))  # not read


def refused(flags: Flags, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, here and on SLURM, and return what it says."""
    before = sorted(Path().rglob("*"))
    said = []
    for partition in (None, "any"):
        code = run_command(sweep.main, arguments({**flags, "partition": partition}))
        said.append(capsys.readouterr())
        assert code == 2, said
        assert sorted(Path().rglob("*")) == before  # so neither "made" nor a job is there
    assert said[0] == said[1]
    assert said[0].out == ""
    return said[0].err


@pytest.mark.main
@pytest.mark.xdist_group("sweeps on a running Ray")
def test_nothing_but_the_emissions_is_missing(flags: Flags) -> None:
    """What the tests below change is what is refused."""
    done = run(flags, folder=Path())
    assert done.returncode == 1, done.stderr
    assert "emissions of data/dev.lst: exit code 3" in done.stderr
    assert Path("made").exists()


def test_in_process_ids_may_have_a_bar(flags: Flags) -> None:
    write({"data/dev.lst": "a|1 {audio} 1000 one\n"})
    options, given = parse(arguments(flags), SweepOptions, usage="")
    names = SweepOptions.__dataclass_fields__
    space = build_space(given, script=None, options=names, any_flag=False)
    prepare(options, space, command=(), sources=emission_sources(options, space.fixed))


@pytest.mark.parametrize(
    ("changes", "files", "message"),
    [
        ({"baseline": "none.cfg"}, {}, "present weights (--baseline): no such file"),
        ({"baseline": "old"}, {"old": "--lmwieght=2\n"}, "old:1: unknown flag --lmwieght; did you"),
        ({"baseline": "old"}, {"old": "--lm=none.arpa\n"}, "language model (--lm): no such file"),
        ({"normalize": "none.py"}, {}, "text normaliser (--normalize): no such file"),
        ({"normalize": "n.py"}, {"n.py": "def normalise(t): pass\n"}, "no function normalize(text"),
        ({"normalize": "n.py"}, {"n.py": "\nimport nothing_at_all\n"}, "n.py:2: "),
        ({"normalize": "n.py"}, {"n.py": "def normalize(t):\n  return t + 1\n"}, "n.py:2: "),
        ({"normalize": "n.glm"}, {"n.glm": ";; a\n[a] => [b\n"}, "n.glm:2: "),
        ({"heldout": "b/dev.lst"}, {"data/b/dev.lst": ROWS}, "two lists are named 'dev'"),
        ({"heldout": "b.lst"}, {"data/b.lst": ROWS}, "what is held out may not be tuned on"),
        ({}, {"data/dev.lst": "a-1 {audio} 1000\n"}, "no utterance has a reference"),
        ({}, {"data/dev.lst": "a-1 {audio} 1000 { a / b }\n"}, "reference has alternatives"),
        ({"max_rtf": 1}, {"data/dev.lst": "a-1 {audio} 0 one\n"}, "do not tell how long"),
        (
            {"test": "text"}, {"data/text": "a-1 one two\n"},
            "needs a path without blanks to it, not ''",
        ),
        (
            {"test": "blank.json"}, {"data/blank.json": json.dumps({**ROW, "audio": "a b.wav"})},
            "needs a path without blanks to it, not 'a b.wav'",
        ),
        (
            {"test": "a.json"}, {"data/a.json": json.dumps({**ROW, "audio": "a", "offset": 2.5})},
            "begins 2.5 s into its audio, and the program would read all of it; cut the audio",
        ),
        (
            {"test": "odd.json"}, {"data/odd.json": json.dumps({**ROW, "audio": "a\0.wav"})},
            "cannot open its audio",
        ),
        ({"cluster": "("}, {}, "--cluster=( is no regular expression"),
        ({"cluster": "^b"}, {}, "--cluster=^b does not match the utterance id 'a-1'"),
        ({"space": "none.py"}, {}, "search space (--space): no such file"),
        ({"space": "s.py"}, {"s.py": "def space(trial):\n  return 1\n"}, "must return a dict"),
        ({"space": "s.py"}, {"s.py": "def space(trial):\n  return {'lmwieght': 1}\n"}, "lmwieght"),
        ({"warm_start": "sweeps"}, {}, "--warm_start: no trial there has n-best lists"),
        ({}, {STUDY: "{"}, f"{STUDY}: damaged"),
        ({}, {STUDY: '{"name": "x"}'}, f"{STUDY}: no request of this program"),
        ({}, {STUDY: "[1]"}, f"{STUDY}: no request of this program"),
        ({}, {STUDY: '{"format": "x"}'}, f"{STUDY}: no request of this program"),
        ({}, {STUDY: '{"format": 99}'}, f"{STUDY}: format 99 is newer"),
        ({}, {STUDY: json.dumps({**REQUEST, "flags": []})}, f"{STUDY}: no request of this program"),
        (
            {"decoder": "process"}, {DECIDED: json.dumps({**DECISION, "decoder": "binary"})},
            f"{DECIDED}: its trials were decoded otherwise (--decoder=binary), and now in process",
        ),
        ({"decoder": "binary"}, {DECIDED: json.dumps(DECISION)}, "now the binary would decode"),
        ({"decoder": "binary"}, {DECIDED: "[]"}, f"{DECIDED}: damaged"),
        ({"lexicon": "l"}, {"l": "ONE o n e |\nTWO t w o |\n"}, "2 of them differ in the case"),
        ({"lexicon": "l"}, {"l": "one o n 7 |\n"}, "l:1: the spelling of 'one' needs"),
        ({"lm": "lm"}, {"lm": "\\data\\\nngram 1=9\n"}, "cut short"),
        ({"lm": "lm", "decoder": "binary"}, {"lm": "\\data\\\nngram 1=9\n"}, "cut short"),
        (
            {"decoder": "binary"}, {"data/dev.lst": "a|1 {audio} 1000 one\n"},
            "the id 'a|1' has a '|', which the decoder program does not bear; rename it",
        ),
        (
            {"dump": "true", "heldout": "b.lst"}, {"data/b.lst": "b|1 {audio} 1000 one\n"},
            "the id 'b|1' has a '|', which separates the fields of a beam dump; rename it, or",
        ),
    ],
)  # fmt: skip
def test_mistakes(
    flags: Flags, capsys: pytest.CaptureFixture[str],
    changes: Flags, files: dict[str, str], message: str,
) -> None:  # fmt: skip
    write({"data/dev.lst": ROWS, **files})
    line = refused({**flags, **changes}, capsys)
    assert message in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "messages"),
    [
        ({}, ["--beamsize was 500, is 20", "--wordscore was not given, is uniform(-1, 1)"]),
        ({"task": "train"}, ["task was train, is decode"]),
    ],
)
def test_the_folder_of_another_sweep(
    flags: Flags, capsys: pytest.CaptureFixture[str],
    old: Flags, messages: list[str],
) -> None:  # fmt: skip
    finished = f"{Path(STUDY).parent}/trials/0000/result.json"
    write({STUDY: json.dumps({**REQUEST, **old}), finished: '{"state": "COMPLETE"}'})
    line, *differences = refused(flags, capsys).splitlines()
    assert "holds another sweep" in line
    assert {*messages} <= {difference.strip() for difference in differences}


def test_lists_that_changed_in_a_sweep_whose_emissions_are_gone(
    flags: Flags, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {**REQUEST, "inputs": {"data/dev.lst": {"size": 9, "mtime_ns": 1, "sha256": "0"}}}
    kept = str(Path(STUDY).with_name("trials") / "0000" / "result.json")
    write({STUDY: json.dumps(request), kept: json.dumps({"state": "COMPLETE"})})
    assert "data/dev.lst has changed since (9 bytes then" in refused(flags, capsys)
