"""Which spaces can be learned on, and what users are warned of before it costs them a night."""

import math
from collections.abc import Iterator, Sequence

import gymnasium
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from a3cjax.envs.actions import count_outputs, has_bounds
from a3cjax.envs.observations import (
    AUTO,
    CHANNELS_FIRST,
    CHANNELS_LAST,
    NONE,
    Leaf,
    count_states,
    plan_reading,
)
from a3cjax.envs.spaces import MAX_BOUND, leaves_of
from a3cjax.errors import ConfigError

# One-hot vectors of so many states are 128 MB in one update of the usual 40 steps of 8
# environments, and several times that in its gradient.
MAX_STATES = 100_000
# A network with an output for each action, or 40 MB for each observation: our choice.
MAX_ACTIONS, MAX_NUMBERS = 10_000, 10_000_000
# Our choice: an array with two sides of this length or more could be seen as a picture.
PICTURE_SIDE = 17


def check_spaces(
    env: str, observation_space: gymnasium.Space, action_space: gymnasium.Space
) -> None:
    """Raise a ConfigError that names a way out unless both spaces can be learned on."""
    is_box = isinstance(action_space, Box)
    if not (
        isinstance(action_space, Discrete | MultiDiscrete | MultiBinary)
        or (is_box and action_space.dtype.kind == "f")
        or (is_box and action_space.dtype.kind in "iub" and has_bounds(action_space).all())
    ):
        raise ConfigError(
            f"env must have actions of a Box (of whole numbers within ±{MAX_BOUND:,.0f}), "
            "Discrete, MultiDiscrete or MultiBinary space (gymnasium.wrappers.TransformAction "
            "makes one, for instance of what gymnasium.spaces.flatten_space joins and unflatten "
            f"takes apart), got {env} with {action_space}."
        )
    leaves = [leaf for _, leaf, _ in leaves_of(observation_space, observation_space, env)]
    supported = Discrete | MultiDiscrete | MultiBinary
    if not leaves or not all(
        isinstance(leaf, supported) or (isinstance(leaf, Box) and leaf.dtype.kind in "fiub")
        for leaf in leaves
    ):
        raise ConfigError(
            "env must have observations of Box, Discrete, MultiBinary or MultiDiscrete spaces, or "
            "Dicts and Tuples of them (wrappers make them: gymnasium.wrappers.FilterObservation "
            f"leaves parts out, TransformObservation turns into others), got {env} with "
            f"{observation_space}."
        )
    if any(0 in (space.shape or ()) for space in (action_space, *leaves)):
        raise ConfigError(
            "env must have observations and actions of at least one number each "
            "(gymnasium.wrappers.FilterObservation leaves out empty parts), "
            f"got {env} with {observation_space} and {action_space}."
        )
    if count_outputs(action_space) > MAX_ACTIONS:
        raise ConfigError(
            f"env must have at most {MAX_ACTIONS} actions to choose from, each an output of the "
            "network (gymnasium.wrappers.TransformAction can choose among fewer), "
            f"got {env} with {action_space}."
        )
    num_numbers = sum(math.prod(leaf.shape or ()) for leaf in leaves)
    if num_numbers > MAX_NUMBERS:
        raise ConfigError(
            f"env must have at most {MAX_NUMBERS} numbers in an observation "
            "(gymnasium.wrappers.ResizeObservation makes images smaller), "
            f"got {env} with {num_numbers}."
        )
    num_bits = sum(math.prod(leaf.shape or ()) for leaf in leaves if isinstance(leaf, MultiBinary))
    num_states = num_bits + sum(count_states(leaf).sum(dtype=float) for leaf in leaves)
    if num_states > MAX_STATES:
        raise ConfigError(
            f"env must have at most {MAX_STATES} numbered states and bits, as each has its place "
            "in one vector (gymnasium.wrappers.TransformObservation can turn them into a Box of "
            f"numbers), got {env} with {num_states:.0f}."
        )


def check_layout(
    env: str, observation_space: gymnasium.Space, plan: Sequence[Leaf], image_layout: str
) -> None:
    """Raise a ConfigError if a layout was asked for, but nothing is read as an image by it."""
    if image_layout in (CHANNELS_FIRST, CHANNELS_LAST) and not any(leaf.layout for leaf in plan):
        raise ConfigError(
            f"image_layout must be {AUTO} or {NONE} for {env}, which has no arrays of two to four "
            "axes and finite bounds (gymnasium.wrappers.RescaleObservation gives bounds), got "
            f"{image_layout}, as given or as the run that goes on had it, with {observation_space}."
        )


def doubts(env: str, observation_space: gymnasium.Space, image_layout: str = AUTO) -> Iterator[str]:
    """A line for each thing that is accepted but probably not meant."""
    for leaf in plan_reading(observation_space, image_layout):
        space = leaf.space
        what = f"{leaf.name} of {env}, {space.dtype} of shape {space.shape},"
        other = CHANNELS_FIRST if leaf.layout == CHANNELS_LAST else CHANNELS_LAST
        if leaf.is_doubtful:
            yield f"{what} are read as {leaf}; image_layout={other} if they come the other way."
        is_picture = sorted([0, 0, *(space.shape or ())])[-2] >= PICTURE_SIDE
        if is_picture and leaf.layout is None and isinstance(space, Box) and image_layout == AUTO:
            yield (
                f"{what} are read as {math.prod(space.shape)} numbers without convolutions: images "
                "are arrays of bytes, of bools, and of floats announced in [0, 1]; "
                f"image_layout={CHANNELS_FIRST} or {CHANNELS_LAST} takes any that have finite "
                "bounds."
            )
