"""Neural causal language models: Hugging Face transformers on torch, both optional (``causal``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune.errors import InputError, UsageError


class CausalLM:
    """Scores sentences.

    Args:
        name: A folder, or a model's name that transformers knows.
        batch_tokens: Tokens of a batch, padding included; what the memory holds.
        threads: Cores that a model on the CPU takes.

    Raises:
        InputError: The model cannot be loaded, or has no token for the end of a sentence.
        UsageError: torch or transformers is not installed.
    """

    def __init__(self, name: str, *, batch_tokens: int, threads: int = 1) -> None:
        require_packages()
        import torch
        import transformers

        self._torch = torch
        self._name = name
        self._batch_tokens = batch_tokens
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(name)
        except Exception as error:  # it raises nearly anything over damaged files
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"--causal_lm={name!r}: transformers cannot load it ({type(error).__name__}: "
                f"{reason}); give the folder of a causal LM with its tokenizer"
            ) from None
        self._model = model.float().to(self._device).eval()
        self._end: int | None = self._tokenizer.eos_token_id
        if self._end is None:
            raise InputError(
                f"--causal_lm={name!r}: its tokenizer has no token for the end of a sentence "
                "(eos_token), so that sentences have no probability"
            )
        begin = self._tokenizer.bos_token_id
        # As GPT-2 was trained: the end of a text is the beginning of the next one.
        self._begin: int = self._end if begin is None else begin
        self._most: int | None = getattr(model.config, "max_position_embeddings", None)

    def score(self, sentences: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return natural log probabilities, with the end of the sentence.

        Args:
            sentences: The texts.

        Returns:
            float64 [sentences, 3]: log probability, unknown tokens, tokens.

        Raises:
            InputError: A sentence is longer than the model allows.
        """
        tokens = [self._tokenize(sentence) for sentence in sentences]
        lengths = [len(row) for row in tokens]
        if self._most is not None and max(lengths, default=0) - 1 > self._most:
            sentence = sentences[lengths.index(max(lengths))]
            raise InputError(
                f"--causal_lm={self._name!r} takes {self._most} tokens at most; a hypothesis has "
                f"{max(lengths) - 1}: {sentence[:60]!r}…"
            )
        found = np.empty((len(sentences), 3))
        for batch in batches(lengths, self._batch_tokens):
            found[batch, 0] = self._log_probabilities([tokens[number] for number in batch])
        unknown = self._tokenizer.unk_token_id
        special = unknown in (None, self._begin, self._end)  # of GPT-2 all three are the same
        found[:, 1] = [0 if special else row.count(unknown) for row in tokens]
        found[:, 2] = [len(row) - 2 for row in tokens]
        return found

    def _tokenize(self, sentence: str) -> list[int]:
        text = self._tokenizer(sentence, add_special_tokens=False)["input_ids"] if sentence else []
        return [self._begin, *text, self._end]

    def _log_probabilities(self, tokens: Sequence[Sequence[int]]) -> list[float]:
        """Return those of a batch. The padding comes last, where no token before it sees it."""
        torch = self._torch
        longest = max(map(len, tokens)) - 1
        rows = [[*row[:-1], *[self._end] * (longest + 1 - len(row))] for row in tokens]
        mask = [[n < len(row) - 1 for n in range(longest)] for row in tokens]
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.tensor(rows, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device).long(),
                use_cache=False,
            ).logits
            sums = []
            # A sentence at a time: another copy of all logits would be the most of the memory.
            for row, outputs in zip(tokens, logits, strict=True):
                own = outputs[: len(row) - 1].float()
                chosen = torch.tensor(row[1:], device=self._device).unsqueeze(1)
                scores = own.gather(1, chosen).squeeze(1) - own.logsumexp(dim=1)
                sums.append(float(scores.double().sum()))
        return sums


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield the numbers of sentences that are scored together, alike in length, longest first.

    Args:
        lengths: Tokens of each sentence.
        most: Sentences times the longest of them is at most this; a longer one is alone.

    Example:
        >>> list(batches([3, 9, 4, 30], most=12))
        [[3], [1], [2, 0]]
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def require_packages() -> None:
    """Refuse to go on without the optional packages.

    Raises:
        UsageError: With the command that installs them.
    """
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--causal_lm needs {' and '.join(missing)}: pip install 'w2ltune[causal]', or score "
            "by a program of yours: --command=…"
        )
