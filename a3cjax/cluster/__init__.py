"""Runs of several processes: the same actor-learners, distributed as Gorila's (Nair et al. 2015).

Parameters live in shards and actor-learners in worker processes. `ray_engine`, the only file that
imports Ray, runs both, on one machine or many. docs/distributed.md has the picture.
"""
