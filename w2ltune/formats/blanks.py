"""Where a text is split into words: at ASCII's blanks, as wav2letter's programs and sclite do it.

``str.split()`` also splits at a no-break space and at a dozen other characters, which to all these
programs are parts of words.
"""

from __future__ import annotations

import re

BLANKS = " \t\n\v\f\r"
"""What ``isspace`` of C takes for one; to strip a text of them: ``text.strip(BLANKS)``."""

_OTHERS = {each for each in map(chr, range(0x3001)) if each.isspace()}.difference(BLANKS)
_words = re.compile(f"[^{BLANKS}]+").findall


def split_words(text: str) -> list[str]:
    r"""Return the words of a text.

    Example:
        >>> split_words(" 10\u00a0000 \t francs\n")
        ['10\xa0000', 'francs']
    """
    return text.split() if _OTHERS.isdisjoint(text) else _words(text)  # the first is faster
