"""Rows that stood before are found whatever the batches, also where digests share their first half."""

from hashlib import blake2b

import numpy as np
import pytest

from candist_core.seen import Seen, digests, hexdigests


@pytest.mark.parametrize("batch", [1, 7, 100, 5000])
def test_every_row_gets_the_place_of_the_first_row_that_is_equal(batch):
    texts = [f"text {i}" for i in np.random.default_rng(0).integers(0, 700, 2000)]
    seen, first, found = Seen(), {}, []
    for start in range(0, len(texts), batch):
        found += seen.add(digests(texts[start : start + batch])).tolist()
    assert found == [first.setdefault(text, i) for i, text in enumerate(texts)]


def test_digests_that_share_their_first_half_are_different_rows():
    seen = Seen()
    assert seen.add(np.array([[1, 1], [1, 2]], dtype=np.uint64)).tolist() == [0, 1]
    assert seen.add(np.array([[1, 3], [1, 2], [1, 1], [1, 3]], dtype=np.uint64)).tolist() == [2, 1, 0, 2]
    assert seen.add(np.array([[1, 3], [2, 3]], dtype=np.uint64)).tolist() == [2, 7]


def test_no_rows_are_no_mistake():
    seen = Seen()
    assert seen.add(digests([])).tolist() == []
    assert seen.add(digests(["a"])).tolist() == [0]
    assert hexdigests(digests([])) == []


def test_hex_digests_are_those_of_the_standard_library():
    texts = ["", "a", "ä" * 100]
    assert hexdigests(digests(texts)) == [blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
