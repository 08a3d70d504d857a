"""Released weights: half precision on disk, fp32 in use, and errors that name the file."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.errors import InputError
from bundle.files import write_tensors
from bundle.weights import digest, load_weights, save_weights


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


@pytest.fixture
def saved(tmp_path):
    trained = network()
    trained[1].num_batches_tracked.fill_(70_000)  # too large for half precision; an integer stays one
    return trained, save_weights(trained, tmp_path / "folder" / "net.pt")


def test_there_and_back_in_half_precision(saved):
    trained, path = saved
    loaded = load_weights(network(), path)
    for name, value in trained.state_dict().items():
        again = loaded.state_dict()[name]
        assert again.dtype == value.dtype
        assert torch.allclose(again.double(), value.double(), rtol=2**-11)
    assert loaded[1].num_batches_tracked.item() == 70_000
    assert torch.load(path, weights_only=True)["0.weight"].dtype == torch.float16


def test_single_numbers_keep_their_precision(tmp_path):
    holder = nn.Module()
    holder.register_buffer("temperature", torch.tensor(1.2345678))
    path = save_weights(holder, tmp_path / "net.pt")
    assert float(torch.load(path, weights_only=True)["temperature"]) == pytest.approx(1.2345678, abs=1e-7)


def test_without_a_file_a_network_keeps_its_weights():
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    loaded = load_weights(network, None)
    assert torch.equal(loaded.weight, before)
    assert not loaded.weight.requires_grad


def test_frozen_or_trainable(saved):
    frozen, free = load_weights(network(), saved[1]), load_weights(network(), saved[1], frozen=False)
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert free.training
    assert all(p.requires_grad for p in free.parameters())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such weights; run the job that writes them"),
        (lambda path: path.write_bytes(b""), "not readable as weights"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "not readable as weights"),
        (lambda path: torch.save([1, 2], path), "does not fit the config's network"),
        (lambda path: save_weights(network(5), path), "does not fit .*size mismatch.*; use the weights made for it"),
    ],
)
def test_bad_files_are_named(saved, damage, message):
    path = saved[1]
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(network(), path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_digest_follows_every_weight_and_survives_a_release(saved):
    trained, path = saved
    assert digest(load_weights(network(), path)) == digest(trained)
    with torch.no_grad():
        trained[1].running_mean[2] += 0.1
    assert digest(load_weights(network(), path)) != digest(trained)


def _die_half_way(path: Path) -> None:
    def half(self, content):
        with self.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes = half
    write_tensors({"value": torch.zeros(1000)}, path)


def test_a_kill_in_the_middle_of_a_write_leaves_the_file_before(tmp_path):
    path = write_tensors({"value": torch.ones(1000)}, tmp_path / "checkpoint.pt")
    process = get_context("fork").Process(target=_die_half_way, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert torch.load(path, weights_only=True)["value"].sum() == 1000
    write_tensors({"value": torch.full((1000,), 2.0)}, path)
    assert torch.load(path, weights_only=True)["value"].sum() == 2000
