import itertools
import json
import re

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.listfile import (
    Utterance,
    fit_durations,
    iterate_list,
    list_stem,
    read_list,
    write_list,
)

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


TWO_WAYS = "may be wav2letter's 'id path duration words...', with the audio"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("dev.txt", "a 6 8 0\nb 5 1 1 2\n", [["6", "8", "0"], ["5", "1", "1", "2"]]),
        ("dev", "a 6 8 0\nb 5 1 1 2\n", [["6", "8", "0"], ["5", "1", "1", "2"]]),
        ("dev.text", "a 6 8 0\n", [["6", "8", "0"]]),
        ("dev.txt", "a x/6 8 0\nb x/5 1 1\n", [["0"], ["1"]]),
        ("dev.txt", "a 6.flac 8 0\nb 5.flac 1 1\n", [["0"], ["1"]]),
        ("dev.txt", "a a 1352.1 left\nb b 1500 5\n", [["left"], ["5"]]),  # ids stand for audio
        ("dev.lst", "a x 1 left\nb x 1\n", [["left"], []]),
        ("dev.lst", "a 0 0 8 9\nb 0 0 3\n", [["8", "9"], ["3"]]),
        ("dev.lst", "a 17 1352 left\nb 18 1500 five\n", [["left"], ["five"]]),
        ("dev.text", "a x/a.wav one\nb x/b.wav 5\n", [["x/a.wav", "one"], ["x/b.wav", "5"]]),
    ],
)
def test_rows_of_two_formats(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    assert [list(utterance.reference) for utterance in read_list(tmp_path / name)] == words


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "dev.lst",
            "a 6 8 0\nb 5 1 1 2\n",
            f"'b 5 1 1 2' {TWO_WAYS} '5', 1 ms and the words '1 2'",
        ),
        ("dev.txt", "a one 3 two\nb two 4 one\n", f"'b two 4 one' {TWO_WAYS} 'two'"),
        ("dev.txt", "a may 1999\nb june 2003\n", f"'b june 2003' {TWO_WAYS} 'june', 2003 ms"),
        ("dev.txt", "a 6 8 left\nb 5 1 right\n", TWO_WAYS),
        ("dev.txt", "a - 0 8\nb - 0 9\n", f"{TWO_WAYS} '-', 0 ms"),
        ("dev.txt", "a one two\n", "A list of Kaldi must be called text or *.text"),
        ("text", "a x/a.wav 1352.1 one\nb x/b.wav 1500\n", "all rows are 'id path duration words"),
        ("dev.text", "a a.wav 1352.1\n", "but a list called text or *.text is one of Kaldi"),
    ],
)
def test_rows_that_cannot_be_told(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_list(tmp_path / name)


def test_audio_files_that_are_called_as_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev.lst").write_text("a 6 8 0\nb 5 1 1 2\n")
    (tmp_path / "6").touch()
    assert read_list("dev.lst")[1] == utterance("b", "5", 1.0, "1 2")


def test_names_of_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["data/dev/text", "data/dev.clean/text", "dev.text", "x/dev.lst", "text", "/text"]
    expected = ["dev", "dev-clean", "dev", "dev", tmp_path.name, "text"]
    assert [list_stem(path) for path in paths] == expected


def rows_of(path, *rows):
    path.write_text("".join(json.dumps({"text": "go", **row}) + "\n" for row in rows))
    return path


def test_equal_names_of_audio_files(tmp_path):
    path = rows_of(
        tmp_path / "m.json",
        {"audio_filepath": "/data/a/x/1.wav", "offset": 0},
        {"audio_filepath": "/data/b/x/1.wav"},
        {"audio_filepath": "/data/b/x/2.wav"},
        {"audio_filepath": "long.wav", "offset": 0.0},
        {"audio_filepath": "long.wav", "offset": 2.5},
        {"audio_filepath": "my a/3.wav"},
        {"audio_filepath": "b/3.wav", "id": "own"},
        {"audio_filepath": "c/3.wav"},
    )
    utterances = read_list(path)
    assert [entry.id for entry in utterances] == [
        "a-x-1", "b-x-1", "2", "long-0.0", "long-2.5", "my_a-3", "own", "c-3",
    ]  # fmt: skip
    _, (note,) = fit_durations(utterances, {}, path=path)
    assert note.startswith("m.json: 6 ids are made of the folder or offset of an audio file too")
    for offset in ({}, {"offset": 1}):
        row = {"audio_filepath": "a.wav", **offset}
        with pytest.raises(InputError, match=r"m.json:2: id 'a(-1)?' is already on line 1"):
            read_list(rows_of(path, row, row))


@pytest.mark.parametrize(
    ("durations", "frames", "expected", "said"),
    [
        ((1352.0, 2000.0), (34, 50), (1352.0, 2000.0), ""),
        ((0, 2000.0), (34, 50), (0, 2000.0), ""),
        ((1.352, 2.0), (34, 50), (1352.0, 2000.0), "1.352 ms cannot be the length of the 34 "
         "frames of 'u0': all durations are taken as seconds"),
        ((1352e3, 2000e3), (34, 50), (1352.0, 2000.0), "are taken as milliseconds"),
        ((1e-3, 1e-3), (34, 50), (None, None), "all durations are taken as not known"),
        ((600.0, 700.0, 2000.0), (50, 50, 50), (600.0, 700.0, 2000.0), "all utterances have 50 "
         "frames, but are 0.6 to 2 s long: padded frames are decoded too"),
        ((900.0, 1000.0, 1100.0), (50, 50, 50), (900.0, 1000.0, 1100.0), ""),
    ],
)  # fmt: skip
def test_durations_are_held_against_frames(tmp_path, durations, frames, expected, said):
    utterances = [utterance(f"u{n}", f"{n}.wav", d, "go") for n, d in enumerate(durations)]
    counts = {f"u{n}": count for n, count in enumerate(frames)}
    found, notes = fit_durations(utterances, counts, path=tmp_path / "dev.lst")
    assert [entry.duration_milliseconds for entry in found] == pytest.approx(expected)
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)
