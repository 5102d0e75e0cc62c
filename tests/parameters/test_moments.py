"""Moments of what a run has seen."""

import numpy as np

from a3cjax.parameters.moments import merge_seen, moments_of, moments_of_new
from a3cjax.types import Seen


def test_images_beside_numbers_have_no_moments_and_the_numbers_theirs():
    like = {"camera": None, "vector": moments_of([], (2,))}
    images = np.zeros((3, 4, 1, 1, 16), np.uint8)
    vectors = np.arange(24.0).reshape(3, 4, 2)
    is_idle = np.zeros((3, 4), bool)
    is_idle[1, 2] = True

    new = moments_of_new(like, {"camera": images, "vector": vectors}, is_idle)
    seen = merge_seen(Seen(None, like), Seen(None, new)).observations

    assert new["camera"] is None
    assert seen["camera"] is None
    assert seen["vector"].num_seen == 11
    np.testing.assert_allclose(seen["vector"].mean, vectors[~is_idle].mean(axis=0))
