"""How many threads a call has while others run: the policy, on a made-up machine."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from fastrnn import _core


@dataclass
class Machine:
    """Processors, and how many of them others keep busy at a time.

    Threads that have to share a processor get half of it each. A team is done when its last thread
    is; threads that are done earlier sleep.
    """

    processors: int
    others: Callable[[float], int]
    company: _core.Company = field(default_factory=_core.Company)
    time: float = 0.0

    def call(self, work: float, wanted: int) -> tuple[int, float]:
        """A call of so many seconds' work; its threads, and how long it took."""
        threads = self.company.allows(wanted, self.time)
        assert 1 <= threads <= wanted
        sharing = max(0, threads + self.others(self.time) - self.processors)
        if threads == 1:
            took = work  # the one thread finds the processor that is not shared
            sharing = 0
        else:
            took = work / threads * (2 if sharing else 1)
        self.time += took
        if threads > 1:
            lost = min(sharing, threads) * took / 2
            self.company.saw(threads, took, lost, self.time)
        return threads, took

    def calls(self, work: float, wanted: int, seconds: float) -> list[tuple[float, int, float]]:
        """(when, threads, how long) of the calls of so many seconds."""
        end, made = self.time + seconds, []
        while self.time < end:
            begun = self.time
            made.append((begun, *self.call(work, wanted)))
        return made


WORKS = (2e-4, 1e-3, 0.02, 0.5)


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("processors", [2, 8, 64])
def test_alone_all_threads_are_used(processors: int, work: float) -> None:
    seconds = min(3.0, 30_000 * work / processors)
    made = Machine(processors, lambda time: 0).calls(work, processors, seconds)
    assert {threads for _, threads, _ in made} == {processors}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("wanted", [2, 8])
def test_a_busy_program_is_left_its_processor(wanted: int, work: float) -> None:
    machine, seconds = Machine(wanted, lambda time: 1), 20 if work > 1e-3 else 8
    made = machine.calls(work, wanted, seconds)
    taken = sum(took for _, _, took in made)
    # All but a processor is used, and what trying costs is a small part: of two threads that share
    # a processor each call takes as long as one thread does, of eight it takes twice as long.
    fair = len(made) * work / (wanted - 1)
    assert taken <= fair * 1.2
    tried = sum(took for _, threads, took in made if threads == wanted)
    assert tried <= taken / 5
    late = [threads for when, threads, _ in made if when > seconds / 2]
    assert np.median(late) == wanted - 1


def test_many_others() -> None:
    made = Machine(8, lambda time: 6).calls(1e-3, 8, 20)
    late = [threads for when, threads, _ in made if when > 10]
    assert np.median(late) == 2
    assert np.mean(np.array(late) > 2) < 0.1


@pytest.mark.parametrize("work", WORKS[:3])
@pytest.mark.parametrize("wanted", [2, 8])
@pytest.mark.parametrize("busy_for", [0.02, 1, 30])
def test_when_the_others_sleep_all_threads_are_back_soon(
    wanted: int, work: float, busy_for: float
) -> None:
    machine = Machine(wanted, lambda time: 1 if time < busy_for else 0)
    machine.calls(work, wanted, busy_for)
    back = next(when for when, threads, _ in machine.calls(work, wanted, 5) if threads == wanted)
    assert back - busy_for < 0.2 + 6 * work


def test_no_oscillation() -> None:
    """In constant company the number changes only where more are tried, ever more rarely."""
    made = Machine(2, lambda time: 1).calls(1e-3, 2, 20)
    runs = [(n, len(list(group))) for n, group in itertools.groupby(m for _, m, _ in made)]
    tries = [length for n, length in runs if n == 2]
    assert len(tries) <= 20 / 0.16 + 10
    assert max(tries) <= 6  # what five milliseconds hold, and one more
    made = Machine(2, lambda time: 0).calls(1e-3, 2, 20)
    assert {threads for _, threads, _ in made} == {2}


def test_others_who_come_and_go() -> None:
    """As spinning threads of other runtimes do after each of their calls."""
    machine = Machine(2, lambda time: int(time % 0.05 < 0.01))
    made = machine.calls(2e-4, 2, 20)
    alone = len(made) * 2e-4
    # Never worse than one thread by more than trying costs.
    assert sum(took for _, _, took in made) <= 1.05 * alone


def test_a_moment_without_a_processor_is_no_company() -> None:
    company = _core.Company()
    time = 0.0
    for i in range(10000):
        lost = 0.0005 if i % 50 == 0 else 0.0
        time += 0.0001 + lost
        company.saw(2, 0.0001 + lost, lost, time)
        assert company.allows(2, time) == 2


def test_long_calls_are_tried_rarely() -> None:
    made = Machine(2, lambda time: 1).calls(10.0, 2, 2000)
    tries = [when for when, threads, _ in made if threads == 2]
    assert len(tries) <= 2000 / 60 + 1
    assert len(tries) >= 10


def test_fewer_wanted_than_allowed_and_more_later() -> None:
    machine = Machine(8, lambda time: 5)
    machine.calls(1e-3, 8, 2)
    assert {threads for _, threads, _ in machine.calls(1e-3, 2, 0.2)} == {2}
    machine.others = lambda time: 0
    machine.calls(1e-3, 2, 2)
    assert 8 in {threads for _, threads, _ in machine.calls(1e-3, 8, 0.5)}


@pytest.mark.parametrize("few", [2, 3, 4])
@pytest.mark.parametrize(
    ("large", "small"), [(4e-3, 1e-3), (1e-3, 1e-3), (2e-3, 4e-3), (1e-3, 2e-3)]
)
def test_calls_of_two_sizes_in_turns(few: int, large: float, small: float) -> None:
    """Neither keeps the other from being judged."""

    def both(machine: Machine, seconds: float) -> list[int]:
        end, threads = machine.time + seconds, []
        while machine.time < end:
            threads.append(machine.call(large, 8)[0])
            machine.call(small, few)
        return threads

    machine = Machine(8, lambda time: 5 if time < 0.3 else 0)
    both(machine, 0.3)
    assert set(both(machine, 10)[-1000:]) == {8}
    machine = Machine(8, lambda time: 5)
    both(machine, 5)
    taken = np.array(both(machine, 10))
    # Three are right; of four one lacks half a processor, which the small calls dilute.
    assert np.median(taken) in (3, 4)
    assert np.mean(taken > 4) < 0.15


def test_a_process_that_was_stopped() -> None:
    company = _core.Company()
    company.saw(2, 600.0, 1190.0, 600.0)
    assert company.allows(2, 600.1) == 1
    assert company.allows(2, 651.0) == 2
