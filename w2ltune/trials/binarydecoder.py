"""Decodes by the binary: each block of utterances is a list of its own, one run of the program.

The program is asked for a beam dump always: it has words and scores of every hypothesis, in any
order of utterances, and what it counts itself is not needed.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune.embedded.decoderflags import OUR_FLAGS, DecoderFlags, feature_weights, spelled_out
from w2ltune.errors import InputError, TrialFailedError
from w2ltune.formats.beamdump import BAR, Hypothesis, read_beam_dump
from w2ltune.formats.decodelog import find_seconds
from w2ltune.formats.emissions import write_emission_bin
from w2ltune.formats.known_flags import flags_of
from w2ltune.formats.listfile import is_column, write_list
from w2ltune.runs.explain import failure
from w2ltune.runs.process import Program, start
from w2ltune.trials.dataset import Dataset, DecodeProgram

LIST = "block.lst"
LOOK_SECONDS = 0.5

LEAST_UNKSCORE = 1e-3
"""Scores of a dump have six decimals: of a smaller one the number of unknown words is not seen."""

_OURS = {
    *("flagsfile", "test", "datadir", "emission_dir", "sclite", "isbeamdump", "show", "maxload"),
    *("nthread_decoder", "nthread_decoder_am_forward", "logtostderr", "log_dir", *OUR_FLAGS),
}
"""Flags that are given by us for each block."""


class BinaryDecoder:
    """Runs the program on blocks of utterances.

    Args:
        program: The binary.
        dataset: The utterances, with emissions.
        scratch: Node-local folder for lists and dumps.
        look: Called every half second while the program runs; what it raises ends the program.
    """

    def __init__(
        self,
        program: DecodeProgram,
        dataset: Dataset,
        scratch: Path,
        *,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._program = program
        self._dataset = dataset
        self._scratch = scratch
        self._look = look

    def decode(
        self, flags: Mapping[str, str], weights: DecoderFlags, block: Sequence[int], *, nbest: int
    ) -> tuple[list[list[Hypothesis]], float]:
        """Return the hypotheses of each utterance, best first, and the seconds of the search.

        Args:
            flags: All flags of the trial.
            weights: The same, typed.
            block: Numbers of utterances.
            nbest: So many of each at most.

        Raises:
            TrialFailedError: The program failed, or did not say that it had come to its end.
            KilledError: It was killed from outside.
            StorageError: It found no room, or the disk failed.
            InputError: Its dump is damaged.
        """
        folder = Path(tempfile.mkdtemp(prefix="block-", dir=self._scratch))
        try:
            self._prepare(folder, block)
            seconds = self._run(folder, flags)
            dump = folder / "out" / f"{LIST}.hyp"
            empty = not dump.exists() or not dump.stat().st_size
            lists = {} if empty else read_beam_dump(dump)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        names = [self._dataset.ids[index] for index in block]
        strangers = lists.keys() - set(names)
        if strangers:
            raise TrialFailedError(f"the dump has an utterance that was not asked for: {strangers}")
        found = [lists.get(name, []) for name in names]
        return [[_complete(h, weights) for h in entries[:nbest]] for entries in found], seconds

    def _prepare(self, folder: Path, block: Sequence[int]) -> None:
        emissions = folder / "emissions" / LIST
        emissions.mkdir(parents=True)
        (folder / "out").mkdir()
        (folder / "glog").mkdir()  # glog fills the temporary folder otherwise
        write_list(folder / LIST, [self._dataset.utterances[index] for index in block])
        for index in block:
            name = self._dataset.ids[index]
            file = self._dataset.emission_file(index)
            if file is not None:
                (emissions / f"{name}.bin").symlink_to(file.absolute())
            else:
                write_emission_bin(emissions, name, self._dataset.emission(index))

    def _run(self, folder: Path, flags: Mapping[str, str]) -> float:
        program, log = self._program, folder / "log"
        arguments = block_arguments(program, flags, folder)
        run = Program(
            arguments=arguments,
            log=log,
            folder=Path(program.folder),
            environment=program.environment,
        )
        with start(run) as child:
            while (code := child.wait(LOOK_SECONDS)) is None:
                self._look()
        if code:
            raise failure(
                code,
                log,
                name=Path(program.path).name,
                lists=[folder / LIST],
                folder=Path(program.folder),
            )
        with log.open(encoding="utf-8", errors="replace") as lines:
            seconds = find_seconds(lines)
        if seconds is None:
            raise TrialFailedError(
                f"{Path(program.path).name} ended with exit code 0 but without its last line "
                "([Decode … samples) …]): it did not decode the list"
            )
        return seconds if math.isfinite(seconds) else 0.0


def block_arguments(
    program: DecodeProgram, flags: Mapping[str, str], folder: Path
) -> tuple[str, ...]:
    """Return the command line for the block in a folder.

    Args:
        program: The binary.
        flags: All flags of the trial; those that are ours to give are left out.
        folder: With the list and the folders of emissions and of output.
    """
    given = {name: value for name, value in flags.items() if name not in _OURS and name != "am"}
    own = {
        "datadir": str(folder),
        "test": LIST,
        "emission_dir": str(folder / "emissions"),
        "sclite": str(folder / "out"),
        "isbeamdump": "true",
        "show": "false",
        "maxload": "-1",
        "nthread_decoder": "1",
        "logtostderr": "true",
        "log_dir": str(folder / "glog"),
    }
    if program.am:
        own["am"] = program.am
    elif "criterion" not in flags:
        own["criterion"] = "ctc"  # as in process; the program's own default is asg
    known = flags_of(program.generation, spelled_out(given))
    texts = [f"--{name}={value}" for name, value in {**known, **own}.items()]
    return (program.path, "--flagsfile=", *texts)


def hidden_parts(weights: DecoderFlags) -> str:
    """Return what of a hypothesis its line in a dump does not tell with these weights, or "".

    What is left of the score beside the parts that are written is the weight of unknown words times
    their number, and that of silence times its frames: one sum, which may tell one of the two.
    """
    if not weights.uselexicon or not math.isfinite(weights.unkscore):
        return ""
    if weights.silscore:
        return "unknown words from frames of silence"
    return "" if abs(weights.unkscore) >= LEAST_UNKSCORE else "how many words are unknown"


def _complete(found: Hypothesis, weights: DecoderFlags) -> Hypothesis:
    """Add to a hypothesis what a dump leaves out: unknown words, or else frames of silence."""
    _, lm, word, unk, sil = feature_weights(weights)
    rest = found.score - found.am_score - lm * found.lm_score - word * len(found.words)
    unknown = 0 if sil or abs(unk) < LEAST_UNKSCORE else max(0, round(rest / unk))
    frames = max(0, round(rest / sil)) if sil else 0
    return replace(found, unknown_words=unknown, silence_frames=frames)


def refuse_ids(dataset: Dataset) -> None:
    """Refuse what the program does not bear: ids and audio paths that its files cannot hold.

    It opens the audio even where it reads the emissions, whose files are named by the ids, and it
    writes the ids into a beam dump.

    Raises:
        InputError: The first of them is named.
    """
    for utterance in dataset.utterances:
        for mark in ("/", BAR):
            if mark in utterance.id:
                raise InputError(
                    f"the id {utterance.id!r} has a {mark!r}, which the decoder program does not "
                    "bear; rename it, or leave out --decoder=binary"
                )
        if not utterance.path:
            raise InputError(
                f"utterance {utterance.id!r} has no audio file in its list: the decoder program "
                "opens it even where it reads emissions"
            )
        if not is_column(utterance.path):
            raise InputError(
                f"utterance {utterance.id!r}: the audio path {utterance.path!r} has a blank, which "
                "the lists of the decoder program cannot hold; rename it, or leave out "
                "--decoder=binary"
            )
        if not Path(utterance.path).is_file():
            raise InputError(
                f"utterance {utterance.id!r}: no such audio file {utterance.path!r}; the decoder "
                "program opens it even where it reads emissions"
            )
