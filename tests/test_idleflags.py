"""What a sweep does not use of the user's flags is said, and what it cannot follow is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from binarytask import arguments, make_decoding, write_model
from conftest import VOICE_COMMANDS

from w2ltune.commandline import parse
from w2ltune.decodeinput import prepare
from w2ltune.embedded.decoderfiles import read_tokens
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import UsageError
from w2ltune.idleflags import idle_flags, refuse_unmet
from w2ltune.runs.outcome import Outcome, write_outcome
from w2ltune.runs.provenance import write_request
from w2ltune.search.decodespace import build_space
from w2ltune.sweepoptions import SweepOptions

TASK = {name: str(VOICE_COMMANDS / file) for name, file in
        {"tokens": "tokens.txt", "lexicon": "lexicon.txt", "lm": "lm.arpa"}.items()}  # fmt: skip


def said(by_binary: bool = False, **given: str) -> list[str]:
    flags = decoder_flags(TASK | given)
    tokens = read_tokens(flags.tokens_path)
    return idle_flags(TASK | given, flags, tokens, generation="flashlight", by_binary=by_binary)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, []),
        ({"isbeamdump": "true", "sclite": "/d"}, ["--isbeamdump=true, --sclite=/d: not used; a "]),
        ({"isbeamdump": "false", "show": "0", "nthread_decoder": "1", "maxload": "-1"}, []),
        ({"show": "true", "showletters": "1"}, ["--show=true, --showletters=1: not used; a sweep"]),
        (
            {"nthread_decoder": "8", "nthread": "4", "emission_queue_size": "10"},
            ["--nthread=4, --nthread_decoder=8, --emission_queue_size=10: not used; w2ltune dec"],
        ),
        ({"logtostderr": "1", "v": "2"}, ["--logtostderr=1, --v=2: not used; w2ltune keeps its o"]),
        ({"filterbanks": "40"}, ["--filterbanks=40: not used; the emissions"]),
        ({"eosscore": "-2"}, ["--eosscore=-2: not used; --criterion=ctc has no end-of-sentence"]),
        ({"eosscore": "0.0"}, []),
        ({"lm": "", "lmweight": "2"}, ["--lmweight=2: not used; there is no --lm"]),
        ({"wordseparator": "_", "silscore": "1"}, ["--silscore=1: not used; the word separator"]),
        ({"transitions": "t.npy"}, ["--transitions=t.npy: not used; it is for --criterion=asg"]),
        ({"lr": "0.1", "lm_memory": "9"}, ["--lr=0.1, --lm_memory=9: no effect in this sweep"]),
        ({"eostoken": "1"}, ["--eostoken=1: not used; only wav2letter has it"]),
        ({"nosuchflag": "1"}, ["--nosuchflag=1: no effect in this sweep"]),
        ({"lmweight": "0x2", "beamsize": "0x10", "maxword": "9"}, []),
    ],
)
def test_each_kind_is_one_line(given: dict[str, str], lines: list[str]) -> None:
    found = said(**given)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found


def test_the_binary_is_given_what_it_alone_knows() -> None:
    assert said(by_binary=True, attentionthreshold="9") == []
    assert said(by_binary=True, isbeamdump="true") != []


def test_what_a_sweep_cannot_follow(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--maxload=50: .*head -n 50 dev.lst > part.lst"):
        refuse_unmet({"maxload": "50"})
    model = str(write_model(tmp_path / "model.bin", filterbanks=80, melfloor="1.0"))
    with pytest.raises(UsageError, match=r"--filterbanks=40: .* with --filterbanks=80; leave it"):
        refuse_unmet({"am": model, "filterbanks": "40"})
    refuse_unmet({"am": model, "filterbanks": "0x50", "melfloor": "1", "maxload": "0"})
    refuse_unmet({"am": model, "filterbanks": "40", "emission_dir": "there"})


def test_a_sweep_says_it_at_each_start(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(Path(TASK["lexicon"]).read_text() + "<unk>\te |\n")
    (tmp_path / "old.cfg").write_text("--lmweight=2\n--am=m.bin\n--show\n--test=dev.lst\n")
    more = {
        "baseline": tmp_path / "old.cfg",
        "isbeamdump": "true",
        "nthread_decoder": 4,
        "lexicon": lexicon,
        "binary": None,
    }
    command = arguments(make_decoding(tmp_path), **more)
    options, given = parse(command, SweepOptions, usage="")
    space = build_space(given, script=None, options=(), any_flag=False)
    for _ in range(2):
        findings = [str(f) for f in prepare(options, space, command=command).findings]
        assert findings[0].startswith("--isbeamdump=true: not used; ")
        assert findings[1].startswith("--nthread_decoder=4: not used; ")
        assert findings[2].endswith("old.cfg not used: --am=m.bin, --show=true")
        assert findings[3].startswith(f"{lexicon}:341: the spelling of <unk> is not used")


def test_what_the_emissions_tell_is_found_again_until_it_is_kept(tmp_path: Path) -> None:
    command = arguments(make_decoding(tmp_path), binary=None, baseline=None)
    options, given = parse(command, SweepOptions, usage="")
    space = build_space(given, script=None, options=(), any_flag=False)

    def greedy() -> bool:
        findings = prepare(options, space, command=command).findings
        return any(finding.value is not None for finding in findings)

    options.folder.mkdir(parents=True)
    request = prepare(options, space, command=command).request
    assert greedy()
    write_request(options.folder / "sweep.json", request)
    assert greedy()  # a kill came before the outcome
    write_outcome(options.folder, Outcome())
    assert not greedy()
