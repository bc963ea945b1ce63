"""The programs that are process 1 of the cluster, and of each of its nodes.

They run in namespaces that ``unshare`` made (``bed.py`` calls it), with nothing but the standard
library. The kernel ends everything in a process namespace with its process 1, and mounts and
interfaces go with their namespaces: so there is nothing to clean up, whoever dies.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

STAGE = Path("/run/shared")
"""Where the shared folders stay reachable while file systems are mounted over their ways."""

PLAN = Path("/run/plan.json")


def main(arguments: list[str]) -> None:
    """Become process 1: ``cluster`` (its plan on the first line of stdin), or ``node NAME``."""
    os.umask(0o022)
    role, *names = arguments
    if role == "cluster":
        plan = json.loads(sys.stdin.readline())
        _mount("tmpfs", Path("/run"), "-t", "tmpfs", "-o", "mode=755")
        PLAN.write_text(json.dumps(plan), encoding="utf-8")
        become_cluster(plan)
    else:
        become_node(json.loads(PLAN.read_text(encoding="utf-8")), names[0])


def become_cluster(plan: dict[str, Any]) -> None:
    """Be the login node, with the controller, until standard input ends."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    socket.sethostname(plan["login"])
    _share_folders(plan)
    inside = Path(plan["inside"])
    _write_files(inside, plan["files"], gpus=plan["gpus"])
    for name in ("hosts", "passwd", "group", "nsswitch.conf"):
        if Path("/etc", name).exists():
            _mount(inside / name, Path("/etc", name), "--bind")
    _connect_nodes(plan)
    subprocess.Popen(
        [
            *("munged", "--foreground", "--force", "--num-threads=2"),
            *(f"--key-file={inside}/munge.key", f"--socket={inside}/munge.sock"),
            *(f"--pid-file={inside}/munged.pid", f"--seed-file={inside}/munged.seed"),
            f"--log-file={plan['logs']}/munged.log",
        ],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    while not (inside / "munge.sock").exists():
        time.sleep(0.01)
    _start_daemon("slurmctld", "-D", "-c", inside=inside)
    print("ready", flush=True)
    _reap(until=None)


def become_node(plan: dict[str, Any], name: str) -> None:
    """Be a compute node until its slurmd ends."""
    socket.sethostname(name)
    _mount("tmpfs", Path("/dev/shm"), "-t", "tmpfs", "-o", "mode=1777,size=2g")
    _cover(plan, Path("/tmp"))
    inside = Path(plan["inside"])
    (inside / "spool" / name).mkdir(exist_ok=True)
    slurmd = _start_daemon("slurmd", "-D", "-N", name, inside=inside)
    print(Path("/proc/self/ns/pid").stat().st_ino, flush=True)
    _reap(until=slurmd.pid)


def _end_with_owner() -> None:
    sys.stdin.read()
    os._exit(0)


def _reap(until: int | None) -> None:
    """Collect the orphans of the namespace, as process 1 has to, until the child ``until`` ends."""
    while True:
        try:
            ended, _ = os.wait()
        except ChildProcessError:
            time.sleep(0.1)
            continue
        if ended == until:
            sys.exit(0)


def _share_folders(plan: dict[str, Any]) -> None:
    """Give private folders that all users can enter, with the shared ones inside."""
    for number, folder in enumerate(plan["shared"]):
        stage = STAGE / str(number)
        stage.mkdir(parents=True)
        _mount(folder, stage, "--bind")
    _mount("tmpfs", Path("/dev/shm"), "-t", "tmpfs", "-o", "mode=1777,size=2g")
    for folder in plan["covered"]:
        _cover(plan, Path(folder))


def _cover(plan: dict[str, Any], folder: Path) -> None:
    """Mount an empty file system over ``folder``, and the shared folders below it again."""
    mode = stat.S_IMODE(folder.stat().st_mode) | 0o755
    _mount("tmpfs", folder, "-t", "tmpfs", "-o", f"mode={mode:o}")
    for number, shared in enumerate(plan["shared"]):
        if Path(shared).is_relative_to(folder):
            Path(shared).mkdir(parents=True, exist_ok=True)  # one may lie in another
            _mount(STAGE / str(number), Path(shared), "--bind")


def _write_files(inside: Path, files: dict[str, str], *, gpus: int) -> None:
    for name in ("state", "spool", "dev"):
        (inside / name).mkdir(parents=True)
    for name, content in files.items():
        (inside / name).write_text(content, encoding="utf-8")
    (inside / "epilog").chmod(0o755)
    key = inside / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    for gpu in range(gpus):  # SLURM wants devices; these are copies of /dev/null
        path = inside / "dev" / f"gpu{gpu}"
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.chmod(0o666)


def _connect_nodes(plan: dict[str, Any]) -> None:
    """Make a bridge, and one network namespace for each node that stays when the node dies."""
    addresses = dict(plan["addresses"])
    login = addresses.pop(plan["login"])
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "bridge", "type", "bridge")
    _ip("address", "add", f"{login}/24", "dev", "bridge")
    _ip("link", "set", "bridge", "up")
    for name, address in addresses.items():
        _ip("netns", "add", name)
        _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"to-{name}", "master", "bridge", "up")
        _ip("-netns", name, "link", "set", "lo", "up")
        _ip("-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-netns", name, "link", "set", "eth0", "up")
        # It leads nowhere, but programs find their own address by it.
        _ip("-netns", name, "route", "add", "default", "via", login)


def _start_daemon(*arguments: str, inside: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        env={**os.environ, "SLURM_CONF": str(inside / "slurm.conf")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # they write logs
    )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _mount(source: str | Path, target: Path, *options: str) -> None:
    subprocess.run(["mount", *options, str(source), str(target)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
