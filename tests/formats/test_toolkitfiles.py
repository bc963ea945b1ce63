"""Files of other toolkits that are damaged or something else: one line, no traceback."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.toolkitfiles import read_lengths, read_outputs, read_vocabulary


def npy(value: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, **how)
    return file.getvalue()


def npz(*, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    arrays = {"a": np.ones((5, 3), np.float32), "b": np.zeros((90, 3), np.float32)}
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def zip_of_texts() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "no array")
    return file.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGED = {
    "cut.npz": npz()[:300],
    "half.npz": npz(compressed=True)[:-60],
    "flipped.npz": flipped(npz(), 200),
    "deflated.npz": flipped(npz(compressed=True), 110),
    "texts.npz": zip_of_texts(),
    "empty.npy": b"",
    "cut.npy": npy(np.ones((2, 5, 3)))[:-9],
    "header.npy": npy(np.ones((2, 5, 3)))[:30],
    "unknown.npy": npy(np.ones((2, 5, 3))).replace(b"'<f8'", b"'<q8'"),
    "objects.npy": npy(np.array([[1], None], dtype=object), allow_pickle=True),
    "texts.npy": npy(np.array([[["x", "y"]], [["x", "z"]]])),
    "complex.npy": npy(np.ones((2, 5, 3), complex)),
    "numbers.npy": npy(np.ones((2, 5, 3), int)),
    "records.npy": npy(np.zeros((2, 5, 3), "V2")),  # as numpy saves bfloat16
    "frames.npy": npy(np.ones((2, 0, 3))),
    "columns.npy": npy(np.ones((2, 5, 0))),
    "flat.npy": npy(np.ones(6)),
    "scalar.npy": npy(np.float32(1)),
    "prose.npy": b"these are no numbers\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_outputs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    for given in (path, tmp_path):
        if given == tmp_path:
            for utterance in ("a", "b"):
                (tmp_path / f"{utterance}.npy").write_bytes(DAMAGED[name])
        with pytest.raises(InputError) as caught:
            list(read_outputs(given, ["a", "b"], None, layout="tv"))
        assert str(caught.value).startswith(str(given))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [npz(), npz(compressed=True), npy(np.ones((2, 5, 3)))])
def test_any_byte_may_be_wrong(tmp_path: Path, content: bytes) -> None:
    choose = random.Random(len(content))
    path = tmp_path / "x.npy"
    refused = 0
    for _ in range(300):
        wrong = bytearray(content[: choose.choice([len(content), choose.randrange(len(content))])])
        for _ in range(min(len(wrong), choose.choice([1, 1, 5]))):
            wrong[choose.randrange(min(len(wrong), choose.choice([140, 9999])))] = choose.choice(
                [0, 255, 10, 32, choose.randrange(256)]
            )
        path.write_bytes(wrong)
        try:
            list(read_outputs(path, ["a", "b"], None, layout="tv"))
        except InputError:
            refused += 1
    assert refused > 100


def test_lengths(tmp_path: Path) -> None:
    for content, expected in ((npy([3, 5]), [3, 5]), (npy([[3.0], [5.0]]), [3, 5])):
        (tmp_path / "lengths.npy").write_bytes(content)
        assert read_lengths(tmp_path / "lengths.npy") == expected
    (tmp_path / "lengths.txt").write_text("3\n5\n")
    assert read_lengths(tmp_path / "lengths.txt") == [3, 5]
    (tmp_path / "x.npy").write_bytes(npy(np.ones((2, 5, 3))))
    found = dict(read_outputs(tmp_path / "x.npy", ["a", "b"], [3, 5], layout="tv"))
    assert {name: output.shape for name, output in found.items()} == {"a": (3, 3), "b": (5, 3)}
    for lengths in ([0, 5], [3, 6], [-1, 5]):
        with pytest.raises(InputError, match=r"has -?\d of 5 frames"):
            list(read_outputs(tmp_path / "x.npy", ["a", "b"], lengths, layout="tv"))
    (tmp_path / "x.npz").write_bytes(npz())
    with pytest.raises(UsageError, match=r"--lengths is for one \.npy"):
        list(read_outputs(tmp_path / "x.npz", ["a", "b"], [3, 5], layout="tv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.npy", b"", "damaged, or neither"),
        ("l.npy", npz(), "no array of numpy"),
        ("l.npy", npy(["3", "5"]), "<U1 values; expected numbers of frames"),
        ("l.npy", npy([0.93, 1.0]), "0.93 is no number of frames"),  # SpeechBrain's are relative
        ("l.npy", npy([np.nan]), "nan is no number of frames"),
        ("l.npy", npy([np.inf]), "inf is no number of frames"),
        ("l.txt", b"3 five", "'five' is no number of frames"),
        ("l.txt", b"3 \xff", "not UTF-8 text"),
        ("l.txt", "3 ²".encode(), "'²' is no number of frames"),
    ],
)
def test_lengths_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_lengths(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", b'["a", null]', "the token of column 1 is null, not a text"),
        ("v.json", b'["a", 5]', "the token of column 1 is 5, not a text"),
        ("v.json", b'["a", ["b"]]', r"the token of column 1 is \[\"b\"\], not a text"),
        ("v.json", b"5", "5; expected a list of tokens, or token to column"),
        ("v.json", b"null", "null; expected a list of tokens"),
        ("v.json", b'"abc"', '"abc"; expected a list of tokens'),
        ("v.json", b'{"a": "x", "b": 1}', "the column of 'a' is \"x\", not a whole number"),
        ("v.json", b'{"a": false, "b": true}', "the column of 'a' is false, not a whole number"),
        ("v.json", b'{"a": 0, "b": 1.0}', "the column of 'b' is 1.0, not a whole number"),
        ("v.json", b'{"a": 0, "b": null}', "the column of 'b' is null, not a whole number"),
        ("v.json", b'{"a": 0, "b": 0}', "its columns are not 0 to 1"),
        ("v.json", b"{}", "there is no token in it"),
        ("v.json", b"[]", "there is no token in it"),
        ("v.json", b"", "not JSON"),
        ("v.json", b"[" * 100_000, "not JSON"),
        ("v.json", b'["\xe4"]', "not UTF-8 text"),
        ("v.json", '\ufeff["a"]'.encode(), "a byte order mark"),
        ("v.txt", b"a\n\xe4\n", "not UTF-8 text"),
        ("v.txt", "\ufeffa\n".encode(), "a byte order mark"),
        ("v.txt", b"a\0\n", "no text but a binary file"),
        ("v.txt", b"\n\n", "there is no token in it"),
    ],
)
def test_vocabularies_that_are_none(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_vocabulary(tmp_path / name)
