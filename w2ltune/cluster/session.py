"""The connection to Ray: the running cluster of a SLURM job, or a private one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2ltune.cluster.guard import guarded
from w2ltune.cluster.scratch import in_use, make_scratch
from w2ltune.cluster.watch import answers, watched
from w2ltune.errors import StoppedError, W2LTuneError

LOCAL_NODE_WAIT_MINUTES = 0.1

DASHBOARD_VARIABLE = "W2LTUNE_DASHBOARD"
"""0 in it starts a local Ray without a dashboard, which takes a third of the start."""

_live: list[Session] = []
"""This process's session, while there is one."""

_LOCAL_ENVIRONMENT = {
    # Everything of a local cluster listens on loopback only, its metrics pages too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # our own table is shown instead
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Without its GCS Ray ends the process after so long, with exit code 1: `watched` comes first.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
}


@dataclass(frozen=True, kw_only=True)
class Session:
    """A live connection to Ray.

    Attributes:
        dashboard: Address of the web dashboard, or "".
        token_file: The file whose content the dashboard asks for, or None.
        scratch: A private node-local folder that is deleted at the end.
        local: Whether the cluster was started by this process.
        cores: The processors of the cluster at the start.
    """

    dashboard: str
    token_file: Path | None
    scratch: Path
    local: bool
    cores: int

    def lives(self) -> bool:
        """Return whether a local cluster's own processes are alive; True for any other."""
        if not self.local:
            return True
        import ray._private.worker

        node = ray._private.worker._global_node  # GCS itself needs half a minute to notice
        if node is None:
            return False
        processes = dict(node.all_processes)  # of which a shutdown meanwhile takes some out
        own = [*processes.get("raylet", ()), *processes.get("gcs_server", ())]
        return all(entry.process.poll() is None for entry in own)

    def node_wait_minutes(self, wanted: float) -> float:
        """Return how long to wait for a node; the one of a local cluster never comes back."""
        return min(wanted, LOCAL_NODE_WAIT_MINUTES) if self.local else wanted


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, cut by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


@contextlib.contextmanager
def connect(job_name: str, *, cores: int | None = None) -> Iterator[Session]:
    """Connect to the cluster in ``RAY_ADDRESS``, else start one on this machine.

    Within such a block the connection is the one that there is: Ray keeps the token of a process's
    first cluster. A local cluster listens on loopback only, asks for a token in a file that only
    this user can read, lives in a private temporary folder, and is gone at the end.

    Args:
        job_name: What the dashboard shows.
        cores: Cores of a local cluster; None takes all that this process may use.

    Yields:
        The session.

    Raises:
        W2LTuneError: Ray cannot be reached or started.
    """
    if _live:
        yield _live[-1]
        return
    address = os.environ.get("RAY_ADDRESS")
    scratch = make_scratch()
    with contextlib.ExitStack() as stack:
        for folder in {
            scratch,
            Path(tempfile.gettempdir(), scratch.name),
        }:  # workers have the other
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(in_use(scratch))
        os.environ |= _ENVIRONMENT
        token = os.environ.get("RAY_AUTH_TOKEN_PATH")
        if not address:
            stack.enter_context(guarded(scratch))
            token = str(_write_token(scratch))
            os.environ |= _LOCAL_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": token}
        with _own_handler():
            ray = _init(job_name, address, cores, scratch)
        gcs = str(ray.get_runtime_context().gcs_address)
        session = Session(
            dashboard=ray.worker.get_dashboard_url() or "",
            token_file=Path(token) if token else None,
            scratch=scratch,
            local=not address,
            cores=int(ray.cluster_resources().get("CPU", 0)),
        )
        # Left last: without a GCS the shutdown may hang as well.
        stack.enter_context(watched(lambda: session.lives() and (not address or answers(gcs))))
        stack.callback(_shutdown, ray)
        _live.append(session)
        stack.callback(_live.remove, session)
        yield session


def require_ray() -> None:
    """Raise an error where a failure is none of the work's own, because Ray itself is lost.

    Raises:
        StoppedError: The local cluster of this process is dead; the same command continues.
    """
    if _live and not _live[-1].lives():
        raise StoppedError("Ray is lost; what was finished is kept, the same command continues")


def _init(job_name: str, address: str | None, cores: int | None, scratch: Path) -> Any:
    import ray
    import ray._private.worker
    from ray.job_config import JobConfig

    common: dict[str, Any] = {
        "namespace": scratch.name,  # so that no command meets another one's actors
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "job_config": JobConfig(metadata={"job_name": job_name}),
    }
    if address:
        _require_listening(address)
    try:
        if address:
            ray.init(address=address, **common)
        else:
            _start(ray, cores or usable_cores(), scratch, common)
    except Exception as error:
        where = f"connect to Ray at {address}" if address else "start Ray on this machine"
        reason = " ".join(str(error).split())[:300]
        raise W2LTuneError(f"cannot {where}: {reason}") from error
    return ray


def _start(ray: Any, cores: int, scratch: Path, common: dict[str, Any]) -> None:
    """Start a local cluster; Ray allows 30 s for it, too few on a very busy machine: twice."""
    for folder in ("r", "r2"):
        try:
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=os.environ.get(DASHBOARD_VARIABLE) != "0",
                dashboard_host="127.0.0.1",
                object_store_memory=256 * 2**20,
                _temp_dir=str(scratch / folder),
                **common,
            )
            return
        except Exception as error:
            if folder == "r2" or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray sets its own at the start, and the default at the end.

    A HUP waits meanwhile, and Ray's processes, which inherit that, are not ended by it: the end of
    a terminal goes to them too, and without them nothing is stopped in order.
    """
    own = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, own)


def _shutdown(ray: Any) -> None:
    with _own_handler():
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Refuse the address of a cluster that is gone: Ray would end this process without a word."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or a form that Ray will judge
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise W2LTuneError(
            f"cannot connect to Ray at {address} (RAY_ADDRESS): {error.strerror or error}; "
            "without RAY_ADDRESS one is started on this machine"
        ) from None


def _write_token(scratch: Path) -> Path:
    path = scratch / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return path
