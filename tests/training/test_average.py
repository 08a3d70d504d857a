"""The moving average of the weights, when it advances, and its snapshots."""

import json
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from bundle.training.average import Attached, Averaging, Snapshots, WeightAverage


def network(value):
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(value)
    return layer


def value_of(layer):
    return float(layer.state_dict()["weight"])


class TestAverage:
    def test_it_begins_at_the_present_weights_and_decays(self):
        layer = network(1.0)
        average = WeightAverage(layer, 0.9)
        assert value_of(average.network) == 1
        layer.weight.data.fill_(2.0)
        average.update(layer)
        average.update(layer)
        # .9 1 + .1 2 = 1.1, then .9 1.1 + .1 2 = 1.19
        assert value_of(average.network) == pytest.approx(1.19)

    def test_it_is_a_copy_without_gradients(self):
        layer = network(1.0)
        average = WeightAverage(layer, 0.9)
        layer.weight.data.fill_(5.0)
        assert value_of(average.network) == 1
        assert float(average.network(torch.ones(1, 1))) == 1
        assert not list(average.network.parameters())
        assert layer.weight.requires_grad

    def test_it_survives_a_restart(self):
        layer = network(1.0)
        average = WeightAverage(layer, 0.9)
        layer.weight.data.fill_(2.0)
        average.update(layer)
        other = WeightAverage(network(7.0), 0.9)
        other.load_state_dict(average.state_dict())
        for each in (average, other):
            each.update(layer)
        assert value_of(other.network) == value_of(average.network) == pytest.approx(1.19)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "inside a wrapper"])
@pytest.mark.parametrize(("skipped", "expected"), [(None, 1.1), (0.0, 1.1), (1.0, 1.0)])
def test_a_skipped_step_is_not_averaged(skipped, expected, wrapped):
    layer = network(1.0)
    average = WeightAverage(layer, 0.9)
    layer.weight.data.fill_(2.0)
    engine = Engine(lambda engine, _: engine.fire_event(IterationEvents.MODEL_COMPLETED))
    engine.register_events(*IterationEvents)
    engine.network = SimpleNamespace(module=layer) if wrapped else layer
    output = {} if skipped is None else {"skipped": skipped}
    engine.add_event_handler(Events.ITERATION_STARTED, lambda e: setattr(e.state, "output", output))
    Attached(Averaging(average)).attach(engine)
    engine.run([0])
    assert value_of(average.network) == pytest.approx(expected)


class TestSnapshots:
    def test_the_averaged_weights_at_the_iterations_asked_for(self, tmp_path):
        average = WeightAverage(network(1.0), 0.5)
        snapshots = Snapshots(average, tmp_path, [2, 4])
        engine = Engine(lambda *_: average.update(network(2.0)))
        snapshots.attach(engine)
        engine.run(range(5))
        written = {path.name: float(torch.load(path, weights_only=True)["weight"]) for path in tmp_path.glob("*.pt")}
        # 1 + 1/2, + 1/4 | + 1/8, + 1/16; single numbers are kept in fp32
        assert written == {"iteration_0002.pt": 1.75, "iteration_0004.pt": 1.9375}
        assert list(json.loads((tmp_path / "index.json").read_text())) == ["2", "4"]

    def test_seconds_are_counted_over_restarts(self, tmp_path):
        average = WeightAverage(network(1.0), 0.5)
        first = Snapshots(average, tmp_path, [1])
        first.before, first.seconds = 100.0, {"1": 60.0}
        second = Snapshots(average, tmp_path, [1, 2])
        second.load_state_dict(first.state_dict())
        engine = Engine(lambda *_: None)
        second.attach(engine)
        engine.run(range(2))
        seconds = json.loads((tmp_path / "index.json").read_text())
        assert seconds["2"] >= 100
        assert second.elapsed() < 160
