import shutil
from pathlib import Path

import numpy as np
import pytest

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.emissions import write_emissions
from w2ltune.trials.dataset import (
    Dataset,
    DecodeTask,
    blocks,
    read_utterance_counts,
    shuffled_order,
)
from w2ltune.trials.ending import padding_note
from w2ltune.trials.findtask import find_task
from w2ltune.trials.sanity import check_all_emissions

EMISSION_BINS = Path(__file__).parents[1] / "data" / "weak" / "emissions"


def write_set(folder, name, references, first_value=0.0):
    """Write a list and its emissions; utterance number n has n + 1 frames of 3 tokens."""
    ids = [f"{name}-{n}" for n in range(len(references))]
    rows = [f"{i}\t{i}.flac\t1000\t{text}\n" for i, text in zip(ids, references, strict=True)]
    (folder / f"{name}.lst").write_text("".join(rows), encoding="utf-8")
    emissions = {
        i: np.full((n + 1, 3), first_value + n, np.float32) for n, i in enumerate(ids)
    }.items()
    write_emissions(folder / f"{name}.npz", emissions)
    return folder / f"{name}.lst", folder / f"{name}.npz"


def make_task(*pairs, **options):
    lists, emissions = zip(*pairs, strict=True)
    return DecodeTask(lists=lists, emissions=emissions, **options)


def test_a_task_is_found_by_its_flags(tmp_path):
    write_set(tmp_path, "dev", ["a b"])
    write_set(tmp_path, "other", ["a b"])
    flags = {
        "test": "dev.lst,other.lst",
        "datadir": str(tmp_path),
        "emission_dir": str(tmp_path),
    }
    task = find_task(flags, metric="cer", normalize=None, ignore_case=True)
    assert task == make_task(
        (tmp_path / "dev.lst", tmp_path / "dev.npz"),
        (tmp_path / "other.lst", tmp_path / "other.npz"),
        metric="cer",
        ignore_case=True,
    )


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({}, UsageError, "no --test"),
        ({"test": ","}, UsageError, "no --test"),
        ({"test": "dev.lst"}, UsageError, "no --emission_dir"),
        ({"test": "dev.lst", "emission_dir": "none"}, InputError, "--emission_dir: no such .*none"),
        (
            {"test": "dve.lst", "emission_dir": "."},
            InputError,
            r"\(--test\): no such file .*'dev.lst'",
        ),
    ],
)
def test_what_a_task_needs(tmp_path, flags, error, message):
    write_set(tmp_path, "dev", ["a b"])
    flags = {**flags, "datadir": str(tmp_path)}
    with pytest.raises(error, match=message):
        find_task(flags, metric="wer", normalize=None, ignore_case=False)


def test_a_held_out_list_that_is_not_there_is_told_as_such(tmp_path):
    write_set(tmp_path, "dev", ["a b"])
    flags = {"test": "dev.lst", "datadir": str(tmp_path), "emission_dir": str(tmp_path)}
    with pytest.raises(InputError, match=r"list \(--heldout\): no such file '.*test\.lst'"):
        find_task(flags, metric="wer", normalize=None, ignore_case=False, heldout="test.lst")


def test_lists_of_one_name_are_refused():
    flags = {"test": "a/dev.lst,b/dev.json", "emission_dir": "none"}
    with pytest.raises(UsageError, match="two lists are named 'dev'"):
        find_task(flags, metric="wer", normalize=None, ignore_case=False)


def test_lists_called_text_go_by_their_folder(tmp_path):
    texts = {"dev": ["a b", "c"], "test": ["d"]}
    for name, references in texts.items():
        write_set(tmp_path, name, references)
        (tmp_path / "data" / name).mkdir(parents=True)
        rows = [f"{name}-{n} {text}\n" for n, text in enumerate(references)]
        (tmp_path / "data" / name / "text").write_text("".join(rows))
    shutil.copy(tmp_path / "test.npz", tmp_path / "text.npz")  # of whichever list
    flags = {"test": "dev/text", "datadir": str(tmp_path / "data"), "emission_dir": str(tmp_path)}
    task = find_task(flags, metric="wer", normalize=None, ignore_case=False, heldout="test/text")
    assert [path.name for path in task.emissions] == ["dev.npz", "test.npz"]
    assert Dataset(task).references == [["a", "b"], ["c"], ["d"]]
    flags |= {"test": "text", "datadir": str(tmp_path / "data/dev")}
    task = find_task(flags, metric="wer", normalize=None, ignore_case=False)
    assert [path.name for path in task.emissions] == ["dev.npz"]
    flags |= {"test": "data/dev/text,dev.lst", "datadir": str(tmp_path)}
    with pytest.raises(UsageError, match="two lists are named 'dev'"):
        find_task(flags, metric="wer", normalize=None, ignore_case=False)


def test_durations_in_seconds(tmp_path):
    listed, emissions = write_set(tmp_path, "dev", ["a b", "c"])
    dataset = Dataset(make_task((listed, emissions)))
    assert (dataset.notes, dataset.utterances[1].duration_milliseconds) == ([], 1000.0)
    listed.write_text("dev-0 a.wav 0.03 a b\ndev-1 b.wav 0.06 c\n")
    dataset = Dataset(make_task((listed, emissions)))
    assert [u.duration_milliseconds for u in dataset.utterances] == pytest.approx([30, 60])
    assert dataset.notes == [
        "dev.lst: 0.03 ms cannot be the length of the 1 frames of 'dev-0': all durations are taken "
        "as seconds"
    ]
    listed.write_text("dev-0 x 0.03 a b\ndev-1 x 0.06 c\n")  # digits have no decimals
    assert Dataset(make_task((listed, emissions))).notes == dataset.notes
    listed.write_text("dev-0 one 1 two\ndev-1 two 1 three\n")
    with pytest.raises(InputError, match="1 ms cannot be for 1 frames: 'dev-0 one 1 two' may"):
        Dataset(make_task((listed, emissions)))


@pytest.mark.parametrize("pad", [0, -100, -np.inf])
def test_padded_emissions_are_refused(tmp_path, pad):
    listed, path = write_set(tmp_path, "dev", ["a b", "c", "d"])
    own = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    padded = np.concatenate([own, np.full((4, 3), pad, np.float32)])
    write_emissions(path, {"dev-0": own, "dev-1": padded, "dev-2": padded}.items())
    dataset = Dataset(make_task((listed, path)))
    message = "2 utterances are padded, as 'dev-1' with 4 frames that have one value for all tokens"
    with pytest.raises(InputError, match=message):
        check_all_emissions(dataset, 3)
    write_emissions(path, {"dev-0": own, "dev-1": padded[:9], "dev-2": own}.items())
    check_all_emissions(Dataset(make_task((listed, path))), 3)


def test_a_frame_at_many_ends_is_told(tmp_path):
    listed, path = write_set(tmp_path, "dev", ["a b", "c", "d"])
    own = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)

    def note(frame, *times):
        ends = [np.concatenate([own, np.tile(np.float32(frame), (n, 1))]) for n in times]
        write_emissions(path, zip(("dev-0", "dev-1", "dev-2"), ends, strict=True))
        return padding_note(Dataset(make_task((listed, path))))

    assert note([1, 5, 2], 0, 3, 7).startswith("2 emissions end in one and the same frame, up to 7")
    assert note([1, 2, 5], 0, 3, 7) == ""  # the blank
    assert note([1, 5, 2], 3, 3, 3) == ""
    assert note([1, 5, 2], 0, 1, 2) == ""


def test_before_emissions_are_made_the_lists_are_there(tmp_path):
    write_set(tmp_path, "dev", ["a b"])
    flags = {"test": "dev.lst", "datadir": str(tmp_path)}
    task = find_task(flags, metric="wer", normalize=None, ignore_case=False, emissions=())
    dataset = Dataset(task)
    assert (task.emissions, list(dataset.emission_sets)) == ((), [])
    assert dataset.references == [["a", "b"]]


def test_utterances_of_several_lists(tmp_path):
    dataset = Dataset(
        make_task(
            write_set(tmp_path, "dev", ["a b", "c"]),
            write_set(tmp_path, "other", ["d e f"], first_value=7.0),
        )
    )
    assert dataset.ids == ("dev-0", "dev-1", "other-0")
    assert dataset.references == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert dataset.list_of == [0, 0, 1]
    assert [dataset.frames(index) for index in range(3)] == [1, 2, 1]
    emission = dataset.emission(2)
    assert (emission.shape, emission.dtype) == ((1, 3), np.float32)
    assert emission.flags.c_contiguous
    assert (emission == 7.0).all()


def test_emissions_of_the_real_binary(tmp_path):
    path = tmp_path / "a b.lst"
    path.write_text("tstb-0011 x.flac 1000 no\ntsta-0000 y.flac 1000 yes yes\n")
    dataset = Dataset(make_task((path, EMISSION_BINS)))
    assert dataset.ids == ("tstb-0011", "tsta-0000")  # the list decides the order
    for index in range(2):
        assert dataset.emission(index).shape[0] == dataset.frames(index) > 0


def test_counts(tmp_path):
    references = ["a b c d", "", "x"]
    dataset = Dataset(make_task(write_set(tmp_path, "dev", references)))
    counts = dataset.count([0, 1, 2], ["a x c", "y", ""])
    assert counts.tolist() == [[1, 1, 0, 4], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert dataset.count([2, 0], ["x", "a b c d"])[:, :3].sum() == 0
    assert dataset.count([], []).shape == (0, 4)


def test_counts_of_characters_without_case(tmp_path):
    task = make_task(
        write_set(tmp_path, "dev", ["STRASSE e\u0301"]), metric="cer", ignore_case=True
    )
    dataset = Dataset(task)
    assert dataset.count([0], ["strasse \u00e9"]).tolist()[0][:3] == [0, 0, 0]


def test_a_normaliser_changes_reference_and_hypothesis(tmp_path):
    script = tmp_path / "normalize.py"
    script.write_text("def normalize(text):\n    return text.replace('-', ' ')\n")
    dataset = Dataset(make_task(write_set(tmp_path, "dev", ["twenty-one"]), normalize=script))
    assert dataset.references == [["twenty", "one"]]
    assert dataset.count([0], ["twenty one"]).tolist() == [[0, 0, 0, 2]]


def test_an_utterance_in_two_lists_is_refused(tmp_path):
    first = write_set(tmp_path, "dev", ["a"])
    again = tmp_path / "again.lst"
    shutil.copy(first[0], again)
    with pytest.raises(InputError, match=r"again\.lst: utterance 'dev-0' stands in .*dev\.lst too"):
        Dataset(make_task(first, (again, first[1])))


def test_the_order_is_the_same_for_ever():
    # Another order would compare the blocks of an old study with others.
    assert shuffled_order(12) == [3, 11, 6, 5, 8, 4, 0, 1, 9, 10, 7, 2]
    assert shuffled_order(0) == []


def test_blocks():
    for count in (*range(1, 40), 255, 256, 257, 2703):
        found = blocks(count)
        sizes = [len(block) for block in found]
        assert [index for block in found for index in block] == shuffled_order(count)
        assert len(found) == max(1, min(32, count // 8))
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(count, 8)


def test_utterance_counts_come_in_the_shuffled_order(tmp_path):
    count = 20
    hypotheses = {3: "", 4: "a\u2028b\x85c", 5: "tab\tin it"}
    rows = [
        f"utt-{n}\t{n}\t{n + 1}\t{n + 2}\t{n + 3}\t{hypotheses.get(n, 'a b')}\n"
        for n in range(count)
    ]
    path = tmp_path / "utterances.tsv"
    path.write_text(
        "id\tsubstitutions\tdeletions\tinsertions\treference_length\thypothesis\n" + "".join(rows),
        encoding="utf-8",
    )
    counts = read_utterance_counts(path, total=None)
    assert counts[:, 0].tolist() == shuffled_order(count)
    assert (counts - counts[:, :1]).tolist() == [[0, 1, 2, 3]] * count

    total = counts.sum(axis=0).tolist()
    assert read_utterance_counts(path, total=total, rows=count).tolist() == counts.tolist()
    for asked in ({"rows": count + 1, "total": total}, {"total": [0, *total[1:]]}):
        with pytest.raises(InputError, match=r"utterances\.tsv: damaged.*20 utterances that come"):
            read_utterance_counts(path, **asked)
