"""N-best lists of real decodes, held against a plain evaluation one hypothesis at a time."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import VOICE_COMMANDS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.emissions import open_emissions
from w2ltune.formats.listfile import read_list
from w2ltune.formats.nbest import FEATURES, NBest
from w2ltune.scoring.nbest import collect, concatenate, merge, take
from w2ltune.scoring.nbestpool import Pool
from w2ltune.scoring.wer import count_errors

UTTERANCES = 30
SETTINGS = ((1.5, 0.5, 0.0), (3.0, 3.5, 0.0), (0.3, -2.0, -0.4))
"""lmweight, wordscore and silscore of the decodes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decodes:
    references: list[list[str]]
    lists: list[list[list[Hypothesis]]]  # of each setting
    nbests: list[NBest]


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    flags = decoder_flags(
        {
            "tokens": str(VOICE_COMMANDS / "tokens.txt"),
            "lexicon": str(VOICE_COMMANDS / "lexicon.txt"),
            "lm": str(VOICE_COMMANDS / "lm.arpa"),
            "smearing": "max",
            "beamsize": "50",
            "beamsizetoken": "20",
        }
    )
    decoder = Decoder(flags)
    emissions = open_emissions(VOICE_COMMANDS / "emissions/dev.npz")
    utterances = list(read_list(VOICE_COMMANDS / "dev.lst"))[:UTTERANCES]
    references = [list(utterance.reference) for utterance in utterances]
    lists = []
    for lmweight, wordscore, silscore in SETTINGS:
        weights = dataclasses.replace(
            flags, lmweight=lmweight, wordscore=wordscore, silscore=silscore
        )
        lists.append(
            [decoder.decode(emissions.emission(entry.id), weights) for entry in utterances]
        )
    nbests = [collect(entries, references, str.split) for entries in lists]
    return Decodes(references=references, lists=lists, nbests=nbests)


@pytest.fixture(scope="module")
def nbest(decodes: Decodes) -> NBest:
    return merge(decodes.nbests)


def plain_errors(nbest: NBest, weights: Sequence[float]) -> list[int]:
    """Score one hypothesis after the other; a tie goes to the one with more errors."""
    features, errors = nbest.features.tolist(), nbest.errors.tolist()
    chosen = []
    for low, high in zip(nbest.offsets[:-1], nbest.offsets[1:], strict=True):
        best = (-math.inf, 0)
        for row in range(low, high):
            score = sum(w * value for w, value in zip(weights, features[row], strict=True))
            best = max(best, (score, errors[row]))
        chosen.append(best[1])
    return chosen


def random_weights(count: int, seed: int = 0) -> np.ndarray:
    """Weights of a sweep: lmweight not below 0, wordscore, unkscore and silscore of any sign."""
    rng = np.random.default_rng(seed)
    low, high = [1, 0, -8, -5, -1], [1, 5, 8, 5, 1]
    return rng.uniform(low, high, (count, len(FEATURES)))


def union(pools: Sequence[NBest]) -> NBest:
    """All hypotheses of all pools, by utterance."""
    count = pools[0].utterances
    many = concatenate(pools, [np.arange(count) + count * k for k in range(len(pools))])
    together = take(many, [u + count * k for u in range(count) for k in range(len(pools))])
    return dataclasses.replace(
        together,
        offsets=together.offsets[:: len(pools)],
        reference_words=pools[0].reference_words,
    )


def assert_same(one: NBest, other: NBest) -> None:
    for field in dataclasses.fields(NBest):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def hypothesis(words: str, am: float = 0.0, lm: float = 0.0, **counts: int) -> Hypothesis:
    return Hypothesis(words=tuple(words.split()), score=am + lm, am_score=am, lm_score=lm, **counts)


# collect


def test_features_give_the_scores_of_the_decoder(decodes: Decodes) -> None:
    for (lmweight, wordscore, silscore), lists, nbest in zip(
        SETTINGS, decodes.lists, decodes.nbests, strict=True
    ):
        entries = [entry for hypotheses in lists for entry in hypotheses]
        assert nbest.hypotheses == len(entries) > 5 * UTTERANCES
        scores = nbest.features @ [1, lmweight, wordscore, 0, silscore]
        np.testing.assert_allclose(scores, [entry.score for entry in entries], atol=1e-6)
        # The weights of the decode choose what the decoder put first.
        firsts = [hypotheses[0].words for hypotheses in lists]
        counted = map(count_errors, decodes.references, firsts)
        expected = [counts.errors for counts in counted]
        found = Pool(nbest).utterance_errors([1, lmweight, wordscore, 0, silscore])
        assert found.tolist() == expected


def test_errors_are_those_of_the_words(decodes: Decodes) -> None:
    expected = [
        count_errors(reference, entry.words).errors
        for reference, hypotheses in zip(decodes.references, decodes.lists[0], strict=True)
        for entry in hypotheses
    ]
    assert decodes.nbests[0].errors.tolist() == expected
    assert decodes.nbests[0].reference_words.tolist() == list(map(len, decodes.references))


def test_units_are_what_is_counted() -> None:
    lists = [[hypothesis("Yes sir", -1), hypothesis("no", -2), hypothesis("Yes sir", -3)]]
    assert collect(lists, [["yes"]], lambda text: text.lower().split()).errors.tolist() == [1, 1, 1]
    characters = collect(lists, [list("no sir")], list)
    assert characters.errors.tolist() == [3, 4, 3]
    assert characters.reference_words.tolist() == [6]
    assert len(set(characters.text_hash.tolist())) == 2


def test_equal_words_are_aligned_once() -> None:
    texts: list[str] = []

    def units(text: str) -> list[str]:
        texts.append(text)
        return text.split()

    collect([[hypothesis("a b", am) for am in (-1, -2, -3)], [hypothesis("a b")]], [[], []], units)
    assert texts == ["a b", "a b"]


def test_counts_and_hashes_are_stable() -> None:
    entry = hypothesis("a b", -5, -2, unknown_words=1, silence_frames=7)
    nbest = collect([[entry]], [["a", "c", "b"]], str.split)
    assert nbest.features.tolist() == [[-5, -2, 2, 1, 7]]
    assert nbest.text_hash.tolist() == [2952434739088078779]


@pytest.mark.parametrize(
    ("hypotheses", "reference", "errors"),
    [
        ([], "a b", [2]),
        ([], "", [0]),
        ([hypothesis("")], "a b", [2]),
        ([hypothesis("x y"), hypothesis("")], "", [2, 0]),
        ([hypothesis("a b", -math.inf)], "a b", [2]),
        ([hypothesis("a", 0, math.nan), hypothesis("a b")], "a b", [0]),
    ],
    ids=["no hypothesis", "nothing at all", "empty", "empty reference", "infinite", "nan"],
)
def test_empty_ones(hypotheses: list[Hypothesis], reference: str, errors: list[int]) -> None:
    nbest = collect([hypotheses], [reference.split()], str.split)
    assert nbest.errors.tolist() == errors
    pool = Pool(nbest)
    assert pool.oracle_errors() == min(errors)
    assert pool.reference_words == len(reference.split())
    assert pool.errors([0, 0, 1, 0, 0]).tolist() == errors[:1]


def test_lists_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        collect([[]], [[], []], str.split)


# take and concatenate


def test_blocks_come_back_into_list_order(decodes: Decodes) -> None:
    order = list(range(UTTERANCES))
    random.Random(1).shuffle(order)
    blocks = [order[:7], order[7:8], order[8:20], order[20:]]
    parts = [
        collect(
            [decodes.lists[0][index] for index in block],
            [decodes.references[index] for index in block],
            str.split,
        )
        for block in blocks
    ]
    assert_same(concatenate(parts, blocks), decodes.nbests[0])


@pytest.mark.parametrize("indices", [[[0], [0]], [[0], [2]], [[0], [1, 2]], [[0], []], [[-1], [0]]])
def test_blocks_must_cover_the_list_once(indices: list[list[int]]) -> None:
    part = collect([[]], [["a"]], str.split)
    with pytest.raises(ValueError, match=r"indices do not number the 2 utterances"):
        concatenate([part, part], indices)


def test_take_repeats_and_reorders(decodes: Decodes) -> None:
    weights = random_weights(1)[0]
    taken = [5, 0, 5, 29]
    every = plain_errors(decodes.nbests[0], weights)
    found = plain_errors(take(decodes.nbests[0], taken), weights)
    assert found == [every[index] for index in taken]
    assert take(decodes.nbests[0], []).utterances == 0


# merge


def test_merging_changes_no_choice(decodes: Decodes, nbest: NBest) -> None:
    every = union(decodes.nbests)
    assert nbest.hypotheses < every.hypotheses
    for weights in random_weights(40):
        assert plain_errors(nbest, weights) == plain_errors(every, weights)


def test_without_silence_more_is_merged(decodes: Decodes, nbest: NBest) -> None:
    fewer = merge(decodes.nbests, silence=False)
    assert fewer.hypotheses < nbest.hypotheses
    assert not fewer.features[:, FEATURES.index("silence")].any()
    assert decodes.nbests[0].features[:, FEATURES.index("silence")].any(), "the input stays"
    every = union(decodes.nbests)
    for weights in random_weights(40) * [1, 1, 1, 1, 0]:
        assert plain_errors(fewer, weights) == plain_errors(every, weights)


def test_the_order_of_pools_and_hypotheses_does_not_matter(decodes: Decodes, nbest: NBest) -> None:
    rng = np.random.default_rng(5)
    for pools in (
        decodes.nbests[::-1],
        [*decodes.nbests, decodes.nbests[1]],
        [merge(decodes.nbests[:2]), decodes.nbests[2]],
        [nbest],
    ):
        shuffled = []
        for pool in pools:
            spans = zip(pool.offsets[:-1], pool.offsets[1:], strict=True)
            rows = np.concatenate([low + rng.permutation(high - low) for low, high in spans])
            shuffled.append(
                dataclasses.replace(
                    pool,
                    features=pool.features[rows],
                    errors=pool.errors[rows],
                    text_hash=pool.text_hash[rows],
                )
            )
        assert_same(merge(shuffled), nbest)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([(-1, -1), (-2, -2)], [(-1, -1)]),
        ([(-1, -2), (-2, -1)], [(-1, -2), (-2, -1)]),
        ([(-1, -1), (-1, -1)], [(-1, -1)]),
        ([(-1, -2), (-1, -1)], [(-1, -1)]),
        ([(-1, -1), (-2, -1)], [(-1, -1)]),
        ([(-1, -1), (-1 - 1e-9, -1 + 1e-9)], [(-1, -1)]),
        ([(-1, -1), (-1 - 1e-9, -0.5)], [(-1 - 1e-9, -0.5)]),
        ([(-1, -5), (-2, -3), (-3, -4), (-4, -1)], [(-1, -5), (-2, -3), (-4, -1)]),
    ],
)
def test_the_same_words_are_kept_once_for_each_use(
    scores: list[tuple[float, float]], kept: list[tuple[float, float]]
) -> None:
    pools = [collect([[hypothesis("a", *pair)]], [["a"]], str.split) for pair in scores]
    for ordered in (pools, pools[::-1]):
        assert merge(ordered).features[:, :2].tolist() == [list(pair) for pair in kept]


def test_other_words_or_counts_are_no_rivals() -> None:
    entries = [
        hypothesis("a", -1, -1),
        hypothesis("b", -2, -2),
        hypothesis("a", -3, -3, silence_frames=4),
        hypothesis("a", -4, -4, unknown_words=1),
    ]
    nbest = collect([entries, entries[:1]], [["a"], ["a"]], str.split)
    assert merge([nbest]).hypotheses == 5
    assert merge([nbest], silence=False).hypotheses == 4


def test_nothing_found_gives_way_to_what_another_decode_found() -> None:
    nothing = collect([[], []], [["a"], ["b"]], str.split)
    some = collect([[hypothesis("a", -5, -5)], []], [["a"], ["b"]], str.split)
    merged = merge([nothing, some])
    assert merged.features[:, 0].tolist() == [-5, 0]
    assert merged.errors.tolist() == [0, 1]
    # An empty hypothesis was found, though.
    empty = collect([[hypothesis("")], []], [["a"], ["b"]], str.split)
    assert sorted(merge([empty, some]).errors.tolist()[:2]) == [0, 1]


def test_lists_of_other_utterances_are_not_merged(decodes: Decodes) -> None:
    with pytest.raises(ValueError, match="same utterances"):
        merge([decodes.nbests[0], take(decodes.nbests[1], range(UTTERANCES - 1))])
    with pytest.raises(ValueError, match="same utterances"):
        merge([])


# Pool


def test_errors_are_those_of_the_plain_evaluation(nbest: NBest) -> None:
    pool = Pool(nbest)
    rng = np.random.default_rng(8)
    weights = np.concatenate([random_weights(30), rng.normal(0, 2, (30, 5)), np.eye(5), -np.eye(5)])
    expected = [plain_errors(nbest, vector) for vector in weights.tolist()]
    found = pool.errors(weights)
    assert found.dtype == np.int64
    assert found.tolist() == [sum(errors) for errors in expected]
    for vector, errors in zip(weights, expected, strict=True):
        by_utterance = pool.utterance_errors(vector)
        assert by_utterance.dtype == np.int32
        assert by_utterance.tolist() == errors
        assert pool.errors(vector).tolist() == [sum(errors)]


def test_oracle_and_reference_words(decodes: Decodes, nbest: NBest) -> None:
    pool = Pool(nbest)
    assert pool.utterances == UTTERANCES
    assert pool.reference_words == sum(map(len, decodes.references))
    oracle = [
        min(count_errors(reference, entry.words).errors for entries in lists for entry in entries)
        for reference, *lists in zip(decodes.references, *decodes.lists, strict=True)
    ]
    assert pool.oracle_errors() == sum(oracle)
    assert pool.oracle_errors() < pool.errors(random_weights(200)).min()


def test_a_tie_goes_to_the_worse_hypothesis(nbest: NBest) -> None:
    spans = list(zip(nbest.offsets[:-1], nbest.offsets[1:], strict=True))
    worst = sum(int(nbest.errors[low:high].max()) for low, high in spans)
    assert Pool(nbest).errors(np.zeros(5)).tolist() == [worst]
    # Homophones that the LM does not know come with the same scores; where they stand in the
    # arrays must not matter.
    twins = [hypothesis("meat", -1.1, -2.2), hypothesis("meet", -1.1, -2.2)]
    others = [hypothesis(f"x{number}", -9 - number / 7, -9) for number in range(11)]
    rng = random.Random(2)
    for _ in range(20):
        entries = [*twins, *rng.sample(others, rng.randrange(len(others)))]
        rng.shuffle(entries)
        pool = Pool(collect([entries] * 3, [["meet"]] * 3, str.split))
        assert pool.errors(random_weights(50) * [1, 1, 0, 0, 0]).tolist() == [3] * 50


def test_order_of_hypotheses_and_utterances_does_not_matter(nbest: NBest) -> None:
    rng = np.random.default_rng(4)
    weights = random_weights(50)
    shuffled = rng.permutation(UTTERANCES)
    assert (Pool(take(nbest, shuffled)).errors(weights) == Pool(nbest).errors(weights)).all()
    spans = zip(nbest.offsets[:-1], nbest.offsets[1:], strict=True)
    rows = np.concatenate([low + rng.permutation(high - low) for low, high in spans])
    other = dataclasses.replace(
        nbest,
        features=nbest.features[rows],
        errors=nbest.errors[rows],
        text_hash=nbest.text_hash[rows],
    )
    assert (Pool(other).errors(weights) == Pool(nbest).errors(weights)).all()


def test_subset(nbest: NBest) -> None:
    pool = Pool(nbest)
    weights = random_weights(1)[0]
    chosen = np.random.default_rng(6).integers(0, UTTERANCES, 45)  # as a bootstrap draws
    subset = pool.subset(chosen)
    assert (
        subset.utterance_errors(weights).tolist() == pool.utterance_errors(weights)[chosen].tolist()
    )
    assert subset.reference_words == nbest.reference_words[chosen].sum()
    assert pool.subset([]).errors(weights).tolist() == [0]
    assert pool.subset([]).line(weights, weights, 0, 1).errors.tolist() == [0]
    assert pool.subset([]).oracle_errors() == 0


def ragged(lengths: Sequence[int], seed: int = 0) -> NBest:
    """Random lists of given lengths, enough of them for several buckets."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    scores, counts = rng.normal(0, 5, (rows, 2)), rng.integers(0, 9, (rows, 3)) * [1, 0, 1]
    return NBest(
        offsets=np.cumsum([0, *lengths]),
        features=np.column_stack([scores, counts]),
        errors=rng.integers(0, 9, rows, dtype=np.int32),
        text_hash=rng.integers(1, 2**63, rows, dtype=np.uint64),
        reference_words=np.full(len(lengths), 7, dtype=np.int32),
    )


def test_lists_of_very_different_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(1, 4, 300), *rng.integers(1, 400, 300), 5000, 1]
    nbest = ragged(lengths)
    pool = Pool(nbest)
    assert len(pool._buckets) > 5
    assert sum(bucket.errors.size for bucket in pool._buckets) < 1.2 * nbest.hypotheses
    for weights in random_weights(1):
        assert pool.utterance_errors(weights).tolist() == plain_errors(nbest, weights)


@pytest.mark.parametrize("weights", [np.zeros(4), np.zeros((2, 6)), np.zeros((1, 1, 5)), 1.0])
def test_weights_of_another_shape_are_refused(nbest: NBest, weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="for 5 features"):
        Pool(nbest).errors(weights)
    with pytest.raises(ValueError, match="for 5 features"):
        Pool(nbest).line(np.zeros(5), weights, 0, 1)


# Pool.line


DIRECTIONS = [
    *np.eye(5)[[0, 1, 2, 4]].tolist(),
    *(-np.eye(5)[1:3]).tolist(),
    *np.random.default_rng(7).normal(0, 1, (12, 5)).tolist(),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_line_is_exact(nbest: NBest, direction: list[float]) -> None:
    pool = Pool(nbest)
    origin = random_weights(1, seed=int(100 * abs(sum(direction))))[0]
    line = pool.line(origin, direction, -6, 6)
    assert (line.bounds[0], line.bounds[-1]) == (-6, 6)
    assert (np.diff(line.bounds) > 0).all()
    assert line.bounds.dtype == np.float64
    assert line.errors.dtype == np.int64
    assert len(line.errors) == len(line.bounds) - 1 > 10
    assert (np.diff(line.errors) != 0).all()
    middles = (line.bounds[:-1] + line.bounds[1:]) / 2
    steps = np.random.default_rng(1).uniform(-6, 6, 500)
    times = np.concatenate([middles, steps])
    expected = pool.errors(origin + times[:, np.newaxis] * np.array(direction))
    piece = np.searchsorted(line.bounds, times, side="right") - 1
    assert line.errors[piece].tolist() == expected.tolist()


def test_line_over_many_buckets() -> None:
    lengths = np.random.default_rng(2).integers(1, 300, 500).tolist()
    pool = Pool(ragged(lengths, seed=2))
    origin, direction = [1, 1.5, 0.5, 0, 0], [0, 1, -0.7, 3, 0]
    line = pool.line(origin, direction, -2, 3)
    middles = (line.bounds[:-1] + line.bounds[1:]) / 2
    wide = np.diff(line.bounds) > 1e-8
    assert wide.mean() > 0.99
    weights = np.array(origin) + middles[wide, np.newaxis] * direction
    assert line.errors[wide].tolist() == pool.errors(weights).tolist()


def test_lines_that_do_not_change(nbest: NBest) -> None:
    pool = Pool(nbest)
    origin = random_weights(1)[0]
    here = pool.errors(origin).tolist()
    for direction, low, high in (
        ([0, 0, 0, 0, 0], -3, 3),
        ([0, 0, 0, 1, 0], -3, 3),  # no unknown words: a weight without effect
        (origin.tolist(), 0, 5),  # the same choices at any scale
        ([0, 1, 0, 0, 0], 0, 0),
        ([0, 1, 0, 0, 0], 0, 1e-12),
    ):
        line = pool.line(origin, direction, low, high)
        assert line.bounds.tolist() == [low, high]
        assert line.errors.tolist() == here
    with pytest.raises(ValueError, match="no line from 1 to 0"):
        pool.line(origin, origin, 1, 0)


def test_a_corner_of_several_lines_is_one_change() -> None:
    # All three meet at t = 1, where the errors go from 1 to 2, not by way of 0.
    entries = [hypothesis("x", 0, 0), hypothesis("a", -1, 1), hypothesis("x y", -2, 2)]
    pool = Pool(collect([entries], [["a"]], str.split))
    line = pool.line([1, 0, 0, 0, 0], [0, 1, 0, 0, 0], 0, 3)
    assert line.bounds.tolist() == [0, 1, 3]
    assert line.errors.tolist() == [1, 2]
    # Corners nearer to each other than 1e-9 are one, too.
    entries[1] = hypothesis("a", -1 + 1e-12, 1)
    pool = Pool(collect([entries], [["a"]], str.split))
    line = pool.line([1, 0, 0, 0, 0], [0, 1, 0, 0, 0], 0, 3)
    assert line.bounds.tolist() == pytest.approx([0, 1, 3])
    assert line.errors.tolist() == [1, 2]
