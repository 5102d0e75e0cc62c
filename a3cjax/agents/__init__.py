"""The asynchronous methods of the paper, one file per algorithm box."""

from a3cjax.agents.a3c import make_a3c
from a3cjax.agents.base import Agent

__all__ = ["Agent", "make_a3c"]
