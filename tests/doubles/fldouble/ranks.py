"""Ranks of a distributed training: they meet through files and keep in step.

Each rank owns a file ``rank<k>`` in the rendezvous directory. It holds the number of the rank's
last update, and the rank keeps it locked, so that its death shows at once by the open lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Protocol

from fldouble.flags import Flags
from fldouble.log import CppError

POLL_SECONDS = 0.002


class Ranks(Protocol):
    """The ranks as one of them sees them."""

    rank: int
    size: int

    def finish_update(self, update: int) -> None:
        """Return when every rank has finished that update."""


class Alone:
    """Rank 0 of 1."""

    rank = 0
    size = 1

    def finish_update(self, update: int) -> None:
        """Wait for nobody."""


class MpiWithGloo:
    """What mpirun makes of a build for CPUs: the first exchange of gradients fails."""

    def __init__(self) -> None:
        self.rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
        self.size = int(os.environ["OMPI_COMM_WORLD_SIZE"])

    def finish_update(self, update: int) -> None:
        """Fail."""
        text = "contiguous allReduceMultiple is not yet supported for Gloo backend"
        raise CppError("std::runtime_error", text)


class FileRanks:
    """Ranks that met in a rendezvous directory.

    Args:
        rank: From 0.
        size: How many there are; the constructor returns when all are there.
        folder: The rendezvous directory.
    """

    def __init__(self, rank: int, size: int, folder: Path) -> None:
        self.rank = rank
        self.size = size
        self._own = _join(folder / f"rank{rank}")
        self._peers = [_meet(folder / f"rank{peer}") for peer in range(size) if peer != rank]

    def finish_update(self, update: int) -> None:
        """Return when every rank has finished that update.

        Raises:
            CppError: A rank died before it had.
        """
        os.pwrite(self._own, struct.pack("<q", update), 0)
        for peer in self._peers:
            while _updates_of(peer) < update:
                if _is_dead(peer) and _updates_of(peer) < update:
                    _give_up()
                time.sleep(POLL_SECONDS)


def join_ranks(flags: Flags) -> Ranks:
    """Meet the other ranks as the flags say, and report the own place on stdout.

    Raises:
        CppError: The rendezvous directory was used before, or the device is not to be had.
    """
    if not flags["enable_distributed"]:
        return Alone()
    if not flags["rndv_filepath"]:
        alone = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) == 1
        ranks: Ranks = Alone() if alone else MpiWithGloo()
        _say("Initialized Gloo successfully!", ranks)
        return ranks
    rank, size = flags["world_rank"], flags["world_size"]
    device = rank % flags["max_devices_per_node"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "" if visible is None else visible
    print(f"rank {rank} of {size} on device {device}, CUDA_VISIBLE_DEVICES={shown}", flush=True)
    if visible is not None and device >= len([name for name in visible.split(",") if name]):
        raise CppError("std::runtime_error", "CUDA error: invalid device ordinal")
    ranks = FileRanks(rank, size, Path(flags["rndv_filepath"]))
    _say("Initialized NCCL 2.8.4 successfully!", ranks)
    return ranks


def _say(text: str, ranks: Ranks) -> None:
    if ranks.rank == 0:
        print(text, flush=True)


def _join(path: Path) -> int:
    """Create the own file, locked from its first moment on."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise CppError("std::runtime_error", f"{error.strerror}: {path}") from None
    fcntl.flock(file, fcntl.LOCK_EX)
    os.pwrite(file, struct.pack("<q", 0), 0)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise CppError("std::runtime_error", f"file already exists: {path}") from None
    finally:
        temporary.unlink()
    return file


def _meet(path: Path) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY)
        time.sleep(POLL_SECONDS)


def _updates_of(peer: int) -> int:
    (updates,) = struct.unpack("<q", os.pread(peer, 8, 0))
    return int(updates)


def _is_dead(peer: int) -> bool:
    try:
        fcntl.flock(peer, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(peer, fcntl.LOCK_UN)
    return True


def _give_up() -> None:
    """What the others do when a rank died."""
    while os.environ.get("DOUBLE_PEER_HANG") == "1":
        time.sleep(1)
    time.sleep(float(os.environ.get("DOUBLE_PEER_SECONDS", "0.5")))
    raise CppError("std::runtime_error", "NCCL error: unhandled system error")
