"""The start of a local Ray, where Ray's own patience ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w2ltune.cluster import scratch, session
from w2ltune.errors import W2LTuneError

SLOW = "The current node timed out during startup. This could happen because …"
"""As Ray's source has it; half a minute of slowness cannot be had on purpose."""


class _Ray:
    """A Ray whose first starts fail."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        self.folders: list[Path] = []
        self.ended = 0

    def init(self, **options: Any) -> None:
        self.folders.append(Path(options["_temp_dir"]))
        if self.errors:
            raise Exception(self.errors.pop(0))

    def shutdown(self) -> None:
        self.ended += 1


@pytest.mark.parametrize(
    ("errors", "starts", "raised"),
    [([], 1, ""), ([SLOW], 2, ""), ([SLOW, SLOW], 2, "timed out"), (["no space"], 1, "no space")],
)
def test_a_start_that_was_too_slow_is_tried_once_more(
    tmp_path: Path, errors: list[str], starts: int, raised: str
) -> None:
    ray = _Ray(errors)
    if raised:
        with pytest.raises(Exception, match=raised):
            session._start(ray, 1, tmp_path, {})
    else:
        session._start(ray, 1, tmp_path, {})
    assert len(set(ray.folders)) == len(ray.folders) == starts
    assert ray.ended == starts - 1


def test_what_a_dead_command_left_is_removed_but_not_what_a_worker_of_another_node_uses(
    tmp_path: Path,
) -> None:
    left, used = (
        tmp_path / "w2ltune-999999999-1-aaaaaaaa",
        tmp_path / "w2l-999999999-1-bbbbbbbb",
    )
    left.mkdir()
    with scratch.in_use(used), scratch.in_use(used):
        scratch.remove_abandoned(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [used.name]
    scratch.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "taken"),
    [("/t", "/t"), ("/scratch/job12345678", "/tmp"), ("/scratch/of/a/long/name", "/tmp")],
)
def test_a_local_ray_lives_where_its_sockets_have_short_paths(
    folder: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: folder)
    monkeypatch.setattr(scratch.os, "getpid", lambda: 1234567)
    monkeypatch.setattr(scratch, "process_start", lambda pid: "10022400000")  # 3 years of uptime
    monkeypatch.setattr(scratch.os, "access", lambda place, mode: True)
    made: list[str] = []

    def mkdtemp(*, prefix: str, dir: str) -> str:
        made.append(dir)
        return f"{dir}/{prefix}12345678"

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", mkdtemp)
    longest = f"{scratch.make_scratch()}{scratch._SOCKET.format(pid=1234567)}"
    assert (made, len(longest) <= 107) == ([taken], True)
    monkeypatch.setattr(
        scratch.os, "access", lambda place, mode: place == folder and folder != "/t"
    )
    with pytest.raises(W2LTuneError, match=r"may have 107 bytes: .*set TMPDIR to a folder"):
        scratch.make_scratch()
