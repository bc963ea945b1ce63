"""Conditions to search under, made from experiments/voice_commands: other grammars, noise, tokens.

    python tests/benchmarks/conditions.py FOLDER

There is no new speech. The committed emissions are cut into words (by the best alignment with their
references) and put together again to other sentences, each word from a random place of it: dev from
dev and dev-long, test from test and test-long, so that no word is in both. Noise is part of another
word's emission under it. So the confusions are those of a real acoustic model, but what follows a
word does not colour it. "Phones" are letters of a class whose columns are added, without a mark
between words; word pieces have a model of their own, trained on the committed features (80 s).
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "experiments/voice_commands"
sys.path[:0] = [str(REPOSITORY), str(DATA)]

LETTERS = ["|", *"abcdefghijklmnopqrstuvwxyz"]
SIDES = {"dev": ("dev", "dev-long"), "test": ("test", "test-long")}
CLASSES = ("ao", "ei", "yj", "u", "b", "ckq", "d", "f", "g", "h", "l", "m", "n", "p", "r")
CLASSES += ("szx", "t", "vw")
MERGES = 40
Lists = dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is decoded.

    Attributes:
        half: "chosen" for those that constants were chosen on, "kept" for the others.
        kind: "letters", "phones", "pieces" or "free" (letters without a lexicon).
        utterances: Of each list.
        least_words: Commands are said in a row until there are so many.
        noise: How much of another word lies under each, at most.
        seed: Of grammar, text and noise.
        text: Sentences of the LM's text.
        beam: beamsize.
        weights: Searched, with their ranges.
        unknown: Share of the words that the lexicon lacks.
    """

    half: str
    kind: str
    utterances: int
    least_words: int
    noise: float
    seed: int
    text: int
    beam: int
    weights: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"lmweight": (0, 5), "wordscore": (-8, 7)}
    )
    unknown: float = 0.0


THREE = {"lmweight": (0.0, 5.0), "wordscore": (-8.0, 7.0), "silscore": (-3.0, 3.0)}
FOUR = {**THREE, "unkscore": (-12.0, 0.0)}
FREE = {"lmweight": (0.0, 4.0), "silscore": (-4.0, 4.0)}


def _condition(half: str, kind: str, utterances: int, least: int, noise: float, seed: int,
               text: int, beam: int, **more: Any) -> Condition:  # fmt: skip
    return Condition(half=half, kind=kind, utterances=utterances, least_words=least, noise=noise,
                     seed=seed, text=text, beam=beam, **more)  # fmt: skip


CONDITIONS = {
    "letters-50": _condition("chosen", "letters", 250, 1, 0.3, 11, 3000, 50),
    "letters-20": _condition("kept", "letters", 800, 1, 0.5, 12, 1500, 20),
    "long-50": _condition("chosen", "letters", 100, 25, 0.5, 13, 3000, 50),
    "long-300": _condition("kept", "letters", 30, 25, 0.6, 14, 1000, 300),
    "phones-100": _condition("chosen", "phones", 150, 1, 0.2, 15, 3000, 100),
    "phones-30": _condition("kept", "phones", 400, 1, 0.4, 16, 1000, 30),
    "pieces-50": _condition("chosen", "pieces", 300, 1, 0.2, 17, 2000, 50),
    "pieces-300": _condition("kept", "pieces", 150, 1, 0.4, 18, 4000, 300),
    "free-30": _condition("chosen", "free", 150, 1, 0.0, 19, 3000, 30, weights=FREE),
    "free-60": _condition("kept", "free", 100, 1, 0.2, 20, 2000, 60, weights=FREE),
    "three-200": _condition("chosen", "letters", 250, 1, 0.4, 21, 2000, 200, weights=THREE),
    "four-100": _condition(
        "kept", "letters", 250, 1, 0.3, 22, 2000, 100, weights=FOUR, unknown=0.08
    ),
}  # fmt: skip


def flags(folder: Path, name: str, side: str = "dev") -> dict[str, str]:
    """Return the flags of a condition but for the searched weights."""
    condition, own = CONDITIONS[name], folder / name
    made = {
        "emission_dir": str(own), "datadir": str(own), "test": f"{side}.lst",
        "tokens": str(own / "tokens.txt"), "lm": str(own / "lm.arpa"), "criterion": "ctc",
        "beamsize": str(condition.beam), "beamsizetoken": "20", "beamthreshold": "25",
    }  # fmt: skip
    if condition.kind == "free":
        return {**made, "uselexicon": "false", "decodertype": "tkn"}
    made |= {"lexicon": str(own / "lexicon.txt"), "decodertype": "wrd", "smearing": "max"}
    return made | ({"unkscore": "-inf"} if "unkscore" not in condition.weights else {})


def make(folder: Path, name: str) -> None:
    """Write lists, emissions, tokens, lexicon and LM of a condition; what is there stays."""
    import ngram
    from grammar import read_grammar, vocabulary
    from make_data import sentence

    from w2ltune.formats.emissions import write_emissions

    condition, own = CONDITIONS[name], folder / name
    if (own / "lm.arpa").exists():
        return
    own.mkdir(parents=True, exist_ok=True)
    kind = "pieces" if condition.kind == "pieces" else "letters"
    tokens, spell = _pieces() if kind == "pieces" else (LETTERS, _letters)
    words = {side: _words(kind, side, folder, tokens, spell) for side in SIDES}
    known = sorted(words["dev"].keys() & words["test"].keys())
    random = np.random.default_rng(condition.seed)
    spoken = read_grammar(DATA / "grammar.txt", seed=condition.seed, spread=0.7)
    written = read_grammar(DATA / "grammar.txt", seed=condition.seed + 100, spread=0.7)
    for side in SIDES:
        rows, items = [], []
        while len(rows) < condition.utterances:
            said = sentence(spoken, random, condition.least_words)
            if not set(said) <= set(known):
                continue
            name = f"{side}-{len(rows):04}"
            emission = _say(said, words[side], condition.noise, random)
            if condition.kind == "phones":
                emission = _phones(emission)
            rows.append(f"{name} {name}.wav {32 * len(emission)} {' '.join(said)}\n")
            items.append((name, emission))
        (own / f"{side}.lst").write_text("".join(rows))
        write_emissions(own / f"{side}.npz", items)
    if condition.kind == "phones":
        tokens, spell = [group[0] for group in CLASSES], _as_phones
    (own / "tokens.txt").write_text("\n".join(tokens) + "\n")
    kept = [word for word in known if random.random() >= condition.unknown]
    (own / "lexicon.txt").write_text("".join(f"{w}\t{' '.join(spell(w))}\n" for w in kept))
    text = [sentence(written, random, 14 if n % 4 == 0 else 1) for n in range(condition.text)]
    if condition.kind == "free":  # an LM of letters
        text = [[letter for word in line for letter in _letters(word)] for line in text]
        model = ngram.estimate(text, order=6, vocabulary=LETTERS)
    else:
        model = ngram.estimate(text, order=3, vocabulary=vocabulary(written))
    ngram.write_arpa(own / "lm.arpa", model)


def _letters(word: str) -> list[str]:
    return [*word, "|"]


def _as_phones(word: str) -> list[str]:
    return [next(group[0] for group in CLASSES if letter in group) for letter in word]


def _phones(emission: Any) -> Any:
    """Add the letters of a class, and the mark between words to the blank."""
    chances = np.exp(emission.astype(np.float64))
    columns = [chances[:, [LETTERS.index(x) for x in group]].sum(axis=1) for group in CLASSES]
    columns.append(chances[:, 0] + chances[:, -1])
    return np.log(np.maximum(np.stack(columns, axis=1), 1e-7)).astype(np.float32)


def _pieces() -> tuple[list[str], Any]:
    """Return word pieces (pairs that are often together are joined), and what spells a word."""
    counts = Counter(
        word for row in (DATA / "train.lst").read_text().splitlines() for word in row.split()[3:]
    )
    lexicon = [row.split("\t")[0] for row in (DATA / "lexicon.txt").read_text().splitlines()]
    counts.update(lexicon)
    spelled = {word: ["_" + word[0], *word[1:]] for word in counts}
    for _ in range(MERGES):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in spelled.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += counts[word]
        (a, b), _ = pairs.most_common(1)[0]
        for pieces in spelled.values():
            for place in range(len(pieces) - 2, -1, -1):
                if pieces[place : place + 2] == [a, b]:
                    pieces[place : place + 2] = [a + b]
    return sorted({piece for pieces in spelled.values() for piece in pieces}), spelled.__getitem__


def _words(kind: str, side: str, folder: Path, tokens: list[str], spell: Any) -> Lists:
    """Return the emissions of each word on one side."""
    from w2ltune.formats.emissions import open_emissions
    from w2ltune.formats.listfile import read_list

    found: Lists = defaultdict(list)
    for name in SIDES[side]:
        source = DATA / f"emissions/{name}.npz"
        if kind == "pieces":
            source = folder / f"pieces/{name}.npz"
            if not source.exists():
                _train_pieces(folder / "pieces", tokens, spell)
        emissions = open_emissions(source)
        for entry in read_list(DATA / f"{name}.lst"):
            matrix = emissions.emission(entry.id)
            spelled = [spell(word) for word in entry.reference]
            targets = [tokens.index(token) for word in spelled for token in word]
            first = _align(matrix, targets)
            begins = np.cumsum([0, *map(len, spelled)])[:-1]
            cuts = [0]  # between the last token of a word and the first of the next one
            for begin in begins[1:]:
                cuts.append((first[begin - 1] + 1 + first[begin]) // 2)
            cuts.append(len(matrix))
            for word, low, high in zip(entry.reference, cuts, cuts[1:], strict=False):
                if high - low >= 2:
                    found[word].append(matrix[low:high])
    return found


def _align(matrix: Any, targets: list[int]) -> list[int]:
    """Return the first frame of each token on the best path, blanks between them left out."""
    blank = matrix.shape[1] - 1
    states = np.full(2 * len(targets) + 1, blank)
    states[1::2] = targets
    jumps = np.zeros(len(states), dtype=bool)
    jumps[3::2] = np.array(targets[1:]) != np.array(targets[:-1])
    score = np.full(len(states), -np.inf)
    score[:2] = matrix[0, states[:2]]
    back = np.zeros((len(matrix), len(states)), dtype=np.int8)
    for frame in range(1, len(matrix)):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(jumps, np.concatenate([[-np.inf] * 2, score[:-2]]), -np.inf)
        ways = np.stack([score, one, two])
        back[frame] = ways.argmax(axis=0)
        score = ways.max(axis=0) + matrix[frame, states]
    state = len(states) - 1 if score[-1] > score[-2] else len(states) - 2
    path = []
    for frame in range(len(matrix) - 1, -1, -1):
        path.append(state)
        state -= int(back[frame, state])
    path.reverse()
    return [path.index(2 * number + 1) for number in range(len(targets))]


def _say(said: list[str], words: Lists, noise: float, random: np.random.Generator) -> Any:
    parts = []
    every = sorted(words)
    for word in said:
        part = words[word][random.integers(len(words[word]))]
        other = words[every[random.integers(len(every))]]
        under = other[random.integers(len(other))]
        under = under[np.linspace(0, len(under) - 1, len(part)).round().astype(int)]
        share = max(1e-9, random.uniform(0, noise))
        parts.append(np.logaddexp(np.log1p(-share) + part, np.log(share) + under))
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def _train_pieces(folder: Path, tokens: list[str], spell: Any) -> None:
    import make_emissions

    from w2ltune.embedded.acoustic import Architecture
    from w2ltune.embedded.corpus import load_corpus
    from w2ltune.embedded.training import TrainingOptions, start, train

    folder.mkdir(parents=True, exist_ok=True)
    lexicon = [row.split("\t")[0] for row in (DATA / "lexicon.txt").read_text().splitlines()]
    (folder / "lexicon.txt").write_text("".join(f"{w}\t{' '.join(spell(w))}\n" for w in lexicon))
    names = ["train", *make_emissions.LISTS]
    corpora = {
        name: load_corpus(DATA / f"{name}.lst", DATA / f"features/{name}.npz", tokens=tokens,
                          lexicon_path=folder / "lexicon.txt")
        for name in names
    }  # fmt: skip
    shape = Architecture(bands=corpora["train"].features[0].shape[1], outputs=len(tokens) + 1)
    begun = start(corpora["train"], shape, seed=1)
    *_, (state, _) = train(begun, corpora["train"], TrainingOptions())
    for name in make_emissions.LISTS:
        make_emissions.write_emissions(state.model, corpora[name], folder / f"{name}.npz")


if __name__ == "__main__":
    for condition in CONDITIONS:
        make(Path(sys.argv[1]), condition)
        print(condition, flush=True)
