"""The connection to Ray: the running cluster of a SLURM job, or a private one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2ltune import __version__
from w2ltune.cluster.guard import guarded
from w2ltune.cluster.raystart import START_SECONDS, failure, start_ray
from w2ltune.cluster.scratch import in_use, make_scratch
from w2ltune.cluster.watch import answers, watched
from w2ltune.errors import StoppedError, UsageError, W2LTuneError

LOCAL_NODE_WAIT_MINUTES = 0.1

NODE_SECONDS = 120.0
"""So long a node of somebody's cluster may take to run something of ours."""

_live: list[Session] = []
"""This process's session, while there is one."""

_LOCAL_ENVIRONMENT = {
    # Everything of a local cluster listens on loopback only, its metrics pages too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    # How long its raylet waits for its agents, after which it ends.
    "RAY_agent_register_timeout_ms": f"{START_SECONDS * 1000:.0f}",
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

    def dashboard_line(self) -> str:
        """Return where the dashboard is and its token, or ""."""
        token = f" (token in {self.token_file})" if self.token_file else ""
        return f"Ray dashboard: http://{self.dashboard}{token}" if self.dashboard else ""

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
        W2LTuneError: Ray cannot be reached or started, or a node of it cannot run what is ours.
    """
    if _live:
        yield _live[-1]
        return
    address = os.environ.get("RAY_ADDRESS")
    scratch = make_scratch()
    with contextlib.ExitStack() as stack:
        for folder in {scratch, Path(tempfile.gettempdir(), scratch.name)}:  # the workers' own
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
        if address:
            _require_our_code(ray)
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
    if not address:
        start_ray(ray, cores or usable_cores(), scratch, common)
        return ray
    _require_listening(address)
    try:
        ray.init(address=address, **common)
    except Exception as error:
        raise failure(f"cannot connect to Ray at {address}", error) from error
    return ray


def _require_our_code(ray: Any) -> None:
    """Refuse a cluster with a node that starts nothing, or lacks w2ltune in this version."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    def look() -> tuple[str, str]:  # goes there as it is, and nothing of ours with it
        import importlib

        try:
            version = importlib.import_module("w2ltune").__version__
            importlib.import_module("w2ltune.trials.worker")
        except Exception as error:
            version = f"no w2ltune that can be imported ({type(error).__name__}: {error})"
        return sys.executable, version

    nodes = {
        ray.remote(look)
        .options(num_cpus=0, scheduling_strategy=OnNode(entry["NodeID"], soft=False))
        .remote(): entry["NodeManagerHostname"]
        for entry in ray.nodes()
        if entry["Alive"]
    }
    done, late = ray.wait([*nodes], num_returns=len(nodes), timeout=NODE_SECONDS)
    for answer in done:
        with contextlib.suppress(ray.exceptions.RayError):  # a node that went is not waited for
            program, version = ray.get(answer)
            if version != __version__:
                raise UsageError(
                    f"node {nodes[answer]} of Ray (RAY_ADDRESS): {program} has {version}, this "
                    f"command is w2ltune {__version__}: install that there, or start Ray there "
                    "from the environment of this command"
                )
    if late:
        names = ", ".join(sorted(nodes[answer] for answer in late))
        raise StoppedError(
            f"nothing starts on node {names} of Ray (RAY_ADDRESS), not in {NODE_SECONDS:g} "
            "seconds: look there, or take the node out"
        )


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray sets its own at the start, and the default at the end."""
    # Ray's processes inherit that HUP waits: without them nothing is stopped in order.
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
