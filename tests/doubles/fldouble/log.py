"""Log lines as glog writes them, and the ways to die."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from pathlib import Path
from typing import NoReturn

from fldouble.flags import Flags

SEVERITIES = ("INFO", "WARNING", "ERROR", "FATAL")
START = time.time()
CHECK_FRAMES = (
    "*** Check failure stack trace: ***\n"
    "    @     0x7f0000001000  google::LogMessage::Fail()\n"
    "    @     0x7f0000002000  google::LogMessageFatal::~LogMessageFatal()\n"
    "    @     0x550000003000  main\n"
    "    @     0x550000004000  _start\n"
)
SIGNAL_FRAMES = (
    "    @     0x7f0000001000 (unknown)\n"
    "    @     0x7f0000002000 (unknown)\n"
    "    @     0x550000003000 main\n"
    "    @     0x550000004000 _start\n"
)


class CppError(Exception):
    """An exception that nobody catches: it ends in SIGABRT.

    Args:
        kind: Its C++ type.
        what: Its text.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class Log:
    """Writes log lines to where the flags say at that moment.

    Args:
        flags: --logtostderr, --alsologtostderr, --stderrthreshold, --minloglevel, --log_dir.
        source: The C++ file that speaks, as in ``Train.cpp``.
        short_stamp: Without the year, as glog up to 0.5 has it.
    """

    def __init__(self, flags: Flags, source: str, *, short_stamp: bool) -> None:
        self.flags = flags
        self.source = source
        self.stamp = "%m%d %H:%M:%S" if short_stamp else "%Y%m%d %H:%M:%S"
        self.is_master = True

    def info(self, line: int, text: str) -> None:
        """Log for every rank."""
        self._write("INFO", line, text)

    def master(self, line: int, text: str) -> None:
        """Log for rank 0 only."""
        if self.is_master:
            self._write("INFO", line, text)

    def fatal(self, line: int, text: str) -> NoReturn:
        """Log and die of SIGABRT."""
        self._write("FATAL", line, text)
        to_stderr(CHECK_FRAMES)
        die(signal.SIGABRT)

    def _write(self, severity: str, line: int, text: str) -> None:
        level = SEVERITIES.index(severity)
        if level < self.flags["minloglevel"]:
            return
        stamp = _stamp(self.stamp)
        record = f"{severity[0]}{stamp} {os.getpid():5d} {self.source}:{line}] {text}\n"
        if self.flags["logtostderr"]:
            to_stderr(record)
            return
        if self.flags["alsologtostderr"] or level >= self.flags["stderrthreshold"]:
            to_stderr(record)
        folder = self.flags["log_dir"] or os.environ.get("TMPDIR")
        if folder:
            for name in SEVERITIES[: level + 1]:
                self._append(Path(folder), name, record)

    def _append(self, folder: Path, severity: str, record: str) -> None:
        import socket  # here, since few runs need it

        program = Path(self.flags.program).name
        link = folder / f"{program}.{severity}"
        user = os.environ.get("USER", "invalid-user")
        start = time.strftime("%Y%m%d-%H%M%S", time.localtime(START))
        name = f"{program}.{socket.gethostname()}.{user}.log.{severity}.{start}.{os.getpid()}"
        with contextlib.suppress(OSError):
            is_new = not (folder / name).exists()
            with (folder / name).open("a", encoding="utf-8") as file:
                if is_new:
                    created = time.strftime("%Y/%m/%d %H:%M:%S")
                    file.write(f"Log file created at: {created}\n")
                file.write(record)
            if is_new:
                link.unlink(missing_ok=True)
                link.symlink_to(name)


def serializer_error(line: int, text: str) -> None:
    """Complain as flashlight's own logger does: always on stderr, in red, with an empty line."""
    thread = zlib.crc32(str(os.getpid()).encode()) % 100000
    stamp = _stamp("%m%d %H:%M:%S")
    to_stderr(f"\x1b[0;31mE{stamp} {thread:05d} Serializer.h:{line} \x1b[0m{text}\n\n")


def to_stderr(text: str) -> None:
    """Write all of ``text`` at once."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "surrogateescape"))


def die_uncaught(error: CppError) -> NoReturn:
    """Die as a C++ program does of an exception that nobody caught."""
    what = f"  what():  {error}\n"
    to_stderr(f"terminate called after throwing an instance of '{error.kind}'\n{what}")
    die_with_trace(signal.SIGABRT)


def die_with_trace(number: int) -> NoReturn:
    """Print glog's block for a deadly signal, then die of that signal."""
    now, pid, name = int(time.time()), os.getpid(), signal.Signals(number).name
    sender = os.getppid() if number == signal.SIGTERM else pid
    to_stderr(
        f"*** Aborted at {now} (unix time) "
        f'try "date -d @{now}" if you are using GNU date ***\n'
        "PC: @                0x0 (unknown)\n"
        f"*** {name} (@0x{sender:x}) received by PID {pid} (TID 0x7f0000000fc0) "
        f"from PID {sender}; stack trace: ***\n{SIGNAL_FRAMES}"
    )
    die(number)


def die(number: int) -> NoReturn:
    """Die of a signal, with nothing saved."""
    import resource  # here, since few runs need it

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL)
    if number == signal.SIGABRT:
        os.abort()
    os.kill(os.getpid(), number)
    while True:  # until the signal is delivered
        time.sleep(1)


def set_signals() -> None:
    """Treat signals as the binary does: only SIGTERM is answered, by its trace and its death."""
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        # Python's own answers, where it gave one; what was inherited as ignored stays so.
        if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if os.environ.get("DOUBLE_IGNORE_TERM") == "1":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: die_with_trace(number))


def _stamp(form: str) -> str:
    now = time.time()
    return f"{time.strftime(form, time.localtime(now))}.{int(now * 1e6) % 1000000:06d}"
