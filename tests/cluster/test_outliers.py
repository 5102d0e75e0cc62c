import math

import numpy as np

from a3cjax.cluster.outliers import MIN_LOSSES, Outliers


def test_one_trajectory_out_of_the_ordinary_is_told_and_only_that_one():
    outliers, generator = Outliers(4.0), np.random.default_rng(0)
    losses = generator.normal(1.0, 0.1, 500)
    losses[[0, 100, 400]] *= 1_000  # of the first one nobody can tell
    told = [index for index, loss in enumerate(losses) if outliers.is_outlier(loss)]
    assert told == [100, 400]


def test_the_size_counts_not_the_sign():
    outliers = Outliers(3.0)
    assert not any(outliers.is_outlier(loss) for loss in [1.0, -1.1, 0.9] * MIN_LOSSES)
    assert outliers.is_outlier(-5.0)


def test_what_comes_again_and_again_becomes_ordinary():
    outliers = Outliers(3.0)
    for _ in range(3 * MIN_LOSSES):
        outliers.is_outlier(0.0)
    assert outliers.is_outlier(1.0)
    assert not all(outliers.is_outlier(1.0) for _ in range(20))


def test_a_loss_that_is_not_finite_is_for_others_to_refuse():
    outliers = Outliers(3.0)
    assert not any(outliers.is_outlier(math.nan) for _ in range(2 * MIN_LOSSES))
    assert not any(outliers.is_outlier(loss) for loss in [1.0, 1.1] * MIN_LOSSES)
