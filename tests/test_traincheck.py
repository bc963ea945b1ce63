"""The check of a training's inputs: each mistake is one line, before anything starts."""

import re
import time
from pathlib import Path

import pytest

from w2ltune.binaryrules import check_binary, generation_of
from w2ltune.errors import FlagError, InputError, UsageError
from w2ltune.formats.flagsfile import Flag
from w2ltune.listcheck import check_words, overlap_notes, read_content
from w2ltune.traincheck import check_training, valid_sets

VOICE_COMMANDS = Path(__file__).resolve().parents[1] / "experiments" / "voice_commands"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with all that a training needs; it is the current directory too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wav").mkdir()
    for name, count in (("trn", 60), ("dev", 3)):
        rows = []
        for number in range(count):
            (tmp_path / "wav" / f"{name}-{number}.wav").write_bytes(b"RIFF")
            rows.append(f"{name}-{number} wav/{name}-{number}.wav 1500.5 left two\n")
        (tmp_path / f"{name}.lst").write_text("".join(rows))
    (tmp_path / "tokens.txt").write_text("|\n" + "\n".join("eflotw") + "\n")
    (tmp_path / "lexicon.txt").write_text("left l e f t |\ntwo t w o |\n")
    (tmp_path / "net.arch").write_text("V -1 1 NFEAT 0\n")
    return tmp_path


@pytest.fixture
def check(data):
    def run(*, mode="train", generation="flashlight", embedded=False, where=None, **changes):
        flags = {
            "datadir": str(data),
            "train": "trn.lst",
            "valid": "dev:dev.lst",
            "tokens": "tokens.txt",
            "lexicon": "lexicon.txt",
            "arch": "net.arch",
            "lr": "0.1",
            "iter": "100",
        }
        flags = {k: str(v) for k, v in (flags | changes).items() if v is not None}
        extra_known = flags.pop("extra_known", "").split()
        return check_training(
            flags,
            mode=mode,
            generation=generation,
            embedded=embedded,
            where=where,
            extra_known=extra_known,
        )

    return run


def test_all_is_well(check):
    assert check() == []
    assert check(train="trn.lst,dev.lst,", valid="dev.lst") != []
    assert (
        check(lr="loguniform(1e-4, 1)", iter="choice(100, 200)", netoptim="choice(sgd, adam)") == []
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": None}, UsageError, r"no --train: give the training lists"),
        ({"valid": None}, UsageError, r"no --valid: "),
        ({"valid": ""}, UsageError, r"no --valid: "),
        ({"tokens": None}, UsageError, r"no --tokens: "),
        ({"arch": None}, UsageError, r"no --arch: "),
        (
            {"generation": "wav2letter", "criterion": "seq2seq"},
            UsageError,
            r"seq2seq without --eostoken=true",
        ),
        ({"lexicon": None}, UsageError, r"no --lexicon: give one .*Unknown entry in dictionary"),
        ({"lexicon": ""}, UsageError, r"no --lexicon: "),
        ({"train": ","}, FlagError, r"--train=,: names no list"),
        ({"train": "trm.lst"}, InputError, r"no such file '.*trm.lst'; did you mean 'trn.lst'"),
        ({"valid": "dev:no/dev.lst"}, InputError, r"\(--valid\): no such file .* \(nor the folder"),
        ({"datadir": "/no/such"}, InputError, r"no such file '/no/such/trn.lst'"),
        ({"tokens": "token.txt"}, InputError, r"\(--tokens\): .*did you mean 'tokens.txt'"),
        ({"lexicon": "lexicon.tx"}, InputError, r"\(--lexicon\): .*did you mean 'lexicon.txt'"),
        ({"arch": "wav"}, InputError, r"network \(--arch\): 'wav' is not a file"),
        ({"arch": "choice(net.arch, no.arch)"}, InputError, r"\(--arch\): no such file 'no.arch'"),
        (
            {"criterion": "ctc", "lm": "no.bin"},
            InputError,
            r"language model \(--lm\): no such file",
        ),
        (
            {"criterion": "ctc", "lm": "net.arch"},
            InputError,
            r"neither an ARPA file nor a KenLM binary",
        ),
        ({"am": "no.bin"}, InputError, r"acoustic model \(--am\): no such file"),
        ({"lr": "0"}, FlagError, r"--lr=0: 0 must be above 0"),
        ({"lr": "-0.1"}, FlagError, r"--lr=-0.1"),
        ({"lr": "inf"}, FlagError, r"--lr=inf"),
        ({"lr": "abc"}, FlagError, r"--lr='abc': not a number"),
        ({"lr": "uniform(0, 1)"}, FlagError, r"--lr=uniform\(0, 1\): 0.0 must be above 0"),
        ({"lr": "choice(0.1, 0)"}, FlagError, r"--lr"),
        ({"iter": "0"}, FlagError, r"--iter=0"),
        ({"iter": "1e5"}, FlagError, r"--iter='1e5': not a whole number"),
        ({"itersave": "maybe"}, FlagError, r"--itersave='maybe': not true or false"),
        ({"momentun": "0.8"}, FlagError, r"unknown flag --momentun; did you mean 'momentum'"),
        ({"tokensdir": "."}, FlagError, r"flashlight takes the full path in --tokens"),
    ],
)
def test_flags(check, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        check(**changes)
    assert "\n" not in str(caught.value)


def test_unknown_flags_may_be_let_through(check):
    assert check(momentun="0.8", extra_known="momentun") == []


def test_messages_name_the_line_of_the_config(check):
    where = {
        name: Flag(name=name, value=value, path="train.cfg", line=7)
        for name, value in (("lr", "0.1"), ("tokens", "t.txt"), ("rundir", "old"))
    }
    with pytest.raises(FlagError, match=r"train.cfg:7: --lr=0: "):
        check(where=where, lr="0")
    with pytest.raises(InputError, match=r"token list \(--tokens of train.cfg:7\): no such file"):
        check(where=where, tokens="t.txt")
    assert check(where=where, rundir="old", world_size="2") == [
        "--rundir (train.cfg:7) is not used: w2ltune gives the run directory",
        "--world_size (the command line) is not used: w2ltune gives it according to --ngpu",
    ]


@pytest.mark.parametrize("name", ["trn.lst", "dev.lst", "tokens.txt", "lexicon.txt", "net.arch"])
def test_empty_files(check, data, name):
    (data / name).write_text("")
    with pytest.raises(InputError, match=rf"{name}' is empty"):
        check()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("\n\n", r"trn.lst: the list has no utterances"),
        ("a wav/trn-0.wav 1 x\nonlyid path\n", r"trn.lst:2: 'onlyid path': a row is 'id path"),
        ("a wav/trn-0.wav 1\na wav/trn-1.wav 1\n", r"trn.lst:2: id 'a' is already on line 1"),
        ("a my file.wav 1 x\n", r"trn.lst:1: .*is no duration"),
        ("a wav/trn-0.wav nan\n", r"trn.lst:1: .*is no duration"),
        ("a wav/trn-0.wav 1\n \nb wav/trn-0.wav 1\n", r"trn.lst:2: a line of blanks only"),
        ("a wav/trn-0.wav 1\nb no.wav 1\n", r"trn.lst:2: no audio file 'no.wav' in /.* \(1 of 2"),
        ("a /no/audio.wav 1\n", r"trn.lst:1: no audio file '/no/audio.wav' \(1 of 1 "),
        ('{"audio_filepath": "wav/trn-0.wav", "text": "left"}\n', r"no list for training"),
        ("\ufeffa wav/trn-0.wav 1 left\n", r"trn.lst:1: a byte order mark"),
        (b"a wav/trn-0.wav 1 \xff\n", r"trn.lst:1: not UTF-8"),
    ],
)
def test_lists(check, data, rows, message):
    (data / "trn.lst").write_bytes(rows if isinstance(rows, bytes) else rows.encode("utf-8"))
    with pytest.raises(InputError, match=message):
        check()


def test_the_captured_traps(check, data, captures):
    for name, message in (
        ("shortrow.lst", "shortrow.lst:1: 'onlyid path': a row is"),
        ("empty.lst", "is empty"),
        ("missaudio.lst", r"missaudio.lst:\d+: no audio file"),
    ):
        with pytest.raises(InputError, match=message):
            check(datadir=str(captures / "data"), train=name)


def test_audio_files_are_looked_for_all_over_a_list(check, data):
    rows = (data / "trn.lst").read_text().splitlines(keepends=True)
    for absent in (0, 1, 30, 59):
        changed = [row.replace("wav/", "no/") if n == absent else row for n, row in enumerate(rows)]
        (data / "trn.lst").write_text("".join(changed))
        with pytest.raises(InputError, match=rf"trn.lst:{absent + 1}: .*\(1 of 60 are such"):
            check()


def test_missing_and_empty_audio_files_of_a_long_list(check, data):
    """It is looked for by several threads; the first one is named with its line."""
    rows = [f"u{n} wav/trn-{n % 60}.wav 1 left\n" for n in range(2500)]
    (data / "trn.lst").write_text("".join(rows))
    check()
    rows[1999], rows[2400] = (f"u{n} wav/no-{n}.wav 1 left\n" for n in (1999, 2400))
    (data / "trn.lst").write_text("".join(rows))
    with pytest.raises(InputError, match=r"trn.lst:2000: .*'wav/no-1999.wav' .*\(2 of 2500 are"):
        check()
    for n in (1999, 2400):
        (data / f"wav/no-{n}.wav").touch()
    with pytest.raises(InputError, match=r"trn.lst:2000: empty audio file .*\(2 of 2500 are such"):
        check()


def test_datadir_stands_before_an_absolute_path_too(check, data):
    with pytest.raises(InputError, match=r"write --datadir= with nothing after it"):
        check(train=str(data / "trn.lst"))
    for datadir in ("", None):
        assert (
            check(datadir=datadir, train=str(data / "trn.lst"), valid=str(data / "dev.lst")) == []
        )
    assert check(datadir=f"{data}/") == []


def test_wav2letter_has_folders_for_tokens_and_network(check, data):
    (data / "am").mkdir()
    for name in ("tokens.txt", "net.arch"):
        (data / name).rename(data / "am" / name)
    assert check(generation="wav2letter", tokensdir="am", archdir=f"{data}/am") == []
    with pytest.raises(InputError, match=r"\(--tokens\): no such file 'tokens.txt'"):
        check(generation="wav2letter", archdir="am")
    with pytest.raises(InputError, match=r"\(--arch\): no such file 'net.arch'"):
        check(generation="wav2letter", tokensdir="am")


@pytest.mark.parametrize("mode", ["continue", "fork"])
def test_a_model_brings_its_own_flags(check, mode):
    nothing = dict.fromkeys(("train", "valid", "tokens", "lexicon", "datadir"))
    assert check(mode=mode, arch="moved.arch", **nothing) == []
    with pytest.raises(UsageError, match="no --valid"):
        check(mode=mode, valid="")
    with pytest.raises(InputError, match=r"nolist.lst"):
        check(mode=mode, train="nolist.lst")


def test_words_without_a_spelling(check, data):
    with (data / "dev.lst").open("a") as file:
        file.write("x wav/dev-0.wav 1 left fool tool wolf ox\n")
    assert check() == [
        "4 of the 6 words of dev.lst are not in the lexicon and will be spelled by letters: "
        "fool, ox, tool, wolf",
        "the tokens lack 'x': the program leaves them out of words of dev.lst",
    ]
    upper = (data / "trn.lst").read_text().replace("left two", "LEFT TWO")
    (data / "trn.lst").write_text(upper)
    assert "LEFT, TWO; they differ in the case of the letters" in check()[0]


def test_a_spelling_needs_a_token_that_is_not_there(check, data):
    (data / "lexicon.txt").write_text("left l e f t |\nunused x y z\ntwo t u |\n")
    with pytest.raises(InputError, match=r"lexicon.txt:3: the spelling of 'two' needs .*'u'"):
        check()


def test_trained_on_what_is_measured(check):
    assert check(train="trn.lst,dev.lst") == [
        "3 of the 3 utterances of dev.lst are in the training lists too: its WER will look too good"
    ]


def test_the_embedded_trainer_has_features_instead_of_audio(check, data):
    (data / "features").mkdir()
    for name in ("trn", "dev"):
        (data / "features" / f"{name}.npz").write_bytes(b"PK")
    for sound in (data / "wav").iterdir():
        sound.unlink()
    own = {"embedded": True, "arch": None, "features_dir": "features"}
    with pytest.raises(FlagError, match=r"^--criterion=asg"):  # the default of flashlight
        check(**own)
    own["criterion"] = "ctc"
    assert check(**own) == []
    assert check(**own, train=str(data / "trn.lst"), hidden="32") == []
    with pytest.raises(UsageError, match="no --features_dir"):
        check(embedded=True, arch=None, criterion="ctc")
    with pytest.raises(FlagError, match="unknown flag --features_dir"):
        check(features_dir="features")
    for changes, message in (
        ({"criterion": "asg"}, "--criterion=asg"),
        ({"hidden": "choice(64, 0)"}, "--hidden=0"),
        ({"momentum": "uniform(0, 2)"}, "--momentum=2"),
        ({"batchsize": "x"}, "--batchsize='x'"),
    ):
        where = {name: Flag(name=name, value="", path="a.cfg", line=5) for name in changes}
        with pytest.raises(FlagError, match=f"^a.cfg:5: {message}"):
            check(where=where, **{**own, **changes})
    (data / "features" / "dev.npz").unlink()
    with pytest.raises(InputError, match=r"features of dev.lst \(--features_dir\): no such file"):
        check(**own)
    (data / "dev.lst").write_text("d x 1 fix\n")
    (data / "features" / "dev.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"the word 'fix' is spelled by letters, and the tokens"):
        check(**own)


@pytest.mark.parametrize(
    "text",
    [
        "dev:a.lst,dev:b.lst",
        "a/b:x.lst,a#b:y.lst",
        "dev.lst,dev.lst",
        ":a.lst",
        "dev:",
        "a:b:c",
        "dev:a.lst, other:b.lst",
        "train:a.lst",
        "last:a.lst",
    ],
)
def test_tags_that_cannot_be(check, text):
    with pytest.raises(UsageError, match=re.escape(f"--valid={text}: ")):
        valid_sets(text)
    with pytest.raises(UsageError, match="--valid="):
        check(valid=text)


def test_tags():
    assert valid_sets("b:x.lst,a:y/z.lst,/lists/c.lst,") == {
        "b": "x.lst",
        "a": "y/z.lst",
        "/lists/c.lst": "/lists/c.lst",
    }
    assert valid_sets("") == {}


def test_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "fl_asr_train"
    program.write_text("#!/bin/bash\n")
    with pytest.raises(UsageError, match=r"may not be executed: chmod \+x"):
        check_binary(program)
    program.chmod(0o755)
    assert check_binary(Path("fl_asr_train")) == check_binary(program) == program
    with pytest.raises(UsageError, match=r"no such program; did you mean 'fl_asr_train'"):
        check_binary(tmp_path / "fl_asr_trian")
    with pytest.raises(UsageError, match=r"is a folder; name the program itself; in it are fl_asr"):
        check_binary(tmp_path)
    with pytest.raises(UsageError, match=r"no such program \(nor the folder"):
        check_binary(tmp_path / "build" / "Train")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UsageError, match="no such program"):
        check_binary(Path("fl_asr_train"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_binary(Path("fl_asr_train")) == program


def test_generations():
    names = ("build/Train", "fl_asr_train", "bin/asr/fl_asr_tutorial_finetune_ctc", "my_train")
    assert [generation_of(Path(name)) for name in names] == ["wav2letter", *["flashlight"] * 3]


def test_the_experiment_at_hand_is_right():
    train = read_content(VOICE_COMMANDS / "train.lst", audio=False)
    valid = read_content(VOICE_COMMANDS / "dev.lst", audio=False)
    assert overlap_notes([train], [valid]) == []
    tokens = (VOICE_COMMANDS / "tokens.txt").read_text(encoding="utf-8").split()
    lexicon = VOICE_COMMANDS / "lexicon.txt"
    check_words([train, valid], lexicon, tokens, skips_letters=False)


def test_the_time_for_a_long_list_is_not_that_of_its_square(tmp_path):
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"RIFF")
    path = tmp_path / "long.lst"
    with path.open("w") as file:
        for number in range(40_000):
            words = " ".join(f"w{number * factor % 9973}" for factor in (1, 3, 7, 11, 13, 17))
            file.write(f"utt-{number} {sound} 1500 {words}\n")
    before = time.process_time()
    content = read_content(path, audio=True)
    assert time.process_time() - before < 5  # of a look at each row for each row it is minutes
    assert len(content.ids) == 40_000
    assert len(content.words) == 9973


def test_an_lm_in_a_training_needs_the_whole_lexicon(check, tmp_path):
    (tmp_path / "lm.arpa").write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    more = Path("lexicon.txt").read_text() + "zebra\tf 7 |\n"
    Path("more.txt").write_text(more)
    given = {"criterion": "ctc", "lexicon": "more.txt"}
    assert check(**given) == []
    with pytest.raises(InputError, match="the spelling of 'zebra' needs the token '7'"):
        check(**given, lm=tmp_path / "lm.arpa")
    with pytest.raises(UsageError, match="--lm in a training with --wordseparator=_, which is no"):
        check(criterion="ctc", wordseparator="_", lm=tmp_path / "lm.arpa")
