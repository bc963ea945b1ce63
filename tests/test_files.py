import contextlib
import dataclasses
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import ClassVar

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune import files
from w2ltune.errors import InputError

WRITER = """
import sys
from collections.abc import Mapping
from pathlib import Path
from w2ltune import files

path, over = map(Path, sys.argv[1:])
number = 0
while not over.exists():
    number += 1
    files.write_json(path, [number] * (1 + 5000 * (number % 2)))
print(number)
"""

CREATORS = """
import os, sys, time
from pathlib import Path
from w2ltune import files

for number in range(int(sys.argv[2])):
    path = Path(sys.argv[1], str(number))
    start = time.monotonic() + 0.01
    for _ in range(6):
        if not os.fork():
            while time.monotonic() < start:
                pass
            os._exit(int(files.create_exclusively(path, f"{os.getpid()}\\n" * 1000)))
    codes = [os.wait() for _ in range(6)]
    winners = [pid for pid, status in codes if os.waitstatus_to_exitcode(status)]
    assert path.read_text() == f"{winners[0]}\\n" * 1000
    print(len(winners))
"""

DISK_FULL = """
import errno, os, sys
from pathlib import Path
from w2ltune import files

path = Path(sys.argv[1], "result.json")
files.write_json(path, {"value": 0.5})
for write in (
    lambda: files.write_json(path, ["x" * 100] * 10_000),
    lambda: files.create_exclusively(path.with_name("other"), "x" * 1_000_000),
):
    try:
        write()
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        sys.exit("there was room")
print(path.read_text(), os.listdir(path.parent))
"""


def _socket(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(os.fspath(path))


def test_text_and_json_come_back(tmp_path):
    path = tmp_path / "é a.json"
    value = {"wörd": [1, 0.1 + 0.2, None, True], "日": "\u2028\n\t\\"}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert files.read_json(tmp_path / "none.json") is None
    files.write_text(path, "é\r\n\n")
    assert path.read_bytes() == "é\r\n\n".encode()
    with files.replacing(path, binary=True) as file:
        file.write(b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b'{"a": 1}}', b"\xff\xfe", b"null", b'"\\ud800"']
)
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"result\.json: damaged, restore or remove it"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder"), (_socket, "a socket")]
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_what_is_no_plain_file_is_named_and_nobody_waits_for_it(tmp_path, make, kind, flags):
    path = tmp_path / "trial.log"
    make(path)
    with pytest.raises(InputError, match=f"trial.log: is {kind} made by .*, not a file: remove it"):
        files.open_plain(path, flags)


def test_a_json_file_of_a_size_that_is_never_written_is_not_read(tmp_path):
    path = tmp_path / "result.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"damaged.*: 1099511627776 bytes are more than"):
        files.read_json(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_no_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "result.json"
    files.write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        files.write_json(path, [value])
    assert files.read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "best.cfg"
    files.write_text(path, "old")
    with pytest.raises(error), files.replacing(path) as file:
        file.write("new")
        file.flush()
        assert len(list(tmp_path.iterdir())) == 2
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "none" / "a", "x")


def test_readers_never_see_a_part(tmp_path):
    path, over = tmp_path / "state.json", tmp_path / "over"
    files.write_json(path, [0])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(over)], stdout=subprocess.PIPE, text=True
    )
    seen = [set(), set()]

    def read(own):
        while len(own) < 30 and not over.exists():
            value = files.read_json(path)
            assert value == [value[0]] * (1 + 5000 * (value[0] % 2))
            own.add(value[0])

    readers = [threading.Thread(target=read, args=(own,)) for own in seen]
    for reader in readers:
        reader.start()
    try:
        wait_for(
            lambda: not any(reader.is_alive() for reader in readers),
            while_=lambda: writer.poll() is None,
        )
        over.touch()
        last, _ = writer.communicate(timeout=PATIENCE_SECONDS)
    finally:
        over.touch()
        writer.kill()
        for reader in readers:
            reader.join()  # an assertion that fails in a thread is a warning, so an error
    assert [len(own) for own in seen] == [30, 30]
    assert files.read_json(path)[0] == int(last)


def test_of_many_creators_one_wins(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CREATORS, str(tmp_path), "10"],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"] * 10
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(10)))


def test_creating_what_exists_changes_nothing(tmp_path):
    path = tmp_path / "0001"
    assert files.create_exclusively(path, "first")
    assert not files.create_exclusively(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_umask_decides_who_may_read(tmp_path):
    old = os.umask(0o002)
    try:
        files.write_text(tmp_path / "a", "x")
        files.create_exclusively(tmp_path / "b", "x")
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o664}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    if os.getuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c",
         'mount -t tmpfs -o size=64k none "$0" && exec "$@"',
         str(tmp_path), sys.executable, "-c", DISK_FULL, str(tmp_path)],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["{", '"value":', "0.5", "}", "['result.json']"]


@dataclasses.dataclass
class Inner:
    GONE: ClassVar = ("mtime_ns",)
    ends: tuple[float, float]


@dataclasses.dataclass
class Outer:
    GONE: ClassVar = ("setting",)
    inner: Inner
    more: tuple[Inner, ...] = ()
    rates: Mapping[int, float] = dataclasses.field(default_factory=dict)
    lists: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    maybe: Inner | None = None


def test_a_content_of_another_shape_is_named(tmp_path):
    @dataclasses.dataclass
    class Kept:
        number: int
        parts: tuple[float, ...] = ()

    assert files.fitted(Kept, {"number": 1, "parts": (1, 2.5)}) == Kept(1, (1, 2.5))
    wrong = [{"number": "1"}, {"number": True}, {"number": 10**400}, {"number": 1, "other": 1}]
    for content in (*wrong, {"number": 1, "parts": ("x",)}, {}, None, [], 1):
        with (
            pytest.raises(InputError, match=r"kept\.json: damaged, restore or remove it: ."),
            files.shaped(tmp_path / "kept.json"),
        ):
            files.fitted(Kept, content)


def test_what_is_nested_is_made_too():
    found = files.fitted(
        Outer,
        {
            "inner": {"ends": [1, 2.5], "mtime_ns": 7},
            "more": [{"ends": [0, 1]}],
            "rates": {"3": 0.5},
            "lists": {"dev": [1, 2, 3]},
            "maybe": {"ends": [2, 3]},
            "setting": {},
        },
    )
    assert found == Outer(
        inner=Inner((1, 2.5)),
        more=(Inner((0, 1)),),
        rates={3: 0.5},
        lists={"dev": (1, 2, 3)},
        maybe=Inner((2, 3)),
    )
    assert files.fitted(Outer, {"inner": {"ends": [1, 2]}, "maybe": None}).maybe is None
    for wrong in ({"ends": [1]}, {"ends": [1, 2, 3]}, {"ends": "12"}, {"ends": [1, 2], "x": 1}, []):
        for name in ("inner", "maybe"):
            with pytest.raises((ValueError, TypeError)):
                files.fitted(Outer, {"inner": {"ends": [1, 2]}, name: wrong})


def test_what_the_disk_fails_at_is_no_damage(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error"), FileNotFoundError(2, "gone")):
        with pytest.raises(type(error)), files.shaped(tmp_path / "x"):
            raise error
