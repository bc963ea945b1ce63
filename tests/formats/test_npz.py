"""What unpacks to more than fits, and arrays of no values: told before anything is unpacked."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from w2ltune.embedded.corpus import load_features
from w2ltune.errors import InputError
from w2ltune.files import DAMAGE
from w2ltune.formats import beamdump, compressed
from w2ltune.formats.beamdump import iterate_numbered
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.emissions import open_emissions
from w2ltune.formats.lmscores import read_lm_scores
from w2ltune.formats.nbest import read_nbest
from w2ltune.formats.npz import read_npy
from w2ltune.formats.toolkitfiles import read_lengths, read_outputs

UNPACKED_BYTES = 2**23
ROOM_BYTES = 2**20

ODD = {
    "no width": ("|S0", "(1000000000000,)"),
    "no width of text": ("<U0", "(3,)"),
    "void": ("|V0", "(3,)"),
    "objects": ("|O", "(3,)"),
    "fields": ([("a", "<f4"), ("b", "<i4")], "(3,)"),
    "below zero": ("<f4", "(-1, -12)"),
    "huge": ("<f4", f"({2**62}, {2**62})"),
    "more than there is": ("<f4", "(1000000000, 3)"),
    "no shape": ("<f4", "'abc'"),
}


def npy(kind: object, shape: str, values: bytes = bytes(48)) -> bytes:
    """Return a ``.npy`` that says of itself what one likes."""
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + values


def npz(path: Path, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


def plain(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


def refused_in_little_memory(read: Callable[[], object], message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            read()
        assert tracemalloc.get_traced_memory()[1] < UNPACKED_BYTES
    finally:
        tracemalloc.stop()


def outputs(path: Path) -> list[Any]:
    return list(read_outputs(path, ["a"], None, layout="tv"))


@pytest.mark.parametrize("case", list(ODD))
def test_an_array_of_no_values_or_not_of_its_size_is_damage(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy(*ODD[case]))
    with pytest.raises(DAMAGE):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"a\.npy: damaged"):
        outputs(tmp_path)
    with pytest.raises(InputError, match=r"a\.npy: damaged"):
        read_lengths(tmp_path / "a.npy")
    path = npz(tmp_path / "a.npz", **dict.fromkeys(("a", "ids", "format"), npy(*ODD[case])))
    for read in (
        outputs,
        open_emissions,
        load_features,
        lambda path: read_nbest(path, key=None),
    ):
        with pytest.raises(InputError, match=r"a\.npz: "):
            read(path)


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "room_bytes", lambda: ROOM_BYTES)
    monkeypatch.setattr(compressed, "_PIECE_BYTES", ROOM_BYTES)
    monkeypatch.setattr(compressed, "_ZSTANDARD_BYTES", 2**5)
    monkeypatch.setattr(beamdump, "LONGEST_BYTES", ROOM_BYTES)


@pytest.mark.usefixtures("little_room")
def test_arrays_without_room_are_not_unpacked(tmp_path: Path) -> None:
    bomb = npy("<f4", f"({UNPACKED_BYTES // 8}, 2)", bytes(UNPACKED_BYTES))
    path = npz(tmp_path / "a.npz", a=bomb, ids=bomb, format=bomb)
    said = rf"would unpack to {len(bomb)} bytes, and there is room for {ROOM_BYTES}"
    refused_in_little_memory(lambda: outputs(path), said)
    refused_in_little_memory(lambda: open_emissions(path), said)
    refused_in_little_memory(lambda: read_nbest(path, key=None), said)
    refused_in_little_memory(lambda: load_features(path), r"a\.npz: .*would unpack to")


def test_emissions_that_do_not_fit_the_rest_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = UNPACKED_BYTES // 8
    bomb = npy("<f4", f"({rows}, 2)", bytes(UNPACKED_BYTES))
    path = npz(tmp_path / "a.npz", ids=plain(["a"]), frames=plain([3]), emissions=bomb)
    scratch = tmp_path / "scratch"
    said = f"adds up to 3, but emissions has {rows} rows"
    refused_in_little_memory(lambda: open_emissions(path, scratch=scratch), said)
    assert not scratch.exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 5})())
    npz(path, ids=plain(["a"]), frames=plain([rows]), emissions=bomb)
    said = rf"unpacks to {len(bomb)} bytes, and \S+ has 5 free"
    refused_in_little_memory(lambda: open_emissions(path, scratch=scratch), said)


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
@pytest.mark.parametrize("read", [read_lm_scores, read_dump_columns])
@pytest.mark.usefixtures("little_room")
def test_a_text_without_room_is_not_unpacked(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], read: Callable[[Path], object]
) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(pack(bytes(UNPACKED_BYTES)))
    refused_in_little_memory(lambda: read(path), f"there is room for {ROOM_BYTES}")


@pytest.mark.usefixtures("little_room")
def test_a_line_without_room_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(UNPACKED_BYTES)))
    said = r"a\.gz:1: a line of more than"
    refused_in_little_memory(lambda: list(iterate_numbered(path)), said)
