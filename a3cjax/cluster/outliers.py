"""Which trajectories are out of the ordinary: Gorila leaves them out (Nair et al. 2015, sec. 4).

Each worker keeps the mean and the standard deviation of the size of its own losses.
"""

import math
import threading

# Of so few neither mean nor deviation tells anything. Our choice.
MIN_LOSSES = 20
# Weight of the past at each loss: losses change while something is learned. Our choice.
DECAY = 0.99


class Outliers:
    """The losses of a worker, of all its threads."""

    def __init__(self, num_deviations: float):
        """A loss is an outlier beyond so many standard deviations over the mean of their sizes."""
        self._num_deviations = num_deviations
        self._lock = threading.Lock()
        self._num_losses = 0
        self._mean = self._square = 0.0

    def is_outlier(self, loss: float) -> bool:
        """Whether this one is. It counts to those that the next ones are measured by."""
        size = abs(loss)
        if not math.isfinite(size):  # which is refused elsewhere, and told
            return False
        with self._lock:
            deviation = math.sqrt(max(0.0, self._square - self._mean**2))
            most = self._mean + self._num_deviations * deviation
            is_outlier = self._num_losses >= MIN_LOSSES and size > most
            # Outliers, too: what comes again and again is to become ordinary.
            self._num_losses += 1
            share = max(1 / self._num_losses, 1 - DECAY)
            self._mean += share * (size - self._mean)
            self._square += share * (size**2 - self._square)
        return is_outlier
