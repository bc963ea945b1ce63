"""Programs under guard: real ones, which are really killed, as are their guards and starters."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune.errors import TrialFailedError, UsageError
from w2ltune.runs.process import (
    STARTED,
    Child,
    Program,
    files_being_written,
    start,
    stop,
)
from w2ltune.runs.processguard import descendants

REPOSITORY = Path(__file__).parents[2]
MARK = "W2LTUNE_TEST_MARK"
PYTHON = (sys.executable, "-I", "-S", "-c")

FAMILY = """
setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 60; done' &
(sh -c 'trap "" TERM; while :; do sleep 60; done' &)
echo ready
while :; do sleep 60; done
"""
"""A program whose child makes its own session, whose orphan lost its parent, and both stay."""

SLOW_WRITER = """
import os, sys, time
path, enough = sys.argv[1:]
with open(path, "wb", buffering=0) as file:
    print("ready", flush=True)
    while not os.path.exists(enough):
        file.write(b"x")
        time.sleep(0.01)
    file.write(b"END")
time.sleep(3600)
"""
"""A program that writes a file until there is another one."""


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for all processes of a test; none of them may be left at its end."""
    value = uuid.uuid4().hex
    yield value
    left = marked(value)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def program(tmp_path: Path, mark: str) -> Callable[..., Program]:
    """Make a program of arguments, which logs to ``log`` in ``tmp_path``."""

    def make(*arguments: str, **changes: str) -> Program:
        return Program(
            arguments=arguments,
            log=tmp_path / "log",
            folder=tmp_path,
            environment={MARK: mark, **changes},
        )

    return make


def marked(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def output(log: Path) -> list[str]:
    """What the program printed since its last start."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(STARTED)]
    return lines[starts[-1] + 1 :] if starts else []


def guard_of(child: Child) -> int:
    stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8")
    return int(stat.rpartition(")")[2].split()[1])


@contextlib.contextmanager
def caller(tmp_path: Path, mark: str, arguments: tuple[str, ...]) -> Iterator[int]:
    """Yield the number of a process that started a program; it is killed in the end."""
    code = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "from w2ltune.runs.process import Program, start\n"
        "arguments, folder, environment = json.loads(sys.argv[1])\n"
        "program = Program(arguments=tuple(arguments), log=Path(folder, 'log'),\n"
        "    folder=Path(folder), environment=environment)\n"
        "child = start(program)\n"
        "time.sleep(3600)\n"
    )
    order = json.dumps([arguments, str(tmp_path), {MARK: mark}])
    process = subprocess.Popen(
        [sys.executable, "-c", code, order], cwd=REPOSITORY, start_new_session=True
    )
    try:
        wait_for(lambda: output(tmp_path / "log"))
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
        ("kill -SEGV $$", -11),
        ("kill -USR1 $$", -10),
        ("kill -INT $$", -2),
    ],
)
def test_return_codes(program: Callable[..., Program], script: str, code: int) -> None:
    with start(program("sh", "-c", script)) as child:
        assert child.wait(PATIENCE_SECONDS) == code
        assert child.wait(PATIENCE_SECONDS) == code
        assert child.poll() == code
        child.kill()
        assert child.poll() == code
        assert child.processes() == []


def test_polling_and_waiting(program: Callable[..., Program]) -> None:
    with start(program("sleep", "60")) as child:
        assert child.poll() is None
        begin = time.monotonic()
        assert child.wait(0.2) is None
        assert time.monotonic() - begin > 0.15
        assert child.processes() == [child.pid]
        assert Path(f"/proc/{child.pid}/comm").read_text().strip() == "sleep"
    assert child.poll() == -9


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("two words", "'single' \"double\"", "a;b & c | d > e", "$HOME `id` \\ !"),
        ("line\nbreak", "tab\t", "*", "~", "-", "--"),
        ("ünïcode ☃ 語",),
        ("x" * 100_000,),
        tuple(str(number) for number in range(2000)),
    ],
)
def test_arguments_arrive_as_they_are(
    program: Callable[..., Program], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    with start(program(*PYTHON, code, *arguments)) as child:
        assert child.wait(PATIENCE_SECONDS) == 0
    assert json.loads(output(tmp_path / "log")[-1]) == list(arguments)
    assert (tmp_path / "log").read_text(encoding="utf-8").count("\n") == 2


def test_bytes_that_are_no_text_arrive(program: Callable[..., Program], tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.lst")
    with start(program("sh", "-c", 'printf %s "$1" > argument', "sh", name)) as child:
        assert child.wait(PATIENCE_SECONDS) == 0
    assert (tmp_path / "argument").read_bytes() == b"\xff\xfe.lst"


def test_environment_and_folder(
    program: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CHANGED", "no")
    script = 'echo "$INHERITED $CHANGED $ADDED"; pwd; env | grep -c "^PYTHON"; cat; exec 3<&0'
    with start(program("sh", "-c", script, CHANGED="now", ADDED="a b=c\nd")) as child:
        assert child.wait(PATIENCE_SECONDS) == 0
    assert output(tmp_path / "log")[:3] == ["yes now a b=c", "d", str(tmp_path.resolve())]
    assert "ADDED" not in os.environ


def test_no_signal_is_ignored_or_blocked_below(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    """As below ``nohup``, or a shell that lets a command run in the background."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD])
    try:
        child = start(program("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)
    with child:
        assert child.wait(PATIENCE_SECONDS) == 0
    values = [line.split() for line in output(tmp_path / "log")]
    assert {name: int(value, 16) for name, value in values} == {"SigBlk:": 0, "SigIgn:": 0}


def test_a_program_has_only_its_three_files(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    inheritable = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        with start(program("sh", "-c", "ls -l /proc/$$/fd")) as child:
            assert child.wait(PATIENCE_SECONDS) == 0
    finally:
        os.close(inheritable)
    links = [line.split()[-3:] for line in output(tmp_path / "log") if " -> " in line]
    log = str(tmp_path.resolve() / "log")
    assert links == [["0", "->", "/dev/null"], ["1", "->", log], ["2", "->", log]]


def test_what_it_reads_and_writes_may_be_files(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    texts, answer = tmp_path / "te'xt s", tmp_path / "ans;wer"
    texts.write_bytes(b"one\ntwo")
    answer.write_bytes(b"of an earlier run, which was longer")
    script = "import sys\nprint(sys.stdin.read().upper())\nprint('told', file=sys.stderr)"
    given = replace(program(sys.executable, "-c", script), stdin=texts, stdout=answer)
    with start(given) as child:
        assert child.wait(PATIENCE_SECONDS) == 0
    assert answer.read_bytes() == b"ONE\nTWO\n"
    assert given.log.read_text().splitlines()[1:] == ["told"]
    with pytest.raises(FileNotFoundError):
        start(replace(given, stdin=tmp_path / "none"))


def test_the_log_is_appended_to(program: Callable[..., Program], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, attempt in ((1, 0), (2, 7)):
        with start(program("sh", "-c", f"echo {number}; echo e{number} >&2"), attempt=attempt) as c:
            assert c.wait(PATIENCE_SECONDS) == 0
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [lines[1:3], lines[4:]] == [["1", "e1"], ["2", "e2"]]
    assert lines[3].startswith(STARTED)
    assert lines[3].endswith(", launch 7: sh -c 'echo 2; echo e2 >&2'")


def script_file(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / f"script-{uuid.uuid4().hex}"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_programs_that_cannot_be_started(program: Callable[..., Program], tmp_path: Path) -> None:
    plain = script_file(tmp_path, "echo hello", 0o644)
    no_interpreter = script_file(tmp_path, "#!/no/such/python\n")
    empty = script_file(tmp_path, "\0\0\0\0\0\0\0\0")
    cases = {
        ("nosuchprogram",): "nosuchprogram: no such program; it is not on the PATH",
        ("/no/such/program",): "/no/such/program: no such program",
        (plain,): f"{plain} cannot be run: Permission denied",
        (str(tmp_path),): f"{tmp_path} cannot be run: Permission denied",
        (no_interpreter,): (
            f"{no_interpreter} cannot be run: the interpreter in its first line is missing"
        ),
        (empty,): f"{empty} cannot be run: it is neither a program of this machine nor a script",
        (): "no program was named",
        ("ls", "a\0b"): "ls cannot be run: Invalid argument",
    }
    for arguments, message in cases.items():
        with pytest.raises(UsageError) as caught:
            start(program(*arguments))
        assert str(caught.value) == message


def test_a_folder_that_cannot_be_entered(tmp_path: Path) -> None:
    nowhere = Program(arguments=("ls",), log=tmp_path / "log", folder=tmp_path / "none")
    with pytest.raises(UsageError, match=r"ls: the folder to run it in cannot be entered: .*none:"):
        start(nowhere)
    with pytest.raises(FileNotFoundError):
        start(Program(arguments=("ls",), log=tmp_path / "none" / "log"))


def test_a_guard_that_cannot_be_started(
    program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(TrialFailedError, match=r"ls: its guard could not be started; see .*log"):
        start(program("ls"))


@pytest.mark.main
def test_killing_takes_the_whole_family(
    program: Callable[..., Program], tmp_path: Path, mark: str
) -> None:
    with start(program("sh", "-c", FAMILY)) as child:
        wait_for(lambda: output(tmp_path / "log") == ["ready"] and len(child.processes()) >= 4)
        child.kill()
        assert marked(mark) == []
        assert child.poll() == -9


@pytest.mark.main
def test_asking_first(program: Callable[..., Program], tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 60; done"
    with start(program("sh", "-c", script)) as child:
        wait_for(lambda: output(tmp_path / "log"))
        child.kill(grace_seconds=PATIENCE_SECONDS)
        assert child.poll() == 5
    assert output(tmp_path / "log")[-1] == "bye"


@pytest.mark.main
def test_asking_in_vain(program: Callable[..., Program], tmp_path: Path) -> None:
    with start(program("sh", "-c", FAMILY)) as child:
        wait_for(lambda: output(tmp_path / "log"))
        begin = time.monotonic()
        child.kill(grace_seconds=0.5)
        assert time.monotonic() - begin > 0.5
        assert child.poll() == -15


@pytest.mark.main
def test_what_a_program_leaves_behind_ends_with_it(
    program: Callable[..., Program], mark: str
) -> None:
    script = "setsid sleep 60 & (nohup sleep 60 &) ; exit 4"
    with start(program("sh", "-c", script)) as child:
        assert child.wait(PATIENCE_SECONDS) == 4
        assert marked(mark) == []


@pytest.mark.main
@pytest.mark.parametrize("whole_group", [False, True])
def test_death_of_the_starter(tmp_path: Path, mark: str, whole_group: bool) -> None:
    with caller(tmp_path, mark, ("sh", "-c", FAMILY)) as pid:
        wait_for(lambda: len(marked(mark)) >= 4)
        (os.killpg if whole_group else os.kill)(pid, signal.SIGKILL)
        wait_for(lambda: not marked(mark))
    assert output(tmp_path / "log")[-1].startswith("w2ltune: the process that started this")


@pytest.mark.main
def test_death_of_the_guard(program: Callable[..., Program], tmp_path: Path, mark: str) -> None:
    with start(program("sh", "-c", FAMILY)) as child:
        wait_for(lambda: output(tmp_path / "log") and len(marked(mark)) >= 4)
        os.kill(guard_of(child), signal.SIGKILL)
        wait_for(lambda: child.pid not in marked(mark))
        assert child.wait(PATIENCE_SECONDS) == -9
        assert marked(mark) == []
        child.kill()


@pytest.mark.main
def test_the_guard_ignores_what_ends_others(program: Callable[..., Program]) -> None:
    with start(program("sleep", "60")) as child:
        guard = guard_of(child)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(guard, number)
        assert child.wait(0.3) is None
        assert guard_of(child) == guard
        assert os.getsid(guard) not in (os.getsid(0), os.getsid(child.pid))


@pytest.mark.main
def test_a_newer_launch_ends_an_older_one(program: Callable[..., Program], tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    for number in (1, 2):
        (attempts / f"{number:04d}").touch()
    with start(program("sleep", "60"), attempts=attempts, attempt=2) as child:
        assert child.wait(1.5) is None
        (attempts / ".0003.tmp-1").touch()
        assert child.wait(1.5) is None
        (attempts / "0003").touch()
        assert child.wait(PATIENCE_SECONDS) == -9
    assert output(tmp_path / "log") == [
        "w2ltune: error: launch 3 is at work; this was launch 2, and ends"
    ]


@pytest.mark.main
@pytest.mark.parametrize("complete", [True, False])
def test_a_checkpoint_in_writing_when_the_starter_dies(
    tmp_path: Path, mark: str, complete: bool
) -> None:
    checkpoint, enough = tmp_path / "001_model_last.bin", tmp_path / "enough"
    arguments = (*PYTHON, SLOW_WRITER, str(checkpoint), str(enough))
    with caller(tmp_path, mark, arguments) as pid:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "is gone" in output(tmp_path / "log")[-1], look_seconds=0.01)
        if complete:
            enough.touch()
        wait_for(lambda: not marked(mark))
    assert checkpoint.read_bytes().endswith(b"END") is complete


@pytest.mark.main
@pytest.mark.parametrize(("patience_seconds", "complete"), [(PATIENCE_SECONDS, True), (1, False)])
def test_stopping_waits_for_a_checkpoint(
    program: Callable[..., Program], tmp_path: Path, patience_seconds: float, complete: bool
) -> None:
    rundir = tmp_path / "run"
    rundir.mkdir()
    checkpoint, enough = rundir / "001_model_last.bin", tmp_path / "enough"
    with start(program(*PYTHON, SLOW_WRITER, str(checkpoint), str(enough))) as child:
        wait_for(lambda: output(tmp_path / "log"))
        assert files_being_written(child.processes(), rundir) == {checkpoint}
        assert files_being_written(child.processes(), tmp_path / "other") == set()
        if complete:
            threading.Timer(0.5, enough.touch).start()
        stop(child, rundir, patience_seconds=patience_seconds)
        assert child.poll() == -9
    assert checkpoint.read_bytes().endswith(b"END") is complete


@pytest.mark.main
@pytest.mark.parametrize("path", ["elsewhere.bin", "run/001_log"])
def test_stopping_does_not_wait_for_other_files(
    program: Callable[..., Program], tmp_path: Path, path: str
) -> None:
    (tmp_path / "run").mkdir()
    with start(program(*PYTHON, SLOW_WRITER, path, "never")) as child:
        wait_for(lambda: output(tmp_path / "log"))
        begin = time.monotonic()
        stop(child, tmp_path / "run", patience_seconds=PATIENCE_SECONDS)
        assert time.monotonic() - begin < PATIENCE_SECONDS / 2


def test_files_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for name in ("read", "gone", "beside.bin"):
        (folder / name).touch()
    with contextlib.ExitStack() as stack:
        for path, mode in (
            (folder / "a file.bin", "wb"),
            (folder / "below" / "log", "a"),
            (folder / "read", "rb"),
            (folder / "beside.bin", "r+b"),
            (folder / "gone", "wb"),
            (tmp_path / "run.bin", "wb"),
        ):
            stack.enter_context(path.open(mode))
        (folder / "gone").unlink()
        for given in (folder, tmp_path / "link"):
            assert files_being_written([os.getpid(), 2**22 + 1], given) == {
                given / "a file.bin",
                given / "below" / "log",
                given / "beside.bin",
            }
    assert files_being_written([os.getpid()], folder) == set()
    assert files_being_written([], folder) == set()


@pytest.mark.main
def test_many_starts_leave_nothing(program: Callable[..., Program], mark: str) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files(), descendants(os.getpid())
    for number in range(7):
        child = start(program("sh", "-c", f"exit {number}"))
        if number % 3 == 0:
            child.kill()
        else:
            assert child.wait(PATIENCE_SECONDS) == number
        with pytest.raises(UsageError):
            start(program("nosuchprogram"))
    assert (open_files(), descendants(os.getpid())) == before  # not even an unburied one
    assert marked(mark) == []


def test_several_at_once(program: Callable[..., Program]) -> None:
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(start(program("sh", "-c", f"sleep 0.2; exit {number}")))
            for number in range(5)
        ]
        assert [child.wait(PATIENCE_SECONDS) for child in children] == list(range(5))
