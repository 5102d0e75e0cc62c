"""Names of actions, where they are known."""

from a3cjax.envs.base import GYMNASIUM_PREFIX, ActionSpec

# In the order of their numbers in the Arcade Learning Environment.
_ATARI = (
    *("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN"),
    *("UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT"),
    *("UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE"),
    *("UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE"),
)

# The minimal sets of ale-py 0.12.1, as numbers of the above; games that are missing have all 18.
_ATARI_MINIMAL = {
    (0, 2, 5): "Freeway",
    (0, 3, 4): "Skiing",
    (1, 3, 4): "Backgammon",
    (0, 1, 2, 5): "Blackjack Casino",
    (0, 1, 3, 4): "Breakout Kaboom",
    (0, 1, 11, 12): "Atlantis Atlantis2",
    (0, 1, 3, 4, 5): "Tetris",
    (0, 2, 3, 4, 5): "Frogger Pacman Surround",
    (1, 6, 7, 8, 9): "VideoCheckers",
    (0, 1, 2, 3, 4, 5): "BasicMath KingKong Qbert",
    (0, 1, 2, 5, 10, 13): "Bowling Pooyan UpNDown",
    (0, 1, 3, 4, 11, 12): (
        "AirRaid Carnival DemonAttack Galaxian NameThisGame Pong SirLancelot SpaceInvaders"
    ),
    (0, 1, 2, 3, 4, 11, 12): "Assault",
    (0, 1, 2, 3, 4, 10, 11, 12): "Gopher",
    (0, 1, 3, 4, 5, 11, 12, 13): "Phoenix",
    (0, 2, 3, 4, 5, 10, 11, 12): "Tutankham",
    (0, 1, 2, 3, 4, 5, 10, 11, 12): "VideoPinball",
    (0, 1, 2, 3, 4, 6, 7, 11, 12): "BeamRider",
    (0, 1, 3, 4, 5, 8, 9, 11, 12): "Enduro",
    (0, 2, 3, 4, 5, 6, 7, 8, 9): "Asterix CrazyClimber Koolaid LostLuggage MsPacman",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9): "Othello TicTacToe3d VideoChess",
    (0, 1, 2, 3, 4, 5, 10, 11, 12, 13): "Amidar MrDo TimePilot WizardOfWor",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12): "Turmoil",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13): "KeystoneKapers",
    (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15): "Asteroids",
    (0, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16, 17): "KungFuMaster",
    (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17): "JourneyEscape",
}

_OTHERS = {
    "Acrobot": "−1 0 +1",
    "CartPole": "left right",
    "Catch": "left stay right",
    "CliffWalking": "up right down left",
    "FrozenLake": "left down right up",
    "FrozenLake8x8": "left down right up",
    "LunarLander": "nothing left-engine main-engine right-engine",
    "MountainCar": "left nothing right",
    "Taxi": "south north east west pick-up drop-off",
}


def action_names(env: str, actions: ActionSpec, *, is_atari: bool) -> list[str]:
    """What the actions of an environment do.

    Args:
      env: the name of a configuration: `Pong`, `Pong-v5`, `gymnasium:CartPole-v1` ….
      actions: A or D of them. More or fewer names belong to another environment.
      is_atari: whether it belongs to the Arcade Learning Environment.

    Returns:
      A or D names; `action 0` and so on where they are not known. For several choices at once, the
      names of one after the other: `0: 2` is the third choice of the first.
    """
    if actions.kind == "multi_discrete":
        return [f"{k}: {m}" for k, size in enumerate(actions.sizes) for m in range(size)]
    num_actions = actions.sizes[0]
    game = env.rpartition(":")[2].rpartition("/")[2].partition("-v")[0]
    is_elsewhere = ":" in env.removeprefix(GYMNASIUM_PREFIX)
    names = "" if is_elsewhere else _OTHERS.get(game, "")
    names = names.split()
    if is_atari:
        minimal = (s for s, games in _ATARI_MINIMAL.items() if game in games.split())
        known = next(minimal, range(len(_ATARI)))
        if num_actions == len(_ATARI):  # of any game, if the full set is asked for
            known = range(len(_ATARI))
        names = [_ATARI[number] for number in known]
    if len(names) == num_actions:
        return names
    return [f"action {index}" for index in range(num_actions)]
