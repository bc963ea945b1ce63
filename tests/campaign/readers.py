"""Give every reader of files damaged ones, and print what it made of them.

    python tests/campaign/readers.py [--inputs=50000] [--seed=1] [--processes=2]
    python tests/campaign/readers.py --reader=NAME --input=NUMBER     one of them, with traceback

A sound file is changed at one to four places, its bytes, lines, numbers, JSON values or arrays, and
read in a process of its own kind: with a limit for memory and time, and warnings as errors. A
reader may refuse what it gets by an error of w2ltune, or read it; pickles in it must not run.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
VOICE = REPOSITORY / "experiments" / "voice_commands"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(VOICE)]

import ngram  # noqa: E402
import numpy as np  # noqa: E402
import optuna  # noqa: E402
from rescoringfiles import make_files  # noqa: E402  (these lie in tests/)

from w2ltune import files  # noqa: E402
from w2ltune.cluster.jobs import parse_job  # noqa: E402
from w2ltune.cluster.resources import SlurmResources  # noqa: E402
from w2ltune.cluster.site import parse_site  # noqa: E402
from w2ltune.cluster.submissions import Submission, submissions  # noqa: E402
from w2ltune.embedded import decoderfiles, kenlm, modelfile, runfiles  # noqa: E402
from w2ltune.embedded.acoustic import (  # noqa: E402
    AcousticModel,
    Architecture,
    initial_parameters,
)
from w2ltune.embedded.training import start_from  # noqa: E402
from w2ltune.errors import W2LTuneError  # noqa: E402
from w2ltune.formats import (  # noqa: E402
    beamdump,
    checkpoint,
    decodelog,
    distributions,
    dumpcolumns,
    emissions,
    flagsfile,
    listfile,
    lmscores,
    logs,
    nbest,
    toolkitfiles,
)
from w2ltune.formats.known_flags import KNOWN_FLAGS, check_flag, is_boolean  # noqa: E402
from w2ltune.formats.npz import read_npz  # noqa: E402
from w2ltune.listcheck import read_content  # noqa: E402
from w2ltune.runs import explain, outcome, rescored, rundir, snapshots  # noqa: E402
from w2ltune.runs.lock import current_owner, this_process  # noqa: E402
from w2ltune.runs.provenance import SweepRequest, fingerprint, read_request  # noqa: E402
from w2ltune.runs.shards import ShardFolder, cut  # noqa: E402
from w2ltune.runs.trialdir import TrialDirectory, TrialResult  # noqa: E402
from w2ltune.scoring.glm import load_glm  # noqa: E402
from w2ltune.search.study import JOURNAL, open_study, settle  # noqa: E402
from w2ltune.trials.dataset import read_utterance_counts  # noqa: E402
from w2ltune.trials.rescoringinput import read_hypotheses  # noqa: E402

DATA = REPOSITORY / "tests" / "data"
PROCESSOR_SECONDS = 10.0
WALL_SECONDS = 120.0
MEMORY_BYTES = 2**30
"""What a process may take for one file beside what it had before; the files are small."""

Kind = str
KINDS = ("refused", "read", "let in", "traceback", "memory", "hang", "crash")


class Seed(NamedTuple):
    """A sound file: its place in a folder, and its bytes."""

    name: str
    content: bytes


class Reader(NamedTuple):
    """What reads a file, the sound ones, and its share of the inputs (a slow one has less)."""

    read: Callable[[Path], object]
    seeds: list[Seed]
    share: float = 1.0


# ---- what reads ---------------------------------------------------------------------------------


def _all(iterable: Iterable[object]) -> None:
    collections.deque(iterable, maxlen=0)


OTHERS = {
    flag.name
    for name in ("decode.cfg", "train.cfg")
    for flag in flagsfile.parse_flagsfile(VOICE / name, boolean=is_boolean)
    if flag.name not in KNOWN_FLAGS
}
"""Flags of w2ltune in the sound flagsfiles."""


def _flags(path: Path) -> None:
    for flag in flagsfile.parse_flagsfile(path, boolean=is_boolean):
        check_flag(flag, extra_known=OTHERS)
        distributions.parse_value(flag.value, flag=flag.name, path=flag.path, line=flag.line)


def _emissions(path: Path) -> None:
    found = emissions.open_emissions(path.parent if path.suffix == ".bin" else path)
    for name in found.ids:
        found.emission(name)


def _outputs(path: Path) -> None:
    ids = ["a", "b"]
    _all(toolkitfiles.unlisted_outputs(path, ids))
    _all(toolkitfiles.read_outputs(path, ids, None, layout="tv"))


def _log(path: Path) -> None:
    for line in logs.read_train_log(path):
        logs.valid_tags(line)
    decodelog.find_seconds(path.read_text(errors="replace").split("\n"))
    explain.explain_exit(1, path)


def _scores(path: Path) -> None:
    (lmscores.read_hashes if path.suffix == ".hash" else lmscores.read_lm_scores)(path)


def _kenlm(path: Path) -> None:
    _, dictionary, _ = kenlm.import_flashlight()
    entries = dictionary.Dictionary()
    for word in ("yes", "no"):
        entries.add_entry(word)
    lm = kenlm.load_kenlm(path, entries)
    lm.score(lm.start(False), 0)


def _lm_words(path: Path) -> None:
    decoderfiles.check_lm_head(path)
    kenlm.lm_words(path)


class _Ours:
    """A lock that is held."""

    def is_ours(self) -> bool:
        return True


def _study(path: Path) -> None:
    settle(open_study(path.parent, _Ours()), path.parent / "trials")  # type: ignore[arg-type]


def _trial(path: Path) -> None:
    trial = TrialDirectory(path.parents[1], 0)
    if trial.was_asked():
        trial.read_flags(), trial.read_asked()
    trial.read_result()


def _shard(path: Path) -> None:
    ShardFolder(path.parent, columns=3).read(cut(["a", "b"], most=2, origin="lm")[0])


# ---- the sound files ----------------------------------------------------------------------------


def _lines(path: Path, most: int = 12) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:most])


def _npz(compressed: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, default=str).encode()


def _packed(name: str, content: bytes, folder: Path) -> Seed:
    from w2ltune.formats.compressed import packing

    path = folder / name
    with path.open("wb") as file, packing(file, path) as out:
        out.write(content)
    return Seed(name, path.read_bytes())


def _of(paths: Iterable[Path], most: int = 12) -> list[Seed]:
    return [Seed(path.name, _lines(path, most)) for path in paths]


def _arpa() -> bytes:
    model = ngram.estimate([["yes"], ["no", "yes"], ["no"]], order=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lm.arpa")
        ngram.write_arpa(path, model)
        return path.read_bytes()


def _journal(folder: Path) -> bytes:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(folder, _Ours())  # type: ignore[arg-type]
    for value in (0.5, None):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.report(0.6, 1)
        trial.set_user_attr("a", "b")
        state = optuna.trial.TrialState.COMPLETE if value else optuna.trial.TrialState.PRUNED
        study.tell(trial, value, state=state)
    study.ask({"c": optuna.distributions.CategoricalDistribution(["a", "b"])})
    return (folder / JOURNAL).read_bytes()


def readers(folder: Path) -> dict[str, Reader]:
    """Return all readers with sound files of each; ``folder`` is for making these."""
    made = make_files(folder)
    made.write_ppl(folder / "dev.ppl")
    dump, scores = made.hyp.read_bytes(), (folder / "dev.ppl").read_bytes()
    arrays = {
        "ids": np.array(["a", "b"]), "frames": np.array([2, 1]),
        "emissions": np.zeros((3, 4), np.float32),
    }  # fmt: skip
    lists = nbest.NBest(
        offsets=np.array([0, 2, 3]), features=np.zeros((3, len(nbest.FEATURES))),
        errors=np.zeros(3, np.int32), text_hash=np.zeros(3, np.uint64),
        reference_words=np.ones(2, np.int32),
    )  # fmt: skip
    nbest.write_nbest(folder / "nbest.npz", lists, key="ab")
    header = io.BytesIO()
    checkpoint.write_header(header, {"epoch": "3", "updates": "7", "gflags": "--lr=0.1\n--iter=9"})
    sizes = Architecture(bands=2, outputs=3, hidden=2, kernels=(3,))
    model = start_from(AcousticModel(
        architecture=sizes, parameters=initial_parameters(sizes, seed=0),
        feature_mean=0.0, feature_deviation=1.0,
    ))  # fmt: skip
    owner = replace(this_process(), generation=1)
    resources = SlurmResources(nodes=1, needed_nodes=1, gpus_per_node=0, cpus_per_node=1)
    script = folder / "slurm" / "user-0001.sbatch"
    submission = Submission(
        study=folder, number=1, script=script, owner=owner, seconds=1.0, resources=resources, job=3
    )
    result = TrialResult(
        number=0, attempt=1, state="COMPLETE", value=0.5, counts=(1, 2, 3, 12),
        interval=(0.4, 0.6), params={"lr": 0.1}, flags={"lr": "0.1"}, reports={1: 0.5},
    )  # fmt: skip
    comparison = outcome.Comparison(difference=-0.1, interval=(-0.2, 0.1), unit="utterance")
    flags = {"beamsize": "50"}
    rating = rescored.Rating(
        counts=(1, 2, 3, 9), interval=(0.1, 0.2), unit="utterance", against_none=comparison
    )
    answer = rescored.Rescored(
        weights={"lm": 1.0},
        k=2,
        why="middle",
        candidates=(
            rescored.Candidate(
                name="a",
                weights={"lm": 1.0},
                k=2,
                dev=rating,
                test=rating,
                chosen_against=comparison,
            ),
        ),
        by_k=(rescored.ByK(k=1, rate=0.1, oracle=0.05),),
        metric="wer",
        method="line",
        evaluations=3,
        seconds=0.1,
        box={"lm": (0.0, 1.0)},
        undecided=(),
        oracle=0.05,
        depth=3,
        certified=rescored.Proof(
            errors=1, weights={"lm": 1.0}, bound=1, gap=0, k=2, boxes=3, seconds=0.1
        ),
        findings=("a",),
        looks=(rescored.Look(name="test", weights={"lm": 1.0}, k=2),),
    )
    known = outcome.Outcome(
        reason="done", sampler="nbest", baselines={"greedy": 0.5}, baseline_trial=0,
        choices=(outcome.Choice(target="", trial=1, best_trial=1, why="fewest",
                                counts=(1, 2, 3, 9), interval=(0.1, 0.2), unit="utterance",
                                oracle=0.1, against_baseline=comparison),),
        probes=(outcome.Probe(trial=1, utterances=9, audio_seconds=1.5, advice="none", rows=(
            outcome.ProbeRow(label="as searched", beam=flags, counts=(1, 2, 3, 9),
                             work_seconds=0.1, against_searched=comparison),)),),
        looks=(outcome.Look(name="test.lst", trial=1, flags=flags, counts=(1, 2, 3, 9),
                            interval=(0.1, 0.2), unit="utterance", baseline=(1, 2, 3, 9),
                            against_baseline=comparison),),
        checks=(outcome.AnswerCheck(flags=flags, equal=True, text="same"),), audio_seconds=3.0,
    )  # fmt: skip
    request = SweepRequest(
        task="decode", flags={"lm": "x"}, space={"lmweight": "uniform(0, 5)"},
        scoring={"metric": "wer"}, inputs={"x": fingerprint(made.hyp)}, seed=1,
    )  # fmt: skip
    snapshot = snapshots.Snapshot(
        path=Path("00000005.bin"), epoch=1, updates=5, size_bytes=0, payload_bytes=0, digest="ab"
    )
    utterances = (
        b"utterance\tsub\tdel\tins\twords\thypothesis\na\t1\t0\t0\t3\tx y\nb\t0\t0\t0\t1\tz\n"
    )
    cfg = (
        _lines(VOICE / "decode.cfg", 99) + b"--lr=loguniform(1e-3, 1)\n--netoptim=choice(sgd, a)\n"
    )
    site = (REPOSITORY / "slurm" / "site.toml.example").read_bytes()
    site = re.sub(rb"(?m)^# ?(\w+ = )", rb"\1", site)
    exits = [*sorted(DATA.glob("logs/exits/*.txt"))[:12], *DATA.glob("logs/*.log")]
    vocabulary = [Seed("vocab.json", b'{"<pad>": 0, "a": 1}'), Seed("list.json", b'["a"]'),
                  Seed("dict.txt", b"a 9\nb 5\n"), Seed("tokens.txt", b"-\na\nb\n")]  # fmt: skip
    outputs = [Seed("out.npz", _npz(a=np.zeros((3, 4)), b=np.zeros((2, 4)))),
               Seed("out.npy", _npy(np.zeros((2, 3, 4))))]  # fmt: skip
    packed = functools.partial(_packed, folder=folder)
    lm = _arpa()
    return {
        "beam dump": Reader(lambda p: _all(beamdump.iterate_numbered(p)), [
            Seed("a.hyp", dump), *_of([DATA / "weak" / "beamdump.hyp"]), packed("b.hyp.gz", dump),
            packed("c.hyp.zst", dump)]),
        "beam dump, columns": Reader(dumpcolumns.read_dump_columns, [
            Seed("a.hyp", dump), *_of([DATA / "weak" / "beamdump.hyp"]), packed("b.hyp.gz", dump)]),
        "hypotheses of Test": Reader(read_hypotheses, [Seed("a.hyp", b"x y (a)\nz (b)\n")], 0.5),
        "LM scores, hashes": Reader(_scores, [
            Seed("a.ppl", scores), packed("b.ppl.gz", scores), packed("c.ppl.zst", scores),
            Seed("d.hash", bytes(range(32)))]),
        "data list": Reader(listfile.read_list, [
            *_of([VOICE / "dev.lst"]), Seed("text", b"a-1 x y\nb-2 z\n"),
            Seed("m.json", b'{"audio_filepath": "a.wav", "duration": 1.5, "text": "x y"}\n')]),
        "data list, audio": Reader(lambda p: read_content(p, audio=True), [
            Seed("a.lst", "".join(f"{n} {made.hyp} 100 x y\n" for n in "abc").encode())]),
        "flagsfile": Reader(_flags, [Seed("a.cfg", cfg), *_of([VOICE / "train.cfg"], 99)]),
        "emissions": Reader(_emissions, [
            Seed("a.npz", _npz(**arrays)), Seed("b.npz", _npz(compressed=True, **arrays)),
            *(Seed(f"{p.stem}/{p.name}", p.read_bytes())
              for p in sorted((DATA / "weak" / "emissions").glob("*.bin"))[:1])]),
        "outputs of toolkits": Reader(_outputs, outputs),
        "vocabulary": Reader(toolkitfiles.read_vocabulary, vocabulary),
        "lengths": Reader(toolkitfiles.read_lengths, [
            Seed("l.txt", b"3 2\n"), Seed("l.npy", _npy(np.array([3.0, 2.0])))]),
        "features": Reader(lambda p: read_npz(p, ".npz of features"), [
            Seed("a.npz", _npz(a=np.zeros((3, 4), np.float16)))], 0.5),
        "n-best lists": Reader(lambda p: nbest.read_nbest(p, key=None), [
            Seed("nbest.npz", (folder / "nbest.npz").read_bytes())]),
        "logs": Reader(_log, [
            *_of(exits, 60), *_of([DATA / "logs" / "rundir" / "001_log"], 20)]),
        "model": Reader(checkpoint.read_whole, [
            Seed("001_model_last.bin", header.getvalue() + bytes(64))]),
        "own model": Reader(runfiles.read_checkpoint, [
            Seed("001_model_last.bin", header.getvalue() + modelfile.state_bytes(model))], 0.5),
        "tokens": Reader(decoderfiles.read_tokens, _of([VOICE / "tokens.txt"], 99)),
        "lexicon": Reader(
            lambda p: _all(decoderfiles.read_lexicon(p)), _of([VOICE / "lexicon.txt"])),
        "LM's head and words": Reader(_lm_words, [
            Seed("lm.arpa", lm), Seed("lm.klm", (DATA / "voice_commands.klm").read_bytes())]),
        "KenLM": Reader(_kenlm, [Seed("lm.arpa", lm)], 0.2),
        "KenLM, binary": Reader(_kenlm, [
            Seed("lm.klm", (DATA / "voice_commands.klm").read_bytes())], 0.01),
        "word mappings": Reader(load_glm, [
            Seed("a.glm", b";; a\n* case_sensitive = 'F'\n[U] => % / [ ] __ [ ]\nA => B\n")], 0.5),
        "site file": Reader(parse_site, [Seed("site.toml", site)], 0.5),
        "scontrol": Reader(lambda p: parse_job(p.read_text(errors="replace")),
                           _of((DATA / "slurm").glob("*.txt")), 0.5),
        "sweep.json": Reader(read_request, [Seed("sweep.json", _json(asdict(request)))]),
        "outcome.json": Reader(lambda p: outcome.read_outcome(p.parent), [
            Seed("outcome.json", _json(asdict(known)))]),
        "best.json": Reader(lambda p: rescored.read_rescored(p.parent), [
            Seed("best.json", _json(rescored.as_json(answer)))]),
        "result.json, flags.cfg": Reader(_trial, [
            Seed("trials/0000/result.json", _json(asdict(result))),
            Seed("trials/0000/flags.cfg", b'# asked: {"params": {"lr": 0.1}}\n--lr=0.1\n')]),
        "study.journal": Reader(_study, [Seed(JOURNAL, _journal(folder))], 0.5),
        "lock": Reader(lambda p: current_owner(p.parent), [
            Seed("lock/000001.json", _json(asdict(owner)))]),
        "submission": Reader(lambda p: submissions(p.parents[2]), [
            Seed("slurm/jobs/0001.json", submission.as_json().encode())]),
        "snapshot": Reader(lambda p: snapshots.read_snapshots(p.parent), [
            Seed("00000005.json", _json(asdict(snapshot) | {"format": 1}))]),
        "config_source.json": Reader(
            lambda p: rundir.refuse_another_config(p.parent, Path("/a.cfg")),
            [Seed("config_source.json", b'{"config": "/a.cfg", "format": 1}')], 0.3),
        "any JSON": Reader(files.read_json, [Seed("a.json", _json(asdict(known)))], 0.3),
        "utterances.tsv": Reader(
            lambda p: read_utterance_counts(p, total=[1, 0, 0, 4]), [
            Seed("utterances.tsv", utterances)]),
        "shard": Reader(_shard, [
            Seed(f"{cut(['a', 'b'], most=2, origin='lm')[0].name}.npy", _npy(np.zeros((2, 3))))],
            0.5),
    }  # fmt: skip


# ---- what is done to them -----------------------------------------------------------------------

WORDS = [
    b"", b"-1", b"0", b"1e999", b"nan", b"-inf", b"9" * 5000, b"0x10", b"1_000", b"2147483648",
    b"-9223372036854775809", b"1" + b"0" * 30, b"null", b"true", b"{}", b"[]", b'""', b"\0",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b"\t", b" ", b"\xc2\xa0",
    "\u2028".encode(), b"\x1b[2J", b"|", b"#", b"=", b"'", b'"', b"\\", b"--", b"\xed\xa0\x80",
    b"[" * 100_000,
    b"a" * 100_000, b"%s%n", b"../../x", "٣".encode(), "²".encode(), "é".encode(),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 2**63, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\ud800", [], {},
    [None], {"x": None}, [[]], [1, 2], [1, 2, 3, 4], "1",
]  # fmt: skip


class Canary:
    """A pickle that shows that it ran."""

    path = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (Canary.path,))


def mutate(content: bytes, choose: random.Random) -> bytes:
    """Return a file that was changed in one to four places."""
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        kinds: list[Callable[[bytes, random.Random], bytes]] = [
            _bytes, _bytes, _cut, _line, _word, _word, _word, _number, _number,
        ]  # fmt: skip
        if content[:1] in (b"{", b"["):
            kinds += [mutate_value] * 9
        if content[:4] == b"PK\3\4":
            kinds += [_member] * 9
        if content[:6] == b"\x93NUMPY":
            kinds += [lambda _, c: _array(c)] * 3
        with contextlib.suppress(OverflowError, IndexError):  # an archive that is changed already
            content = choose.choice(kinds)(content, choose)
    return content


def _bytes(content: bytes, choose: random.Random) -> bytes:
    position, length = choose.randrange(len(content) + 1), choose.choice((1, 1, 4, 8))
    new = choose.choice((choose.randbytes(length), b"\xff" * length, b"\0" * length))
    return content[:position] + new + content[position + choose.choice((0, length)) :]


def _cut(content: bytes, choose: random.Random) -> bytes:
    one, other = sorted(choose.randrange(len(content) + 1) for _ in range(2))
    return choose.choice((content[:one], content[:one] + content[other:], content[one:], b""))


def _line(content: bytes, choose: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    one, other = choose.randrange(len(lines)), choose.randrange(len(lines))
    kind = choose.randrange(4)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 2:
        lines.insert(one, lines[other])
    else:
        lines[one] = lines[one].rstrip(b"\r\n")
    return b"".join(lines)


def _word(content: bytes, choose: random.Random) -> bytes:
    words = [found.span() for found in re.finditer(rb"[^\s\"',=()]+", content)] or [(0, 0)]
    begin, end = choose.choice(words)
    return content[:begin] + choose.choice(WORDS) + content[choose.choice((begin, end)) :]


def _number(content: bytes, choose: random.Random) -> bytes:
    numbers = [found.span() for found in re.finditer(rb"-?\d+(\.\d+)?", content)] or [(0, 0)]
    begin, end = choose.choice(numbers)
    return content[:begin] + choose.choice(WORDS) + content[end:]


def mutate_value(content: bytes, choose: random.Random) -> bytes:
    """Change one value of a JSON document."""
    try:
        root = [json.loads(content)]
    except (ValueError, RecursionError):
        return _bytes(content, choose)
    places: list[tuple[Any, Any]] = []
    ahead: list[Any] = [root]
    while ahead:
        node = ahead.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        ahead += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    node, key = choose.choice(places)
    kind = choose.randrange(4)
    if kind == 0 and node is not root:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[choose.choice(("x", "", "format", "path"))] = node.pop(key)
    else:
        node[key] = choose.choice(VALUES)
    return json.dumps(root[0]).encode()


def _array(choose: random.Random) -> bytes:
    """Return an ``.npy`` of a kind that nobody expects."""
    kind = choose.choice(("pickle", "dtype", "dtype", "header"))
    if kind == "pickle":
        return _npy(np.array([Canary()], dtype=object))
    if kind == "dtype":
        dtype = choose.choice(("U3", "S0", "S3", "f2", "f8", "i1", "i8", "u8", "?", "c8", "M8[s]",
                               "V3", "U0", ">f4", [("a", "f4")]))  # fmt: skip
        shape = choose.choice(((), (0,), (3,), (2,), (2, 3), (0, 3), (3, 0), (1, 2, 3)))
        array = np.zeros(shape, dtype)
        with contextlib.suppress(TypeError, ValueError):
            array[...] = choose.choice((0, 1, -1, float("nan"), float("inf")))
        return _npy(array)
    shape = choose.choice(
        ("(99999999999, 4)", "(-1, 4)", "(4294967296, 4294967296)", "(" * 300, "()")
    )
    order = choose.choice(("False", "True", "0"))
    text = f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': {shape}, }}"
    head = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head + bytes(48)


def _member(content: bytes, choose: random.Random) -> bytes:
    """Change one array of an ``.npz``, its name, or what is said of it in the archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if max(member.file_size for member in archive.infolist()) > 10**6:
                return _bytes(content, choose)  # a bomb already
            members = {name: archive.read(name) for name in archive.namelist()}
        name = choose.choice(list(members))
    except Exception:  # changed before
        return _bytes(content, choose)
    kind = choose.randrange(60)
    if kind == 0:
        return _bomb(name)
    if kind < 10:
        members[choose.choice(("x.npy", "x", "../x.npy", ""))] = members.pop(name)
    elif kind < 30:
        members[name] = mutate(members[name], choose)
    else:
        members[name] = _array(choose)
    file = io.BytesIO()
    pack = choose.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(file, "w", pack) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    return file.getvalue()


@functools.cache
def _bomb(name: str) -> bytes:
    """Return an archive with an array that is small only as long as it is packed."""
    return _npz(compressed=True, **{name.removesuffix(".npy"): np.zeros(300_000_000, np.uint8)})


# ---- the campaign -------------------------------------------------------------------------------


def give(reader: Reader, name: str, number: int, seed: int, folder: Path) -> None:
    """Let a reader read the damaged file of a number."""
    choose = random.Random(f"{seed} {name} {number}")
    Canary.path = str(folder / "canary")
    sound = choose.choice(reader.seeds)
    path = folder / f"{number}" / sound.name
    path.parent.mkdir(parents=True)
    path.write_bytes(sound.content if number < 0 else mutate(sound.content, choose))
    try:
        reader.read(path)
    finally:
        shutil.rmtree(folder / f"{number}", ignore_errors=True)


def run_some(reader: Reader, name: str, numbers: range, seed: int, folder: Path, out: int) -> None:
    """Give a reader its damaged files, and write a line for each; this process may die of it."""
    warnings.simplefilter("error")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + MEMORY_BYTES, before + MEMORY_BYTES))
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        kind, detail = "read", ""
        try:
            give(reader, name, number, seed, folder)
        except W2LTuneError:
            kind = "refused"
        except MemoryError:
            kind = "memory"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in where if "w2ltune/" in frame.filename]
            place = ours[-1] if ours else where[-1]
            file = place.filename.rpartition("w2ltune/")[2]
            kind, detail = "traceback", f"{type(error).__name__} at {file}:{place.lineno}"
        if (folder / "canary").exists():
            (folder / "canary").rmdir()
            kind, detail = "let in", "a pickle ran"
        os.write(out, f"{number}\t{kind}\t{detail}\n".encode())


class Campaign:
    """All readers, each with its share of the inputs, in processes that may die."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.seed, self.folder = options.seed, folder
        self.readers = readers(folder)
        shares = sum(reader.share for reader in self.readers.values())
        self.counts = {name: collections.Counter[Kind]() for name in self.readers}
        self.found: dict[tuple[str, Kind, str], list[int]] = collections.defaultdict(list)
        self.ahead: list[tuple[str, range]] = []
        for name, reader in self.readers.items():
            total = max(1, round(options.inputs * reader.share / shares))
            self.ahead += [(name, range(n, min(n + 500, total))) for n in range(0, total, 500)]
        self.live: dict[int, tuple[str, range, Path]] = {}

    def try_sound_files(self) -> None:
        """Let each reader read what is not damaged."""
        for name, reader in self.readers.items():
            for sound in reader.seeds:
                with contextlib.redirect_stderr(io.StringIO()):
                    give(reader._replace(seeds=[sound]), name, -1, self.seed, self.folder)

    def start(self) -> None:
        name, numbers = self.ahead.pop(0)
        place = Path(tempfile.mkdtemp(dir=self.folder))
        pid = os.fork()
        if not pid:
            try:
                out = os.open(place / "found", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                run_some(self.readers[name], name, numbers, self.seed, place, out)
            finally:
                os._exit(0)
        self.live[pid] = name, numbers, place

    def finish(self) -> None:
        """Wait for a process, and count; one that died is followed by another from there on."""
        pid, status = os.wait()
        name, numbers, place = self.live.pop(pid)
        lines = (place / "found").read_text().splitlines()
        for line in lines:
            number, kind, detail = line.split("\t")
            self.count(name, kind, detail, int(number))
        if len(lines) < len(numbers):
            number = os.WTERMSIG(status)
            slow = number in (signal.SIGPROF, signal.SIGALRM)
            died = signal.Signals(number).name if number else "ended"
            self.count(name, "hang" if slow else "crash", died, numbers[len(lines)])
            if rest := numbers[len(lines) + 1 :]:
                self.ahead.insert(0, (name, rest))
        shutil.rmtree(place, ignore_errors=True)

    def count(self, name: str, kind: Kind, detail: str, number: int) -> None:
        self.counts[name][kind] += 1
        if kind not in ("refused", "read"):
            self.found[name, kind, detail].append(number)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--reader", default="", help="one only")
    parser.add_argument("--input", type=int, default=None, help="its number, to see the traceback")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    began = time.monotonic()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=options.folder) as folder:
        campaign = Campaign(options, Path(folder))
        campaign.try_sound_files()
        if options.input is not None:
            give(campaign.readers[options.reader], options.reader, options.input, options.seed,
                 Path(folder))  # fmt: skip
            return 0
        if options.reader:
            campaign.ahead = [entry for entry in campaign.ahead if entry[0] == options.reader]
        while campaign.ahead or campaign.live:
            if campaign.ahead and len(campaign.live) < options.processes:
                campaign.start()
            else:
                campaign.finish()
    total = sum(campaign.counts.values(), collections.Counter[Kind]())
    print(f"| reader | tried | {' | '.join(KINDS)} |\n|---|{'---|' * (len(KINDS) + 1)}")
    for name, counts in [*campaign.counts.items(), ("all", total)]:
        cells = " | ".join(str(counts[kind]) for kind in KINDS)
        print(f"| {name} | {sum(counts.values())} | {cells} |")
    print(f"\ninputs {sum(total.values())}, {time.monotonic() - began:.0f} s")
    for (name, kind, detail), numbers in sorted(campaign.found.items()):
        example = f"--reader={name!r} --input={numbers[0]}"
        print(f"{kind}: {name}: {detail}, {len(numbers)} times, as {example}")
    wrong = sum(map(len, campaign.found.values()))
    print(f"let in, tracebacks, too much memory, hangs, crashes, left behind: {wrong} []")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
