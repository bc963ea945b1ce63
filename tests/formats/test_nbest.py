from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from w2ltune.errors import InputError
from w2ltune.formats.nbest import (
    BYTES_PER_HYPOTHESIS,
    FEATURES,
    NBest,
    read_nbest,
    write_nbest,
)

FIELDS = [field.name for field in dataclasses.fields(NBest)]


def random_nbest(lengths: list[int]) -> NBest:
    rng = np.random.default_rng(3)
    rows = sum(lengths)
    return NBest(
        offsets=np.cumsum([0, *lengths]),
        features=rng.normal(size=(rows, len(FEATURES))),
        errors=rng.integers(0, 9, rows, dtype=np.int32),
        text_hash=rng.integers(0, 2**64, rows, dtype=np.uint64),
        reference_words=rng.integers(0, 9, len(lengths), dtype=np.int32),
    )


def same(one: NBest, other: NBest) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in FIELDS
    )


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    for lengths in ([3, 1, 7], [1], []):
        nbest = random_nbest(lengths)
        assert (nbest.utterances, nbest.hypotheses) == (len(lengths), sum(lengths))
        write_nbest(path, nbest, key="ab12")
        for key in ("ab12", None):
            assert same(read_nbest(path, key=key), nbest)
    assert [file.name for file in tmp_path.iterdir()] == ["nbest.npz"]


def test_the_size_can_be_told_before(tmp_path: Path) -> None:
    lengths = [40] * 300
    write_nbest(tmp_path / "nbest.npz", random_nbest(lengths), key="f" * 64)
    told = BYTES_PER_HYPOTHESIS * sum(lengths) + 12 * len(lengths)
    assert told < (tmp_path / "nbest.npz").stat().st_size < told + 3000


def test_the_same_lists_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_nbest(tmp_path / name, random_nbest([2, 5]), key="0")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def assert_refused(path: Path, message: str, *, key: str | None = None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_nbest(path, key=key)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_a_cut_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    write_nbest(path, random_nbest([3, 2]), key="ab12")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert_refused(path, "cut or damaged")


def test_a_changed_byte_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    nbest = random_nbest([3, 2])
    write_nbest(path, nbest, key="ab12")
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        try:
            found = read_nbest(path, key="ab12")
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert same(found, nbest)
    assert refused > 300


def test_lists_made_from_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    write_nbest(path, random_nbest([2]), key="ab12")
    assert_refused(path, r"another acoustic model, LM.*\(key ab12, not cd34\).*remove", key="cd34")
    assert_refused(path, "data list, decoder type, smearing or normalisation", key="cd34")


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    np.savez(path, format=np.array(2))
    assert_refused(path, r"of format 2; .* reads format 1: remove the file")


def test_what_is_no_nbest_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nbest.npz"
    assert_refused(path, "no such file")
    path.write_text("tst-1 | 1.0 | 1.0 | 0.0 | 0.0 | yes\n")
    assert_refused(path, "no n-best lists")
    np.savez(path, ids=np.array(["a"]))
    assert_refused(path, "no n-best lists.*format")
    np.savez(path, format=np.array([1, None], dtype=object))
    assert_refused(path, "no n-best lists.*neither numbers nor text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((5, 0))}, r"5 errors do not fit features \[5, 0\]"),
        ({"features": np.zeros((4, 5))}, r"5 errors do not fit features \[4, 5\]"),
        ({"features": np.zeros((5, 5), np.float32)}, "features is float32"),
        ({"features": np.full((5, 5), np.inf)}, "not finite"),
        ({"errors": np.zeros(5, np.int64)}, "errors is int64"),
        ({"text_hash": np.zeros(4, np.uint64)}, "4 text hashes"),
        ({"reference_words": np.zeros(3, np.int32)}, "3 reference lengths do not fit 3 offsets"),
        ({"offsets": np.array([0, 3, 4])}, "do not rise from 0 to 5"),
        ({"offsets": np.array([1, 3, 5])}, "do not rise from 0 to 5"),
        ({"offsets": np.array([0, 5, 5])}, "do not rise from 0 to 5"),
        ({"offsets": np.array([[0, 3, 5]])}, "offsets is int64"),
    ],
)
def test_arrays_that_do_not_fit_each_other(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    nbest = random_nbest([3, 2])
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(nbest, **changes)
    path = tmp_path / "nbest.npz"
    arrays = {name: getattr(nbest, name) for name in FIELDS} | changes
    np.savez(path, format=np.array(1), key=np.array("ab12"), **arrays)
    assert_refused(path, message)


@pytest.mark.parametrize("columns", [1, 4, 7])
def test_any_number_of_columns(tmp_path: Path, columns: int) -> None:
    features = np.random.default_rng(1).normal(size=(5, columns))
    nbest = dataclasses.replace(random_nbest([3, 2]), features=features)
    write_nbest(tmp_path / "nbest.npz", nbest, key="ab12")
    assert np.array_equal(read_nbest(tmp_path / "nbest.npz", key="ab12").features, features)
