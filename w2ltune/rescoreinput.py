"""What rescoring is given, read and joined: the list to tune on and the one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from w2ltune.errors import InputError
from w2ltune.formats.beamdump import Separator
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.listfile import list_name
from w2ltune.rescoreoptions import RescoreOptions
from w2ltune.scoring.ancestor import ancestor_lists, first_of_equals
from w2ltune.scoring.rescorelists import WORDS, RescoringLists, join
from w2ltune.scoring.significance import clusters_from_ids
from w2ltune.scoring.text import Metric, load_normalizer, split_units, what_is_counted
from w2ltune.scoring.weighing import RescoreList, weigh

LARGEST_SCORE = 1e12
"""Beyond it sums of scores are no longer exact enough to compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RescoreInput:
    """All that rescoring is given.

    Attributes:
        options: Of the command.
        weights: The weights by name; that of the acoustic model is 1.
        dev: The list that is tuned on.
        test: The list that is not; None without one.
        files: All files that decide a number.
    """

    options: RescoreOptions
    weights: tuple[str, ...]
    dev: RescoreList
    test: RescoreList | None
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        if self.options.out is not None:
            return self.options.out
        dump = self.options.hyp
        name = dump.name.removesuffix(".gz").removesuffix(".zst").removesuffix(".hyp")
        return dump.with_name(f"{name}-rescored-{'-'.join(self.weights)}")

    @property
    def notes(self) -> list[str]:
        """What is worth knowing, a line each."""
        references = (self.dev.units(" ".join(words)) for words in self.dev.lists.references)
        counted = what_is_counted(self.options.metric, references, blanks=self.options.cer_blanks)
        lists = [self.dev] if self.test is None else [self.dev, self.test]
        return [*filter(None, [counted]), *(note for of in lists for note in of.notes)]

    @property
    def ks(self) -> list[int]:
        """How many hypotheses take part, rising; the last one is all of them."""
        depth = self.dev.depth
        return [*(k for k in self.options.ks if k < depth), depth]

    def vector(self, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
        """Return weights by name as what the columns are multiplied with, float64 [columns]."""
        return np.array([1.0, *(weights[name] for name in self.weights)])

    def named(self, vector: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the weights of a vector [columns] by name."""
        return dict(zip(self.weights, vector[1:].tolist(), strict=True))


def read_input(options: RescoreOptions) -> RescoreInput:
    """Read the dumps, their scores and references, and join them."""
    metric: Metric = "cer" if options.metric == "cer" else "wer"
    normalize = load_normalizer(options.normalize, ignore_case=options.ignore_case)

    def units(text: str) -> list[str]:
        return split_units(normalize(text), metric, blanks=options.cer_blanks)

    plain = metric == "wer" and options.normalize is None and not options.ignore_case
    form: Separator | None = "bar" if options.new else None

    def read(dump: Path, data_list: Path, scores: Mapping[str, Path]) -> RescoreList:
        columns = read_dump_columns(dump, form=form)
        lists = join(
            columns,
            data_list,
            scores,
            units=WORDS if plain else units,
            normalize=normalize,
            check_wer=plain and not options.ancestor_wer,
        )
        if options.ancestor_wer:
            lists = ancestor_lists(lists, columns)
        _refuse_huge(lists)
        weighed = weigh(lists, options.weights)
        return RescoreList(
            name=list_name(data_list),
            dump=dump,
            lists=lists,
            nbest=first_of_equals(weighed) if options.ancestor_wer else weighed,
            clusters=clusters_from_ids(lists.ids, options.cluster),
            units=units,
            as_ancestor=options.ancestor_wer,
        )

    dev = read(options.hyp, options.list, options.scores())
    test = None
    files = [options.hyp, options.list, *options.scores().values()]
    if options.test_hyp is not None and options.test_list is not None:
        scores = options.scores(test=True)
        test = replace(read(options.test_hyp, options.test_list, scores), whole=dev.depth)
        if test.name == dev.name:
            test = replace(test, name=f"test-{test.name}")
        common = set(dev.lists.ids) & set(test.lists.ids)
        if common:
            raise InputError(
                f"{len(common)} utterances are in {options.list} too, as {min(common)!r}: what is "
                "tuned on them cannot be tested on them",
                path=options.test_list,
            )
    if options.normalize is not None:
        files.append(options.normalize)
    return RescoreInput(
        options=options, weights=options.weights, dev=dev, test=test, files=tuple(files)
    )


def _refuse_huge(lists: RescoringLists) -> None:
    largest = np.abs(lists.nbest.features).max(axis=0)
    column = int(largest.argmax())
    if largest[column] > LARGEST_SCORE:
        row = int(np.abs(lists.nbest.features[:, column]).argmax())
        utterance = lists.ids[int(np.searchsorted(lists.nbest.offsets, row, side="right")) - 1]
        raise InputError(
            f"a score {lists.names[column]!r} of {lists.nbest.features[row, column]:g} for "
            f"{utterance!r}: no logarithm of a probability is so large; compute it anew"
        )
