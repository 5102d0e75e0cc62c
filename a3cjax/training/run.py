"""`train`: prepares a run, opens its files, warms up, learns, judges the result, and leaves."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn
from gymnasium.vector import VectorEnv

from a3cjax.actors.supervisor import Stopped, Supervisor
from a3cjax.agents import Algorithm
from a3cjax.config.bringing import bring, rename
from a3cjax.config.builders import build_agent, build_schedule
from a3cjax.config.defaults import describe_alternative, describe_tuned, fill_ahead
from a3cjax.config.resolution import describe_idle, describe_network
from a3cjax.config.settings import Config
from a3cjax.envs.bringing import Source
from a3cjax.envs.making import canonical_name
from a3cjax.errors import ConfigError, quote
from a3cjax.logs import tracking
from a3cjax.logs.loggers import CsvLogger, Logger, UntilItFails
from a3cjax.logs.terminal import TerminalLogger, print_evaluation
from a3cjax.networks import Network
from a3cjax.runs import tables
from a3cjax.runs.checkpoints import Progress
from a3cjax.runs.folder import Summary, write_summary
from a3cjax.runs.lock import claimed
from a3cjax.system import provenance
from a3cjax.system.compilation import jax_settings
from a3cjax.system.files import same_folder
from a3cjax.system.output import tell, warn
from a3cjax.system.quoting import word
from a3cjax.system.signals import SignalStop
from a3cjax.system.witness import WITNESS_SECONDS, Witness, witnessed
from a3cjax.training.bringing import Brought, check_loggers, register
from a3cjax.training.callbacks import Callback, check_callbacks
from a3cjax.training.cluster_muster import ClusterMuster, Engine, cores_of_cluster
from a3cjax.training.learning import Learning, Logs
from a3cjax.training.mustering import Muster, ThreadMuster, engine_of
from a3cjax.training.saver import Saver, find_checkpoint, open_run_dir


def train(
    config: Config,
    *,
    env: str | Source | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    network: str | Network | nn.Module | None = None,
    algorithm: str | Algorithm | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
) -> Summary:
    """Train, evaluate, and leave a run folder.

    A signal that asks for a stop (SIGINT, SIGTERM; SIGHUP, SIGUSR1 and SIGXCPU unless the caller
    handles them) is put off until everything is saved, and then does what it would have done:
    Ctrl-C raises KeyboardInterrupt. A second SIGINT, two seconds later or more, does so at once.

    Args:
      config: settings; what is None or `auto` is resolved here. With `resume`, they come from
        `resume_config`, and the run goes on from its newest sound checkpoint; objects that were
        passed to the run are passed again.
      env: replaces the configured one: an id; a function (a class counts) that makes one
        Gymnasium environment, or a vector environment, called with `num_envs` (and `seed`) if it
        has such an argument; or a vector environment, for one actor-learner, which is left open.
      env_kwargs: arguments with which environments are made, like the setting of that name.
      network: a name; a `Network`; or a Flax module for the torso (`networks.OwnTorso` says what
        it sees), around which core and heads are built.
      algorithm: a name; or an `Algorithm`, registered under the name of its `make`, less `make_`.
      callbacks: told of updates, games and evaluations, in the thread of the run; one that
        returns "stop" ends it as if its budget were used up.
      loggers: further ones, besides those configured.

    Returns:
      The run folder and its result.

    Raises:
      ConfigError: before anything is written, if a setting does not fit the environment, or
        there is nothing to resume.
      TypeError: if something is not a callback or a logger, or a callback returns anything but
        None or "stop".
      CheckpointError: if a checkpoint cannot be written.
      StallError: if a thread makes no progress for `stall_timeout_seconds`.
      Stopped: if a signal came before anything was learned, and its handler returned.
      Exception: whatever an actor, a logger or the evaluator raised, as it is; several
        failures come as an ExceptionGroup. What was learned until then is saved.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"config must be a Config, as Config(env=...), got {quote(config)}.")
    config, parts = bring(config, env, network)
    if env_kwargs is not None:
        config = rename(config, "env_kwargs", env_kwargs)
    if algorithm is not None:
        config = rename(config, "algorithm", register(algorithm))
    brought = Brought(parts, check_callbacks(callbacks), check_loggers(loggers))
    signal_stop = SignalStop()
    supervisor = Supervisor(signal_stop.is_set, config.stall_timeout_seconds)

    def tell_stop() -> None:
        supervisor.tell(f"{signal_stop.name}: stopping, then saving")

    silent_seconds, summary = config.stall_timeout_seconds + WITNESS_SECONDS, None
    with (
        contextlib.suppress(Stopped),
        signal_stop.installed(),
        witnessed(silent_seconds) as witness,
        engine_of(config) as engine,  # before JAX is used
        jax_settings(),
    ):
        run = functools.partial(
            learn_and_judge, config, supervisor, signal_stop, witness, brought, engine
        )
        summary = supervisor.oversee(run, tell_stop, witness.beat)
    signal_stop.pass_on()
    if summary is None:
        raise Stopped("a signal came before anything was learned")
    return summary


def learn_and_judge(
    config: Config,
    supervisor: Supervisor,
    signal_stop: SignalStop,
    witness: Witness,
    brought: Brought,
    engine: Engine | None,
) -> Summary:
    """Do the work of `train`, in the overseen thread. The result is kept before it is shown.

    Raises:
      Stopped: if a stop is asked for before anything was learned.
      Exception: as `train`.
    """
    check_trackers(config)
    config = config.replace(env=canonical_name(config.env))
    commit = provenance.describe_commit()
    with contextlib.ExitStack() as stack:
        if config.resume is not None:
            stack.enter_context(claimed(Path(config.resume)))
        with same_folder():  # environments may change it
            checkpoint = find_checkpoint(config, brought.parts)
        past = checkpoint.progress if checkpoint else Progress()
        if not isinstance(brought.parts.env, VectorEnv):  # which is made already
            counted = fill_ahead(config, cores_of_cluster(engine))
            counts = f"{counted.num_actors} × {counted.envs_per_actor}"
            tell(f"making {counts} environments of {config.env} ...")
        given = config
        how = (config, past, supervisor, brought.parts)
        muster: Muster = ThreadMuster(*how) if engine is None else ClusterMuster(*how, engine)
        stack.callback(muster.close)
        config, agent, spec = muster.config, muster.agent, muster.spec
        for line in spec.warnings:
            warn(line)
        run_dir = stack.enter_context(open_run_dir(config, past, spec))
        to_go_on = f"to go on: {provenance.describe_resuming(run_dir)}"
        witness.leave_word(to_go_on)
        saver = Saver(run_dir, past, lambda: muster.num_seeds)
        with open_logs(config, run_dir, past, brought.loggers) as logs:
            supervisor.announce = logs.terminal.print
            logs.terminal.print(describe_network(config, spec))
            for describe in (describe_tuned, describe_alternative, describe_idle):
                if line := describe(given, config, spec):
                    logs.terminal.print(line)
            if past.num_frames >= config.total_frames:
                used_up = (
                    f"nothing new is learned: total_frames={config.total_frames:,} are used up"
                )
                logs.terminal.print(used_up)
            try:
                fleet = muster.assemble(checkpoint, run_dir)
            except Stopped:
                supervisor.tell(f"nothing new is learned; {to_go_on}")
                raise
            # Evaluations use no kernels, nor does whoever loads the agent elsewhere.
            judged = build_agent(config, spec, brought.parts.network) if config.kernels else agent
            learning = Learning(
                config, judged, fleet, logs, saver, supervisor, signal_stop, brought
            )
            learning.run()
            summary = learning.summarise()
            write_summary(config, summary, commit)
            draw_curves(config, run_dir)
            muster.close()  # evaluations may need what it holds
            with contextlib.ExitStack() as closing:
                keep = functools.partial(write_summary, config, commit=commit)
                summary = learning.judge(closing, keep)
                supervisor.keep(summary)
        if (evaluation := summary.evaluation) is not None:
            print_evaluation(evaluation)
            least = summary.mean_return - abs(summary.mean_return) / 100  # 93.8 and 93.9 are alike
            if evaluation.is_greedy and max(evaluation.scores) < least:
                warn(
                    "the most likely actions alone do worse in every game than training did in the "
                    f"mean of its last 100 games, {summary.mean_return:.4g}: a3cjax evaluate "
                    f"{word(run_dir)} greedy=false draws actions from the policy."
                )
        if config.video and not signal_stop.is_set():
            from a3cjax.video import record_at_end

            trained = learning.trained_agent(learning.saved_snapshot())
            record_at_end(trained, run_dir, supervisor.is_told)
        if signal_stop.is_set():
            if summary.num_frames < config.total_frames:
                told = f"saved at frame {summary.num_frames:,}; {to_go_on}"
            elif summary.evaluation is None and config.eval_episodes:
                told = f"all that was learned is saved, but not evaluated; {to_go_on}"
            else:
                told = f"all that was learned is saved in {run_dir}"
            supervisor.tell(told)
    return summary


def draw_curves(config: Config, run_dir: Path) -> None:
    """Leave a picture of what was learned in the run's folder."""
    from a3cjax.reports.run_curves import plot_curves  # as `import_pictures` has after an update

    title = f"{config.env}, {config.algorithm}, {config.network}, seed {config.seed}"
    plot_curves(run_dir, title)


def check_trackers(config: Config) -> None:
    """Raise a ConfigError that says what to install if a tracker's package is missing."""
    for name in tracking.TRACKERS:
        if getattr(config, name) and not tracking.is_installed(name):
            raise ConfigError(
                f"{name} must be false where its package is missing, got true: "
                f"in a checkout, pip install '.[{name}]'."
            )


@contextlib.contextmanager
def open_logs(
    config: Config, run_dir: Path, past: Progress, own: Sequence[Logger] = ()
) -> Iterator[Logs]:
    """Open the terminal and the configured loggers; yield them with the caller's own.

    The loggers are told at the end whether the run failed.
    """
    with contextlib.ExitStack() as stack:
        terminal = TerminalLogger(
            f"{config.env}  {run_dir}",
            config.total_frames,
            num_actors=config.num_workers or config.num_actors or 1,
            are_workers=config.num_workers is not None,
        )
        stack.callback(terminal.close)
        schedule, settings = build_schedule(config), dataclasses.asdict(config)
        loggers: list[Logger] = []

        def add(logger: Logger) -> None:
            stack.push(lambda failure, *_: logger.close(has_failed=failure is not None))
            loggers.append(logger)

        add(CsvLogger(run_dir))
        if config.tensorboard:
            add(tracking.TensorBoardLogger(run_dir, schedule, past.num_frames))
        if config.wandb:
            with tracking.beginning("wandb", "WANDB_MODE=offline needs no server", run_dir):
                add(tracking.WandbLogger(run_dir, schedule, settings, terminal.print))
        if config.mlflow:
            where = "MLFLOW_TRACKING_URI says where its store is"
            with tracking.beginning("mlflow", where, run_dir):
                add(tracking.MlflowLogger(run_dir, schedule, settings, terminal.print))
        for logger in own:
            add(UntilItFails(logger))
        past_episodes = tables.read_episodes(run_dir / tables.EPISODES)
        terminal.write_episodes(past_episodes)
        if config.resume is not None:
            terminal.print(f"going on after {past.num_frames:,} frames")
        past_returns = [episode.episode_return for episode in past_episodes]
        evaluations, _ = tables.read_rows(run_dir / tables.EVALUATIONS)
        judged_frames = max((0, *map(tables.frames_of, evaluations)))
        yield Logs(terminal, loggers, past_returns, judged_frames)
