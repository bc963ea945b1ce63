import re

import pytest

from w2ltune.errors import FlagError
from w2ltune.formats.distributions import (
    Choice,
    FloatRange,
    IntegerRange,
    format_value,
    parse_float,
    parse_integer,
    parse_value,
)


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("uniform(0, 5)", FloatRange(0, 5), None),
        ("uniform(-1.5,+2)", FloatRange(-1.5, 2), "uniform(-1.5, 2)"),
        (" uniform ( 0 , .5 ) ", FloatRange(0, 0.5), "uniform(0, 0.5)"),
        ("loguniform(1e-4, 1)", FloatRange(1e-4, 1, log=True), "loguniform(0.0001, 1)"),
        ("quniform(0, 0.3, 0.1)", FloatRange(0, 0.3, step=0.1), None),
        ("randint(10, 500)", IntegerRange(10, 500), None),
        ("randint(-3, -1)", IntegerRange(-3, -1), None),
        ("lograndint(1, 1000)", IntegerRange(1, 1000, log=True), None),
        ("qrandint(10, 50, 20)", IntegerRange(10, 50, step=20), None),
        ("choice(sgd, adam)", Choice(("sgd", "adam")), None),
        ("choice(sgd)", Choice(("sgd",)), None),
        ("choice('a, b', \"it's\", '', '(x)')", Choice(("a, b", "it's", "", "(x)")), None),
        ("choice(/lm/3-gram.bin,-inf)", Choice(("/lm/3-gram.bin", "-inf")), None),
    ],
)
def test_distribution_and_its_text(text, expected, shown):
    distribution = parse_value(text, flag="x")
    assert distribution == expected
    assert parse_value(str(distribution), flag="x") == distribution
    if shown:
        assert str(distribution) == shown
    elif "'" not in text and text.isascii() and "/" not in text:
        assert str(distribution) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.1",
        "-inf",
        " adam ",
        "/data/lm (old)/3-gram(1).bin",
        "model(1).bin",
        "model(1)",
        "(uniform)",
        "uniform",
        "max(1, 2)",
        "voice(1)",
        "dev:dev.lst,test(a):a.lst",
    ],
)
def test_fixed_value_comes_back_unchanged(text):
    assert parse_value(text, flag="x") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform(5, 0)", "low 5 is not below high 0"),
        ("uniform(1, 1)", "low 1 is not below high 1"),
        ("uniform(1)", "uniform(low, high) takes 2 values, not 1"),
        ("uniform()", "takes 2 values, not 0"),
        ("uniform(0, 1, 0.1)", "takes 2 values, not 3"),
        ("quniform(0, 1)", "quniform(low, high, step) takes 3 values, not 2"),
        ("uniform(0, one)", "'one' is not a number"),
        ("uniform(0, inf)", "'inf' is not a number"),
        ("uniform(0, 1e999)", "'1e999' is not a number"),
        ("uniform(nan, 1)", "'nan' is not a number"),
        ("uniform(0, 1_000)", "'1_000' is not a number"),
        ("uniform(0, 1", "the closing bracket is missing"),
        ("uniform(", "the closing bracket is missing"),
        ("uniform(0, 1) # why", "follows the closing bracket"),
        ("uniform(0, 1,)", "an argument is empty"),
        ("loguniform(0, 1)", "low 0 has no logarithm"),
        ("lograndint(-1, 1)", "low -1 has no logarithm"),
        ("randint(0, 1.5)", "'1.5' is not a whole number"),
        ("randint(0, 99999999999999999999)", "is not a whole number"),
        ("quniform(0, 1, 0)", "step 0 is not above 0"),
        ("quniform(0, 1, 2)", "step 2 is not above 0 and at most high - low"),
        ("quniform(0, 1, 0.3)", "the steps end at 0.9, not at high"),
        ("qrandint(0, 10, 4)", "the steps end at 8, not at high"),
        ("choice()", "at least one value"),
        ("choice(a,,b)", "an argument is empty"),
        ("choice(a, b, a)", "'a' is given twice"),
        ("choice(a b, c)", "quote a value"),
        ("choice('a, b)", "quote a value"),
        ("choice(f(1), b)", "quote a value"),
        ("unifrom(0, 1)", "no distribution 'unifrom'; did you mean 'uniform'?"),
        ("log_uniform(1, 2)", "did you mean 'loguniform'?"),
        ("Choice(a, b)", "did you mean 'choice'?"),
        ("choices(a, b)", "did you mean 'choice'?"),
    ],
)
def test_wrong_distribution_is_a_one_line_error(text, message):
    with pytest.raises(FlagError, match=re.escape(message)) as caught:
        parse_value(text, flag="lr", path="train.cfg", line=7)
    assert str(caught.value).startswith("train.cfg:7: --lr=")
    assert "\n" not in str(caught.value)


def test_error_without_a_place():
    with pytest.raises(FlagError, match=r"^--lr='uniform\(5, 0\)': low"):
        parse_value("uniform(5, 0)", flag="lr")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("uniform(0, 5)", [0, 5, 2.5], [-0.1, 5.1, "2", True, float("nan")]),
        ("quniform(0, 0.3, 0.1)", [0, 0.1, 0.2, 0.3], [0.15, 0.4]),
        ("randint(1, 3)", [1, 2.0, 3], [0, 4, 1.5, "2", True]),
        ("qrandint(1, 5, 2)", [1, 3, 5], [2, 7]),
        ("choice(true, 10, adam)", [True, 10, "adam"], [False, 1, "sgd"]),
    ],
)
def test_contains(text, inside, outside):
    distribution = parse_value(text, flag="x")
    assert not isinstance(distribution, str)
    assert [value for value in inside if not distribution.contains(value)] == []
    assert [value for value in outside if distribution.contains(value)] == []


@pytest.mark.parametrize("number", [0.1, 1e-08, 1 / 3, 1.7976931348623157e308, -2.5, 3.0])
def test_float_keeps_all_its_digits(number):
    assert parse_float(format_value(number)) == number


def test_format_value():
    assert [format_value(value) for value in (True, False, 7, "a b")] == [
        "true",
        "false",
        "7",
        "a b",
    ]


def test_numbers_are_read_as_gflags_does():
    assert parse_float("-inf") == float("-inf")
    assert [parse_float(text) for text in ("nan", " 1", "1_0", "", "1e", "٣")] == [None] * 6
    assert parse_integer("9223372036854775807") == 2**63 - 1
    assert [parse_integer(text) for text in ("9223372036854775808", "1.0", " 1", "1" * 5000)] == [
        None
    ] * 4
