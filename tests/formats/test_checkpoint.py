from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header, read_whole, write_header

ENTRIES = {
    "runPath": "runs/caf\udce9",  # a path that is not UTF-8
    "runIdx": "1",
    "timestamp": "",
    "epoch": "7",
    "gflags": "--flagsfile=\n--lr=0.1\n--surround=\n--wordseparator=|\n--x=a=b\n",
    "updates": "140",
}


def head(entries: dict[str, str] = ENTRIES) -> bytes:
    file = io.BytesIO()
    write_header(file, entries)
    return file.getvalue()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "001_model_last.bin"
    path.write_bytes(content)
    return path


def test_a_head_is_read_back(tmp_path):
    path = written(tmp_path, head() + b"payload")
    header = read_header(path)
    assert header.version == "0.1"
    assert list(header.entries.items()) == list(ENTRIES.items())
    assert header.header_bytes == len(head())
    assert path.stat().st_size - header.header_bytes == len(b"payload")
    assert (header.epoch, header.updates) == (7, 140)
    assert header.flags == {
        "flagsfile": "",
        "lr": "0.1",
        "surround": "",
        "wordseparator": "|",
        "x": "a=b",
    }


def test_the_head_of_a_real_model(captures):
    folder = captures / "rundir_sample"
    path = folder / "001_model_last.bin"
    header = read_header(path)
    assert (header.version, header.epoch, header.updates) == ("0.1", 50, 1000)
    assert set(header.entries) == {
        *("runPath", "runIdx", "timestamp", "hostname", "username"),
        *("gflags", "commandline", "programname", "epoch", "updates"),
    }
    assert header.entries["runIdx"] == "1"
    assert header.flags["lr"] == "0.002"
    assert header.flags["valid"] == "dev:dev.lst,tsta:a.lst"
    assert len(header.flags) > 150
    # What follows is a pointer's name, as cereal writes it.
    rest = path.read_bytes()[header.header_bytes :][:64]
    assert b"fl::Sequential" in rest
    again = io.BytesIO()
    write_header(again, header.entries)
    assert again.getvalue() == path.read_bytes()[: header.header_bytes]


def test_a_cut_at_any_byte_of_the_head_is_told(tmp_path):
    whole = head()
    for length in range(len(whole)):
        with pytest.raises(InputError, match=rf"last\.bin: cut short .* \({length} bytes\)"):
            read_header(written(tmp_path, whole[:length]))
    assert read_header(written(tmp_path, whole)).header_bytes == len(whole)


@pytest.mark.parametrize("huge", [2**63, 2**64 - 1, 2**40, 10_000])
def test_a_length_out_of_a_damaged_file_asks_for_no_memory(tmp_path, huge):
    whole, length = head(), struct.pack("<Q", huge)
    in_version = written(tmp_path, length + whole[8:])
    with pytest.raises(InputError, match="does not begin with a version"):
        read_header(in_version)
    for place in (11, 19, 19 + 8 + len("runPath")):  # the count, a key's length, a value's
        with pytest.raises(InputError, match="cut short or damaged"):
            read_header(written(tmp_path, whole[:place] + length + whole[place + 8 :]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 an archive of something else", "does not begin with a version"),
        (b'{"config": [{"key": "runPath"}]}', "does not begin with a version"),
        (b"\x03\0\0\0\0\0\0\0abc" + b"\0" * 40, "does not begin with a version"),
        (b"\0" * 200, "does not begin with a version"),
        (head({"runPath": "x", "updates": "3"}), "no number of epoch"),
        (head({"epoch": "3", "updates": "many"}), "no number of updates"),
        (head({}), "no number of epoch"),
    ],
)
def test_what_is_no_model_file(tmp_path, content, message):
    with pytest.raises(
        InputError, match=rf"last\.bin: is no model file of flashlight: .*{message}"
    ):
        read_header(written(tmp_path, content))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint: no such file '.*none\.bin'"):
        read_header(tmp_path / "none.bin")
    with pytest.raises(InputError, match="is not a file"):
        read_header(tmp_path)


def array(*dimensions: int, kind: int, item_bytes: int) -> bytes:
    """An array as flashlight writes it."""
    size = dimensions[0] * dimensions[1] * item_bytes
    return struct.pack("<4qiQ", *dimensions, 1, 1, kind, size) + bytes(range(256)) * (size // 256)


def test_a_cut_within_an_array_is_told(tmp_path):
    network = b"\x0efl::Sequential" + bytes(40) + array(8, 32, kind=0, item_bytes=4)
    network += bytes(70) + array(0, 1, kind=0, item_bytes=4) + array(16, 16, kind=4, item_bytes=1)
    state = b"\x0afl::AdamOptimizer" + bytes(30) + array(32, 8, kind=2, item_bytes=8) + bytes(60)
    whole = head() + network + state
    for size in range(len(head()), len(whole) + 1):
        path = written(tmp_path, whole[:size])
        place, behind = size - len(head()) - len(network), len(whole) - size
        seen = {}
        for resumed in (True, False):
            try:
                assert read_whole(path, resumed=resumed) == read_header(path)
                seen[resumed] = False
            except InputError as error:
                assert "cut short" in str(error)
                seen[resumed] = True
        if behind <= 60 or place >= 0:
            assert not seen[False]  # the network is there
        if behind <= 60:
            assert not seen[True]
        at = size - len(head())
        first = len(b"\x0efl::Sequential") + 40 + 44
        if first <= at < first + 1024 or -256 <= place < 0:
            assert seen == {True: True, False: True}, size


@pytest.mark.parametrize("missing", [1, 60, 117, 5000, 400_000, 1_700_000, 2_400_000])
def test_a_cut_in_a_real_model(tmp_path, captures, missing):
    content = (captures / "rundir_sample" / "001_model_last.bin").read_bytes()
    assert read_whole(written(tmp_path, content)).epoch == 50
    path = written(tmp_path, content[:-missing])
    if missing < 117:  # the settings of the last optimizer: no array
        read_whole(path)
        return
    with pytest.raises(InputError, match=r"cut short: \d+ bytes and more are"):
        read_whole(path)
    if missing < 1_600_000:  # within the optimizer's state, which a fork does without
        assert read_whole(path, resumed=False).updates == 1000
    else:
        with pytest.raises(InputError, match="cut short"):
            read_whole(path, resumed=False)


def test_what_cannot_be_read_now_is_no_damaged_model():
    with pytest.raises(OSError, match="Input/output error"):
        read_header("/proc/self/mem")
