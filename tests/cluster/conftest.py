"""One Ray for the whole test run: it takes longer to start than anything that is done on it."""

import importlib.util

import pytest

from tests.cluster.heads import start_head


@pytest.fixture(scope="session")
def ray_address():
    """The address of a Ray on this machine, which this process may join."""
    if importlib.util.find_spec("ray") is None:  # it must not be imported before it has its token
        pytest.skip("Ray is not installed")
    with start_head() as address:
        yield address
