"""A Ray for the tests, until the standard input is closed: prints its address.

python -m tests.cluster.ray_head
"""

import sys

from a3cjax.cluster.environment import environment_of_ray

with environment_of_ray(is_private=False):
    import ray

    from a3cjax.cluster.ray_engine import ray_engine

    with ray_engine(None):
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()
