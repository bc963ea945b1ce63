from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header, write_header

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
