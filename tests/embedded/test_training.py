from __future__ import annotations

import io
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
from w2ltune.embedded.masking import Masks, mask
from w2ltune.embedded.modelfile import parse_state, state_bytes
from w2ltune.embedded.schedule import NEVER, Schedule, learning_rate_at
from w2ltune.embedded.training import TrainingOptions, start, start_from, train
from w2ltune.errors import InputError, TrialFailedError
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


@pytest.mark.parametrize(
    ("optimizer", "learning_rate"),
    [("adam", 0.005), pytest.param("sgd", 0.01, marks=pytest.mark.main)],
)
def test_training_learns(corpus, architecture, optimizer, learning_rate):
    options = TrainingOptions(
        optimizer=optimizer,
        schedule=Schedule(peak=learning_rate, updates=45 * 3, warmup_updates=5),
        batch_utterances=4,
        masks=Masks(first_update=None),
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


def test_a_stopped_run_goes_on_to_the_same_parameters(corpus, architecture):
    options = TrainingOptions(schedule=Schedule(updates=12), batch_utterances=5)
    whole = [state for state, _ in train(start(corpus, architecture, seed=1), corpus, options)]
    for state, report in train(start(corpus, architecture, seed=1), corpus, options):
        saved = state_bytes(state)
        if report.epoch == 2:
            break
    rest = [state for state, _ in train(parse_state(saved, path="saved"), corpus, options)]
    assert [state.epoch for state in rest] == [3, 4]
    assert state_bytes(rest[-1]) == state_bytes(whole[-1])
    other = replace(options, seed=2, schedule=Schedule(updates=6))
    other = [state for state, _ in train(whole[0], corpus, other)]
    assert not np.array_equal(
        other[-1].model.parameters["weight0"], whole[1].model.parameters["weight0"]
    )


@pytest.mark.parametrize(
    ("updates", "every", "reports"),
    [
        (6, 0, [(1, 3), (2, 6)]),
        (8, 0, [(1, 3), (2, 6), (3, 8)]),  # the last epoch is cut, and reported
        (8, 2, [(1, 2), (2, 4), (2, 6), (3, 8)]),
        (9, 5, [(2, 5)]),  # what comes after the last report is not seen, as in the binary
        (2, 4, []),
    ],
)
def test_when_there_is_a_report(corpus, architecture, updates, every, reports):
    options = TrainingOptions(
        schedule=Schedule(updates=updates), report_updates=every, batch_utterances=5
    )
    epochs: list[int] = []
    first = start(corpus, architecture, seed=1)
    seen = list(train(first, corpus, options, epoch_begins=epochs.append))
    assert [(report.epoch, report.updates) for _, report in seen] == reports
    assert [(state.epoch, state.updates) for state, _ in seen] == reports
    assert epochs == list(range(1, -(-updates // 3) + 1))
    assert sum(len(report.batches) for _, report in seen) == (reports[-1][1] if reports else 0)


def test_from_within_an_epoch_the_next_one_follows(corpus, architecture):
    options = TrainingOptions(schedule=Schedule(updates=6), report_updates=2, batch_utterances=5)
    state, _ = next(train(start(corpus, architecture, seed=1), corpus, options))
    rest = [
        [(report.epoch, report.updates) for _, report in train(again, corpus, options)]
        for again in (state, parse_state(state_bytes(state), path="saved"))
    ]
    assert rest[0] == rest[1] == [(2, 4), (3, 6)]


def test_a_fork_begins_anew_with_what_was_learned(corpus, architecture):
    options = TrainingOptions(schedule=Schedule(updates=3), batch_utterances=5)
    ((state, _),) = train(start(corpus, architecture, seed=1), corpus, options)
    fork = start_from(state.model)
    assert (fork.epoch, fork.updates) == (0, 0)
    assert fork.model is state.model
    assert not any(value.any() for value in fork.moments.first.values())


def test_learning_rate_rises_and_falls():
    schedule = Schedule(peak=0.1, updates=100, warmup_updates=20)
    rates = [learning_rate_at(schedule, epoch=1, update=update) for update in range(1, 101)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[19]
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(
    ("change", "epoch", "update", "expected"),
    [
        ({"halve_from_epoch": 4}, 3, 90, 1),
        ({"halve_from_epoch": 4}, 4, 90, 1 / 2),
        ({"halve_from_epoch": 4}, 400, 90, 1 / 2),
        ({"halve_from_epoch": 4, "halve_every_epochs": 2}, 5, 90, 1 / 2),
        ({"halve_from_epoch": 4, "halve_every_epochs": 2}, 8, 90, 1 / 8),
        ({"gamma": 0.5, "gamma_updates": 30}, 1, 60, 1 / 4),
        ({"gamma": 0.5, "gamma_updates": 30, "halve_from_epoch": 1}, 1, 60, 1 / 8),
        ({"quarter_cosine": True}, 1, 50, 0.5**0.5),
        ({"quarter_cosine": True}, 1, 100, 0),
        ({"quarter_cosine": True, "updates": NEVER}, 1, 100, 1),
        ({"updates": NEVER}, 1, 100, 1),
        ({"warmup_updates": 80, "halve_from_epoch": 1}, 1, 20, 1 / 8),
    ],
)
def test_the_decays_of_the_binary(change, epoch, update, expected):
    schedule = Schedule(**{"peak": 1.0, "updates": 100, "warmup_updates": 1, **change})
    rate = learning_rate_at(schedule, epoch=epoch, update=update)
    assert rate == pytest.approx(expected, abs=1e-9)


def test_masks_hide_what_they_may():
    random = np.random.default_rng(0)
    masks = Masks(bands=3, band_masks=1, frames=50, frame_masks=1, frame_share=0.2, first_update=5)
    hidden_bands, hidden_frames = set(), set()
    for _ in range(200):
        features = np.ones((40, 20))
        mask(features, masks, random, update=5)
        hidden_bands.add(int((features == 0).all(axis=0).sum()))
        hidden_frames.add(int((features == 0).all(axis=1).sum()))
    assert hidden_bands == {0, 1, 2, 3}
    assert hidden_frames == set(range(9))
    untouched = np.ones((40, 20))
    mask(untouched, masks, random, update=4)
    mask(untouched, replace(masks, first_update=None), random, update=9)
    assert untouched.all()


def test_divergence_is_told(corpus, architecture):
    options = TrainingOptions(
        optimizer="sgd", schedule=Schedule(peak=1e9, warmup_updates=0), maximum_gradient_norm=0
    )
    with pytest.raises(TrialFailedError, match=r"try a lower --lr than 1e\+09"):
        list(train(start(corpus, architecture, seed=1), corpus, options))


def test_a_state_is_read_back():
    state = replace(start_from(small_model()), epoch=7, updates=140)
    content = state_bytes(state)
    again = parse_state(content, path="model.bin")
    assert state_bytes(again) == content
    assert (again.epoch, again.updates) == (7, 140)
    assert again.model.architecture == SMALL
    assert again.model.feature_deviation == 2.0
    batch = small_batch()[0]
    assert np.array_equal(emission(again.model, batch), emission(state.model, batch))
    # What tells a whole file from a cut one.
    assert len(state_bytes(start_from(small_model(seed=3)))) == len(content)


def test_a_state_that_was_cut_or_damaged_is_refused():
    content = state_bytes(start_from(small_model()))
    for length in [*range(0, len(content), 97), len(content) - 1]:
        with pytest.raises(InputError, match=r"model\.bin: is no training of w2ltune"):
            parse_state(content[:length], path="model.bin")
    place = content.index(b"weight0") + 200
    damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    with pytest.raises(InputError, match="CRC"):
        parse_state(damaged, path="model.bin")
    file = io.BytesIO()
    np.savez(file, ids=np.array(["a"]))
    with pytest.raises(InputError, match=r"holds no training of w2ltune \('architecture'\)"):
        parse_state(file.getvalue(), path="features.npz")


def test_nothing_is_unpickled():
    file = io.BytesIO()
    np.savez(file, architecture=np.array([{"any": "object"}], dtype=object))
    with pytest.raises(InputError, match="an array of object"):
        parse_state(file.getvalue(), path="model.bin")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no zip at all"])
def test_damaged_features_are_refused(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
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
    with pytest.raises(InputError, match="--tokens gives 27 tokens and a blank, the model has 30"):
        check_corpus(corpus, replace(architecture, outputs=30))


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
