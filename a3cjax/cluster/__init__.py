"""Past one process: Gorila's distribution (Nair et al. 2015) of the same actor-learners.

Parameters lie in shards, actor-learners in worker processes, and `ray_engine`, the one file that
imports Ray, runs both on one machine or many. docs/distributed.md has the picture.
"""
