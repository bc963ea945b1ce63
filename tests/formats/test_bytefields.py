from __future__ import annotations

import random

import numpy as np
import pytest

from w2ltune.formats.bytefields import (
    blank_gaps,
    count_within,
    find_lines,
    has_other_blanks,
    parse_numbers,
    same_as_before,
    strip,
)


def ranges_of(fields: list[bytes]) -> tuple[bytes, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return a text of these fields, the same as an array, and where they are."""
    content = b";".join([*fields, b""])
    begin = np.cumsum([0, *(len(field) + 1 for field in fields)])[:-1]
    data = np.frombuffer(content, dtype=np.uint8)
    return content, data, (begin, begin + [len(field) for field in fields])


def numbers(fields: list[bytes]) -> list[float]:
    return parse_numbers(*ranges_of(fields)).tolist()


def test_lines_and_gaps_are_found_as_python_finds_them() -> None:
    rng = random.Random(1)
    for _ in range(300):
        content = bytes(rng.choices(b" \n\rab", k=rng.randrange(40)))
        data = np.frombuffer(content, dtype=np.uint8)
        line, (begin, end) = find_lines(data)
        found = [content[slice(*pair)] for pair in zip(begin, end, strict=True)]
        expected = [(n, t.strip(b" \r")) for n, t in enumerate(content.split(b"\n"), start=1)]
        assert list(zip(line.tolist(), found, strict=True)) == [(n, t) for n, t in expected if t]
        _, gaps = blank_gaps(data)
        words = [len([word for word in text.split(b" ") if word]) for text in found]
        assert (count_within(gaps, (begin, end)) + 1).tolist() == words


def test_only_blanks_are_stripped() -> None:
    fields = [b"  a b ", b"", b"    ", b"\ta\r ", b"a"]
    _, data, ranges = ranges_of(fields)
    begin, end = strip(data, ranges)
    assert [bytes(data[b:e]) for b, e in zip(begin, end, strict=True)] == [
        *(field.strip(b" ") for field in fields)
    ]


def test_same_as_before() -> None:
    fields = [b"ab", b"ab", b"ac", b"a", b"a", b"", b"", b"x" * 64, b"x" * 64, b"y" * 65, b"y" * 65]
    _, data, ranges = ranges_of(fields)
    same = [0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0]
    assert same_as_before(data, ranges).tolist() == list(map(bool, same))


@pytest.mark.parametrize("decimals", range(16))
def test_numbers_come_to_the_last_bit(decimals: int) -> None:
    rng = random.Random(decimals)
    fields = [
        f"{rng.choice(['', '-'])}{rng.uniform(0, 10 ** rng.randrange(12)):.{decimals}f}".encode()
        for _ in range(2000)
    ]
    assert numbers(fields) == list(map(float, fields))


def test_unusual_numbers_are_numbers_too() -> None:
    plain = [b"1.250000", b"-0.000000", b"00012.000001", b"999999999.999999"]
    unusual = [b"1e5", b"+1.25", b".5", b"5.", b"7", b"1_0.5", b"inf", b"1234567890123456789.5"]
    for fields in ([*plain, *unusual], [*unusual, *plain]):
        assert numbers(fields) == list(map(float, fields))
    assert np.signbit(numbers([b"-0.0"])).all() and np.isnan(numbers([b"1.5", b"-nan"])[1])
    assert numbers([]) == []


@pytest.mark.parametrize(
    "field",
    [b"", b"-", b".", b"1.2.3", b"--1.5", b"1.5-", b"1,5", b"a.bcdefg", b"1.:00000", b"/.0"],
)
def test_what_is_no_number_is_refused(field: bytes) -> None:
    for fields in ([field], [b"1.500000", field], [field, b"1.500000"]):
        with pytest.raises(ValueError, match="could not convert"):
            numbers(fields)


def test_other_blanks() -> None:
    assert not has_other_blanks("a b\r\nété ß\r\n\r".encode())
    for text in ("a\tb", "a\rb\r\n", "a\vb", "é\fb"):
        assert has_other_blanks(text.encode())
    for text in ("a\u3000b", "a\u00a0b", "a\x1cb", "é\u2028"):
        assert not has_other_blanks(text.encode())
