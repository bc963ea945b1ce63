from __future__ import annotations

from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.scoring.text import load_normalizer, refuse_alternatives, split_units


def hook(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "normalize.py"
    path.write_text(source, encoding="utf-8")
    return path


def test_without_a_file_the_text_stays() -> None:
    assert load_normalizer(None, ignore_case=False)("  A  b ") == "  A  b "
    assert load_normalizer(None, ignore_case=True)("Straße ÉTÉ") == "straße été"


def test_the_file_is_applied_before_the_case(tmp_path: Path) -> None:
    path = hook(
        tmp_path,
        "import re\nRULE = re.compile('[.,]')\n"
        "def normalize(text: str) -> str:\n    return RULE.sub('', text).replace('MR', 'Mister')\n",
    )
    assert load_normalizer(path, ignore_case=False)("MR Smith.") == "Mister Smith"
    assert load_normalizer(path, ignore_case=True)("MR Smith.") == "mister smith"


@pytest.mark.parametrize(
    ("source", "where", "message"),
    [
        ("x = 1\n\ndef normalize(:\n", ":3: ", "cannot be run: SyntaxError"),
        ("x = 1\nimport no_such_module_at_all\n", ":2: ", "cannot be run: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", ":1: ", "cannot be run: SystemExit: 3"),
        ("x = 1\n", ": ", r"no function normalize\(text: str\) -> str$"),
        ("def normalise(text): return text\n", ": ", "did you mean 'normalise'"),
        ("normalize = 5\n", ": ", "no function normalize"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, source: str, where: str, message: str
) -> None:
    path = hook(tmp_path, source)
    with pytest.raises(InputError, match=message) as caught:
        load_normalizer(path, ignore_case=False)
    assert str(caught.value).startswith(f"{path}{where}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--normalize.*no such file"):
        load_normalizer(tmp_path / "none.py", ignore_case=False)


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        ("return None", ": ", r"normalize\('a b'\) returned None"),
        ("return text.split()", ": ", r"returned \['a', 'b'\]; it must return a string"),
        ("return {}[text]", ":2: ", r"normalize\('a b'\) raised KeyError: 'a b'"),
        ("return text()", ":2: ", "raised TypeError"),
    ],
)
def test_a_function_that_fails_is_named(
    tmp_path: Path, body: str, where: str, message: str
) -> None:
    path = hook(tmp_path, f"def normalize(text):\n    {body}\n")
    normalize = load_normalizer(path, ignore_case=True)
    with pytest.raises(InputError, match=message) as caught:
        normalize("a b")
    assert str(caught.value).startswith(f"{path}{where}")


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("", []),
        ("   ", []),
        (" a  b\tc\n", ["a", "b", "c"]),
        ("l'été d'ici", ["l'été", "d'ici"]),
    ],
)
def test_words(text: str, units: list[str]) -> None:
    assert split_units(text, "wer") == units


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("", []),
        (" ab  c ", ["a", "b", "c"]),
        ("a\u00a0b\u3000c", ["a", "\u00a0", "b", "\u3000", "c"]),  # parts of the word
        ("e\u0301t\u00e9", ["\u00e9", "t", "\u00e9"]),  # both forms of é are one unit
        ("q\u0307\u0323x", ["q\u0323\u0307", "x"]),  # no single code point, order of NFC
        ("\u0928\u092e\u0938\u094d\u0924\u0947", ["न", "म", "स्", "ते"]),  # Hindi
        ("\u1112\u1161\u11ab\uae00", ["한", "글"]),  # Hangul from letters, and composed
        ("日本", ["日", "本"]),
        ("👩‍👩‍👧x", ["👩‍👩‍👧", "x"]),  # joined by ZWJ
        ("👍🏽👍", ["👍🏽", "👍"]),  # skin tone
        ("❤️a", ["❤️", "a"]),  # variation selector
        ("🇩🇪🇫🇷🇮", ["🇩🇪", "🇫🇷", "🇮"]),  # flags are pairs
        ("🏴\U000e0067\U000e0062\U000e007f!", ["🏴\U000e0067\U000e0062\U000e007f", "!"]),
        ("a \u0301b", ["a", "\u0301", "b"]),  # of another word
        ("\u0301a", ["\u0301", "a"]),
        ("क्‍ष", ["क्‍", "ष"]),  # a joiner between letters joins no symbols
    ],
)
def test_characters(text: str, units: list[str]) -> None:
    assert split_units(text, "cer") == units


@pytest.mark.parametrize(
    "text",
    [
        *("{colour / color} is", "a { b / c d / @ }", "{ a / { b / c } }", "{a/b} yes", "x {1/2}"),
        *("{a}{b/c}", "{a {b/c}}"),
    ],
)
def test_alternatives_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^dev\.lst:7: .*alternatives.*sclite"):
        refuse_alternatives(text, path=Path("dev.lst"), line=7)


@pytest.mark.parametrize("text", ["", "and / or", "{laugh} a / b", "a{1/2}", "{ a } / { b }"])
def test_other_braces_and_slashes_pass(text: str) -> None:
    refuse_alternatives(text, path=Path("dev.lst"), line=7)
