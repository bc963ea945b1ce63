"""What LM forwarding works on: the dumps, their different sentences, and where the scores go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune import __version__, files
from w2ltune.errors import InputError, StudyMismatchError, UsageError, existing_file
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.listfile import is_column
from w2ltune.formats.lmscores import hash_path, write_hashes, write_lm_scores
from w2ltune.formats.texthash import hash_texts
from w2ltune.forwardoptions import SHARD_SENTENCES, ForwardOptions
from w2ltune.runs.provenance import differences, fingerprint
from w2ltune.runs.shards import Shard, cut
from w2ltune.trials.lmsource import LMSource, command_words

FORMAT = 1
SCORES = ".ppl"
NOTE = "forward.json"


@dataclass(frozen=True, kw_only=True)
class Output:
    """A dump and the file of its scores.

    Attributes:
        dump: The dump.
        path: Of the scores; their hashes and what they are lie beside it.
        ids: The utterance of each hypothesis.
        rows: int64 [hypotheses], the number of its sentence.
        hashes: uint64 [hypotheses], of its words as they are in the dump.
        made_from: What the scores depend on; fit for JSON.
    """

    dump: Path
    path: Path
    ids: Sequence[str]
    rows: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    made_from: Mapping[str, Any]

    @property
    def record(self) -> Path:
        """The file that is written last: these scores are whole, and what they were made from."""
        return self.path.with_name(f"{self.path.name}.json")

    def is_done(self) -> bool:
        """Return whether the scores are there whole, and of the same inputs."""
        made_from, is_whole = self._recorded()
        return is_whole and made_from == self.made_from

    def _recorded(self) -> tuple[Mapping[str, Any] | None, bool]:
        """Return what the scores that are there were made from; None without a record.

        Also whether their files are as they were written.
        """
        record = files.read_json(self.record)
        with files.shaped(self.record):
            if record is None:
                return None, False
            made_from, written = {**record.get("made_from", {})}, {**record.get("sha256", {})}
        both = (self.path, hash_path(self.path))
        whole = all(
            path.exists() and written.get(path.name) in (None, fingerprint(path).sha256)
            for path in both
        )
        return made_from, whole

    def refuse_other(self) -> None:
        """Refuse to replace scores that were made from something else."""
        made_from, is_whole = self._recorded()
        if made_from is not None:
            if found := list(differences(made_from, self.made_from)):
                raise StudyMismatchError(
                    f"holds other scores ({'; '.join(found)}); give another --name or --out, or "
                    "--replace", path=self.path,
                )  # fmt: skip
            if not is_whole and self.path.exists() and hash_path(self.path).exists():
                raise StudyMismatchError(
                    "was cut or changed since it was written, or its .hash was; --replace scores "
                    "it again", path=self.path,
                )  # fmt: skip
        elif self.path.exists() and not hash_path(self.path).exists():
            raise StudyMismatchError(
                "exists, and was not written by this command; give another --name or --out, or "
                "--replace", path=self.path,
            )  # fmt: skip

    def write(self, scores: npt.NDArray[np.float64], facts: Mapping[str, object]) -> None:
        """Write the scores, their hashes, and last what they are.

        Args:
            scores: float64 [sentences], those of all dumps.
            facts: For the record.
        """
        files.require_ours(self.record)
        for path in (self.path, hash_path(self.path), self.record):
            files.sweep_temporaries(path)
        self.record.unlink(missing_ok=True)
        write_hashes(hash_path(self.path), self.hashes)
        write_lm_scores(self.path, self.ids, scores[self.rows])
        record = {
            "format": FORMAT,
            "dump": str(self.dump),
            "made_from": self.made_from,
            "sha256": {
                path.name: fingerprint(path).sha256 for path in (self.path, hash_path(self.path))
            },
            **facts,
            "w2ltune": __version__,
        }
        files.write_json(self.record, record)


@dataclass(frozen=True, kw_only=True)
class ForwardInput:
    """All that is to be scored.

    Attributes:
        source: The LM.
        outputs: The dumps that are to be done.
        sentences: The different sentences of all of them, as the LM sees them.
        shards: The same in pieces.
        folder: Where the pieces are kept, and the scripts and logs of SLURM.
        done: The dumps whose scores are there already.
        made_from: What the pieces are made from; fit for JSON.
    """

    source: LMSource
    outputs: Sequence[Output]
    sentences: Sequence[str]
    shards: Sequence[Shard]
    folder: Path
    done: Sequence[Output]
    made_from: Mapping[str, Any]

    def has_old_pieces(self) -> bool:
        """Whether the folder's pieces are of what is done, as a run leaves them that is killed."""
        note = self.folder / NOTE
        before = files.read_json(note) or {}
        with files.shaped(note):
            done = {output.made_from["hypotheses"] for output in self.done}
            return note.exists() and {*before.get("hypotheses", ())} <= done

    def settle_folder(self) -> str:
        """Note in the folder what its pieces are made from.

        Returns:
            What differs from the pieces that are there, or "".
        """
        note = self.folder / NOTE
        before = files.read_json(note)
        if before == self.made_from:
            return ""
        with files.shaped(note):
            different = [] if before is None else list(differences(before, self.made_from))
        files.write_json(note, self.made_from)
        return "; ".join(different)


def prepare(options: ForwardOptions) -> ForwardInput:
    """Read the dumps.

    Raises:
        UsageError: An input is missing or wrong, or a file of other scores is in the way.
    """
    source = make_source(options)
    dumps = dump_paths(options.hyp)
    targets = output_paths(dumps, options)
    origin = {**source.origin(), "case": options.case}
    sentences: dict[str, int] = {}
    outputs: list[Output] = []
    done: list[Output] = []
    for dump, path in zip(dumps, targets, strict=True):
        known = dict(sentences)
        output = _read(dump, path, origin, options.case, known)
        if output.is_done():
            done.append(output)
            continue
        if not options.replace:
            output.refuse_other()
        sentences = known
        outputs.append(output)
    everything = list(sentences)
    most = _shard_size(options, len(everything))
    hypotheses = [output.made_from["hypotheses"] for output in outputs]
    return ForwardInput(
        source=source,
        outputs=outputs,
        sentences=everything,
        shards=cut(everything, most=most, origin=origin),
        folder=targets[0].with_name(targets[0].name.removesuffix(SCORES)),
        done=done,
        made_from={"hypotheses": hypotheses, "shard_sentences": most, **origin},
    )


def make_source(options: ForwardOptions) -> LMSource:
    """Return the LM that the options name, after a first look at it."""
    common: dict[str, Any] = {"cores": options.worker_cores, "folder": str(Path.cwd())}
    if options.lm is not None:
        from w2ltune.embedded.decoderfiles import check_lm_head
        from w2ltune.embedded.kenlm import import_flashlight

        import_flashlight()
        check_lm_head(existing_file(options.lm, "language model (--lm)"))
        return LMSource(
            kind="kenlm", model=str(options.lm.absolute()), unit=options.unit,
            word_boundary=options.word_boundary, **common,
        )  # fmt: skip
    if options.causal_lm:
        from w2ltune.embedded.causallm import require_packages

        require_packages()
        folder = Path(options.causal_lm)
        model = str(folder.absolute()) if folder.exists() else options.causal_lm
        if folder.is_absolute() and not folder.exists():
            raise UsageError(f"--causal_lm={options.causal_lm!r}: there is no such folder")
        return LMSource(kind="causal", model=model, batch_tokens=options.batch_tokens, **common)
    command_words(options.command)
    return LMSource(kind="command", model=options.command, **common)


def dump_paths(text: str) -> list[Path]:
    """Return the dumps that ``--hyp`` names."""
    names = [text] if Path(text).exists() else [part for part in text.split(",") if part]
    paths = [existing_file(name, "beam dump (--hyp)") for name in names]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(f"--hyp={text!r}: must name one or more beam dumps, each once")
    return paths


def output_paths(dumps: Sequence[Path], options: ForwardOptions) -> list[Path]:
    """Return the file of scores of each dump."""
    if options.out.endswith(SCORES) and not Path(options.out).is_dir():
        if len(dumps) > 1:
            raise UsageError(f"--out={options.out}: one file for {len(dumps)} dumps; give a folder")
        return [Path(options.out).absolute()]
    paths = []
    for dump in dumps:
        folder = Path(options.out) if options.out else dump.parent
        paths.append((folder / f"{list_name(dump)}-{options.column}{SCORES}").absolute())
    if len(set(paths)) < len(paths):
        raise UsageError(
            f"--hyp={options.hyp!r}: the scores of two dumps would be the same file; forward them "
            "one after the other with --out"
        )
    return paths


def list_name(dump: Path) -> str:
    """Return the name of the data list that a dump is of.

    Example:
        >>> list_name(Path("dumps/dev-clean.lst.hyp.gz"))
        'dev-clean'
    """
    name = dump.name
    for ending in (".gz", ".zst", ".hyp", ".lst"):
        name = name.removesuffix(ending)
    return name or dump.name


def _read(
    dump: Path, path: Path, origin: Mapping[str, Any], case: str, sentences: dict[str, int]
) -> Output:
    """Read a dump, and number its sentences that are new."""
    changes: Mapping[str, Callable[[str], str]]
    changes = {"keep": str, "lower": str.lower, "upper": str.upper}
    change = changes[case]
    columns = read_dump_columns(dump)
    if not len(columns):
        raise UsageError(f"{dump}: the beam dump is empty; decode with --isbeamdump=true")
    for number, name in enumerate(columns.ids):
        if not is_column(name):
            raise InputError(
                f"the utterance id {name!r} holds a blank, which a line 'id score' does not bear",
                path=dump,
                line=int(columns.line[np.argmax(columns.utterance == number)]),
            )
    ids = [columns.ids[number] for number in columns.utterance.tolist()]
    hashes = hash_texts(columns.texts)
    rows: list[int] = []
    known: dict[bytes, int] = {}
    for text in columns.texts:
        row = known.get(text)
        if row is None:
            row = known[text] = sentences.setdefault(change(text.decode()), len(sentences))
        rows.append(row)
    digest = hashlib.sha256("\n".join(columns.ids).encode())
    digest.update(columns.utterance.astype("<i4").tobytes() + hashes.astype("<u8").tobytes())
    return Output(
        dump=dump,
        path=path,
        ids=ids,
        rows=np.array(rows, dtype=np.int64),
        hashes=hashes,
        made_from={"hypotheses": digest.hexdigest(), **origin},
    )


def _shard_size(options: ForwardOptions, sentences: int) -> int:
    if options.shards is not None:
        return max(1, -(-sentences // options.shards))
    return options.shard_sentences or SHARD_SENTENCES[options.kind]
