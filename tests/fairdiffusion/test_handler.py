"""The handler on MONAI's stock trainer: faults of the published mode, restarts, several processes, cost."""

import csv
import logging
import statistics
import time

import pytest
import torch
from botorch.exceptions import ModelFittingError
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines.utils import IterationEvents
from torch import nn

from bundle.errors import InputError
from bundle.fairdiffusion import search
from bundle.fairdiffusion.baselines import GroupDRO, WeightedLoss
from bundle.fairdiffusion.perturbation import published_gap
from bundle.fairdiffusion.repaired import Repaired
from bundle.fairdiffusion.weighting import reweigh
from bundle.randomness import generator
from bundle.training.draws import LatentDataset
from tests.fairdiffusion.toy import GROUPS, perturbation, toy_data, toy_job, toy_members, toy_probe
from tests.toy import At


def scales(entry):
    return [value for name, value in entry.items() if name.startswith("scale/")]


def only_repaired(body):
    """What holds in the repaired mode, and does not in the published one."""
    body("repaired")
    with pytest.raises(AssertionError):
        body("published")


class TestFaults:
    def test_negative_weights(self):
        def body(mode):
            assert min(entry["weight_min"] for entry in toy_job(perturbation(mode=mode)).run().history) > 0

        only_repaired(body)

    def test_credit(self):
        """What is observed is the gap after the window's scales have acted, not before."""

        def body(mode):
            handler, after = perturbation(mode=mode, window=3), []
            last = 3 if mode == "repaired" else 4  # published: the step with the index 3

            def measure(engine):
                if mode == "repaired":
                    after.append(handler.search.measure(engine.network).total)
                else:
                    after.append(self.batch_gap(engine))

            job = toy_job(handler, iterations=5)
            At(Events.ITERATION_COMPLETED, measure, last).attach(job.trainer)
            job.run()
            assert handler.search.windows[0].iteration == last
            assert handler.search.windows[0].gap == pytest.approx(after[0], rel=1e-5)

        only_repaired(body)

    @staticmethod
    @torch.no_grad()
    def batch_gap(engine):
        """The gap of the same batch with the network as it is now."""
        inputs, target, _, arguments = engine.prepare_batch(engine.state.batch, "cpu")
        prediction = engine.inferer(inputs, engine.network, **arguments)
        losses = (prediction - target).square().flatten(1).mean(1)
        return published_gap(losses, toy_members()[engine.state.batch["index"]], GROUPS).total

    def test_timesteps_and_noise_are_no_gap(self):
        """All latents and contexts are one and the same: no group differs from another."""
        data = toy_data()
        same = LatentDataset(data.latents[:1].expand_as(data.latents), 0 * data.captions, data.contexts)

        def body(mode):
            handler = perturbation(mode=mode, probe=toy_probe(same))
            toy_job(handler, iterations=5, data=same).run()
            assert handler.search.windows[0].gap == pytest.approx(0, abs=1e-5)

        only_repaired(body)

    def test_an_absent_group_is_not_the_best_there_is(self):
        members = toy_members()
        members[:, 0] %= 2  # nobody is white

        def body(mode):
            handler = perturbation(mode=mode, members=members, probe_members=members)
            toy_job(handler, iterations=5).run()
            assert handler.search.windows[0].gaps["race"] > 0

        only_repaired(body)

    def test_an_epoch_shorter_than_the_window(self):
        def body(mode):
            handler = perturbation(mode=mode, window=3)
            toy_job(handler, iterations=2, max_epochs=3).run()
            assert [window.iteration for window in handler.search.windows] == [3, 6]

        only_repaired(body)

    def test_an_unknown_race_does_not_read_the_scale_of_men(self):
        members = torch.tensor([[-1, 3]] * 8)

        def body(mode):
            weights = []
            for men in (0.0, 1.0):
                handler = perturbation(mode=mode)
                handler.search.scales = torch.tensor([0.5, 0.5, 0.5, 0.5, men])
                weights.append(handler.search.weights(0, members, torch.ones(8)))
            assert torch.equal(*weights)

        only_repaired(body)

    def test_a_resumed_run_has_its_scales(self, tmp_path):
        def body(mode):
            folder = tmp_path / mode
            whole = toy_job(perturbation(mode=mode)).run()
            killed_at(folder, 6, mode)
            resumed = toy_job(perturbation(mode=mode), folder).run()
            assert scales(resumed.history[0]) == scales(whole.history[5])

        only_repaired(body)

    def test_a_fit_that_fails_keeps_the_scales(self, monkeypatch, caplog):
        """Published, it ends the run."""

        def fail(_):
            raise ModelFittingError

        monkeypatch.setattr(search, "fit_gpytorch_mll", fail)
        with caplog.at_level(logging.WARNING):
            job = toy_job(perturbation(), iterations=8).run()
        assert scales(job.history[7]) == scales(job.history[5])
        assert len(job.handler.search.windows) == 2
        assert "iteration 6: no Gaussian process fits the gaps; scales stay" in caplog.text
        with pytest.raises(ModelFittingError):
            toy_job(perturbation(mode="published"), iterations=8).run()


class Killed(Exception):
    pass


def kill(engine):
    raise Killed


def killed_at(folder, iteration, mode="repaired"):
    """A run that ends in the middle of an iteration."""
    job = toy_job(perturbation(mode=mode), folder, (At(IterationEvents.FORWARD_COMPLETED, kill, iteration),))
    with pytest.raises(Killed):
        job.run()


@pytest.fixture(scope="module")
def whole():
    """Eight iterations that nothing stopped: two windows and a part of the third, whose scales the process proposed."""
    return toy_job(perturbation()).run()


@pytest.mark.parametrize("iteration", range(1, 9))
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, whole, iteration):
    killed_at(tmp_path, iteration)
    resumed = toy_job(perturbation(), tmp_path).run()
    assert len(resumed.history) == 9 - iteration
    assert [scales(entry) for entry in resumed.history] == [scales(entry) for entry in whole.history[iteration - 1 :]]
    assert torch.equal(resumed.weights(), whole.weights())
    assert resumed.handler.search.windows == whole.handler.search.windows


def test_scales_are_held_for_a_window():
    def body(mode):
        history = toy_job(perturbation(mode=mode), iterations=3).run().history
        assert scales(history[0]) == scales(history[1]) == scales(history[2])

    only_repaired(body)


def test_scales_are_named_for_mlflow(whole):
    names = ["scale/race/asian", "scale/race/black", "scale/race/white", "scale/sex/female", "scale/sex/male"]
    assert [name for name in whole.history[0] if name.startswith("scale/")] == names
    for start in (0, 3, 6):
        held = [scales(entry) for entry in whole.history[start : start + 3]]
        assert all(entry == held[0] for entry in held)
    assert scales(whole.history[2]) != scales(whole.history[3]) != scales(whole.history[6])
    ends = {"gap", "gap/race", "gap/sex", "probe_seconds", "search_seconds"}
    assert ends <= set(whole.history[2])
    assert ends | {"acquisition"} <= set(whole.history[5])
    assert not ends & set(whole.history[3])


def test_the_next_scales_are_the_point_and_a_little_chance(whole):
    """rho x point + (1 - rho) x uniform, both as they are found from the two observations."""
    handler = whole.handler.search
    first, second = handler.windows
    point = search.repaired_proposal(
        torch.tensor([first.scales, second.scales], dtype=torch.float64),
        -torch.tensor([first.gap, second.gap], dtype=torch.float64),
        generator(0, "search", 2).initial_seed(),
    )
    drawn = torch.rand(5, generator=generator(0, "scales", 2), dtype=torch.float64)
    assert torch.allclose(handler.scales, 0.95 * point.scales + 0.05 * drawn, rtol=1e-12)
    assert second.acquisition == point.acquisition


@pytest.mark.parametrize("batch_size", [8, 6])
def test_scales_of_zero_are_plain_training(batch_size):
    """Bit for bit, also where the batch is no power of two."""
    handler = perturbation(window=100)
    handler.search.scales = torch.zeros(5, dtype=torch.float64)
    plain = toy_job(batch_size=batch_size).run()
    neutral = toy_job(handler, batch_size=batch_size).run()
    assert torch.equal(plain.weights(), neutral.weights())
    some = toy_job(perturbation(window=100), batch_size=batch_size).run()
    assert not torch.equal(plain.weights(), some.weights())


def test_the_expected_gradient_is_that_of_plain_training():
    """The gradient is linear in the weights, so that its mean over 4000 draws follows from theirs, within 5 errors."""
    network = toy_job().network
    probe = toy_probe()
    inputs, target, _, arguments = probe.prepare(
        {
            "image": probe.latents[:8],
            "noise": probe.noise[0].expand(8, -1, -1, -1),
            "timesteps": probe.timesteps[torch.arange(8) % 3],
            "context": probe.contexts[:8],
        },
        "cpu",
    )
    noised = probe.prepare.scheduler.add_noise(inputs, arguments["noise"], arguments["timesteps"])
    errors = (network(noised, arguments["timesteps"], arguments["condition"]) - target).square().flatten(1).mean(1)
    each = torch.stack([flat(torch.autograd.grad(e, network.parameters(), retain_graph=True)) for e in errors])
    members = toy_members()[:8]
    handler = perturbation().search
    weights = torch.stack([handler.weights(iteration, members, errors.detach()) for iteration in range(4000)])
    mean = weights.mean(0) @ each / 8
    error = ((weights.var(0)[:, None] * each.square()).sum(0) / 4000).sqrt() / 8
    plain = each.mean(0)
    assert bool(((mean - plain).abs() <= 5 * error).all())
    assert float(weights.var(0).min()) > 0.05


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_a_network_that_diverged_is_no_observation(caplog):
    def spoil(engine):
        next(engine.network.parameters()).data.fill_(torch.nan)

    job = toy_job(perturbation(), extra=(At(IterationEvents.BACKWARD_COMPLETED, spoil, 3),), iterations=4)
    with caplog.at_level(logging.WARNING):
        job.run()
    assert job.handler.search.windows == []
    assert scales(job.history[3]) == scales(job.history[0])
    assert "gap" not in job.history[2]
    assert "iteration 3: the probe shows no finite gap" in caplog.text


def test_a_probe_without_two_groups_is_no_observation():
    job = toy_job(perturbation(probe_members=torch.full((24, 2), -1)), iterations=4).run()
    assert job.handler.search.windows == []
    assert scales(job.history[3]) == scales(job.history[0])


def test_loss_scaling_sees_the_weighted_loss():
    """A scale of 1024, which cancels in the optimiser's step."""

    def replace_scaler(engine):
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    plain = toy_job(perturbation(), optimizer=torch.optim.SGD).run()
    setter = At(Events.STARTED, replace_scaler)
    scaled = toy_job(perturbation(), extra=(setter,), optimizer=torch.optim.SGD, amp=True).run()
    assert torch.allclose(scaled.weights(), plain.weights(), rtol=1e-6, atol=1e-7)


def test_the_record_is_written_after_each_window(tmp_path):
    job = toy_job(perturbation(folder=tmp_path), iterations=7).run()
    rows = list(csv.DictReader((tmp_path / "perturbation.csv").open()))
    assert [row["iteration"] for row in rows] == ["3", "6"]
    assert [float(row["gap"]) for row in rows] == [job.history[2]["gap"], job.history[5]["gap"]]
    assert float(rows[1]["scale/sex/male"]) == job.history[5]["scale/sex/male"]
    assert (tmp_path / "perturbation.png").read_bytes().startswith(b"\x89PNG")


def test_it_says_what_it_does(caplog):
    with caplog.at_level(logging.INFO, logger="bundle.fairdiffusion.handler"):
        toy_job(perturbation(), iterations=1).run()
    assert "perturbation: repaired, a decision every 3 iterations for race/asian, race/black" in caplog.text


def test_what_cannot_work_is_refused():
    with pytest.raises(InputError, match="mode 'fair': give repaired or published"):
        perturbation(mode="fair")
    with pytest.raises(InputError, match="give probe and probe_members"):
        perturbation(probe=None)
    with pytest.raises(InputError, match="window 0"):
        perturbation(window=0)
    with pytest.raises(InputError, match=r"exploitation 1.5: give .* from 0 to 1"):
        perturbation(exploitation=1.5)
    for change in ({"beta": -1}, {"num_initial": 0}, {"history": 0}, {"least": 0}):
        with pytest.raises(InputError, match="beta may not be negative, the others are 1 or more"):
            perturbation(**change)
    with pytest.raises(InputError, match="set accumulation_steps to 1"):
        toy_job(perturbation(), accumulation_steps=2).run()
    job = toy_job(perturbation())
    At(Events.ITERATION_STARTED, lambda engine: engine.state.batch.pop("index")).attach(job.trainer)
    with pytest.raises(InputError, match="hold no 'index'"):
        job.run()


def dro():
    return WeightedLoss(GroupDRO(GROUPS, step=0.5), toy_members())


def _process(rank: int, size: int, store: str, folder) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    found = {}
    for mode in ("repaired", "published"):
        job = toy_job(perturbation(mode=mode), optimizer=torch.optim.SGD, distributed=True).run()
        found[mode] = {"weights": job.weights(), "scales": [scales(entry) for entry in job.history]}
    job = toy_job(dro(), optimizer=torch.optim.SGD, distributed=True).run()
    found["dro"] = {"weights": job.weights(), "q": job.handler.weighting.q}
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_agree_and_are_one_with_all(tmp_path):
    """Half of each batch over gloo with DDP: one set of scales, and the network of one process with whole batches."""
    torch.multiprocessing.spawn(_process, (2, str(tmp_path / "store"), tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    one = toy_job(perturbation(), optimizer=torch.optim.SGD).run()

    def agree(mode):
        assert first[mode]["scales"] == second[mode]["scales"]

    only_repaired(agree)
    assert torch.equal(first["repaired"]["weights"], second["repaired"]["weights"])
    assert torch.allclose(first["repaired"]["weights"], one.weights(), rtol=1e-5, atol=1e-6)
    expected = torch.tensor([scales(entry) for entry in one.history])
    assert torch.allclose(torch.tensor(first["repaired"]["scales"]), expected, atol=1e-3)
    one = toy_job(dro(), optimizer=torch.optim.SGD).run()
    for part in (first["dro"], second["dro"]):
        assert torch.allclose(part["weights"], one.weights(), rtol=1e-5, atol=1e-6)
        assert torch.allclose(part["q"], one.handler.weighting.q)


class State:
    """An engine after the forward pass of a batch of 32 latents."""

    def __init__(self, prediction, label):
        self.state, self.iteration = self, 1
        self.batch, self.output = {"index": torch.arange(32) % 24}, {"pred": prediction, "label": label}


def seconds(action, repeats):
    """Median time of an action."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.mark.slow
def test_an_iteration_costs_at_most_three_in_a_hundred_more():
    """The shipped denoiser on 32 latents of 4 x 16 x 16: loss and its gradient, weighted and plain, in medians."""
    parser = ConfigParser()
    parser.read_config("configs/common.yaml")
    network = parser.get_parsed_content("denoiser_def")
    x, context, steps = torch.randn(32, 4, 16, 16), torch.randn(32, 24, 64), torch.randint(1000, (32,))
    label = torch.randn_like(x)

    def iteration():
        nn.functional.mse_loss(network(x, steps, context), label).backward()

    prediction = torch.randn_like(x).requires_grad_()
    handler = perturbation()
    assert isinstance(handler.search, Repaired)

    def weighted():
        engine = State(prediction, label)
        reweigh(engine, handler.members, handler.search)
        engine.output["loss"].backward()

    whole = seconds(iteration, 5)
    added = seconds(weighted, 200) - seconds(lambda: nn.functional.mse_loss(prediction, label).backward(), 200)
    print(f"iteration {1000 * whole:.1f} ms, added {1000 * added:.2f} ms, {100 * added / whole:.2f} %")
    assert added <= 0.03 * whole
