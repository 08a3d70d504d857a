"""What a checkpoint holds, when it is written, and that it is whole or not there."""

import os
import signal
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.errors import InputError
from bundle.training.checkpoint import Checkpoint
from bundle.training.draws import Batches


class Counter:
    """Anything with a state."""

    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Run:
    """An engine whose every iteration adds its batch to a counter."""

    def __init__(self, folder, interval=2, settings=None, scaler=None, **objects):
        self.counter, self.draws, self.seen = Counter(), Batches(lambda iteration: iteration), []
        self.engine = Engine(self.update)
        self.engine.scaler = scaler
        given = {"seed": 0} if settings is None else settings
        self.checkpoint = Checkpoint(
            folder / "run.pt", {"counter": self.counter, **objects}, self.draws, given, interval
        )
        self.checkpoint.attach(self.engine)

    def update(self, engine, batch):
        self.seen.append(batch)
        self.counter.value += batch

    def run(self, stop=None):
        """Three epochs of three; ``stop``: killed after that many iterations."""
        if stop is not None:
            self.engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), self._raise)
        self.engine.run(self.draws, max_epochs=3, epoch_length=3)
        return self

    @staticmethod
    def _raise(engine):
        raise KeyboardInterrupt


def iteration_of(path):
    return torch.load(path, weights_only=True)["engine"]["iteration"]


def test_a_resumed_run_draws_from_torch_what_an_uninterrupted_one_draws(tmp_path):
    class Sampling(Run):
        def update(self, engine, batch):
            self.counter.value += torch.rand(()).item()

    torch.manual_seed(0)
    whole = Sampling(tmp_path / "whole").run().counter.value
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        Sampling(tmp_path / "stopped").run(5)
    torch.manual_seed(0)
    assert Sampling(tmp_path / "stopped").run().counter.value == whole


@pytest.mark.parametrize("stop", range(1, 9))
def test_it_goes_on_after_the_last_one_written(tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).run(stop)
    resumed = Run(tmp_path).run()
    assert resumed.seen == list(range(stop // 2 * 2, 9))
    assert resumed.counter.value == sum(range(9))
    assert resumed.engine.state.epoch == 3


def test_written_at_the_interval_and_at_the_end(tmp_path):
    run = Run(tmp_path, interval=4)
    written = []
    run.engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda _: written.append(iteration_of(tmp_path / "run.pt") if (tmp_path / "run.pt").exists() else None),
    )
    run.run()
    assert written == [None] * 3 + [4] * 4 + [8] * 2
    assert iteration_of(tmp_path / "run.pt") == 9


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    Run(tmp_path).run()
    again = Run(tmp_path).run()
    assert again.seen == []
    assert again.counter.value == sum(range(9))


def test_a_kill_while_it_is_written_leaves_the_one_before(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).run(stop=4)

    def die_half_way():
        def half(self, content):
            with self.open("wb") as stream:
                stream.write(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        Path.write_bytes = half
        Run(tmp_path).run()

    process = get_context("fork").Process(target=die_half_way)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert iteration_of(tmp_path / "run.pt") == 4
    assert Run(tmp_path).run().seen == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1, "rate": 0.1}, "run.pt: made with seed = 0, now 1; give another --output_dir or delete"),
        ({"seed": 0, "rate": 0.2}, "made with rate = 0.1, now 0.2"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, message):
    Run(tmp_path, settings={"seed": 0, "rate": 0.1}).run()
    with pytest.raises(InputError, match=message):
        Run(tmp_path, settings=settings)


def test_settings_are_compared_as_text(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, settings={"target": {"male": 0.3}}).run(stop=2)
    assert Run(tmp_path, settings={"target": {"male": 0.3}}).run().seen[0] == 2


def test_the_optimiser_goes_on_too(tmp_path):
    """Adam's moments: five steps with a restart in between end where five steps without one do."""

    def job(folder, stop=None):
        torch.manual_seed(0)
        network = nn.Linear(3, 1)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
        run = Run(folder, 1, network=network, optimiser=optimiser)

        def step(engine):
            optimiser.zero_grad()
            (network(torch.full((1, 3), float(engine.state.batch))) ** 2).sum().backward()
            optimiser.step()

        run.engine.add_event_handler(Events.ITERATION_STARTED, step)
        run.run(stop)
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    whole = job(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "stopped", stop=5)
    assert torch.equal(job(tmp_path / "stopped"), whole)


def test_the_scaler_goes_on_too(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, scaler=scaler).run(stop=2)
    other = torch.amp.GradScaler("cpu", init_scale=2.0)
    Run(tmp_path, scaler=other).run()
    assert other.get_scale() == 8
    Run(tmp_path).run()  # without a scaler, as on another machine


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    Run(tmp_path).run()
    assert list(tmp_path.iterdir()) == []


def test_an_endless_iterable_is_not_read_ahead(tmp_path):
    numbers = count()
    run = Run(tmp_path)
    run.draws.draw = lambda _: next(numbers)
    run.run()
    assert next(numbers) == 9
