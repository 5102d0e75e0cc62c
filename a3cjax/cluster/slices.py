"""Cuts what is learned into slices of equal size, one for each shard, and joins them again.

All parameters are laid out as one long vector, which is cut into equal parts in order: cutting at
layers would balance nothing, since a single layer may hold nearly all of a network. The optimizers
treat each number by itself, so a slice is updated just as within the whole. The exception is
clipping by the global norm, which is left to whoever has the whole gradient.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from a3cjax.types import LearnerState, Params, Seen


class Slicing:
    """How parameters of one structure are cut into a number of slices."""

    def __init__(self, params: Params, num_slices: int):
        """`params` gives structure, shapes and dtypes, by arrays or `jax.ShapeDtypeStruct`s."""
        leaves, self._structure = jax.tree.flatten(params)
        self._shapes = [leaf.shape for leaf in leaves]
        self._dtypes = [leaf.dtype for leaf in leaves]
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        self._cuts = ends[:-1]
        size = int(ends[-1])
        bounds = [size * index // num_slices for index in range(num_slices + 1)]
        self._slices = [slice(*pair) for pair in itertools.pairwise(bounds)]

    def cut(self, params: Params) -> list[np.ndarray]:
        """The slices of parameters, or of a gradient: float32 vectors."""
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
        return [flat[own] for own in self._slices]

    def join(self, slices: Sequence[np.ndarray]) -> Params:
        """Joins slices into parameters."""
        parts = np.split(np.concatenate(slices), self._cuts)
        leaves = [
            part.reshape(shape).astype(dtype, copy=False)
            for part, shape, dtype in zip(parts, self._shapes, self._dtypes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)

    def cut_state(self, state: LearnerState) -> list[LearnerState]:
        """The slices of all that is learned; what was seen stays with the first."""
        targets: Sequence[Any] = [None] * len(self._slices)
        if state.target_params is not None:
            targets = self.cut(state.target_params)
        return [
            LearnerState(params, self._cut_optimizer(state.opt_state, index), target, seen)
            for index, (params, target, seen) in enumerate(
                zip(
                    self.cut(state.params),
                    targets,
                    [state.seen] + [Seen()] * (len(self._slices) - 1),
                    strict=True,
                )
            )
        ]

    def join_states(self, states: Sequence[LearnerState], like: LearnerState) -> LearnerState:
        """Joins slices into a state with the structure of `like`.

        What an optimizer has besides a number for each parameter, such as a count, is taken from
        the first slice.
        """
        target = None
        targets: list[Any] = [state.target_params for state in states]
        if like.target_params is not None:
            target = self.join(targets)

        def join_part(part: Any, *own: Any) -> Any:
            return self.join(own) if self._is_alike(part) else own[0]

        opt_states = [state.opt_state for state in states]
        opt_state = jax.tree.map(join_part, like.opt_state, *opt_states, is_leaf=self._is_alike)
        params = self.join([state.params for state in states])
        return LearnerState(params, opt_state, target, states[0].seen)

    def _cut_optimizer(self, opt_state: Any, index: int) -> Any:
        def cut_part(part: Any) -> Any:
            return self.cut(part)[index] if self._is_alike(part) else part

        return jax.tree.map(cut_part, opt_state, is_leaf=self._is_alike)

    def _is_alike(self, tree: Any) -> bool:
        """Whether a part of an optimizer's state has a number for each parameter."""
        leaves, structure = jax.tree.flatten(tree)
        return structure == self._structure and list(map(np.shape, leaves)) == self._shapes
