"""Neural causal LMs: a tiny GPT-2 with random weights, its tokenizer made here."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2ltune.embedded.causallm import CausalLM, batches
from w2ltune.errors import InputError, UsageError

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="torch and transformers are not installed (pip install 'w2ltune[causal]')",
)
WORDS = ["yes", "no", "maybe", "grün", "turn", "on", "off", "the", "light"]
SENTENCES = ["", "yes", "turn on the light", "no no no no no no no no no", "grün", "off xyzzy yes"]


def make_model(folder: Path, *, special: tuple[str, ...] = ("<s>", "</s>", "<unk>")) -> Any:
    """Write a model with its tokenizer to a folder; return the model."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"<s>": "bos_token", "</s>": "eos_token", "<unk>": "unk_token"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, **{names[token]: token for token in special}
    )
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=1, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def step_by_step(model: Any, sentence: str, *, begin: int = 1) -> float:
    """Return the log probability of a sentence, a token at a time."""
    import torch

    numbers = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokens = [begin, *(numbers.get(word, 0) for word in sentence.split()), 2]
    total = 0.0
    for end in range(1, len(tokens)):
        with torch.no_grad():
            logits = model(torch.tensor([tokens[:end]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, 0)[tokens[end]])
    return total


@needs_torch
def test_batched_is_step_by_step(tmp_path: Path) -> None:
    folder = tmp_path / "a model's; folder"
    model = make_model(folder)
    expected = [step_by_step(model, sentence) for sentence in SENTENCES]
    assert max(expected) < -1
    for batch_tokens in (1, 12, 30, 10_000):
        found = CausalLM(str(folder), batch_tokens=batch_tokens).score(SENTENCES)
        assert found[:, 0] == pytest.approx(expected, abs=1e-4)
        assert found[:, 1].tolist() == [0, 0, 0, 0, 0, 1]
        assert found[:, 2].tolist() == [0, 1, 4, 9, 1, 3]
    # The model of the first word: all sentences of one word sum to less than 1.
    one = CausalLM(str(folder), batch_tokens=100).score(["<unk>", *WORDS])[:, 0]
    assert 0 < np.exp(one).sum() + math.exp(expected[0]) < 1


@needs_torch
def test_without_a_begin_token_the_end_begins(tmp_path: Path) -> None:
    model = make_model(tmp_path, special=("</s>", "<unk>"))
    found = CausalLM(str(tmp_path), batch_tokens=100).score(SENTENCES)
    expected = [step_by_step(model, sentence, begin=2) for sentence in SENTENCES]
    assert found[:, 0] == pytest.approx(expected, abs=1e-4)


@needs_torch
def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    lm = CausalLM(str(tmp_path / "model"), batch_tokens=100)
    assert lm.score([" ".join(["yes"] * 31)]).shape == (1, 3)
    with pytest.raises(InputError, match=r"takes 32 tokens at most; a hypothesis has 33: 'yes yes"):
        lm.score(["no", " ".join(["yes"] * 32)])
    make_model(tmp_path / "endless", special=("<s>",))
    with pytest.raises(InputError, match="no token for the end"):
        CausalLM(str(tmp_path / "endless"), batch_tokens=100)
    (tmp_path / "model/config.json").write_text("{")
    with pytest.raises(InputError, match="transformers cannot load it"):
        CausalLM(str(tmp_path / "model"), batch_tokens=100)


def test_batches_hold_what_they_may() -> None:
    lengths = np.random.default_rng(1).integers(1, 40, 500).tolist()
    found = list(batches(lengths, 100))
    assert sorted(number for batch in found for number in batch) == list(range(500))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= 100
    assert len(found) < 1.3 * sum(lengths) / 100
    assert list(batches([], 10)) == []


def test_without_the_packages_the_command_to_install_them_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"torch and transformers: pip install .w2ltune\[causal"):
        CausalLM("any", batch_tokens=1)
