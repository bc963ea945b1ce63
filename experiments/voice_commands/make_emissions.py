"""Train the acoustic model on the committed features and write the lists' emissions.

::

    python experiments/voice_commands/make_emissions.py [--model=FILE]

About 75 CPU seconds of training; one thread, so that the sums are added in one order. ``--model``
also keeps the model.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# More threads than cores to themselves slow small matrix products down. Before numpy is loaded.
os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"))

import numpy as np

from w2ltune.embedded.acoustic import AcousticModel, Architecture, emission
from w2ltune.embedded.beamsearch import read_tokens
from w2ltune.embedded.corpus import Corpus, check_corpus, load_corpus
from w2ltune.embedded.evaluation import evaluate
from w2ltune.embedded.runfiles import save_checkpoint
from w2ltune.embedded.training import TrainingOptions, start, train

HERE = Path(__file__).parent
LISTS = ["dev", "test", "dev-long", "test-long"]
FLOOR = -16.0  # nats; below it no hypothesis survives the beam
STEPS_PER_NAT = 32  # rounding, so that the file compresses


def load(name: str, folder: Path) -> Corpus:
    """Read one list with its features."""
    return load_corpus(
        folder / f"{name}.lst",
        folder / "features" / f"{name}.npz",
        tokens=read_tokens(folder / "tokens.txt"),
        lexicon_path=folder / "lexicon.txt",
    )


def write_emissions(model: AcousticModel, corpus: Corpus, path: Path) -> None:
    """Write the log-softmax outputs of a list, rounded, [frames, tokens + 1], blank last."""
    emissions = [emission(model, features) for features in corpus.features]
    rows = np.maximum(np.round(np.concatenate(emissions) * STEPS_PER_NAT) / STEPS_PER_NAT, FLOOR)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        ids=np.array(corpus.ids),
        frames=np.array([len(matrix) for matrix in emissions], np.int32),
        emissions=rows.astype(np.float16),
    )


def main() -> None:
    """Read the command line, train, and write."""
    parser = argparse.ArgumentParser(description="Train, and write the emissions.")
    parser.add_argument("--folder", type=Path, default=HERE, help="the data set")
    parser.add_argument(
        "--model", type=Path, help="keep the model in this .bin, as embedded.test reads it"
    )
    options = parser.parse_args()
    corpora = {name: load(name, options.folder) for name in ["train", *LISTS]}
    architecture = Architecture(
        bands=corpora["train"].features[0].shape[1], outputs=len(corpora["train"].tokens) + 1
    )
    for corpus in corpora.values():
        check_corpus(corpus, architecture)
    for state, report in train(
        start(corpora["train"], architecture, seed=1), corpora["train"], TrainingOptions()
    ):
        dev = evaluate(state.model, corpora["dev"])
        print(
            f"epoch {report.epoch:2}: {report.seconds:.1f} s, "
            f"train loss {report.training.loss:6.2f} TER {report.training.token_errors.wer:7.2%}, "
            f"dev loss {dev.loss:6.2f} TER {dev.token_errors.wer:7.2%} "
            f"WER {dev.word_errors.wer:7.2%}",
            flush=True,
        )
    for name in LISTS:
        write_emissions(state.model, corpora[name], options.folder / "emissions" / f"{name}.npz")
        result = evaluate(state.model, corpora[name])
        print(f"{name}: TER {result.token_errors.wer:.2%}, greedy WER {result.word_errors.wer:.2%}")
    if options.model:
        save_checkpoint(options.model, state, {})


if __name__ == "__main__":
    main()
