"""A fake cluster of several nodes in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from killing import MARK
from waiting import PATIENCE_SECONDS

PROGRAM = Path(__file__).with_name("fakecluster.py")


class Nodes:
    """A fake cluster of several nodes in a process of its own.

    ``mark`` and ``environment`` are those of a ``Sweep`` on it.
    """

    def __init__(self, folder: Path, head_cores: int, head_gpus: int = 0, **variables: str) -> None:
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4, encoding="ascii")
        token.chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.mark = f"fakecluster-{uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(head_cores), str(head_gpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment, MARK: self.mark, **variables},
            text=True,
            cwd=folder.anchor,  # as somebody's own cluster, started elsewhere
        )
        self.environment["RAY_ADDRESS"] = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)
        assert self._answer() == "ok"

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE_SECONDS)
