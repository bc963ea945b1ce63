"""The names that a language model's scores may have, in a file's name and as a weight's."""

from __future__ import annotations

import re

ALLOWED = "letters, digits, '_', '.', '+' or '-', not '.' first"


def is_column_name(text: str) -> bool:
    """Whether scores may be called so; it also stands in ``NAME=FILE`` and ``NAME=WEIGHT,…``.

    Example:
        >>> [is_column_name(name) for name in ("gpt-2", "4gram", "a=b", "a,b", ".x", "")]
        [True, True, False, False, False, False]
    """
    return re.fullmatch(r"(?!\.)[\w.+-]+", text) is not None
