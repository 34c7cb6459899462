"""Everything at random, and often: processes killed and stopped, wires cut, answers lost, workers that come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from tests.cluster.cluster_parts import Wire
from tests.faults.campaigns import MEMBERS, Program, Serial, Trial, descriptors_and_threads, until
from tests.faults.invariant import at_most, check
from tests.faults.nursery import Nursery

FIRST_SEED = int(os.environ.get("FAULTS_FIRST_SEED", "0"))
SEEDS = 30
AT_ONCE = 5
FAULTS = 8
"""How many for each seed."""
MOST_WORKERS = 4


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, AT_ONCE))
def test_f15_soak(tmp_path: Path, serial: Serial, nursery: Nursery, first: int) -> None:
    """Five campaigns at once, each disturbed as its seed says; in the end each is as if nothing had happened."""
    before = descriptors_and_threads()

    def soak(seed: int) -> str:
        try:
            with Trial(tmp_path / str(seed), serial, nursery) as trial:
                trial.before = (2**20, 2**20)  # of this process, which the others share
                Storm(trial, Random(seed)).run()
        except Exception as error:
            return f"seed {seed}: {error}"
        return ""

    seeds = range(first, first + AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [problem for problem in pool.map(soak, seeds) if problem]
    assert not failed, "\n\n".join(failed)
    until(lambda: at_most(descriptors_and_threads(), before), "this process closes what it has opened")


class Storm:
    """A campaign and what befalls it."""

    def __init__(self, trial: Trial, random: Random) -> None:
        self.trial = trial
        self.random = random
        self.wires: dict[str, Wire] = {}
        self.stopped: list[psutil.Process] = []
        self.log: list[str] = []

    def run(self) -> None:
        """Disturb it, then leave it in peace until it has ended."""
        self.trial.listen()
        bundle = self.random.choice((1, 2, len(MEMBERS)))
        self.log.append(f"in bundles of {bundle}")
        self.trial.describe(
            run={"bundle": bundle, "max_attempts": 50, "max_losses": 50, "worker_strikes": 50, "retry_delay": 0.05},
            cluster={"lease": 1.0, "patience": 30.0},
        )
        self.join()
        self.join()
        self.start_manager()
        try:
            for _ in range(FAULTS):
                self.wait()
                if not self.manager.runs and self.manager.process.poll() == 0:
                    break
                self.disturb()
            self.calm()
            self.manager.end(0)
            check(self.trial)
        except Exception as error:
            raise AssertionError(f"{error}\nafter {', '.join(self.log)}") from error

    @property
    def manager(self) -> Program:
        return self.trial.managers[-1]

    @property
    def workers(self) -> list[Program]:
        return [worker for worker in self.trial.workers if worker.runs]

    def start_manager(self) -> None:
        self.trial.start_manager(fork=True)

    def wait(self) -> None:
        """A moment of random length, in which the campaign goes on."""
        count = len(self.manager.events()) + self.random.randrange(1, 5)
        with suppress(AssertionError):
            until(lambda: len(self.manager.events()) >= count or not self.manager.runs, "", bound=0.5)

    def disturb(self) -> None:
        """One fault."""
        faults: list[tuple[int, Callable[[], None]]] = [
            (3, self.kill_worker),
            (3, self.kill_child),
            (2, self.kill_manager),
            (2, self.stop_worker),
            (2, self.go_on),
            (2, self.cut_wire),
            (2, self.heal_wires),
            (4, self.lose_answer),
            (2 if len(self.workers) < MOST_WORKERS else 0, self.join),
            (1, self.drain),
        ]
        fault = self.random.choices([fault for _, fault in faults], [weight for weight, _ in faults])[0]
        self.log.append(fault.__name__)
        fault()

    def calm(self) -> None:
        """Let all go on, and see that there are a manager and a worker."""
        self.go_on()
        self.heal_wires()
        if self.manager.process.poll() == 0:
            return
        self.join()  # those that are there may be on their way out
        if not self.manager.runs:
            self.start_manager()

    # --- faults

    def kill_worker(self) -> None:
        if self.workers:
            self.random.choice(self.workers).kill()

    def kill_child(self) -> None:
        if self.workers:
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(self.random.choice(self.workers).process.pid).children()
                if children:
                    self.random.choice(children).kill()

    def kill_manager(self) -> None:
        if self.manager.runs:
            self.manager.kill()
        if self.manager.process.poll() != 0:
            self.start_manager()

    def stop_worker(self) -> None:
        if self.workers:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(self.random.choice(self.workers).process.pid)
                family = [process, *(process.children() if self.random.random() < 0.5 else ())]
                self.stopped += family
                for one in family:
                    one.suspend()

    def go_on(self) -> None:
        for process in self.stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self.stopped.clear()

    def cut_wire(self) -> None:
        if self.wires:
            self.random.choice(list(self.wires.values())).cut()

    def heal_wires(self) -> None:
        for name, wire in self.wires.items():
            wire.heal()
            self.trial.register_on_wire(name)

    def lose_answer(self) -> None:
        if self.wires:
            self.random.choice(list(self.wires.values())).drop_next_answer = True

    def join(self) -> None:
        name = f"w{len(self.trial.workers)}"
        how: dict[str, Any] = {"function": "publish_again", "FAULTS_NAP": "0.1"}
        if self.random.random() < 0.5:
            _, self.wires[name] = self.trial.start_worker_on_wire(name, **how)
        else:
            self.trial.start_workers(name, **how)

    def drain(self) -> None:
        if self.workers:
            self.random.choice(self.workers).send(signal.SIGTERM)
