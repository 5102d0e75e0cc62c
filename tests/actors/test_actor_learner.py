import json
import threading
from typing import NamedTuple

import numpy as np
import pytest

from a3cjax.actors import actor_learner
from a3cjax.actors.actor_learner import ActorLearner, Standing
from a3cjax.actors.programs import Programs
from a3cjax.envs.base import Episode
from a3cjax.errors import AnswerError
from a3cjax.parameters.moments import merge, moments_of
from a3cjax.types import Seen
from a3cjax.updates import GradientMetrics
from tests.cases import for_each
from tests.fakes import DISCOUNT, FakeClock, FakeEnvironments, FakeStore, counting

T, B = 3, 2


class FakeLoss(NamedTuple):
    """What an algorithm tells of its loss."""

    loss: int


class Bench:
    """An actor-learner among fakes that share one tape; what it produced stays readable."""

    def __init__(
        self,
        *,
        tape=None,
        environments=None,
        store=None,
        core_state=0,
        unroll_length=T,
        total_frames=10**9,
        clock=None,
        **programs_with,
    ):
        self.tape = tape if tape is not None else []
        self.trajectories, self.snapshots, self.core_states, self.keys = [], [], [], []
        self.explorations, self.reports = [], []
        self.stop_event = threading.Event()
        self.clock = clock or FakeClock()
        self.num_updates = 1  # then it stops
        self.environments = environments or FakeEnvironments(tape=self.tape)
        self._num_acts = counting(0)
        programs = Programs(self.act, self.compute_gradients, lambda num_envs: 0)
        self.actor_learner = ActorLearner(
            7,
            programs._replace(**programs_with),
            self.environments,
            store or FakeStore(self.tape),
            Standing(self.environments.timestep(0), core_state, None, 0, np.zeros(B)),
            explore=lambda num_frames: f"exploration at {num_frames}",
            unroll_length=unroll_length,
            total_frames=total_frames,
            report=self.report,
        )
        self.actor_learner.clock = self.clock

    def run(self, num_updates=1):
        self.num_updates = num_updates
        self.actor_learner.run(self.stop_event)
        return self

    def act(self, snapshot, exploration, timestep, core_state, key):
        t = int(timestep.observation[0, 0])
        self.tape.append(("act", snapshot.version, t))
        self.snapshots.append(snapshot)
        self.explorations.append(exploration)
        self.core_states.append(core_state)
        self.keys.append(key)
        self.clock.take(1.0)
        actions = np.arange(B, dtype=np.int32) + self._num_acts()
        return actions, f"core after {t}", f"key after {t}", None

    def compute_gradients(self, snapshot, exploration, trajectory):
        self.tape.append(("gradients", snapshot.version))
        self.snapshots.append(snapshot)
        self.explorations.append(exploration)
        self.trajectories.append(trajectory)
        self.clock.take(100.0)
        parts = FakeLoss(snapshot.version)
        return f"grads {snapshot.version}", GradientMetrics(parts, np.float32(0.5))

    def report(self, report):
        self.tape.append(("report",))
        assert len(self.reports) < self.num_updates, "it did not stop"
        self.reports.append(report)
        if len(self.reports) == self.num_updates:
            self.stop_event.set()


def test_update_pulls_acts_differentiates_and_pushes_in_this_order():
    frames = 4 * T * B
    assert Bench().run(num_updates=2).tape == [
        ("pull", 0),
        ("act", 0, 0),
        ("step", [0, 1]),
        ("act", 0, 1),
        ("step", [1, 2]),
        ("act", 0, 2),
        ("step", [2, 3]),
        ("gradients", 0),
        ("push", "grads 0", frames, 0),
        ("report",),
        ("pull", 1),
        ("act", 1, 3),
        ("step", [3, 4]),
        ("act", 1, 4),
        ("step", [4, 5]),
        ("act", 1, 5),
        ("step", [5, 6]),
        ("gradients", 1),
        ("push", "grads 1", frames, 1),
        ("report",),
    ]


def test_only_gradient_and_push_take_a_learning_slot():
    tape = []

    class Slot:
        def __enter__(self):
            tape.append(("slot", "taken"))

        def __exit__(self, *_):
            tape.append(("slot", "free"))

    Bench(tape=tape, learning_slot=Slot()).run(num_updates=2)
    assert [entry[0] for entry in tape if entry[0] not in ("act", "step")] == [
        *("pull", "slot", "gradients", "push", "slot", "report"),
    ] * 2
    assert [entry for entry in tape if entry[0] == "slot"] == [
        ("slot", "taken"),
        ("slot", "free"),
    ] * 2


def test_failed_gradient_frees_its_slot():
    slot = threading.BoundedSemaphore(1)

    def fail(snapshot, exploration, trajectory):
        raise FloatingPointError("no gradient")

    with pytest.raises(FloatingPointError):
        Bench(learning_slot=slot, compute_gradients=fail).run()
    assert slot.acquire(timeout=0)


def test_one_exploration_of_the_snapshots_frames_acts_and_is_differentiated():
    bench = Bench(store=FakeStore(num_frames=100)).run(num_updates=2)
    frames = 4 * T * B
    expected = ["exploration at 100"] * (T + 1) + [f"exploration at {100 + frames}"] * (T + 1)
    assert bench.explorations == expected


def test_pushes_carry_the_actors_index_and_no_moments_where_nothing_is_normalised():
    store = FakeStore()
    Bench(store=store).run(num_updates=2)
    assert store.pushed_by == [7, 7]
    assert store.seen == [Seen(), Seen()]


def test_pushes_carry_the_moments_of_what_was_seen():
    first = {2: [1], T: [0], 5: [0]}
    normalizer = Seen(moments_of(()), moments_of((), (1,)))
    store = FakeStore()
    Bench(store=store, environments=FakeEnvironments(first=first), normalizer=normalizer).run(2)
    sums = []
    for b in range(B):
        carried = 0.0
        for t in range(1, 2 * T + 1):  # the reward is t
            if b in first.get(t, ()):
                carried = 0.0  # a reset, which has none
                continue
            carried = t + DISCOUNT * carried
            sums.append(carried)
    assert len(store.seen) == 2
    returns = merge(*(seen.returns for seen in store.seen))
    assert returns.num_seen == len(sums) == 2 * T * B - 3
    np.testing.assert_allclose(returns.mean, np.mean(sums), rtol=1e-6)
    np.testing.assert_allclose(returns.variance, np.var(sums), rtol=1e-6)
    # Each observation counts once: the last one with the unroll that begins with it.
    for seen, numbers in zip(store.seen, ([0, 1, 2], [3, 4, 5]), strict=True):
        assert seen.observations.num_seen == T * B
        np.testing.assert_allclose(seen.observations.mean, [np.mean(numbers)])
        np.testing.assert_allclose(seen.observations.variance, [np.var(numbers)])


def test_moments_are_those_without_idle_steps():
    normalizer = Seen(moments_of(()), moments_of((), (1,)))
    store, environments = FakeStore(), FakeEnvironments(idle={2: [1], T + 1: [1]})
    Bench(store=store, environments=environments, normalizer=normalizer).run(2)
    sums, seen = [], []
    for skipped in ((), (2, T + 1)):
        carried = 0.0
        for t in range(1, 2 * T + 1):
            if t not in skipped:
                carried = t + DISCOUNT * carried
                sums.append(carried)
        seen += [t for t in range(2 * T) if t not in skipped]
    for moments, values in zip(zip(*store.seen, strict=True), (sums, seen), strict=True):
        both = merge(*moments)
        assert both.num_seen == len(values) == 2 * T * B - 2
        np.testing.assert_allclose(np.ravel(both.mean), [np.mean(values)], rtol=1e-6)
        np.testing.assert_allclose(np.ravel(both.variance), [np.var(values)], rtol=1e-6)


@for_each("flag", ["is_dropped", "is_pooled"])
def test_reports_say_what_became_of_the_gradient(flag):
    class Store(FakeStore):
        def push(self, *args):
            return super().push(*args)._replace(**{flag: True})

    (report,) = Bench(store=Store()).run().reports
    assert [name for name in ("is_dropped", "is_pooled") if getattr(report, name)] == [flag]
    assert not Bench().run().reports[0].is_dropped


def test_trajectory_holds_what_happened():
    environments = FakeEnvironments(first={2: [1], T: [0], 5: [0]})
    first, second = Bench(environments=environments).run(num_updates=2).trajectories
    np.testing.assert_array_equal(first.observations[..., 0], [[0, 0], [1, 1], [2, 2], [3, 3]])
    np.testing.assert_array_equal(first.actions, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(first.rewards, [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_allclose(first.discounts, np.full((T, B), DISCOUNT), rtol=1e-6)
    np.testing.assert_array_equal(first.is_first, np.array([[0, 0], [0, 0], [0, 1], [1, 0]], bool))
    assert first.core_state == 0
    np.testing.assert_array_equal(second.observations[..., 0], [[3, 3], [4, 4], [5, 5], [6, 6]])
    np.testing.assert_array_equal(second.actions, [[3, 4], [4, 5], [5, 6]])
    np.testing.assert_array_equal(second.rewards, [[4, 4], [5, 5], [6, 6]])
    np.testing.assert_array_equal(second.is_first, np.array([[1, 0], [0, 0], [1, 0], [0, 0]], bool))


def test_trajectories_own_their_arrays():
    first, second = Bench().run(num_updates=2).trajectories
    for one, other in zip(first[:-1], second[:-1], strict=True):
        assert not np.shares_memory(one, other)


def test_core_state_is_carried_and_its_start_is_recorded_and_every_key_is_used_once():
    bench = Bench()
    assert bench.actor_learner.standing.key == 0
    bench.run(num_updates=2)
    after = [f"core after {t}" for t in range(2 * T)]
    assert bench.core_states == [0, *after[:-1]]
    assert [trajectory.core_state for trajectory in bench.trajectories] == [0, after[T - 1]]
    assert bench.keys == [0, *(f"key after {t}" for t in range(2 * T - 1))]
    assert bench.actor_learner.standing.key == f"key after {2 * T - 1}"  # the next one


# An agent that acts ahead chooses the first action of an unroll at the end of the one before.


def test_action_chosen_ahead_ends_one_trajectory_and_begins_the_next():
    bench = Bench(acts_ahead=True).run(num_updates=2)
    assert bench.tape[:12] == [
        ("pull", 0),
        ("act", 0, 0),
        ("step", [0, 1]),
        ("act", 0, 1),
        ("step", [1, 2]),
        ("act", 0, 2),
        ("step", [2, 3]),
        ("act", 0, 3),
        ("gradients", 0),
        ("push", "grads 0", 4 * T * B, 0),
        ("report",),
        ("pull", 1),
    ]
    assert bench.tape[12:14] == [("step", [3, 4]), ("act", 1, 4)]
    first, second = bench.trajectories
    np.testing.assert_array_equal(first.actions, [[0, 1], [1, 2], [2, 3], [3, 4]])
    np.testing.assert_array_equal(second.actions, [[3, 4], [4, 5], [5, 6], [6, 7]])
    assert len(first.rewards) == len(second.rewards) == T
    assert bench.reports[0].num_steps == T * B


def test_acting_ahead_uses_every_core_state_and_key_once():
    bench = Bench(acts_ahead=True).run(num_updates=2)
    after = [f"core after {t}" for t in range(2 * T)]
    assert bench.core_states == [0, *after]
    # The core state before the first observation, which the first action was chosen at.
    assert [trajectory.core_state for trajectory in bench.trajectories] == [0, after[T - 1]]
    assert bench.keys == [0, *(f"key after {t}" for t in range(2 * T))]


# Without an unroll length, an update is a whole episode in every environment.


def test_whole_episodes_begin_with_a_reset_and_end_with_the_longest():
    # Environment 0 ends at step 1, and again with its second episode at step 3; environment 1
    # ends at step 4: a reset at 2 for 0, at 4 for 0 again, at 5 for 1.
    environments = FakeEnvironments(first={2: [0], 4: [0], 5: [1], 7: [0, 1]}, tape=(tape := []))
    bench = Bench(tape=tape, environments=environments, unroll_length=None).run(num_updates=2)
    first, second = bench.trajectories
    steps = [entry[0] for entry in tape if entry[0] in ("reset", "step")]
    assert steps == ["reset", *["step"] * 5, "reset", *["step"] * 2]
    # All but the first episodes is marked, and the length grows to a power of two.
    assert first.rewards.shape == (8, B)
    np.testing.assert_array_equal(first.is_first[0], [True, True])
    np.testing.assert_array_equal(first.is_first[1:6, 0], [False, True, True, True, True])
    np.testing.assert_array_equal(first.is_first[1:6, 1], [False, False, False, False, True])
    assert first.is_first[6:].all()
    np.testing.assert_array_equal(first.rewards[:5, 0], [1, 2, 3, 4, 5])
    assert second.rewards.shape == (2, B)
    np.testing.assert_array_equal(second.observations[:, 0, 0], [5, 6, 7])


def test_whole_episodes_cost_and_show_what_was_played_before_they_are_filled_up():
    # Steps 1 to 5 in two environments; three of ten are resets, two more are no part of the
    # first episodes but were played. Ten observations came before them.
    environments = FakeEnvironments(first={2: [0], 4: [0], 5: [1]})
    normalizer = Seen(moments_of(()), moments_of((), (1,)))
    store = FakeStore()
    options = {"environments": environments, "unroll_length": None, "normalizer": normalizer}
    (report,) = Bench(store=store, **options).run().reports
    assert (report.num_steps, report.num_frames) == (7, 28)
    assert store.seen[0].returns.num_seen == 7
    assert store.seen[0].observations.num_seen == 10
    np.testing.assert_allclose(store.seen[0].observations.mean, [2.0])


def test_an_episode_without_end_is_told_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(actor_learner, "MAX_EPISODE_STEPS", 20)
    for own, expected in ((None, 20), (9, 20), (30, 30)):
        bench = Bench(unroll_length=None)
        bench.environments.spec = bench.environments.spec._replace(max_episode_steps=own)
        with pytest.raises(AnswerError, match=rf"^episodes must end .* after {expected} steps\.$"):
            bench.run()
        # The step after the last shows that a new episode has begun.
        assert len(bench.environments.actions) == expected + 1
    # One that ends at the limit is whole.
    environments = FakeEnvironments(first={31: [0, 1]})
    environments.spec = environments.spec._replace(max_episode_steps=30)
    assert Bench(environments=environments, unroll_length=None).run().reports[0].num_steps == 60


def test_stop_event_ends_a_whole_episode_within_a_step():
    bench = Bench(unroll_length=None)  # an episode without end
    bench.environments._on_step = lambda t: bench.stop_event.set() if t == 50 else None
    bench.run()
    assert bench.reports == []
    assert bench.tape[-1][0] == "step"


# Going on from a standing.


class Restorable(FakeEnvironments):
    """With a state, the number of steps, and masks of actions."""

    def timestep(self, t):
        mask = np.tile([t % 2 == 0, True, True], (self.num_envs, 1))
        return super().timestep(t)._replace(action_mask=mask)

    def get_state(self):
        return {"t": self._t}

    def set_state(self, state):
        self._t = state["t"]


class Keeping(Bench):
    """Its network keeps of an observation what it is and which parameters saw it."""

    def __init__(self, **arguments):
        super().__init__(observe_at=self.observe_at, **arguments)

    def observe_at(self, snapshot, timestep):
        return {"layer": 100 * snapshot.version + timestep.observation}

    def act(self, snapshot, exploration, timestep, core_state, key):
        acted = super().act(snapshot, exploration, timestep, core_state, key)
        return *acted[:3], self.observe_at(snapshot, timestep)


def test_learning_is_given_what_its_own_parameters_observed():
    bench = Keeping().run(num_updates=3)
    for version, trajectory in enumerate(bench.trajectories):
        np.testing.assert_array_equal(
            trajectory.layer_outputs["layer"], 100 * version + trajectory.observations
        )
    assert Bench().run().trajectories[0].layer_outputs is None


# An agent that corrects for staleness learns at the newest parameters, and may do so repeatedly.


class Correcting(Keeping):
    """Its log-probabilities tell which parameters they are of."""

    def __init__(self, *, num_passes=1, **arguments):
        super().__init__(behave=self.behave, num_passes=num_passes, **arguments)

    def behave(self, snapshot, exploration, trajectory):
        self.tape.append(("behave", snapshot.version))
        assert trajectory.layer_outputs is not None  # which makes it cheap
        return f"log μ of {snapshot.version}"


def learned_from(bench):
    """Of each gradient the log-probabilities that it was given, and whether layer outputs."""
    return [(x.behaviour_log_probs, x.layer_outputs is not None) for x in bench.trajectories]


def without_steps(tape):
    return [entry for entry in tape if entry[0] not in ("act", "step")]


def test_unstale_parameters_learn_as_if_nothing_were_corrected():
    bench = Correcting().run(num_updates=2)
    assert learned_from(bench) == [(None, True)] * 2
    assert ("behave", 0) not in bench.tape
    assert [report.staleness for report in bench.reports] == [0, 0]


def test_every_pass_is_an_update_at_the_newest_parameters():
    environments = FakeEnvironments(episodes={2: [Episode(0, 5.0, 9)]})
    store = FakeStore(tape := [], num_frames=100)
    normalizer = Seen(moments_of(()))
    bench = Correcting(
        tape=tape, num_passes=3, environments=environments, store=store, normalizer=normalizer
    ).run(num_updates=4)
    frames = 4 * T * B
    assert without_steps(tape) == [
        *(("pull", 0), ("pull", 0), ("gradients", 0), ("push", "grads 0", frames, 0), ("report",)),
        *(("pull", 1), ("behave", 0), ("gradients", 1), ("push", "grads 1", 0, 1), ("report",)),
        *(("pull", 2), ("gradients", 2), ("push", "grads 2", 0, 2), ("report",)),
        *(("pull", 3), ("pull", 3), ("gradients", 3), ("push", "grads 3", frames, 3), ("report",)),
    ]
    corrected = ("log μ of 0", False)
    assert learned_from(bench) == [(None, True), corrected, corrected, (None, True)]
    reports = bench.reports
    assert [report.num_frames for report in reports] == [frames, 0, 0, frames]
    assert [report.num_steps for report in reports] == [T * B, 0, 0, T * B]
    assert [report.run_frames for report in reports] == [100 + frames] * 3 + [100 + 2 * frames]
    assert [len(report.episodes) for report in reports] == [1, 0, 0, 0]
    assert [report.staleness for report in reports] == [0] * 4
    assert [seen is None for seen in store.seen] == [False, True, True, False]


def test_what_others_pushed_meanwhile_is_corrected_for():
    store = FakeStore()
    environments = FakeEnvironments(
        on_step=lambda t: store.push("of another", 8, 0, 1) if t == T - 1 else None
    )
    bench = Correcting(store=store, environments=environments).run(num_updates=2)
    assert learned_from(bench) == [("log μ of 0", False), (None, True)]
    assert [entry for entry in bench.tape if entry[0] == "gradients"] == [
        ("gradients", 1),
        ("gradients", 2),
    ]
    assert [report.staleness for report in bench.reports] == [0, 0]
    # Without a correction they are differentiated that acted.
    store._snapshot = store._snapshot._replace(version=0)
    plain = Keeping(store=store, environments=environments)
    environments._t = 0
    assert plain.run().reports[0].staleness == 1
    assert learned_from(plain) == [(None, True)]


def test_staleness_of_a_pass_counts_from_its_own_snapshot():
    bench = Correcting(num_passes=2, store=FakeStore(others=3)).run(num_updates=4)
    assert [report.staleness for report in bench.reports] == [3] * 4
    assert learned_from(bench) == [
        *((None, True), ("log μ of 0", False)),
        *((None, True), ("log μ of 8", False)),
    ]


def test_refused_pass_leaves_its_log_probabilities_too():
    store = FakeStore(others=1, refuses=True)
    first, second = Correcting(num_passes=2, store=store).run(num_updates=2).reports
    assert first.bad_trajectory.behaviour_log_probs is None
    assert second.bad_trajectory.behaviour_log_probs == "log μ of 0"
    assert first.bad_trajectory.layer_outputs is second.bad_trajectory.layer_outputs is None


def test_stop_event_ends_the_run_between_passes():
    bench = Correcting(num_passes=3).run(num_updates=2)
    assert [entry[0] for entry in without_steps(bench.tape)].count("push") == 2
    assert bench.tape[-1] == ("report",)


def test_seconds_of_a_pass_are_its_own():
    clock = FakeClock()
    store = FakeStore(on_pull=lambda: clock.take(10_000.0), on_push=lambda: clock.take(1000.0))
    bench = Correcting(num_passes=2, store=store, clock=clock)
    began = clock()
    first, second = (report.seconds for report in bench.run(num_updates=2).reports)
    assert (first.act, first.learn, first.push) == (T * 1.0, 100.0, 21_000.0)
    assert (second.act, second.env, second.learn, second.push) == (0.0, 0.0, 100.0, 11_000.0)
    assert first.total + second.total == clock() - began


def test_actor_stands_nowhere_between_passes():
    standings = []
    bench = Numeric(
        environments=Restorable(),
        core_state=np.zeros((B, 1), np.float32),
        store=FakeStore(on_push=lambda: standings.append(bench.actor_learner.get_standing())),
        behave=lambda *_: "log μ",
        num_passes=2,
    )
    bench.run(num_updates=4)
    assert [standing is None for standing in standings] == [True, False] * 2


class Numeric(Bench):
    """Its core state is an array, as in a checkpoint."""

    def act(self, snapshot, exploration, timestep, core_state, key):
        actions, _, key, kept = super().act(snapshot, exploration, timestep, core_state, key)
        return actions, core_state + 1.5, key, kept


@pytest.mark.parametrize("acts_ahead", [False, True])
def test_actor_goes_on_from_its_standing(acts_ahead):
    def make():
        return Numeric(
            environments=Restorable(first={2 * T: [0]}),
            core_state=np.zeros((B, 1), np.float32),
            acts_ahead=acts_ahead,
            normalizer=Seen(moments_of(())),
        )

    whole, half, other = make().run(num_updates=3), make().run(num_updates=2), make()
    assert half.actor_learner.standing.discounted_sums.any()
    standing = json.loads(json.dumps(half.actor_learner.get_standing()))
    other.actor_learner.set_standing(standing)
    for _ in range(2 * T + acts_ahead):
        other._num_acts()  # actions count the calls
    other.run()
    for field, expected in zip(other.trajectories[0], whole.trajectories[2], strict=True):
        np.testing.assert_array_equal(field, expected)
        assert np.asarray(field).dtype == np.asarray(expected).dtype
    sums, expected = (b.actor_learner.standing.discounted_sums for b in (other, whole))
    np.testing.assert_array_equal(sums, expected)


def test_automatic_resets_cost_no_frames():
    # Steps 1 to 3 are the first unroll: three of its six transitions are resets.
    environments = FakeEnvironments(first={1: [0], 3: [0, 1], 4: [1]}, frames_per_step=4)
    store = FakeStore()
    bench = Bench(environments=environments, store=store).run(num_updates=2)
    assert [report.num_steps for report in bench.reports] == [3, 5]
    assert [report.num_frames for report in bench.reports] == [12, 20]
    assert store.pull().num_frames == 32


def test_first_timestep_of_an_unroll_costs_no_frames():
    environments = FakeEnvironments(first={0: range(B)})
    assert Bench(environments=environments).run().reports[0].num_steps == T * B


def test_report_tells_actor_version_and_metrics():
    environments = FakeEnvironments(episodes={2: [Episode(0, 5.0, 9)], 5: [Episode(1, 6.0, 8)]})
    first, second = Bench(environments=environments).run(num_updates=2).reports
    assert (first.actor_index, first.version, second.version) == (7, 1, 2)
    assert first.metrics == {"loss": 0.0, "grad_norm": 0.5}
    assert second.metrics == {"loss": 1.0, "grad_norm": 0.5}
    assert all(type(value) is float for value in first.metrics.values())
    assert first.episodes == [Episode(0, 5.0, 9)]
    assert second.episodes == [Episode(1, 6.0, 8)]


def test_staleness_counts_the_updates_of_others():
    for others in (0, 3):
        bench = Bench(store=FakeStore(others=others)).run(num_updates=2)
        assert [report.staleness for report in bench.reports] == [others, others]


@pytest.mark.parametrize("acts_ahead", [False, True])
def test_report_seconds_add_up_to_the_whole_time(acts_ahead):
    clock = FakeClock()
    bench = Bench(
        environments=FakeEnvironments(on_step=lambda _: clock.take(10.0)),
        store=FakeStore(on_pull=lambda: clock.take(10_000.0), on_push=lambda: clock.take(1000.0)),
        clock=clock,
        acts_ahead=acts_ahead,
    )
    began = clock()
    (report,) = bench.run().reports
    seconds = report.seconds
    assert seconds.act == T * 1.0 + acts_ahead
    assert seconds.env == T * 10.0
    assert seconds.learn == 100.0
    assert seconds.push == 11_000.0
    assert clock() - began == seconds.total == T * 11.0 + acts_ahead + 11_100.0
    assert (seconds.wait, seconds.hold) == (0.25, 0.5)


@for_each(("total_frames", "num_updates"), [(24, 1), (25, 2), (48, 2), (49, 3)])
def test_frame_budget_ends_the_run(total_frames, num_updates):
    bench = Bench(total_frames=total_frames).run(num_updates=100)
    assert len(bench.reports) == num_updates
    assert bench.tape[-1] == ("pull", num_updates)
    assert not bench.stop_event.is_set()


def test_used_up_budget_or_a_stop_starts_nothing():
    stopped = Bench()
    stopped.stop_event.set()
    for bench in (Bench(store=FakeStore(num_frames=50), total_frames=50), stopped):
        assert bench.run().tape == bench.reports == []


def test_stop_event_ends_the_run_within_a_step_and_another_goes_on_where_environments_stand():
    bench = Bench()
    bench.environments._on_step = lambda t: bench.stop_event.set() if t == T + 1 else None
    bench.run(num_updates=100)
    assert len(bench.reports) == 1
    assert bench.tape[-1][0] == "step"
    bench.stop_event.clear()
    bench.run(num_updates=2)
    np.testing.assert_array_equal(bench.trajectories[1].observations[:, 0, 0], [4, 5, 6, 7])


def test_failures_of_collaborators_come_through():
    def fail(t):
        raise OSError("the environment broke")

    bench = Bench(environments=FakeEnvironments(on_step=fail))
    with pytest.raises(OSError, match="the environment broke"):
        bench.run()
    assert bench.reports == []


def test_refused_update_leaves_its_trajectory():
    bench = Keeping(store=FakeStore(refuses=True)).run()
    [trajectory], [report] = bench.trajectories, bench.reports
    assert report.bad_trajectory._replace(layer_outputs=trajectory.layer_outputs) == trajectory
    assert report.bad_trajectory.layer_outputs is None  # which nobody wants to read
    assert Bench().run().reports[0].bad_trajectory is None
