"""How the parts of a run are put together."""

import threading

import jax
import pytest

from a3cjax.actors.placement import Place
from a3cjax.actors.supervisor import Supervisor
from a3cjax.config.settings import Config
from a3cjax.envs.batches import VectorEnvironments
from a3cjax.errors import ConfigError
from a3cjax.system.machine import cores_of_thread
from a3cjax.training import assembly
from a3cjax.training.assembly import assemble, close_all, prepare
from tests.fakes import PATIENCE_SECONDS

CONFIG = Config(env="CartPole", num_actors=2, envs_per_actor=2, unroll_length=5, warmup_steps=4)


@pytest.fixture
def make_fleet():
    """Puts together what trains with these settings; closes it at the end."""
    every = []

    def make(**settings):
        config, agent, batches = prepare(CONFIG.replace(**settings))
        every.extend(batches)
        return assemble(config, agent, batches)

    yield make
    close_all(every)


def train_once(fleet):
    """Lets every actor-learner make an update or more, in threads of their own."""
    supervisor, waiting = Supervisor(), [threading.Event() for _ in fleet.actors]
    for actor, event in zip(fleet.actors, waiting, strict=True):
        actor.report = lambda _, event=event: event.set()
    fleet.start(supervisor)
    assert all(event.wait(PATIENCE_SECONDS) for event in waiting)
    supervisor.stop_event.set()
    supervisor.join(PATIENCE_SECONDS)
    supervisor.raise_failures()


def test_environments_are_freed_if_settings_do_not_fit_them(monkeypatch):
    close, closed = VectorEnvironments.close, []

    def close_and_note(self):
        closed.append(self)
        close(self)

    monkeypatch.setattr(VectorEnvironments, "close", close_and_note)
    with pytest.raises(ConfigError, match="network must not be tabular"):
        prepare(CONFIG.replace(network="tabular"))
    assert len(closed) == 2


@pytest.mark.skipif(not cores_of_thread(), reason="this system binds no threads")
def test_actor_learners_run_on_the_cores_of_their_places(make_fleet, monkeypatch):
    place, seen = Place(jax.devices()[0], frozenset({min(cores_of_thread())})), set()
    step = VectorEnvironments.step

    def look_and_step(self, actions):
        seen.add((threading.current_thread().name, *cores_of_thread()))
        return step(self, actions)

    monkeypatch.setattr(assembly, "place_actors", lambda num_actors: [place] * num_actors)
    fleet = make_fleet()
    monkeypatch.setattr(VectorEnvironments, "step", look_and_step)
    train_once(fleet)
    assert seen == {(f"actor-learner-{index}", min(cores_of_thread())) for index in (0, 1)}


def test_as_many_learn_at_once_as_there_are_cores(make_fleet, monkeypatch):
    monkeypatch.setattr(assembly, "available_cores", lambda: 1)
    one, other = make_fleet().actors
    assert one.programs is other.programs
    with one.programs.learning_slot:
        assert not one.programs.learning_slot.acquire(blocking=False)


def test_those_that_take_turns_need_no_slot(make_fleet, monkeypatch):
    monkeypatch.setattr(assembly, "available_cores", lambda: 1)
    one, other = make_fleet(deterministic=True).actors
    with one.programs.learning_slot, other.programs.learning_slot:
        pass


def test_random_play_counts_as_frames_and_not_as_updates(make_fleet):
    snapshot = make_fleet().store.pull()
    assert 0 < snapshot.num_frames <= 2 * 2 * 4
    assert snapshot.version == 0
    assert snapshot.statistics.mean.shape == (4,)
    assert make_fleet(centre_observations=False).store.pull().statistics is None


def test_standstill_tells_frames_updates_and_the_keys_of_all(make_fleet):
    fleet = make_fleet()
    before = fleet.standstill().progress
    train_once(fleet)
    after, snapshot = fleet.standstill().progress, fleet.store.pull()
    assert len({*before.actor_keys, *after.actor_keys}) == 4
    assert (after.num_frames, after.num_updates) == (snapshot.num_frames, snapshot.version)
    assert after.num_frames > before.num_frames
    assert after.standings == ()  # envpool cannot tell
