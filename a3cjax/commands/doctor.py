"""Measures how fast this machine trains, what limits it, and which settings suit it.

    a3cjax doctor

Takes a minute or two, compilation included. Nothing else should run meanwhile.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from a3cjax.commands.arguments import read
from a3cjax.commands.beginning import importing
from a3cjax.config.declaring import POSITIVE, Settings, setting
from a3cjax.config.defaults import fill_ahead
from a3cjax.config.settings import Config
from a3cjax.system import machine

WORTH_A_CHANGE = 1.1  # less than this is noise
PARTS = {
    "env": "the emulator",
    "act": "choosing actions",
    "learn": "computing gradients",
    "push": "updating the parameters",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorSettings(Settings):
    """Settings of `a3cjax doctor`."""

    env: str = setting("Pong", "any envpool id")
    network: str = setting("auto", "as in training")
    seconds: float = setting(5.0, "of each measurement", POSITIVE)


SETTINGS, PLACES = (DoctorSettings,), ""


def main(words: list[str], texts: dict[str, str]) -> None:
    """Measure and print."""
    del words
    settings = read(DoctorSettings, texts)
    config = Config(env=settings.env, network=settings.network, warmup_steps=16)
    with importing():
        from a3cjax.logs.terminal import MIN_TABLE_WIDTH, fitting_table, make_console
        from a3cjax.training.measuring import Training, emulator_rate

    console = make_console(MIN_TABLE_WIDTH)
    cores, filled = machine.available_cores(), fill_ahead(config)
    usual = filled.envs_per_actor
    assert usual is not None
    console.print(f"{machine.describe_machine()['processor']}, {cores} cores")

    emulator_rates = {
        num_actors: emulator_rate(settings.env, num_actors, usual, settings.seconds)
        for num_actors in sorted({1, cores})
    }

    heads = ("actors × environments", "emulator", "training", "ratio", *PARTS, "lock")
    rows: list[tuple[str, ...]] = []
    results: dict[tuple[int, int], dict[str, float]] = {}
    candidates = [(1, usual), (cores, usual), (cores, 2 * usual), (cores + 1, usual)]
    for num_actors, num_envs in dict.fromkeys(candidates):
        training = Training(config.replace(num_actors=num_actors, envs_per_actor=num_envs))
        result = results[num_actors, num_envs] = training.run(settings.seconds)
        training.close()
        alone, trained = emulator_rates[min(num_actors, cores)], result["steps_per_second"]
        row = (
            f"{num_actors} × {num_envs}",
            f"{alone:,.0f}",
            f"{trained:,.0f}",
            f"{trained / alone:.2f}",
            *(f"{result[part]:.0%}" for part in PARTS),
            f"{result['wait'] + result['hold']:.1%}",
        )
        rows.append(row)
    title = f"{settings.env}, agent steps a second"
    console.print(fitting_table(console, title, heads, rows))

    for line in advise(results, cores, filled):
        console.print(line)


def advise(
    results: Mapping[tuple[int, int], Mapping[str, float]], cores: int, filled: Config
) -> Iterator[str]:
    """Explain the figures of `Training.run`, by numbers of actors and of environments of each.

    `filled` has the defaults: an actor for each of the `cores`, but fewer where a budget is small.
    """
    usual = filled.envs_per_actor
    assert usual is not None
    default = results[cores, usual]
    largest = max(PARTS, key=lambda part: default[part])
    yield f"Most of an actor's time goes to {PARTS[largest]} ({default[largest]:.0%})."
    if cores > 1:
        growth = default["steps_per_second"] / results[1, usual]["steps_per_second"]
        yield f"{cores} actors train {growth:.2f} times as fast as one."
    (num_actors, num_envs), best = max(
        results.items(), key=lambda item: item[1]["steps_per_second"]
    )
    gain = best["steps_per_second"] / default["steps_per_second"]
    if gain > WORTH_A_CHANGE:
        yield (
            f"Fastest: num_actors={num_actors} envs_per_actor={num_envs}, {gain:.2f} times the "
            "default. More actors mean staler updates, more environments fewer of them: compare "
            "scores, too."
        )
    elif filled.num_actors == cores:
        yield f"The default, num_actors={cores} envs_per_actor={usual}, suits this machine."
    else:
        yield (
            f"num_actors={cores} envs_per_actor={usual} suits this machine. By default a run of "
            f"{filled.total_frames:,} frames has num_actors={filled.num_actors}: from so few "
            "frames, more of them learn less."
        )
