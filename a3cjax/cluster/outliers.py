"""Detects outliers among trajectories, which Gorila leaves out (Nair et al. 2015, sec. 4).

Each worker keeps the mean and the standard deviation of the sizes of its own losses.
"""

import math
import threading

# With fewer losses, neither mean nor deviation means anything. Our choice.
MIN_LOSSES = 20
# Weight of the past at each new loss: losses change during learning. Our choice.
DECAY = 0.99


class Outliers:
    """The losses of a worker, from all its threads."""

    def __init__(self, num_deviations: float):
        """An outlier's size exceeds the mean by more than `num_deviations` standard deviations."""
        self._num_deviations = num_deviations
        self._lock = threading.Lock()
        self._num_losses = 0
        self._mean = self._square = 0.0

    def is_outlier(self, loss: float) -> bool:
        """Whether this loss is an outlier; either way, mean and deviation then include it."""
        size = abs(loss)
        if not math.isfinite(size):  # refused, and reported, elsewhere
            return False
        with self._lock:
            deviation = math.sqrt(max(0.0, self._square - self._mean**2))
            most = self._mean + self._num_deviations * deviation
            is_outlier = self._num_losses >= MIN_LOSSES and size > most
            # Outliers count, too: what comes again and again should become ordinary.
            self._num_losses += 1
            share = max(1 / self._num_losses, 1 - DECAY)
            self._mean += share * (size - self._mean)
            self._square += share * (size**2 - self._square)
        return is_outlier
