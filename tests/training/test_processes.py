"""Two processes train as one: within a network, in every job, and after one of them was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from torch import nn

from bundle.errors import InputError
from bundle.randomness import local_part
from bundle.training import processes
from bundle.training.losses import ContrastiveLoss, LabelLoss
from bundle.training.processes import Together

BATCH = 6
LABELS = torch.tensor([0, 1, -1, -1, 1, -1])  # more are known in the first half


class Network(nn.Module):
    """All by which the images of a batch meet: statistics, dropout, and a draw like that of an autoencoder."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
        self.head = nn.Linear(8 * 16, 2)

    def forward(self, images):
        logits = self.head(self.features(images))
        return logits + 0.1 * torch.randn_like(logits)


def trained(wrap=lambda network: network):
    """Parameters and buffers after three steps on labelled images, and on pairs."""
    torch.manual_seed(0)
    network, images, pairs = Network(), torch.randn(3, BATCH, 1, 6, 6), torch.randn(3, BATCH, 2)
    wrapped = wrap(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss, contrastive = LabelLoss(), ContrastiveLoss()
    for batch, other in zip(images, pairs):
        logits = wrapped(local_part(batch))
        features = nn.functional.normalize(logits, dim=1), nn.functional.normalize(local_part(other), dim=1)
        total = loss(logits, local_part(LABELS)) + contrastive((*features, torch.tensor(3.0)), None)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return {name: value.clone() for name, value in network.state_dict().items()}


def _process(rank, size, store, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    state = trained(lambda network: Together(network, torch.device("cpu")))
    torch.save(state, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_statistics_dropout_draws_and_losses_are_those_of_the_whole_batch(tmp_path):
    one = trained()
    torch.multiprocessing.spawn(_process, (2, str(tmp_path / "store"), tmp_path), nprocs=2)
    for rank in (0, 1):
        two = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name, value in one.items():
            assert torch.allclose(two[name].double(), value.double(), rtol=1e-5, atol=1e-6), name


def test_it_is_started_by_torchrun(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(InputError, match="start by torchrun"):
        processes.join()


SIZES = {"batch_size": 4, "iterations": 2}
JOBS = {
    "autoencoder": ("train_autoencoder.yaml", {}),
    "guide": ("train_classifier.yaml", {}),  # with batch statistics and dropout
    "judge": ("train_classifier.yaml", {"role": "judge"}),
    "clip": ("train_clip.yaml", {}),
    "diffusion": ("train_diffusion.yaml", {}),
    "align": ("align.yaml", {"anchor_batch_size": 4, "pool_size": 8, "num_snapshots": 1}),
    "fair": ("train_fairdiffusion.yaml", {"probe_size": 16}),
}


@pytest.fixture
def start(root, small_cohort, random_models, tmp_path):
    """Starts a job in as many processes as asked for; its steps are plain, since Adam makes noise of gradients of 0."""
    plain = tmp_path / "plain.yaml"
    optimizer = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"}
    plain.write_text(yaml.safe_dump({"optimizer": {**optimizer, "momentum": 0.9}}))

    def run(config, folder, number, **options):
        files = [
            f"configs/{config}",
            str(small_cohort),
            str(plain),
            *(["configs/multi_gpu.yaml"] if number > 1 else []),
        ]
        models = shutil.copytree(random_models, f"{folder}_models", dirs_exist_ok=True)
        given = {"cache_dir": small_cohort.parent / "cache", "models_dir": models, "output_dir": folder}
        given["tracking_uri"] = f"sqlite:///{folder}.db"
        words = [word for name, value in {**given, **options}.items() for word in (f"--{name}", str(value))]
        job = ["-m", "monai.bundle", "run", "training", "--config_file", str(files), *words]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
        command = [sys.executable, *(torchrun if number > 1 else []), *job]
        return subprocess.Popen(
            command, cwd=root, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    return run


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["objects"]["network"]


def finish(process):
    _, printed = process.communicate(timeout=900)
    assert process.returncode == 0, printed[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_give_the_parameters_of_one(start, tmp_path, name):
    config, options = JOBS[name]
    for number in (1, 2):
        finish(start(config, tmp_path / str(number), number, **SIZES, **options))
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for key, value in one.items():
        assert torch.allclose(two[key].double(), value.double(), rtol=1e-4, atol=1e-5), key


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_the_next_start_goes_on(start, tmp_path):
    config, options = JOBS["align"]
    options = {**SIZES, **options, "iterations": 8}
    finish(start(config, tmp_path / "whole", 2, **options))
    stopped = start(config, tmp_path / "stopped", 2, **options)
    while not (tmp_path / "stopped" / "checkpoint.pt").is_file():
        assert stopped.poll() is None
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(stopped.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, printed = stopped.communicate(timeout=120)
    assert stopped.returncode == 1
    assert "Signal 9 (SIGKILL) received by PID" in printed
    assert not (tmp_path / "stopped" / "model.pt").is_file()
    finish(start(config, tmp_path / "stopped", 2, **options))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    for key, value in whole.items():
        assert torch.allclose(resumed[key], value, rtol=1e-5, atol=1e-6), key
