"""Networks of a few hundred parameters, and the alignment of them on MONAI's stock trainer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from torch.nn.parallel import DistributedDataParallel

from bundle.alignment.handler import SubgroupAlignment
from bundle.alignment.options import AlignmentOptions
from bundle.alignment.reference import reference_pool
from bundle.alignment.step import AlignmentStep
from bundle.alignment.targets import IntegralAction
from bundle.generation import Sampler, draw
from bundle.networks.classifier import AttributeClassifier
from bundle.sampling import Schedule
from bundle.training.average import Averaging, WeightAverage
from bundle.training.checkpoint import Checkpoint
from bundle.training.draws import Batches, DenoisingBatch, DenoisingDraw, LatentDataset

LATENT = (2, 4, 4)


def scheduler(prediction: str = "v_prediction", num_steps: int = 1000) -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=num_steps,
        schedule="scaled_linear_beta",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
    )


class Denoiser(nn.Module):
    """A smooth function of image, time and text, with MONAI's interface."""

    def __init__(self, channels: int = 2, width: int = 3, hidden: int = 6, dropout: float = 0.0):
        super().__init__()
        self.enter = nn.Conv2d(channels, hidden, 3, padding=1)
        self.time = nn.Linear(1, hidden)
        self.text = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        shift = self.time(timesteps.to(x.dtype)[:, None] / 1000) + self.text(context.mean(1))
        return self.leave(self.dropout((self.enter(x) + shift[:, :, None, None]).tanh()))


class Decoder(nn.Module):
    """Latents (N, 2, 4, 4) to images (N, 1, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def decode(self, latents: Tensor) -> Tensor:
        return self.mix(interpolate(latents, scale_factor=2, mode="bilinear")).sigmoid()


class ImageTower(nn.Module):
    """Stands in for CLIP: unit features of images."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(64, 5)

    def image_features(self, images: Tensor) -> Tensor:
        return normalize(self.project(images.flatten(1)), dim=1)


def guide(scale: float = 8.0, groups: int = 2) -> AttributeClassifier:
    """A linear classifier of images, undecided at medium grey; ``scale`` is its confidence."""
    linear = nn.Linear(64, groups)
    with torch.no_grad():
        linear.weight.mul_(scale)
        linear.bias.copy_(-0.5 * linear.weight.sum(1))
    return frozen(AttributeClassifier(nn.Sequential(nn.Flatten(), linear)))


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def toy_step(cache: Path, **changes) -> tuple[nn.Module, AlignmentStep]:
    """A denoiser and an iteration of its alignment; ``changes`` as in :func:`changed`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser, decoder, clip, classifier = Denoiser(), frozen(Decoder()), frozen(ImageTower()), guide()
        contexts, null_context = torch.randn(3, 2, 3), torch.zeros(1, 2, 3)
    schedule = Schedule.from_scheduler(scheduler(), 6)
    sampler = Sampler(schedule, 2.0, contexts, null_context, decoder.decode)
    draws = draw(0, "pool", 24, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), LATENT)
    settings = {
        "num_steps": len(schedule),
        "pool_size": len(draws),
        "batch_size": 8,
        "num_followed": 3,
        "micro_batch": 4,
    }
    step = AlignmentStep(
        options=AlignmentOptions(**settings),
        targets={"all": torch.tensor([0.6, 0.4], dtype=torch.float64)},
        strata=["all"] * 3,
        sampler=sampler,
        guide=classifier,
        clip=clip,
        pool=reference_pool(denoiser, sampler, classifier, clip, draws, cache),
        rates=torch.tensor([[0.95, 0.05], [0.1, 0.9]], dtype=torch.float64),
        integral=IntegralAction(gain=0.1, start=1.0),
        seed=0,
    )
    return denoiser, changed(step, **changes)


def changed(step: AlignmentStep, **changes) -> AlignmentStep:
    """The step with other parts or other options."""
    options = {name: changes.pop(name) for name in list(changes) if hasattr(step.options, name)}
    return replace(step, options=replace(step.options, **options), **changes)


class At:
    """Does something at one event of one iteration (counted from 1, as Ignite counts), or of all."""

    def __init__(self, event, action, iteration=None):
        self.event, self.action, self.iteration = event, action, iteration

    def attach(self, engine):
        engine.add_event_handler(self.event, self)

    def __call__(self, engine):
        if self.iteration in (None, engine.state.iteration):
            self.action(engine)


def toy_trainer(
    network: nn.Module, optimiser: torch.optim.Optimizer, draws: Batches, distributed: bool = False, **changes
) -> SupervisedTrainer:
    """Denoising training on the CPU; ``changes`` are arguments of the trainer, ``epoch_length`` among them."""
    arguments = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": draws,
        "network": DistributedDataParallel(network) if distributed else network,
        "optimizer": optimiser,
        "loss_function": nn.MSELoss(),
        "inferer": DiffusionInferer(scheduler()),
        "prepare_batch": DenoisingBatch(scheduler()),
        "decollate": False,
    }
    return SupervisedTrainer(**{**arguments, **changes})


@dataclass
class TrainerJob:
    """A trainer of a network, and the numbers of every iteration."""

    trainer: SupervisedTrainer
    network: nn.Module
    history: list[dict[str, float]] = field(default_factory=list, kw_only=True)

    def __post_init__(self):
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def run(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CUDA autocast and gradient scaler on a machine without CUDA
            self.trainer.run()
        return self

    def weights(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.network.parameters()).detach()

    def _note(self, engine: Engine) -> None:
        output = engine.state.output.items()
        self.history.append({name: float(value) for name, value in output if isinstance(value, float)})


@dataclass
class Job(TrainerJob):
    """With all that the alignment attaches to it."""

    average: WeightAverage
    optimizer: torch.optim.Optimizer
    alignment: SubgroupAlignment

    def averaged_weights(self) -> Tensor:
        return torch.cat([value.flatten() for value in self.average.state_dict().values()])

    @property
    def totals(self) -> list[float]:
        return [output["total"] for output in self.history]


def toy_job(
    folder: Path,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    handler: dict | None = None,
    extra: tuple = (),
    interval: int = 1,
    settings: dict | None = None,
    epoch_length: int = 3,
    distributed: bool = False,
    **trainer_changes,
) -> Job:
    """The alignment of the toy networks with an anchor, a cosine decay, an average and a checkpoint in ``folder``.

    Args:
        handler: arguments of :class:`SubgroupAlignment`.
        extra: handlers put in front of the others.
        trainer_changes: arguments of the trainer.
    """
    network, step = toy_step(folder.parent / "cache")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        latents, captions, judge = torch.randn(20, *LATENT), torch.randint(3, (20, 1)), guide(scale=6.0)
    dataset = LatentDataset(latents, captions, step.sampler.contexts)
    draws = Batches(DenoisingDraw(dataset, step.sampler.null_context, 1000, batch_size=4, seed=0, purpose="anchor"))
    optimiser = optimizer(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=12)
    average = WeightAverage(network, 0.9)
    alignment = SubgroupAlignment(step, **{"judge": judge, **(handler or {})})
    objects = {
        "network": network,
        "optimizer": optimiser,
        "schedule": schedule,
        "average": average,
        "alignment": alignment,
    }
    handlers = [
        *extra,
        alignment,
        Averaging(average),
        LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
        Checkpoint(folder / "checkpoint.pt", objects, draws, settings or {"seed": 0}, interval),
    ]
    trainer = toy_trainer(
        network,
        optimiser,
        draws,
        distributed,
        **{"epoch_length": epoch_length, "train_handlers": handlers, **trainer_changes},
    )
    return Job(trainer, network, average, optimiser, alignment)
