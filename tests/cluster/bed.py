"""A real SLURM cluster on this machine, for a test: four nodes, a login node, two users.

Everything lives in namespaces of its own (``bedinside.py``) and is gone with the process that
started it, killed or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from bedfiles import INSIDE, NODES, REPOSITORY, Settings, plan
from bednode import Node
from bedusers import login_environment, make_homes
from waiting import PATIENCE_SECONDS, wait_for

_OF_NODE = ("--mount", "--uts", "--ipc", "--pid")
_NAMESPACES = (*_OF_NODE, "--net")
_FORK = ("--fork", "--mount-proc", "--kill-child")
_LOOK_SECONDS = 0.3
"""A look is a command of SLURM, and work for its controller."""

_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
"""A job that is requeued is never shown so."""

_INSIDE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("bedinside.py")))


@contextlib.contextmanager
def slurm_cluster(base: Path, settings: Settings | None = None) -> Iterator[Cluster]:
    """Start a cluster; it is idle when the block begins and gone when it ends.

    Args:
        base: An empty folder of this machine for logs, homes and the shared folder.
        settings: What is not as usual.
    """
    cluster = Cluster(base, settings or Settings())
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Cluster:
    """A running cluster.

    Attributes:
        folder: A folder for runs and logs, at the same path on all nodes, the login node, and this
            machine; all users may write there.
        logs: What the daemons say.
        settings: As it was started.
    """

    def __init__(self, base: Path, settings: Settings) -> None:
        self.settings = settings
        self.folder = base / "shared"
        self.logs = base / "logs"
        self._base = base
        self._homes = base / "homes"
        self._outer: subprocess.Popen[str] | None = None
        self._init_pid = 0
        self._nodes: dict[int, Node] = {}

    def start(self) -> None:
        """Start the controller and all nodes; return when they are idle."""
        self._make_folders()
        with (self.logs / "login.log").open("wb") as log:
            self._outer = subprocess.Popen(
                ["unshare", *_NAMESPACES, *_FORK, *_INSIDE, "cluster"],
                stdin=subprocess.PIPE,  # its end, with us, ends the cluster
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment("root"),
                start_new_session=True,
            )
        assert self._outer.stdin and self._outer.stdout
        self._outer.stdin.write(json.dumps(plan(self._base, self.logs, self.settings)) + "\n")
        self._outer.stdin.flush()
        if self._outer.stdout.readline() != "ready\n":
            raise RuntimeError(f"the cluster does not start:\n{self._tails()}")
        (self._init_pid,) = (child.pid for child in psutil.Process(self._outer.pid).children())
        for n in range(1, NODES + 1):
            self._launch(n)
        self._wait_until_idle()

    def stop(self) -> None:
        """End everything."""
        if self._outer is None:
            return
        with self._outer:  # closes the pipes, waits
            pass
        for node in self._nodes.values():
            node.kill()
        self._outer = None
        self._nodes.clear()

    def run(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        user: str | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = PATIENCE_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node.

        Args:
            arguments: Program and arguments.
            user: ``alice`` or ``bob``; else root.
            cwd: Working folder; ``folder`` if not given.
            environment: Variables on top of those of the user's login.
            timeout: In seconds. Then the command is killed, and ``TimeoutExpired`` is raised.

        Returns:
            Exit code, and what it wrote, as text. A failure is not an error.
        """
        name = user or "root"
        become = ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups"]
        command = ["env", f"--chdir={cwd or self.folder}", *[os.fspath(part) for part in arguments]]
        with subprocess.Popen(
            [*self._enter(), *become, *command],
            env=self._environment(name) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            umask=0o022,  # of a login, whatever a test has set
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def job(self, job_id: int | str) -> dict[str, str]:
        """Return what ``scontrol show job`` says, by SLURM's own names (JobState, Restarts, …).

        Raises:
            LookupError: SLURM does not know the job (any more).
        """
        return self._show("job", str(job_id))

    def node(self, n: int) -> dict[str, str]:
        """Return what ``scontrol show node`` says, by SLURM's own names (State, Reason, …)."""
        return self._show("node", f"n{n}")

    def wait(
        self,
        job_id: int | str,
        states: str | Collection[str],
        *,
        restarts: int = 0,
    ) -> dict[str, str]:
        """Wait until a job is in one of the states, and return what SLURM says of it.

        Args:
            job_id: The job.
            states: As ``COMPLETED``, or several. Where the job has ended otherwise, or is the same
                for too long, the test fails with what SLURM says of it, and its output.
            restarts: How often it must have been restarted at least.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        shown = self.job(job_id)

        def look() -> tuple[str, str]:
            shown.update(self.job(job_id))
            return shown["JobState"], shown["Restarts"]

        def output() -> str:
            return f"job {job_id}, not {wanted}: {shown}\n{_tail(Path(shown.get('StdOut', '/')))}"

        while True:
            state, times = before = look()
            if state in wanted and int(times) >= restarts:
                return shown
            assert state not in _FINAL, output()
            wait_for(lambda: look() != before, shown=output, look_seconds=_LOOK_SECONDS)  # noqa: B023

    def processes(self, n: int) -> list[str]:
        """Return the command lines of all processes on a node; [] when it is off."""
        return self._nodes[n].processes() if n in self._nodes else []

    def root(self, n: int) -> Path:
        """Return where this machine sees the file system of a node that is up."""
        return self._nodes[n].root()

    def kill_node(self, n: int) -> None:
        """Cut the power of a node."""
        self._nodes.pop(n).kill()

    def start_node(self, n: int) -> None:
        """Start a node that was killed; SLURM notices within seconds."""
        if n in self._nodes:
            raise ValueError(f"n{n} runs")
        self._launch(n)

    def freeze_node(self, n: int) -> None:
        """Stop every process of a node: it keeps its connections and says nothing."""
        self._nodes[n].freeze()

    def thaw_node(self, n: int) -> None:
        """Let a frozen node go on."""
        self._nodes[n].thaw()

    def reset(self) -> None:
        """Cancel all jobs and bring all nodes back, for the next test."""
        for n in range(1, NODES + 1):
            if n in self._nodes and self._nodes[n].alive():
                self.thaw_node(n)
            else:
                self._launch(n)
        wait_for(self._empty, shown=lambda: self._say("squeue"), look_seconds=0.1)
        self._wait_until_idle()

    def _empty(self) -> bool:
        jobs = self._say("squeue", "--noheader", "--format=%A").split()
        if jobs:
            self._say("scancel", *jobs)
        return not jobs

    def _all_idle(self) -> bool:
        lines = self._say("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        states = dict(line.split() for line in lines)
        down = [name for name, state in states.items() if state.strip("*") in ("down", "drained")]
        if down:
            self._say("scontrol", "update", f"nodename={','.join(down)}", "state=resume")
        return list(states.values()) == ["idle"] * NODES

    def _say(self, *arguments: str) -> str:
        """Return the output of a SLURM command, "" where it fails; the controller may not be up."""
        return self.run(arguments).stdout

    def _show(self, kind: str, name: str) -> dict[str, str]:
        shown = self.run(["scontrol", "show", kind, name, "--oneliner"])
        if shown.returncode:
            raise LookupError(f"{kind} {name}: {shown.stderr.strip()}")
        first = shown.stdout.splitlines()[0]
        return dict(re.findall(r"([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)", first))

    def _wait_until_idle(self) -> None:
        wait_for(self._all_idle, shown=lambda: self._say("sinfo", "-N"), look_seconds=0.1)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._init_pid}", *_NAMESPACES]

    def _launch(self, n: int) -> None:
        namespace = ["nsenter", f"--net=/run/netns/n{n}", "unshare", *_OF_NODE, *_FORK]
        command = [*self._enter(), *namespace, *_INSIDE, "node", f"n{n}"]
        self._nodes[n] = Node(command, self._environment("root"), self.logs / f"n{n}.log")

    def _make_folders(self) -> None:
        self._base.chmod(0o755)
        self.logs.mkdir()
        self.folder.mkdir()
        self.folder.chmod(0o1777)
        make_homes(self._homes)

    def _environment(self, user: str) -> dict[str, str]:
        return login_environment(user, self._homes) | {
            "SLURM_CONF": str(INSIDE / "slurm.conf"),
            "PYTHONPATH": str(REPOSITORY),  # w2ltune as it is there, in any folder
            # Else each node starts a worker for each core as soon as there is a driver.
            "RAY_prestart_worker_first_driver": "0",
            "W2LTUNE_DASHBOARD": "0",  # but where it is looked at
        }

    def _tails(self) -> str:
        return "\n".join(f"{log.name}:\n{_tail(log)}" for log in sorted(self.logs.iterdir()))


def _tail(path: Path) -> str:
    """Return the last lines of a file; "" where there is none."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
    return ""
