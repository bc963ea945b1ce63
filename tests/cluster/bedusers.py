"""Who works on the test cluster: root, and two ordinary users who share a group."""

from __future__ import annotations

import os
from pathlib import Path

USERS = {"alice": 61001, "bob": 61002}
"""Names and numbers; each has a group of its own of the same name and number."""

COMMON_GROUP = "speech"
_COMMON_GROUP_ID = 61000


def account_files() -> dict[str, str]:
    """Return three files of /etc: this machine's accounts with the users, and what to ask."""
    passwd, group = (_lines_of(Path("/etc", name)) for name in ("passwd", "group"))
    for name, number in USERS.items():
        passwd.append(f"{name}:x:{number}:{number}::/nonexistent:/bin/bash")
        group.append(f"{name}:x:{number}:")
    group.append(f"{COMMON_GROUP}:x:{_COMMON_GROUP_ID}:{','.join(USERS)}")
    return {
        "passwd": "\n".join([*passwd, ""]),
        "group": "\n".join([*group, ""]),
        # No name server either: none can be reached, and to wait for one takes 10 s for a name.
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def make_homes(folder: Path) -> None:
    """Give each user a private home in ``folder``, which all nodes share."""
    for name, number in {"root": 0, **USERS}.items():
        home = folder / name
        home.mkdir(parents=True)
        home.chmod(0o700)
        os.chown(home, number, number)


def login_environment(user: str, homes: Path) -> dict[str, str]:
    """Return the test's environment as it is after the user's login."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM", "SBATCH", "RAY_", "W2LTUNE_", "TMP"))
    }
    path = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return kept | {"PATH": path, "HOME": str(homes / user), "USER": user, "LOGNAME": user}


def _lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
