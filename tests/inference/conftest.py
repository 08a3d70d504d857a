"""A generation job of toy networks, as the config puts it together."""

import hashlib

import pytest
import torch
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from torch.utils.data import DataLoader

from bundle.attributes import Attribute
from bundle.inference.dataset import PromptDataset
from bundle.inference.inferer import PromptInferer
from bundle.inference.output import Output
from bundle.inference.prompts import InTurn, Request
from bundle.sampling import Schedule
from tests.toy import LATENT, Decoder, Denoiser, frozen, guide, scheduler

SEX = Attribute("sex", ["female", "male"])


class Words:
    """Stands in for CLIP: a context that depends on the prompt."""

    def context(self, prompts):
        seeds = [int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16) for prompt in prompts]
        return torch.stack([torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class Job:
    """What the config runs: start, evaluator, finish."""

    def __init__(self, folder, number=10, batch_size=4, seed=0, wanted=None, settings=None, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.denoiser, self.decoder, judge = frozen(Denoiser()), frozen(Decoder()), guide()
        wanted = wanted or InTurn([Request("no tumor"), Request("a glioma, woman", "female")])
        networks = {"denoiser": self.denoiser, "judge": judge}
        settings = {"seed": seed, **(settings or {})}
        self.output = Output(folder, wanted, number, judge, SEX, networks, settings, batch_size, **options)
        self.dataset = PromptDataset(wanted, number, seed, LATENT)
        self.inferer = PromptInferer(Words(), Schedule.from_scheduler(scheduler(), 4), 2.0, self.decoder.decode)

    def evaluator(self):
        return SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(
                self.dataset, self.output.batch_size, sampler=range(self.output.done, len(self.dataset))
            ),
            network=self.denoiser,
            inferer=self.inferer,
            prepare_batch=PrepareBatchExtraInput({"prompts": "prompt"}),
            val_handlers=[self.output],
            decollate=False,
        )

    def run(self):
        self.output.start()
        if not self.output.complete:
            self.evaluator().run()
        self.output.finish()
        return self


@pytest.fixture
def job():
    return Job


@pytest.fixture
def files():
    """Content of all files of a folder, hidden ones too, by relative path."""

    def read(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
