"""What a run musters in the processes of a cluster: workers with actor-learners, and shards."""

import contextlib
import functools
import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
from gymnasium.vector import VectorEnv

from a3cjax.actors.actor_learner import ActorLearner
from a3cjax.actors.placement import place_run
from a3cjax.actors.programs import Programs
from a3cjax.actors.reports import UpdateReport
from a3cjax.actors.supervisor import Job, Stopped, Supervisor
from a3cjax.actors.warmup import play_in_each
from a3cjax.agents import ALGORITHMS, Algorithm
from a3cjax.cluster.fleet import ClusterFleet, ShardsOfRun, gather
from a3cjax.cluster.processes import Pending, Process
from a3cjax.cluster.shard import make_shard
from a3cjax.cluster.slices import Slicing
from a3cjax.cluster.store import ShardedStore
from a3cjax.cluster.worker import Orders, Worker
from a3cjax.config.bringing import Parts
from a3cjax.config.builders import build_agent, init_state
from a3cjax.config.defaults import fill_ahead, fill_cluster, share_equally
from a3cjax.config.resolution import resolve
from a3cjax.config.settings import Config
from a3cjax.envs.base import Environments, EnvironmentSpec
from a3cjax.errors import ConfigError
from a3cjax.parameters.moments import merge_seen
from a3cjax.parameters.shared import ParameterStore, as_views, renew_targets
from a3cjax.runs.checkpoints import Checkpoint, Progress
from a3cjax.system.machine import cores_of_thread
from a3cjax.training.assembly import (
    Share,
    begin,
    build_batches,
    choose_kernels,
    close_all,
    envs_per_actor,
    make_run_programs,
    recruit,
    warmup_seed,
    warmup_steps,
)
from a3cjax.training.fleets import Fleet
from a3cjax.types import Seen, TimeStep

SHARDS = "shards"  # in the run folder: the files that shards restart from
CLOSE_SECONDS = 5.0  # for environments to end what they have begun elsewhere
JOIN_SECONDS = 60.0  # for machines to join a cluster that was started a moment ago


class StaffOfShare:
    """Some of a run's actor-learners, in a worker's process: see `cluster.worker.Staff`."""

    def __init__(
        self, config: Config, share: Share, past: Progress, parts: Parts, algorithm: Algorithm
    ):
        """`config` has its counts filled in; `warm_up` is given the one with nothing left open."""
        assert config.num_actors is not None
        self.first_index, self.size = share
        self.num_in_run = config.num_actors
        self._config, self._share, self._past, self._parts = config, share, past, parts
        self._algorithm = algorithm
        self._batches: list[Environments] = []
        self._timesteps: list[TimeStep] = []

    def make(self, supervisor: Supervisor) -> EnvironmentSpec:
        """Make the environments."""
        ALGORITHMS.setdefault(self._config.algorithm, self._algorithm)
        num_seeds, source = self._past.num_seeds, self._parts.env
        self._batches = build_batches(self._config, num_seeds, supervisor, source, self._share)
        return self._batches[0].spec

    def envs_per_actor(self) -> int:
        """How many environments each actor-learner has; vector environments fix their number."""
        return envs_per_actor(self._config, self._share, self._batches)

    def warm_up(self, config: Config, supervisor: Supervisor) -> list[tuple[Seen, int]]:
        """Play at random, with settings that leave nothing open: see `cluster.worker.Staff`."""
        self._config = config
        played = play_in_each(
            self._batches,
            warmup_steps(config, self._past, self._batches[0].spec),
            warmup_seed(config, self._past),
            supervisor,
            self.first_index,
        )
        self._timesteps = [timestep for timestep, *_ in played]
        return [(seen, num_steps) for _, seen, num_steps in played]

    def programs(self, normalizer: Seen) -> Programs:
        """What the actor-learners have in common."""
        config, spec = self._config, self._batches[0].spec
        _, kernels = choose_kernels(config)
        agent = build_agent(config, spec, self._parts.network, kernels)
        placement = place_run(config.devices, len(self._batches))
        return make_run_programs(config, agent, placement, normalizer)

    def recruit(
        self,
        programs: Programs,
        stores: Sequence[ParameterStore],
        actor_keys: tuple[tuple[int, ...], ...],
        report: Callable[[UpdateReport], None],
    ) -> tuple[list[ActorLearner], list[Callable[[Job], None]]]:
        """The actor-learners, and what their threads are to run."""
        return recruit(
            self._config,
            self._batches,
            self._timesteps,
            programs=programs,
            stores=stores,
            past=self._past._replace(actor_keys=actor_keys),
            report=report,
            first_index=self.first_index,
        )

    def close(self, supervisor: Supervisor) -> None:
        """Free the environments."""
        close_all(self._batches, supervisor)


def cores_of(index: int, num_workers: int) -> list[int] | None:
    """The cores of this machine for one of the workers; None if they cannot be shared equally."""
    cores = sorted(cores_of_thread())
    if not cores or len(cores) % num_workers:
        return None
    return cores[index::num_workers]


def make_worker(staff: StaffOfShare, stall_seconds: float) -> Worker:
    """A worker, in its own process."""
    return Worker(staff, stall_seconds)


def make_view(
    shards: Sequence[Process],
    stop_event: Any,
    *,
    config: Config,
    params: Any,
) -> ShardedStore:
    """A worker's view of the shards, in its own process. Only the shapes of `params` matter."""
    is_cut = len(shards) > 1
    assert not isinstance(config.max_grad_norm, str)
    return ShardedStore(
        shards,
        stop_event,
        slicing=Slicing(params, len(shards)) if is_cut else None,
        max_grad_norm=config.max_grad_norm,
        push_dtype=config.push_dtype,
    )


class Engine(Protocol):
    """What runs processes: `ray_engine.RayEngine`, or a fake that runs them here."""

    is_local: bool

    @property
    def node_cores(self) -> list[int]:
        """The number of cores of each machine, free or not."""
        ...

    def spawn(
        self,
        make: Callable[..., Any],
        *args: Any,
        cores: list[int] | None = None,
        num_cpus: int = 0,
        max_restarts: int = 0,
        has_lanes: bool = False,
    ) -> Process:
        """Start a process, which calls `make(*args)` and holds the object that it returns."""
        ...

    def keep_log(self, folder: Path) -> None:
        """Send what the engine prints to a file in this folder."""
        ...

    def check_versions(self, processes: Sequence[Any]) -> None:
        """Raise a RuntimeError if another process has a different version of a package."""
        ...


def cores_of_cluster(engine: Engine | None) -> int | None:
    """The cores of all machines of a cluster; None if a run has this machine alone."""
    return None if engine is None or engine.is_local else sum(engine.node_cores)


def await_machines(engine: Engine, num_actors: int | None, supervisor: Supervisor) -> list[int]:
    """Returns `engine.node_cores`, once they are enough for the actor-learners that are asked for.

    Machines that are started one after another join a cluster one after another. After
    `JOIN_SECONDS` it returns what is there.

    Raises:
      Stopped: if a stop is asked for meanwhile.
    """
    deadline, is_told = time.monotonic() + JOIN_SECONDS, False
    while (num_cores := sum(machines := engine.node_cores)) < (num_actors or 0):
        if supervisor.is_stopping:
            raise Stopped
        if time.monotonic() >= deadline:
            break
        if not is_told:
            is_told = True
            wanted = f"num_actors={num_actors} cores, the cluster has {num_cores}"
            supervisor.tell(f"waiting up to {JOIN_SECONDS:.0f} seconds for {wanted}")
        supervisor.look_around()
        time.sleep(0.1)
    return machines


class ClusterMuster:
    """Workers and shards in processes of an engine."""

    def __init__(
        self,
        config: Config,
        past: Progress,
        supervisor: Supervisor,
        parts: Parts,
        engine: Engine,
    ):
        if isinstance(parts.env, VectorEnv):
            raise ConfigError(
                "cluster must be null with a vector environment that is made already: it cannot be "
                f"sent to other processes, got {config.cluster}."
            )
        asked = config.num_actors
        machines = None if engine.is_local else await_machines(engine, asked, supervisor)
        config = fill_ahead(config, None if machines is None else sum(machines))
        config = fill_cluster(config, machines)
        # A run of threads that take turns may have saved where its environments stand.
        self._past = past._replace(standings=())
        self._supervisor, self._engine, self._parts = supervisor, engine, parts
        self._processes: list[Process] = []
        self._living: dict[int, Process] = {}  # the workers of today
        self._run_dir: Path | None = None
        assert config.num_actors is not None
        assert config.num_workers is not None
        sizes = share_equally(config.num_actors, config.num_workers)
        firsts = itertools.accumulate(sizes, initial=0)
        self._shares = [Share(*share) for share in zip(firsts, sizes, strict=False)]
        self.config = config
        self._workers = [self._spawn_worker(index, 0) for index in range(config.num_workers)]
        try:
            made = gather([worker.submit("make") for worker in self._workers], supervisor)
            engine.check_versions(self._workers)
            self.spec: EnvironmentSpec = made[0]
            num_envs = self._workers[0].submit("envs_per_actor").result()
            config = resolve(config.replace(envs_per_actor=num_envs), self.spec)
            self.config, kernels = choose_kernels(config)
            self.agent = build_agent(self.config, self.spec, parts.network, kernels)
            self._params = jax.eval_shape(self._init_state).params
        except BaseException:
            self.close()
            raise
        self.num_seeds = config.num_actors * num_envs

    def assemble(self, checkpoint: Checkpoint | None, run_dir: Path) -> Fleet:
        """See `Muster.assemble`."""
        self._engine.keep_log(run_dir)
        self._run_dir = run_dir.absolute()
        config, past = self.config, self._past
        playing = [worker.submit("warm_up", config) for worker in self._workers]
        state = None if checkpoint else self._init_state()
        played = [each for own in gather(playing, self._supervisor) for each in own]
        num_frames = sum(num_steps for _, num_steps in played) * self.spec.frames_per_step
        if state is not None:
            seen = functools.reduce(merge_seen, [seen for seen, _ in played])
            checkpoint = begin(config, self.spec, state, seen, self._supervisor.tell)
        assert checkpoint is not None
        counts = past.num_frames + num_frames, past.num_updates
        period = config.target_period_frames
        state = renew_targets(checkpoint.state, past.num_frames, counts[0], period)
        checkpoint = checkpoint._replace(state=state)
        learned = as_views((checkpoint.state._replace(seen=None), checkpoint.statistics))
        state = learned[0]._replace(seen=checkpoint.state.seen)
        begun = Checkpoint(state, learned[1], Progress(*counts))
        store = ShardsOfRun(*self._spawn_shards(), begun)
        began = [
            shard.submit("begin", own, True)
            for shard, own in zip(store.shards, store.slices(), strict=True)
        ]
        gather(began, self._supervisor)
        self._shards, self._normalizer = store.shards, begun.state.seen
        return ClusterFleet(
            store,
            self._workers,
            self.spec,
            hire=self._hire,
            make_orders=self._make_orders,
            first_indices=[share.first_index for share in self._shares],
            actor_keys=past.actor_keys,
            max_restarts=None if config.deterministic else config.max_restarts,
        )

    def close(self) -> None:
        """Close environments and end all processes; remove what shards would restart from."""
        with contextlib.suppress(Exception):  # whoever does not answer is killed all the same
            for worker in self._living.values():
                worker.submit("stop")
            closing = [worker.submit("close") for worker in self._living.values()]
            deadline = time.monotonic() + CLOSE_SECONDS
            while not all(each.is_ready() for each in closing) and time.monotonic() < deadline:
                time.sleep(0.02)
        for process in self._processes:
            process.kill()
        self._processes.clear()
        self._living.clear()
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir / SHARDS, ignore_errors=True)

    def _init_state(self) -> Any:
        return init_state(self.config, self.agent, self.spec)

    def _spawn_worker(self, index: int, life: int) -> Process:
        """Start a worker; in each `life` it plays other games."""
        config, share = self.config, self._shares[index]
        assert config.num_actors is not None
        assert config.envs_per_actor is not None
        num_envs = config.num_actors * config.envs_per_actor
        past = self._past._replace(num_seeds=self._past.num_seeds + life * num_envs)
        if life:  # a run that is resumed plays others than this one
            self.num_seeds = max(self.num_seeds, (life + 1) * num_envs)
        staff = StaffOfShare(config, share, past, self._parts, ALGORITHMS[config.algorithm])
        self._living[index] = self._spawn(
            make_worker,
            staff,
            config.stall_timeout_seconds,
            cores=cores_of(index, len(self._shares)),
            num_cpus=share.num_actors,
        )
        return self._living[index]

    def _spawn(self, make: Callable[..., Any], *args: Any, **options: Any) -> Process:
        process = self._engine.spawn(make, *args, **options)
        self._processes.append(process)
        return process

    def _spawn_shards(self) -> tuple[list[Process], Slicing | None]:
        config, number = self.config, self.config.num_shards
        assert self._run_dir is not None
        restarts = 0 if config.deterministic else config.max_restarts
        shards = [
            self._spawn(
                make_shard,
                config,
                number == 1,
                self._run_dir / SHARDS / str(index),
                max_restarts=restarts,
                has_lanes=True,
            )
            for index in range(number)
        ]
        return shards, Slicing(self._params, number) if number > 1 else None

    def _hire(self, index: int, life: int) -> tuple[Process, list[Pending]]:
        """Start a worker again, which makes environments and plays at random."""
        worker = self._spawn_worker(index, life)
        made, options = worker.submit("make"), (self.config, self.spec.frames_per_step)
        return worker, [made, worker.submit("play", *options)]

    def _make_orders(self, keys: tuple[tuple[int, ...], ...]) -> Orders:
        config = self.config
        make_store = functools.partial(make_view, config=config, params=self._params)
        return Orders(
            self._shards,
            make_store,
            self._normalizer,
            config.grads_per_push,
            config.outlier_deviations,
            config.deterministic,
            keys,
        )
