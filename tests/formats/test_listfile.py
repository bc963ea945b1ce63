import itertools
import re

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.listfile import Utterance, iterate_list, read_list, write_list

ROWS = """\
tsta-0000 /wav/tsta-0000.wav 1352.1 left five
tsta-0001\t/wav/tsta-0001.wav\t1018.6\tone three  yes

emp-1 /wav/tsta-0002.wav 1500
"""


def utterance(id, path, duration_milliseconds, words):
    return Utterance(
        id=id,
        path=path,
        duration_milliseconds=duration_milliseconds,
        reference=tuple(words.split()),
    )


def test_wav2letter_rows(tmp_path):
    path = tmp_path / "a.lst"
    path.write_text(ROWS)
    assert read_list(path) == [
        utterance("tsta-0000", "/wav/tsta-0000.wav", 1352.1, "left five"),
        utterance("tsta-0001", "/wav/tsta-0001.wav", 1018.6, "one three yes"),
        utterance("emp-1", "/wav/tsta-0002.wav", 1500.0, ""),
    ]
    assert read_list(str(path)) == read_list(path)


@pytest.mark.parametrize("name", ["text", "dev.text"])
def test_kaldi_text(tmp_path, name):
    path = tmp_path / name
    path.write_text("utt-1 left five\nutt-2\n")
    assert read_list(path) == [
        utterance("utt-1", "", None, "left five"),
        utterance("utt-2", "", None, ""),
    ]


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.json", "dev.lst"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    path.write_text(
        '\n{"audio_filepath": "/wav/a-1.wav", "duration": 1.001, "text": "left five"}\n'
        '{"utt_id": 7, "wav": "b.flac", "duration": 2, "text": ""}\n'
        '{"id": "c", "text": "na\\u00efve\\u00a0one"}\n'
    )
    assert read_list(path) == [
        utterance("a-1", "/wav/a-1.wav", 1001.0, "left five"),
        utterance("7", "b.flac", 2000.0, ""),
        Utterance(id="c", path="", duration_milliseconds=None, reference=("naïve\u00a0one",)),
    ]


def test_words_are_split_as_the_binary_does(tmp_path):
    path = tmp_path / "a.lst"
    path.write_text("a a.wav 1 10\u00a0000 euros\r\n", encoding="utf-8")
    assert read_list(path)[0].reference == ("10\u00a0000", "euros")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.lst", b"onlyid path\n", "a.lst:1: 'onlyid path': a row is 'id path duration words...'"),
        ("a.lst", b"a /x.wav 1 hi\n" + b"b" * 100, "a.lst:2: '" + "b" * 59 + "…'"),
        ("a.lst", b"a /my wav/x.wav 1352.1 one\n", "'wav/x.wav', is no duration in milliseconds"),
        ("a.lst", b"a /my wav/x.wav 1352.1 one\n", "does the path hold a blank?"),
        ("a.lst", b"a one two three\n", "A list of Kaldi must be called text or *.text"),
        ("a.lst", b"a /x.wav nan one\n", "'nan', is no duration"),
        ("a.lst", b"a /x.wav inf one\n", "'inf', is no duration"),
        ("a.lst", b"a /x.wav -1 one\n", "'-1', is no duration"),
        ("a.lst", b"a /x.wav 1 one\n\na /y.wav 1 two\n", "a.lst:3: id 'a' is already on line 1"),
        ("a.lst", b"a /x.wav 1 one\nb /x.wav 1 \xe9t\xe9\n", "a.lst:2: not UTF-8"),
        ("a.lst", b"\xef\xbb\xbfa /x.wav 1 one\n", "a.lst:1: a byte order mark"),
        ("a.lst", b"", "the list has no utterances"),
        ("a.lst", b"\n  \n", "the list has no utterances"),
        ("text", b"a one\na two\n", "text:2: id 'a' is already on line 1"),
        ("a.json", b"[\n", "a.json:1: '[' is no JSON object; each line holds a whole one"),
        ("a.json", b'{"id": "a"', "is no JSON object"),
        ("a.json", b"[" * 100_000, "is no JSON object"),
        ("a.json", b'{"id": "a"}', 'has no "text"'),
        ("a.json", b'{"id": "a", "text": null}', 'has no "text"'),
        ("a.json", b'{"text": "one"}', "needs an id without blanks in one of id, utt_id"),
        ("a.json", b'{"id": "a b", "text": "one"}', "needs an id without blanks"),
        ("a.json", b'{"id": true, "text": "one"}', "needs an id"),
        ("a.json", b'{"id": "a", "text": "", "duration": "1"}', "'1' is no duration in seconds"),
        ("a.json", b'{"id": "a", "text": "", "duration": NaN}', "nan is no duration in seconds"),
        ("a.json", b'{"id": "a", "text": "", "duration": 1e999}', "inf is no duration"),
        ("a.json", b'{"id": "a", "text": "", "duration": -1}', "-1 is no duration in seconds"),
    ],
)
def test_wrong_list(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_list(path)
    assert str(path) in str(caught.value)


def test_missing_list(tmp_path):
    with pytest.raises(InputError, match="list: no such file"):
        read_list(tmp_path / "none.lst")


def test_list_is_streamed(tmp_path):
    path = tmp_path / "a.lst"
    path.write_text(ROWS + "bad row\n")
    first = list(itertools.islice(iterate_list(path), 3))
    assert [utterance.id for utterance in first] == ["tsta-0000", "tsta-0001", "emp-1"]


def test_written_list_reads_back(tmp_path):
    path = tmp_path / "a.lst"
    path.write_text(ROWS)
    utterances = read_list(path)
    write_list(tmp_path / "b.lst", iter(utterances))
    assert read_list(tmp_path / "b.lst") == utterances
    assert (tmp_path / "b.lst").read_text().splitlines()[2] == "emp-1 /wav/tsta-0002.wav 1500"


def test_unknown_duration_is_written_as_0(tmp_path):
    write_list(tmp_path / "b.lst", [utterance("a", "a.wav", None, "one")])
    assert (tmp_path / "b.lst").read_text() == "a a.wav 0 one\n"


@pytest.mark.parametrize("audio", ["", "my wav/a.wav", " a.wav", "a.wav\t"])
def test_list_that_cannot_be_written_leaves_nothing(tmp_path, audio):
    with pytest.raises(InputError, match="utterance 'b' cannot be written"):
        write_list(
            tmp_path / "b.lst",
            [utterance("a", "a.wav", 1.0, "one"), utterance("b", audio, 1.0, "two")],
        )
    assert list(tmp_path.iterdir()) == []
