"""Which spaces can be learned on, and what their user is to be told before it costs a night."""

import math
from collections.abc import Iterator

import gymnasium
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from a3cjax.envs.actions import count_outputs, has_bounds
from a3cjax.envs.spaces import count_states, is_image, leaves_of
from a3cjax.errors import ConfigError

# One-hot vectors of so many states are 128 MB in one update of the usual 40 steps of 8
# environments, and several times that in its gradient.
MAX_STATES = 100_000
# A network with an output for each action, or 40 MB of each observation: our choice.
MAX_ACTIONS, MAX_NUMBERS = 10_000, 10_000_000
# Our choice: what is no smaller along two axes could be seen as a picture.
PICTURE_SIDE = 17


def check_spaces(
    env: str, observation_space: gymnasium.Space, action_space: gymnasium.Space
) -> None:
    """Raises a ConfigError that names a way out unless both spaces can be learned on."""
    is_box = isinstance(action_space, Box)
    if not (
        isinstance(action_space, Discrete | MultiDiscrete | MultiBinary)
        or (is_box and action_space.dtype.kind == "f")
        or (is_box and action_space.dtype.kind in "iub" and has_bounds(action_space).all())
    ):
        raise ConfigError(
            "env must have actions of a Box (of whole numbers within bounds), Discrete, "
            "MultiDiscrete or MultiBinary space (gymnasium.wrappers.TransformAction makes one, "
            "for instance of what gymnasium.spaces.flatten_space joins and unflatten takes apart), "
            f"got {env} with {action_space}."
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


def doubts(env: str, observation_space: gymnasium.Space) -> Iterator[str]:
    """What is accepted and probably not meant, a line each."""
    is_alone = not isinstance(observation_space, Dict | Tuple)
    for name, leaf, _ in leaves_of(observation_space, observation_space, env):
        if not isinstance(leaf, Box) or is_image(observation_space):
            continue
        is_picture = is_image(leaf) or sorted([0, 0, *leaf.shape])[-2] >= PICTURE_SIDE
        what = f"{name} of {env}, {leaf.dtype} of shape {leaf.shape},"
        if is_picture and is_alone:
            yield (
                f"{what} are read as {math.prod(leaf.shape)} numbers without convolutions: only "
                "bytes (uint8) with three axes are taken as images, channels first or last."
            )
        elif is_picture:
            yield (
                f"{what} are flattened beside the other parts of the observation and reach no "
                "convolutions: only an observation that is one array of bytes is taken as an image."
            )
