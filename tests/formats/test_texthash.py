from __future__ import annotations

import hashlib

from w2ltune.formats import texthash
from w2ltune.formats.texthash import hash_text, hash_texts


def test_hashes_stay_what_they_are() -> None:
    texts = ["", "yes", "l'été à la plage", "yes sir"]
    hashes = hash_texts(text.encode() for text in texts)
    assert hashes.tolist() == [hash_text(text) for text in texts]
    assert hash_text("yes") == int.from_bytes(
        hashlib.blake2b(b"yes", digest_size=8).digest(), "little"
    )
    assert len(set(hashes.tolist())) == len(texts) and hash_texts([]).tolist() == []


def test_no_hash_is_zero(monkeypatch) -> None:
    monkeypatch.setattr(texthash, "_digest", lambda text: bytes(8))
    assert hash_text("yes") == 1 and hash_texts([b"yes"]).tolist() == [1]
