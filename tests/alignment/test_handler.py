"""The handler on MONAI's stock trainer: gradients, failures, restarts, and several processes."""

import logging
import math

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from bundle.errors import InputError
from tests.toy import At, toy_job

TERMS = {
    "alignment",
    "consistency",
    "anchor",
    "total",
    "alignment_norm",
    "anchor_norm",
    "gradient_cosine",
    "share_0",
    "share_1",
    "agreement",
    "skipped",
}


def flat_gradient(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_terms_reach_the_output(folder):
    job = toy_job(folder).run()
    assert len(job.history) == 3
    for output in job.history:
        assert set(output) == TERMS
        assert output["share_0"] + output["share_1"] == pytest.approx(1)
        # anchor_weight .5, consistency 4
        parts = 0.5 * output["anchor"] + output["alignment"] + 4 * output["consistency"]
        assert output["total"] == pytest.approx(parts)
    assert torch.is_tensor(job.trainer.state.output["loss"])


def test_two_seeded_iterations_are_pinned(folder):
    """Numbers of this code; a change that moves them changes what every run does."""
    job = toy_job(folder, epoch_length=2).run()
    assert job.totals == pytest.approx([0.943080, 0.959943], rel=1e-4)


def test_the_gradient_is_the_clipped_alignments_plus_the_weighted_anchors(folder):
    """Norms as logged: the alignment's is clipped to .1 by itself, the anchor's is not touched."""
    seen = []
    look = At(IterationEvents.BACKWARD_COMPLETED, lambda engine: seen.append(flat_gradient(engine.network)))
    # Once in front of the alignment in the list of handlers, where only the anchor's gradient is there, once behind it.
    job = toy_job(folder, torch.optim.SGD, {"max_norm": 0.1}, extra=(look,), epoch_length=1)
    At(look.event, look.action).attach(job.trainer)
    raw = torch.cat([part.flatten() for part in job.alignment.step(job.network, 0).gradients])
    job.alignment.step.integral.sum = None
    job.run()
    anchor, both = seen
    added = both - 0.5 * anchor
    output = job.history[0]
    assert output["alignment_norm"] == pytest.approx(float(raw.norm()), rel=1e-5)
    assert output["alignment_norm"] > 0.1
    assert output["anchor_norm"] == pytest.approx(float(0.5 * anchor.norm()), rel=1e-5)
    assert torch.allclose(added, 0.1 * raw / raw.norm(), atol=1e-6)
    cosine = nn.functional.cosine_similarity(raw, anchor, dim=0)
    assert output["gradient_cosine"] == pytest.approx(float(cosine), abs=1e-5)


def test_a_gradient_below_the_limit_is_not_lengthened(folder):
    jobs = [toy_job(folder, handler={"max_norm": norm}, epoch_length=2) for norm in (100.0, 1000.0)]
    for job in jobs:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        job.run()
    assert torch.equal(jobs[0].weights(), jobs[1].weights())


def test_without_anchor_only_the_alignment_moves_the_weights(folder):
    """Plain gradient descent at rate .01 by a gradient of norm .1: the first step is .001 long."""
    job = toy_job(folder, torch.optim.SGD, {"anchor_weight": 0.0, "max_norm": 0.1}, epoch_length=1)
    start = job.weights()
    job.run()
    assert job.history[0]["anchor_norm"] == 0
    assert float((job.weights() - start).norm()) == pytest.approx(0.01 * 0.1, rel=1e-4)


@pytest.mark.parametrize("change", [{"accumulation_steps": 2}, {"compile": True}])
def test_a_trainer_that_hides_gradients_is_refused(folder, change):
    job = toy_job(folder, **change)
    with pytest.raises(InputError, match="set accumulation_steps to 1 and compile to false"):
        job.run()
    assert job.history == []


class TestNotFinite:
    @staticmethod
    def spoil(engine, value=float("nan")):
        """What one bad batch does: the gradient of the anchor is not finite on this iteration."""
        next(engine.network.parameters()).grad[0] = value

    def job(self, folder, iteration=None, **changes):
        spoiler = At(IterationEvents.BACKWARD_COMPLETED, self.spoil, iteration)
        return toy_job(folder, extra=(spoiler,), **changes)

    def test_the_step_is_skipped_and_nothing_advances(self, folder):
        seen = []
        job = self.job(folder, iteration=2)

        def look(engine):
            gradients = [parameter.grad for parameter in job.network.parameters()]
            integral = job.alignment.step.integral.sum
            sums = None if integral is None else integral.tolist()
            seen.append((gradients, job.weights(), job.averaged_weights(), sums))

        At(Events.ITERATION_COMPLETED, look).attach(job.trainer)
        job.run()
        assert [output["skipped"] for output in job.history] == [0, 1, 0]
        (_, *before), (gradients, *after), (_, *later) = seen
        assert gradients == [None] * len(gradients)
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
        assert before[2] == after[2]
        assert not torch.equal(later[0], after[0])
        assert not torch.equal(later[1], after[1])
        assert later[2] != after[2]
        assert math.isnan(job.history[1]["anchor_norm"])
        assert torch.isfinite(job.weights()).all()

    def test_images_that_are_not_finite_are_a_skipped_step_too(self, folder):
        job = toy_job(folder, epoch_length=2)
        decoder = job.alignment.step.sampler.decode.__self__

        def blow_up(engine):
            decoder.mix.weight.data.fill_(float("inf") if engine.state.iteration == 1 else 0.1)

        At(Events.ITERATION_STARTED, blow_up).attach(job.trainer)
        job.run()
        assert [output["skipped"] for output in job.history] == [1, 0]

    def test_ten_in_a_row_end_the_run(self, folder):
        job = self.job(folder, epoch_length=20)
        with pytest.raises(RuntimeError, match="not finite in 10 iterations in a row; lower the learning rate"):
            job.run()
        assert job.trainer.state.iteration == 10

    def test_nine_do_not(self, folder):
        spoiler = At(IterationEvents.BACKWARD_COMPLETED, lambda e: e.state.iteration == 10 or self.spoil(e))
        job = toy_job(folder, extra=(spoiler,), epoch_length=12).run()
        assert [output["skipped"] for output in job.history] == [1] * 9 + [0] + [1] * 2


class TestScaling:
    """Loss scaling as under AMP, with a scaler that works on a CPU."""

    def job(self, folder, scale, extra=()):
        def replace_scaler(engine):
            engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

        setter = At(Events.STARTED, replace_scaler)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return toy_job(folder, torch.optim.SGD, extra=(setter, *extra), amp=True, epoch_length=2)

    def test_the_scale_cancels(self, folder):
        plain = toy_job(folder, torch.optim.SGD, epoch_length=2).run()
        for scale in (1.0, 65536.0):
            scaled = self.job(folder, scale).run()
            assert torch.allclose(scaled.weights(), plain.weights(), rtol=1e-6, atol=1e-7)
            for mine, theirs in zip(scaled.history, plain.history, strict=True):
                assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)

    def test_an_overflow_is_left_to_the_scaler(self, folder):
        """It skips the optimiser's step and halves its scale; the average and the integral stay as they were."""
        spoiler = At(IterationEvents.BACKWARD_COMPLETED, lambda e: TestNotFinite.spoil(e, float("inf")), 1)
        job = self.job(folder, 1024.0, (spoiler,))
        start = job.weights()
        kept = []
        At(Events.ITERATION_COMPLETED, lambda _: kept.append(job.weights())).attach(job.trainer)
        job.run()
        assert [output["skipped"] for output in job.history] == [1, 0]
        assert torch.equal(kept[0], start)
        assert not torch.equal(kept[1], start)
        assert job.trainer.scaler.get_scale() == 512


class TestAlarm:
    def test_it_sounds_when_guide_and_judge_disagree(self, folder, caplog):
        job = toy_job(folder, handler={"watched": 16, "min_agreement": 1.1}, epoch_length=3)
        with caplog.at_level(logging.WARNING, logger="bundle.alignment.handler"):
            job.run()
        lines = [record.getMessage() for record in caplog.records if "fooling" in record.getMessage()]
        assert len(lines) == 2  # from the second iteration on, 16 images have been watched
        assert "of the last 16 images" in lines[0]
        assert len(job.alignment.agreed) == 16

    def test_a_judge_that_is_the_guide_always_agrees(self, folder):
        job = toy_job(folder)
        job.alignment.judge = job.alignment.step.guide
        job.run()
        assert [output["agreement"] for output in job.history] == [1, 1, 1]

    def test_the_judge_is_optional_and_never_followed(self, folder):
        watched = toy_job(folder).run()
        (folder / "checkpoint.pt").unlink()
        alone = toy_job(folder, handler={"judge": None}).run()
        assert torch.equal(watched.weights(), alone.weights())
        assert math.isnan(alone.history[0]["agreement"])


class Killed(Exception):
    pass


def kill(engine):
    raise Killed


def two_epochs(folder, *extra, interval=1):
    return toy_job(folder, extra=extra, interval=interval, max_epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six iterations that nothing stopped."""
    return two_epochs(tmp_path_factory.mktemp("whole") / "run").run()


class TestRestart:
    @pytest.mark.parametrize("interval", [1, 2])
    @pytest.mark.parametrize("iteration", range(1, 7))
    def test_a_killed_run_goes_on_as_if_it_had_not_been(self, folder, whole, iteration, interval):
        """Killed in the middle of an iteration: with an interval of 2 the last one or two are done again."""
        killed = two_epochs(folder, At(IterationEvents.FORWARD_COMPLETED, kill, iteration), interval=interval)
        with pytest.raises(Killed):
            killed.run()
        resumed = two_epochs(folder, interval=interval).run()
        kept = (iteration - 1) // interval * interval
        assert len(resumed.history) == 6 - kept
        assert [*killed.totals[:kept], *resumed.totals] == pytest.approx(whole.totals, rel=1e-6)
        assert torch.allclose(resumed.weights(), whole.weights(), rtol=1e-6, atol=1e-7)
        assert torch.allclose(resumed.averaged_weights(), whole.averaged_weights(), rtol=1e-6, atol=1e-7)
        assert resumed.alignment.state_dict()["agreed"] == whole.alignment.state_dict()["agreed"]
        assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(whole.optimizer.param_groups[0]["lr"])

    def test_a_finished_run_is_not_done_again(self, folder, whole):
        two_epochs(folder).run()
        again = two_epochs(folder).run()
        assert again.history == []
        assert torch.allclose(again.weights(), whole.weights())

    def test_a_checkpoint_of_other_settings_is_refused(self, folder):
        """When the trainer is built, before any handler starts: the run it belongs to keeps its record."""
        toy_job(folder, settings={"seed": 0, "target": {"male": 0.3}}).run()
        with pytest.raises(InputError, match="made with target = {'male': 0.3}, now None; give another --output_dir"):
            toy_job(folder, settings={"seed": 0, "target": None})

    def test_skipped_steps_and_watched_images_are_counted_on(self, folder):
        job = toy_job(folder).run()
        job.alignment.skipped = 4
        state = job.alignment.state_dict()
        other = toy_job(folder).alignment
        other.load_state_dict(state)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert other.skipped == 4


def _process(rank: int, size: int, store: str, folder) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    job = toy_job(folder, torch.optim.SGD, interval=100, distributed=True).run()
    torch.save({"weights": job.weights(), "history": job.history}, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_half_the_images_each_are_one_with_all(tmp_path):
    """Three steps over gloo, DDP around the denoiser: targets over all images, anchor and alignment reduced once."""
    one = toy_job(tmp_path / "one" / "run", torch.optim.SGD).run()
    folder = tmp_path / "two" / "run"
    folder.mkdir(parents=True)
    torch.multiprocessing.spawn(_process, (2, str(tmp_path / "store"), folder), nprocs=2)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["weights"], second["weights"])
    assert torch.allclose(first["weights"], one.weights(), rtol=1e-6, atol=1e-6)
    for name in ("alignment", "consistency", "share_1", "alignment_norm", "anchor_norm", "agreement"):
        assert [o[name] for o in first["history"]] == pytest.approx([o[name] for o in one.history], rel=1e-4, abs=1e-6)
