"""LM scores by a user's program, and what scores depend on."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from w2ltune.errors import TrialFailedError, UsageError
from w2ltune.trials.lmsource import COLUMNS, LMSource

SENTENCES = ["yes sir", "", "grün 日本", 'it\'s; "a" $(b)']
SCORE = "import sys; [print(-len(line)) for line in open(*{}, encoding='utf-8')]"


def source(tmp_path: Path, *words: str) -> LMSource:
    return LMSource(kind="command", model=shlex.join(words), folder=str(tmp_path))


def scores(source: LMSource, tmp_path: Path) -> list[float]:
    scratch = tmp_path / "scratch's"
    scratch.mkdir(exist_ok=True)
    found = source.load([], scratch)(SENTENCES)
    assert found.shape == (len(SENTENCES), COLUMNS)
    assert list(scratch.iterdir()) == []
    return found[:, 0].tolist()


def test_sentences_come_in_a_file_or_on_standard_input(tmp_path: Path) -> None:
    (tmp_path / "sco;re it.py").write_text(
        "import sys\n"
        "file = open(sys.argv[1], encoding='utf-8') if sys.argv[1:] else sys.stdin\n"
        "for n, line in enumerate(file):\n"
        "    print('a note', file=sys.stderr)\n"
        "    print('id', n, -len(line.rstrip()) / 2)\n"
    )
    expected = [-3.5, 0.0, -3.5, -7.0]
    assert scores(source(tmp_path, "python3", "sco;re it.py"), tmp_path) == expected
    assert scores(source(tmp_path, "python3", "sco;re it.py", "{input}"), tmp_path) == expected


def test_scores_may_be_written_to_a_file(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "print('chatter on standard output')\n"
        "out = open(sys.argv[1].removeprefix('--out='), 'w')\n"
        "[print(-len(line), file=out) for line in sys.stdin]\n"
    )
    given = source(tmp_path, sys.executable, "-c", code, "--out={output}")
    assert scores(given, tmp_path)[1] == -1.0
    with pytest.raises(TrialFailedError, match=r"wrote no scores to {output}"):
        scores(source(tmp_path, "echo", "{output}"), tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print(1)", r"gave 1 lines for 4 sentences \(1 of them empty"),
        ("[print(l.strip()) for l in sys.stdin if l.strip()]", r"gave 3 lines for 4 sentences"),
        ("[print(-1, 'ok') for _ in sys.stdin]", r"line 1 of the program's answer, '-1 ok', does"),
        ("[print(float('nan')) for _ in sys.stdin]", r"line 1 .* finite .* is 'yes sir'"),
        ("[print() for _ in sys.stdin]", "line 1 "),
        ("print('on stderr', file=sys.stderr); sys.exit(3)", r"exit code 3.*said last: on stderr"),
        ("print('on stdout'); sys.exit(3)", r"exit code 3.*said last: on stdout"),
        ("raise ValueError('no model')", r"ValueError: no model"),
        ("import os; os.kill(os.getpid(), 9)", r"killed \(SIGKILL\)"),
    ],
)
def test_failures_say_what_the_program_said(tmp_path: Path, code: str, message: str) -> None:
    given = source(tmp_path, sys.executable, "-c", f"import sys\n{code}")
    with pytest.raises(TrialFailedError, match=message) as caught:
        scores(given, tmp_path)
    assert "\n" not in str(caught.value)


def test_commands_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such program"):
        scores(source(tmp_path, "no such program"), tmp_path)
    for command, message in (("", "is empty"), ("python 'x", "No closing quotation")):
        with pytest.raises(UsageError, match=message):
            LMSource(kind="command", model=command).origin()


def test_what_scores_depend_on(tmp_path: Path) -> None:
    script, model, lm = tmp_path / "score it.py", tmp_path / "model", tmp_path / "lm.arpa"
    model.mkdir()
    for path in (script, model / "weights", lm):
        path.write_text("1")
    command = source(tmp_path, "python3", "score it.py", "--model=model", "{input}", "--x=")
    kenlm = LMSource(kind="kenlm", model=str(lm))
    causal = LMSource(kind="causal", model=str(model))
    assert set(command.origin()["files"]) == {"score it.py", "model"}
    before = [given.origin() for given in (command, kenlm, causal)]
    assert before == [given.origin() for given in (command, kenlm, causal)]
    for path, changed in ((script, {0}), (model / "weights", {0, 2}), (lm, {1})):
        now = [given.origin() for given in (command, kenlm, causal)]
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 10))
        later = [given.origin() for given in (command, kenlm, causal)]
        assert {n for n in range(3) if now[n] != later[n]} == changed
    letters = LMSource(kind="kenlm", model=str(lm), unit="letters")
    assert letters.origin() != kenlm.origin()
    before_move = kenlm.origin()
    moved = lm.rename(model / "lm.arpa")
    assert LMSource(kind="kenlm", model=str(moved)).origin() == before_move
