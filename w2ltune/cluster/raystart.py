"""The start of a Ray on this machine, however busy that is.

``python -m w2ltune.cluster.raystart start ...`` is Ray's own ``ray start`` with that patience.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from w2ltune.errors import StoppedError, W2LTuneError

START_SECONDS = 300.0
"""So long each of a local Ray's own processes may take to be there while it lives."""

STARTS = ("r", "r2")
"""Folders of a local Ray's starts: each begins in a fresh one."""

AGENT_PORTS = (
    *("metrics_agent_port", "metrics_export_port"),
    *("dashboard_agent_listen_port", "runtime_env_agent_port"),
)
LAST_LINES = 2
_ERROR = re.compile("error|fail|cannot|unable", re.IGNORECASE)

DASHBOARD_VARIABLE = "W2LTUNE_DASHBOARD"
"""0 in it starts a local Ray without a dashboard, which takes a third of the start."""


def failure(what: str, error: Exception, said: str = "") -> W2LTuneError:
    """Return the error that tells what Ray gave as its reason, and whether it may go better."""
    reason = " ".join(f"{error}{said}".split())[:2000]
    if re.search(r"timed out|deadline exceeded|not ready in", reason, re.IGNORECASE):
        return StoppedError(
            f"{what}: {reason}; on a machine that is less busy, or with "
            f"{DASHBOARD_VARIABLE}=0, the same command may go on"
        )
    return W2LTuneError(f"{what}: {reason}")


def start_ray(ray: Any, cores: int, scratch: Path, common: dict[str, Any]) -> None:
    """Start a local cluster; where that fails, once more.

    Raises:
        W2LTuneError: With the reason of Ray, and what those of its processes that ended said last.
    """
    wanted = os.environ.get(DASHBOARD_VARIABLE) != "0"
    for folder in STARTS:
        with _patience() as processes:
            try:
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=None if wanted else False,  # True would end all without it
                    dashboard_host="127.0.0.1",
                    object_store_memory=256 * 2**20,
                    _temp_dir=str(scratch / folder),
                    **common | {"logging_level": logging.CRITICAL},
                )
                break
            except Exception as error:
                ended = [name for name, process in processes.items() if process.poll() is not None]
                said = "".join(_last_words(scratch / folder, name) for name in ended)
                ray.shutdown()
                for process in processes.values():
                    process.kill()
                    process.wait()
                if folder == STARTS[-1]:
                    raise failure("cannot start Ray on this machine", error, said) from error
    logging.getLogger("ray").setLevel(common["logging_level"])
    if wanted and not ray.worker.get_dashboard_url():
        said = _last_words(scratch / folder, "dashboard")
        print(f"w2ltune: Ray's dashboard did not start: going on without it{said}", file=sys.stderr)


def start_node() -> None:
    """Run Ray's own command line as patiently: what slurm/functions.bash does on each node."""
    from ray.scripts.scripts import cli

    with _patience() as processes:
        try:
            cli(prog_name="ray")
        except W2LTuneError as error:
            print(f"cannot start Ray on {socket.gethostname()}: {error}", file=sys.stderr)
            for process in processes.values():
                process.kill()
            os._exit(1)  # Ray would ask what is gone for a minute whether it may end


@contextlib.contextmanager
def _patience() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Let Ray wait for its own processes as long as they live; by itself it gives up after 30 s.

    Yields:
        The processes that it starts, by Ray's names for them.
    """
    from ray._private import node, services
    from ray._raylet import persist_port as persist  # type: ignore[attr-defined]

    processes: dict[str, subprocess.Popen[bytes]] = {}

    def noting(start: Callable[..., Any]) -> Callable[..., Any]:
        def start_process(command: Any, process_type: str, *more: Any, **named: Any) -> Any:
            info = start(command, process_type, *more, **named)
            processes[process_type] = info.process
            return info

        return start_process

    def patient(ask: Callable[..., Any]) -> Callable[..., Any]:
        def ask_until_there(*given: Any, **named: Any) -> Any:
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    return ask(*given, **named)
                except Exception as error:
                    for name in {"gcs_server", "raylet"} & processes.keys():
                        if (code := processes[name].poll()) is not None:
                            raise W2LTuneError(f"its {name} ended with code {code}") from error
                    if time.monotonic() > end:
                        late = f"its {[*processes][-1]} was not ready in {START_SECONDS:g} seconds"
                        raise W2LTuneError(late) from error
                time.sleep(0.1)

        return ask_until_there

    def with_ports(start: Callable[..., Any]) -> Callable[..., Any]:
        def start_raylet(self: Any, *given: Any, **named: Any) -> Any:
            """Its raylet would end after 30 s without the ports that its agents choose."""
            with contextlib.ExitStack() as held:
                for name in AGENT_PORTS:
                    own = held.enter_context(socket.socket())
                    own.bind(("", 0))
                    port = own.getsockname()[1]
                    setattr(self._ray_params, name, port)
                    persist(self._session_dir, self._node_id, name, port)
            return start(self, *given, **named)

        return start_raylet

    def lean(start: Callable[..., Any]) -> Callable[..., Any]:
        def start_node(self: Any, ray_params: Any, *given: Any, **named: Any) -> None:
            """Nobody asks its autoscaler's monitor; nobody listens to its monitor of logs."""
            ray_params.no_monitor, ray_params.include_log_monitor = True, False
            start(self, ray_params, *given, **named)

        return start_node

    with contextlib.ExitStack() as stack:
        for module, name, wrapped in (
            (node.Node, "__init__", lean),
            (node.Node, "start_raylet", with_ports),
            (services, "start_ray_process", noting),
            (services, "get_node", patient),
            (node, "wait_for_persisted_port", patient),
        ):
            own = getattr(module, name)
            stack.callback(setattr, module, name, own)
            setattr(module, name, wrapped(own))
        yield processes


def _last_words(folder: Path, process: str) -> str:
    """Return the errors that a process of Ray wrote last into its logs, before they are removed."""
    said: list[str] = []
    for path in sorted(folder.glob(f"session_2*/logs/{process}*.[elo]*")):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            said += [line.strip() for line in lines if _ERROR.search(line)][-LAST_LINES:]
    return f"; {process} said last: {' / '.join(dict.fromkeys(said))}" if said else ""


if __name__ == "__main__":
    start_node()
