from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from w2ltune.embedded.acoustic import (
    AcousticModel,
    Architecture,
    backward,
    emission,
    emission_frames,
    forward,
    initial_parameters,
    pad_batch,
)
from w2ltune.embedded.beamsearch import read_tokens
from w2ltune.embedded.corpus import Corpus, check_corpus, load_corpus, load_features
from w2ltune.embedded.ctc import ctc_loss, log_softmax
from w2ltune.embedded.evaluation import evaluate
from w2ltune.embedded.modelfile import load_model, save_model
from w2ltune.embedded.train import (
    TrainingOptions,
    learning_rate_at,
    load_state,
    save_state,
    start,
    train,
)
from w2ltune.errors import InputError, TrialFailedError, UsageError
from w2ltune.formats.listfile import read_list

DATA = Path(__file__).parents[2] / "experiments" / "voice_commands"
LISTS = ["train", "dev", "test", "dev-long", "test-long"]
SMALL = Architecture(bands=3, outputs=4, hidden=5, kernels=(5, 3), stride=2)
LENGTHS = [11, 8]
TARGETS = [np.array([0, 0, 1]), np.array([2])]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The twelve shortest training utterances of the voice commands."""
    whole = load("train")
    chosen = np.argsort([len(matrix) for matrix in whole.features])[:12]
    return replace(
        whole,
        ids=tuple(whole.ids[i] for i in chosen),
        features=tuple(whole.features[i] for i in chosen),
        references=tuple(whole.references[i] for i in chosen),
        targets=tuple(whole.targets[i] for i in chosen),
    )


@pytest.fixture(scope="module")
def architecture(corpus: Corpus) -> Architecture:
    return Architecture(bands=corpus.features[0].shape[1], outputs=28, hidden=48, kernels=(9, 5))


def load(name: str) -> Corpus:
    return load_corpus(
        DATA / f"{name}.lst",
        DATA / "features" / f"{name}.npz",
        tokens=read_tokens(DATA / "tokens.txt"),
        lexicon_path=DATA / "lexicon.txt",
    )


def small_model(seed: int = 0) -> AcousticModel:
    random = np.random.default_rng(seed)
    parameters = {
        name: value.astype(np.float64) + 0.1 * random.standard_normal(value.shape)
        for name, value in initial_parameters(SMALL, seed=seed).items()
    }
    return AcousticModel(architecture=SMALL, parameters=parameters, feature_deviation=2.0)


def small_batch() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.standard_normal((length, SMALL.bands)) for length in LENGTHS]


def total_loss(model: AcousticModel) -> float:
    features, frames = pad_batch(model, small_batch())
    logits, _ = forward(model, features, frames)
    frames = emission_frames(SMALL, frames)
    return ctc_loss(log_softmax(logits), frames, TARGETS, blank=3)[0].sum()


def test_gradient_of_the_whole_model_agrees_with_finite_differences():
    model, step = small_model(), 1e-6
    features, frames = pad_batch(model, small_batch())
    logits, cache = forward(model, features, frames)
    _, gradient = ctc_loss(log_softmax(logits), emission_frames(SMALL, frames), TARGETS, blank=3)
    gradients = backward(model, cache, gradient)
    assert gradients.keys() == model.parameters.keys()
    for name, value in model.parameters.items():
        for place in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * step
                parameters = {**model.parameters, name: moved}
                sides.append(total_loss(replace(model, parameters=parameters)))
            slope = (sides[0] - sides[1]) / (2 * step)
            assert gradients[name][place] == pytest.approx(slope, abs=1e-6), (name, place)


def test_an_emission_does_not_depend_on_its_batch():
    model, matrices = small_model(), small_batch()
    logits, _ = forward(model, *pad_batch(model, matrices))
    for row, matrix in zip(log_softmax(logits), matrices, strict=True):
        alone = emission(model, matrix)
        assert len(alone) == -(-len(matrix) // SMALL.stride)
        assert row[: len(alone)] == pytest.approx(alone)
        assert np.exp(alone).sum(-1) == pytest.approx(1)


def test_dropout_keeps_the_mean():
    model = small_model()
    features, frames = pad_batch(model, small_batch()[:1])
    _, cache = forward(model, features, frames)
    random = np.random.default_rng(0)
    runs = [forward(model, features, frames, dropout=0.5, random=random)[1] for _ in range(3000)]
    # The first layer's outputs are seen in the second one's windows.
    assert np.mean([run[1][0] for run in runs], axis=0) == pytest.approx(cache[1][0], abs=0.3)


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adam", 0.005), ("sgd", 0.01)])
def test_training_learns(corpus, architecture, optimizer, learning_rate):
    options = TrainingOptions(
        optimizer=optimizer,
        learning_rate=learning_rate,
        epochs=45,
        batch_utterances=4,
        warmup_updates=5,
        mask_bands=0,
        mask_frames=0,
        dropout=0,
    )
    state = start(corpus, architecture, seed=1)
    before = evaluate(state.model, corpus)
    for step in train(state, corpus, options):
        state, report = step
    after = evaluate(state.model, corpus)
    assert (report.epoch, report.updates) == (45, 45 * 3)
    assert before.token_errors.wer > 0.9
    assert after.token_errors.wer < 0.35
    assert after.loss < before.loss / 3
    assert after.token_errors.reference_words == sum(map(len, corpus.targets))
    assert after.word_errors.reference_words == sum(map(len, corpus.references))


def test_a_stopped_run_goes_on_to_the_same_parameters(corpus, architecture, tmp_path):
    options = TrainingOptions(epochs=4, batch_utterances=5)
    whole = [state for state, _ in train(start(corpus, architecture, seed=1), corpus, options)]
    for state, report in train(start(corpus, architecture, seed=1), corpus, options):
        save_state(tmp_path / "state.npz", state)
        if report.epoch == 2:
            break
    rest = [state for state, _ in train(load_state(tmp_path / "state.npz"), corpus, options)]
    assert [state.epoch for state in rest] == [3, 4]
    for name, value in whole[-1].model.parameters.items():
        assert np.array_equal(value, rest[-1].model.parameters[name])
    other = [s for s, _ in train(whole[0], corpus, replace(options, seed=2, epochs=2))]
    assert not np.array_equal(
        other[-1].model.parameters["weight0"], whole[1].model.parameters["weight0"]
    )


def test_learning_rate_rises_and_falls():
    options = TrainingOptions(learning_rate=0.1, epochs=10, warmup_updates=20)
    rates = [learning_rate_at(options, update, 10) for update in range(1, 101)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[19]
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_divergence_is_told(corpus, architecture):
    options = TrainingOptions(
        optimizer="sgd", learning_rate=1e9, maximum_gradient_norm=0, warmup_updates=0
    )
    with pytest.raises(TrialFailedError, match="learning rate below 1e"):
        list(train(start(corpus, architecture, seed=1), corpus, options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"optimizer": "?"}, "take adam or sgd"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"batch_utterances": 0}, "1 or more"),
    ],
)
def test_refused_options(corpus, architecture, change, message):
    with pytest.raises(UsageError, match=message):
        next(train(start(corpus, architecture, seed=1), corpus, TrainingOptions(**change)))


def test_models_and_states_are_read_back(tmp_path):
    model = small_model()
    save_model(tmp_path / "model.npz", model)
    again, beside = load_model(tmp_path / "model.npz")
    assert again.architecture == model.architecture
    assert again.feature_deviation == 2.0
    assert not beside
    assert np.array_equal(emission(again, small_batch()[0]), emission(model, small_batch()[0]))
    with pytest.raises(InputError, match="no state of training"):
        load_state(tmp_path / "model.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no zip at all"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.npz: is no acoustic model"):
        load_model(path)
    with pytest.raises(InputError, match=r"broken\.npz: is no \.npz of features"):
        load_features(path)


def test_features_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "features.npz"
    np.savez(path, ids=np.array(["a"]), frames=np.array([3]), features=np.zeros((4, 2)))
    with pytest.raises(InputError, match="do not fit together"):
        load_features(path)
    np.savez(path, ids=np.array(["a"]))
    with pytest.raises(InputError, match=r"lacks the arrays \['features', 'frames'\]"):
        load_features(path)


def test_lists_that_do_not_fit_are_refused(tmp_path):
    rows = (DATA / "dev.lst").read_text().splitlines()[:1]
    (tmp_path / "more.lst").write_text("\n".join([*rows, "dev-9999 a.wav 10 light"]) + "\n")
    with pytest.raises(InputError, match="first 'dev-9999'"):
        load_corpus(tmp_path / "more.lst", DATA / "features" / "dev.npz", tokens=["|"])
    (tmp_path / "odd.lst").write_text("dev-0001 a.wav 10 café\n")
    with pytest.raises(InputError, match=r"odd\.lst: the word 'café' needs the token 'é'"):
        load_corpus(
            tmp_path / "odd.lst",
            DATA / "features" / "dev.npz",
            tokens=read_tokens(DATA / "tokens.txt"),
        )


def test_utterances_that_cannot_be_aligned_are_refused(corpus, architecture):
    short = replace(corpus, features=(corpus.features[0][:4], *corpus.features[1:]))
    with pytest.raises(InputError, match=f"'{corpus.ids[0]}' has 2 frames after a stride of 2"):
        check_corpus(short, architecture)
    with pytest.raises(InputError, match="features per frame, the model takes 7"):
        check_corpus(corpus, replace(architecture, bands=7))


@pytest.mark.parametrize("name", LISTS)
def test_voice_commands_fit_together(name):
    corpus = load(name)
    check_corpus(corpus, Architecture(bands=corpus.features[0].shape[1], outputs=28))
    seconds = [
        utterance.duration_milliseconds / 1000 for utterance in read_list(DATA / f"{name}.lst")
    ]
    frames = [len(matrix) for matrix in corpus.features]
    assert np.array(frames) * 0.016 == pytest.approx(np.array(seconds), abs=0.04)
    words = np.mean([len(reference) for reference in corpus.references])
    assert 25 < words < 32 if name.endswith("long") else 6 < words < 8.5
    if name != "train":
        with np.load(DATA / "emissions" / f"{name}.npz") as arrays:
            assert tuple(arrays["ids"].tolist()) == corpus.ids
            assert arrays["frames"].tolist() == [-(-count // 2) for count in frames]
            emissions = arrays["emissions"].astype(np.float32)
        assert emissions.shape == (sum(-(-count // 2) for count in frames), 28)
        assert np.exp(emissions).sum(-1) == pytest.approx(1, abs=0.04)
