import errno
import importlib
import os
import pickle
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune import errors, files
from w2ltune.errors import (
    STORAGE_FAULTS,
    FlagError,
    InputError,
    StoppedError,
    StorageError,
    StudyMismatchError,
    StudyOwnedError,
    TrialFailedError,
    UsageError,
    W2LTuneError,
    did_you_mean,
    existing_file,
    run_command,
    storage_fault,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (W2LTuneError("a"), 1),
        (UsageError("a"), 2),
        (InputError("a"), 2),
        (FlagError("a"), 2),
        (StudyOwnedError("a"), 2),
        (StudyMismatchError("a"), 2),
        (TrialFailedError("a"), 1),
        (StoppedError("a"), 75),
        (StoppedError("a", interrupted=True), 130),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "a/b.json"), 75),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 75),
        (OSError(errno.EISDIR, "Is a directory", "trials.csv"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "a/b.json"), 1),
    ],
)
def test_errors_become_one_line_and_an_exit_code(error, code, capsys):
    def main(arguments):
        raise error

    assert run_command(main, []) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("w2ltune: ")
    assert output.err.count("\n") == 1


def test_the_tree_drawn_in_the_docstring_is_the_tree():
    drawn = {name: int(code) for name, code in re.findall(r"(\w+Error) +(\d+)", errors.__doc__)}
    assert drawn == {
        name: value("").exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, W2LTuneError)
    }


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "bad"),
        ({"path": "a b.cfg"}, "a b.cfg: bad"),
        ({"path": Path("a.cfg"), "line": 3}, "a.cfg:3: bad"),
    ],
)
def test_where(where, message):
    assert str(InputError("bad", **where)) == message


def test_full_disk(capsys):
    def main(arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "a/b.json")

    run_command(main, [])
    message = capsys.readouterr().err
    assert "disk full while writing a/b.json (No space left on device)" in message
    assert "the same command again" in message


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)

        def main(arguments):
            print("shown", flush=True)
            shown.append(os.read(ours, 100))
            os.close(ours)
            print("not shown", flush=True)
            return 3

        shown = []
        assert run_command(main, []) == 3
        assert shown == [b"shown\r\n"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()

    def main(arguments):
        (tmp_path / "file" / "sweeps").mkdir()

    assert run_command(main, []) == 2
    assert capsys.readouterr().err == (
        f"w2ltune: error: {tmp_path / 'file' / 'sweeps'}: Not a directory\n"
    )


@pytest.mark.parametrize("error", [UsageError("a"), OSError(errno.ENOSPC, "full")])
def test_debug_shows_the_traceback(error):
    given = []

    def main(arguments):
        given.extend(arguments)
        raise error

    with pytest.raises(type(error)):
        run_command(main, ["--n=3", "--debug"])
    assert given == ["--n=3"]


def test_a_bug_is_not_hidden():
    def main(arguments):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main, [])


@pytest.mark.parametrize("ending", ["return 0", "sys.exit(0)"])
def test_a_reader_that_went_away_is_no_failure(ending):
    # As in `w2ltune collect | head -1`: the reader is gone before anything was printed.
    code = f"""
import sys
from w2ltune.errors import run_command

def main(arguments):
    sys.stdin.readline()
    print("a leaderboard")
    {ending}

sys.exit(run_command(main, []))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=PATIENCE_SECONDS) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lmwieght", "; did you mean 'lmweight'?"), ("zzz", ""), ("", ""), ("lmweight", "")],
)
def test_did_you_mean(name, hint):
    assert did_you_mean(name, ["wordscore", "lmweight"]) == hint


def test_existing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lm.arpa").write_text("x")
    assert existing_file("lm.arpa", "language model (--lm)") == Path("lm.arpa")
    with pytest.raises(InputError) as caught:
        existing_file("none.arpa", "language model (--lm)")
    assert str(caught.value) == (
        f"language model (--lm): no such file 'none.arpa' (looked in {tmp_path}); "
        "did you mean 'lm.arpa'?"
    )
    with pytest.raises(InputError, match=r"no such file '/none/lm\.arpa' \(nor the folder"):
        existing_file("/none/lm.arpa", "lm")
    with pytest.raises(InputError, match=r"'\.' is not a file"):
        existing_file(".", "lm")
    with pytest.raises(InputError, match="File name too long"):
        existing_file("x" * 5000, "lm")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "closed" / "lm.arpa"
    path.parent.mkdir()
    path.touch(mode=0)
    with pytest.raises(InputError, match="may not be read by this user"):
        existing_file(path, "lm")
    path.parent.chmod(0)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            existing_file(path, "lm")
    finally:
        path.parent.chmod(0o700)


def read_what_cannot_be_read():
    with Path("/proc/self/mem").open("rb") as file:
        file.read(10)  # Linux says: Input/output error


def test_an_error_of_a_disk_that_names_no_file(capsys):
    assert run_command(lambda arguments: read_what_cannot_be_read(), []) == 75
    assert capsys.readouterr().err == (
        "w2ltune: error: /proc/self/mem: Input/output error; nothing finished is lost: once it can "
        "be read and written again, give the same command again\n"
    )


def test_what_stands_in_for_a_file_is_not_named(tmp_path):
    full = pytest.raises(OSError, match=r"No space left on device: '\S*/report.html'")
    with full, files.replacing(tmp_path / "report.html"):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize("code", STORAGE_FAULTS)
@pytest.mark.parametrize("way", ["itself", "cause", "context", "of Ray"])
def test_a_fault_of_the_storage_is_known_however_it_comes(code, way):
    fault = OSError(code, os.strerror(code), "trials/0003/nbest.npz")
    if way == "itself":
        error = fault
    elif way == "of Ray":
        error = RuntimeError("a task failed")
        error.cause = pickle.loads(pickle.dumps(fault))
    else:
        with pytest.raises(InputError) as raised:
            try:
                raise fault
            except OSError:
                raise InputError(f"cannot be read: {fault}") from fault if way == "cause" else None
        error = raised.value
    found = pickle.loads(pickle.dumps(storage_fault(error)))
    assert isinstance(found, StorageError)
    assert os.strerror(code) in str(found)
    assert "trials/0003/nbest.npz" in str(found)
    assert found.exit_code == 75


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "a"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
        TrialFailedError("No space left on device"),  # somebody's words
        ValueError(),
    ],
)
def test_other_errors_are_no_faults_of_the_storage(error):
    assert storage_fault(error) is None


def test_a_missing_module_is_a_forgotten_environment(capsys):
    def main(arguments):
        importlib.import_module("no_such_module")

    assert run_command(main, []) == 2
    said = capsys.readouterr().err
    assert said.startswith("w2ltune: error: No module named 'no_such_module' for ")
    assert "is the environment active" in said


def test_help_where_the_locale_has_not_all_characters():
    program = "import sys; from w2ltune.errors import run_command; "
    program += "sys.exit(run_command(lambda words: print('a…b') or 0, []))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a?b\n", b"")


def test_what_a_message_quotes_does_not_reach_the_terminal_as_it_is(capsys):
    def main(arguments):
        raise UsageError("no \x1b]0;title\x07, no \x9b2J, no \u202etxt")

    run_command(main, [])
    assert capsys.readouterr().err == (
        "w2ltune: error: no \\u001b]0;title\\u0007, no \\u009b2J, no \\u202etxt\n"
    )
