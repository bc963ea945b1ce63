from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

import pytest
import zstandard

from w2ltune.errors import InputError
from w2ltune.formats.compressed import DAMAGE, open_unpacked, packing

CONTENT = b"one\ntwo\n" * 5000


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.zst"])
def test_what_is_packed_is_unpacked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        with packing(file, path) as out:
            out.write(CONTENT)
        assert not file.closed
    with open_unpacked(path) as unpacked:
        assert unpacked.read() == CONTENT
    assert (path.stat().st_size < len(CONTENT) / 10) == (name != "a.txt")


@pytest.mark.parametrize(("name", "pack"), [("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
def test_parts_one_after_the_other_are_one_content(tmp_path: Path, name: str, pack) -> None:
    path = tmp_path / name
    path.write_bytes(pack(CONTENT) + pack(b"three"))
    with open_unpacked(path) as file:
        assert file.read() == CONTENT + b"three"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_no_cut_file_is_taken_for_a_whole_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as file, packing(file, path) as out:
        out.write(CONTENT)
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DAMAGE), open_unpacked(path) as file:
            file.read()


def test_what_is_no_zst_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zst").write_bytes(CONTENT)
    with pytest.raises(zlib.error):
        open_unpacked(tmp_path / "a.zst")


def test_without_the_package_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.compress(CONTENT))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"a\.zst: .*pip install 'w2ltune\[zst\]'"):
        open_unpacked(path)
    with pytest.raises(InputError, match="pip install"), path.open("wb") as file:
        packing(file, path)
