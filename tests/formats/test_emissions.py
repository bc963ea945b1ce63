from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2ltune.errors import InputError
from w2ltune.formats.emissions import (
    check_emissions,
    locate_emissions,
    open_emissions,
    write_emission_bin,
    write_emissions,
)

WEAK = Path(__file__).parents[1] / "data" / "weak" / "emissions"
IDS = ("tsta-0000", "tsta-0010", "tstb-0011")
TOKENS = 21

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(WEAK, tmp_path / "weak"))


def arrays(dtype: str = "<f2") -> Arrays:
    rows = np.arange(12, dtype=dtype).reshape(6, 2) / 4
    return {
        "ids": np.array(["a", "b-long", "c"]),
        "frames": np.array([3, 1, 2]),
        "emissions": rows.astype(dtype),
    }


def save(path: Path, values: Arrays, *, compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **values)
    return path


# The folder of flashlight


def test_the_captured_folder_is_read() -> None:
    emissions = open_emissions(WEAK)
    assert emissions.ids == IDS
    assert (len(emissions), emissions.token_count) == (3, TOKENS)
    assert emissions.frames("tsta-0000") == 67
    assert "tsta-0010" in emissions and "tsta-0001" not in emissions
    emission = emissions.emission("tsta-0000")
    assert emission.shape == (67, TOKENS) and emission.dtype == np.float32
    assert emission.flags.c_contiguous and emission.flags.aligned
    first = struct.unpack_from("<3f", (WEAK / "tsta-0000.bin").read_bytes(), 23)
    assert emission[0, :3].tolist() == list(first)
    with pytest.raises(KeyError):
        emissions.emission("nobody")


def test_a_captured_file_is_written_again_to_the_byte(tmp_path: Path) -> None:
    emissions = open_emissions(WEAK)
    for name in IDS:
        written = write_emission_bin(tmp_path, name, emissions.emission(name))
        assert written.read_bytes() == (WEAK / f"{name}.bin").read_bytes()


def test_big_endian_and_float64_values_are_written_little_endian(tmp_path: Path) -> None:
    emission = np.array([[1.5, -2.0]], dtype=">f8")
    write_emission_bin(tmp_path, "é", emission)
    assert open_emissions(tmp_path).emission("é").tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("name", ["a/b", ""])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        write_emission_bin(tmp_path, name, np.zeros((1, 2), np.float32))
    assert not list(tmp_path.iterdir())


def patched(offset: int, layout: str, *values: object) -> Callable[[bytes], bytes]:
    def patch(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(layout, changed, offset % len(content), *values)
        return bytes(changed)

    return patch


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "cut or damaged"),
        (lambda content: content[:20], "cut or damaged"),
        (lambda content: content[:3000], "cut or damaged"),
        (lambda content: content[:-3], "cut or damaged"),
        (lambda content: content + b"x", "its header tells"),
        (lambda content: b"RIFF" + content[4:], "not an emission file"),
        (patched(8, "3s", b"0.2"), "not an emission file"),
        (patched(11, "<I", 1), "not an emission file"),
        (patched(15, "<Q", 2**63), "cut or damaged"),
        (patched(15, "<Q", 10), "cut or damaged"),
        (patched(-25, "<Q", 2**63), "cut or damaged"),
        (patched(-25, "<Q", 8), "its header tells"),
        (patched(-8, "<i", 66), "66 frames of 21 tokens, but 1407 values"),
        (patched(-8, "<ii", -67, -21), "frames of"),
        (patched(-17, "9s", b"tsta-0001"), "utterance 'tsta-0001'"),
        (patched(-17, "9s", b"\xff" * 9), "cut or damaged"),
    ],
)
def test_a_damaged_file_is_named(
    folder: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = folder / "tsta-0000.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message) as caught:
        open_emissions(folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_of_different_models_are_refused(folder: Path) -> None:
    write_emission_bin(folder, "zz", np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match=r"zz\.bin: 5 tokens, but tsta-0000\.bin has 21"):
        open_emissions(folder)


def test_a_file_that_changes_in_use_is_refused(folder: Path) -> None:
    emissions = open_emissions(folder)
    write_emission_bin(folder, "tsta-0000", np.zeros((2, TOKENS), np.float32))
    with pytest.raises(InputError, match="changed while"):
        emissions.emission("tsta-0000")


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no emission file"):
        open_emissions(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_emissions(tmp_path / "none.npz")


# The .npz


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4"])
@pytest.mark.parametrize("form", ["stored", "compressed", "unpacked"])
def test_every_form_of_npz_gives_the_same(tmp_path: Path, dtype: str, form: str) -> None:
    path = save(tmp_path / "dev.npz", arrays(dtype), compressed=form != "stored")
    scratch = tmp_path / "scratch" if form == "unpacked" else None
    emissions = open_emissions(path, scratch=scratch)
    assert (emissions.ids, emissions.token_count) == (("a", "b-long", "c"), 2)
    assert sum(emissions.frame_counts.values()) == 6
    for name, rows in (("a", slice(0, 3)), ("b-long", slice(3, 4)), ("c", slice(4, 6))):
        emission = emissions.emission(name)
        assert emission.dtype == np.float32 and emission.dtype.isnative
        assert emission.flags.c_contiguous and emission.flags.aligned
        np.testing.assert_array_equal(emission, arrays(dtype)["emissions"][rows])
    if scratch:
        (unpacked,) = scratch.glob("*.npy")
        first = unpacked.stat()
        open_emissions(path, scratch=scratch)
        assert unpacked.stat().st_ino == first.st_ino  # unpacked once
        save(path, arrays(dtype) | {"emissions": arrays(dtype)["emissions"] + 1}, compressed=True)
        changed = open_emissions(path, scratch=scratch)
        assert changed.emission("a")[0, 0] == 1  # another file, although of the same name


def is_mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def test_a_stored_member_is_mapped_wherever_it_begins(tmp_path: Path) -> None:
    mapped = []
    for length in range(1, 9):  # longer ids move the member
        path = tmp_path / "dev.npz"
        values = arrays("<f4") | {"ids": np.array(["a" * length, "b", "c"])}
        np.savez(path, **{"x" * length: np.zeros(1)}, **values)
        emission = open_emissions(path).emission("c")
        assert emission.tolist() == values["emissions"][4:].tolist()
        mapped.append(is_mapped(emission))
    assert any(mapped)  # a view where it is aligned, else a copy
    fortran = values | {"emissions": np.asfortranarray(values["emissions"])}
    assert open_emissions(save(path, fortran)).emission("c").flags.c_contiguous


def test_processes_that_unpack_at_once_share_one_file(tmp_path: Path) -> None:
    path = save(tmp_path / "dev.npz", arrays(), compressed=True)
    threads = [
        threading.Thread(target=open_emissions, args=(path,), kwargs={"scratch": tmp_path / "s"})
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.suffix for file in (tmp_path / "s").iterdir()) == [".lock", ".npy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, "no item named 'ids.npy'"),
        ({"emissions": None}, "no item named 'emissions.npy'"),
        ({"ids": np.array(["a", "b", "a"])}, "comes twice"),
        ({"ids": np.array([1, 2, 3])}, "utterance ids as text"),
        (
            {"ids": np.array(["a", None, 3], dtype=object)},
            "an array of object .*, neither numbers nor text",
        ),
        ({"ids": np.array([["a"], ["b"], ["c"]])}, "utterance ids as text"),
        ({"ids": np.array([], dtype=str)}, "utterance ids as text"),
        ({"frames": np.array([3, 3])}, "number of frames of each of the 3"),
        ({"frames": np.array([3.0, 1.0, 2.0])}, "number of frames"),
        ({"frames": np.array([7, -3, 2])}, "number of frames"),
        ({"frames": np.array([3, 1, 1])}, "adds up to 5, but emissions has 6 rows"),
        ({"emissions": np.zeros((6, 2))}, "float64"),
        ({"emissions": np.zeros(6, np.float32)}, "float32 .6."),
        ({"emissions": np.zeros((6, 0), np.float32)}, "float32 .6, 0."),
        ({"emissions": np.zeros((6, 2), np.int16)}, "int16"),
        ({"emissions": np.zeros((6, 2), object)}, "object"),
    ],
)
def test_a_wrong_npz_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = {name: value for name, value in (arrays() | change).items() if value is not None}
    path = save(tmp_path / "dev.npz", values)
    with pytest.raises(InputError, match=message) as caught:
        open_emissions(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_cut_npz_is_named(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path / "dev.npz", arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"not an \.npz file, or cut or damaged"):
        open_emissions(path)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    values = arrays() | {"emissions": np.random.default_rng(0).normal(size=(6, 2)).astype("f4")}
    path = save(tmp_path / "dev.npz", values, compressed=True)
    content = bytearray(path.read_bytes())
    at = content.index(b"emissions.npy") + 60
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut or damaged"):
        open_emissions(path)


def test_written_emissions_are_read_back(tmp_path: Path) -> None:
    weak = open_emissions(WEAK)
    path = tmp_path / "weak.npz"
    write_emissions(path, ((name, weak.emission(name)) for name in IDS), dtype=np.float32)
    back = open_emissions(path)
    assert back.frame_counts == weak.frame_counts
    for name in IDS:
        np.testing.assert_array_equal(back.emission(name), weak.emission(name))
    write_emissions(path, ((name, weak.emission(name)) for name in IDS))
    with np.load(path) as archive:
        assert archive["emissions"].dtype == np.float16
        assert archive["frames"].tolist() == list(weak.frame_counts.values())
    first = path.read_bytes()
    write_emissions(path, ((name, weak.emission(name)) for name in IDS))
    assert path.read_bytes() == first  # no time of day inside
    assert [file.name for file in tmp_path.iterdir()] == ["weak.npz"]


def test_minus_infinity_is_kept(tmp_path: Path) -> None:
    emission = np.array([[0, -np.inf]], np.float32)
    write_emissions(tmp_path / "a.npz", [("a", emission)])
    assert open_emissions(tmp_path / "a.npz").emission("a").tolist() == [[0, -np.inf]]


ONE = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no emission to write"),
        ([("a", ONE), ("a", ONE)], "'a' comes twice"),
        ([("a", ONE), ("b", np.zeros((1, 3)))], "'b' has 3 tokens, not 2"),
        ([("a", ONE + 1e6)], "'a' has values beyond float16"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, items: list[tuple[str, Any]], message: str
) -> None:
    path = tmp_path / "a.npz"
    path.write_text("old")
    with pytest.raises(InputError, match=message):
        write_emissions(path, items)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


# Finding and checking


@pytest.mark.parametrize(
    ("made", "given", "test", "found"),
    [
        ("dev.npz", "dev.npz", "anything.lst", "dev.npz"),
        ("dev.lst/a.bin", ".", "dev.lst", "dev.lst"),
        ("#lists#dev.lst/a.bin", ".", "/lists/dev.lst", "#lists#dev.lst"),
        ("a.lst,b.lst/a.bin", ".", "a.lst,b.lst", "a.lst,b.lst"),
        ("lists#dev.npz", ".", "lists/dev.lst", "lists#dev.npz"),
        ("lists#dev.lst.npz", ".", "lists/dev.lst", "lists#dev.lst.npz"),
        ("dev.npz", ".", "/lists/dev.lst", "dev.npz"),
        ("tsta-0000.bin", ".", "dev.lst", "."),
    ],
)
def test_emissions_of_a_list_are_found(
    tmp_path: Path, made: str, given: str, test: str, found: str
) -> None:
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).touch()
    assert locate_emissions(tmp_path / given, test) == tmp_path / found


def test_where_emissions_were_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x#dev\.lst, x#dev\.lst\.npz, x#dev\.npz, dev\.npz and"):
        locate_emissions(tmp_path, "x/dev.lst")
    with pytest.raises(InputError, match="no such folder"):
        locate_emissions(tmp_path / "none", "x/dev.lst")


def test_emissions_that_fit_pass() -> None:
    check_emissions(open_emissions(WEAK), IDS, token_count=TOKENS, path=WEAK)
    check_emissions(open_emissions(WEAK), IDS[:1], token_count=None, path=WEAK)


def test_utterances_without_emission_are_named() -> None:
    with pytest.raises(InputError, match=r"4 of the list's 5 utt.*: a, b, c, \.\.\.$"):
        check_emissions(open_emissions(WEAK), [*"abcd", IDS[0]], token_count=None, path=WEAK)


def test_another_number_of_tokens_is_explained() -> None:
    with pytest.raises(InputError, match=r"emissions of 21 tokens.*gives 20.*last column"):
        check_emissions(open_emissions(WEAK), IDS, token_count=20, path=WEAK)


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, None)])
def test_values_that_are_no_scores_are_named(
    tmp_path: Path, value: float, shown: str | None
) -> None:
    suspect = np.zeros((5, 3), np.float32)
    suspect[3, 1] = value
    path = tmp_path / "a.npz"
    write_emissions(path, [("good", suspect[:2]), ("suspect", suspect)])
    emissions = open_emissions(path)
    check_emissions(emissions, ["good"], token_count=3, path=path)
    if shown is None:  # the logarithm of 0
        check_emissions(emissions, ["good", "suspect"], token_count=3, path=path)
        return
    with pytest.raises(InputError, match=f"'suspect' has {shown} in frame 3"):
        check_emissions(emissions, ["good", "suspect"], token_count=3, path=path)
