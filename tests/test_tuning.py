"""What is tuned, the variants of a network that share the rest, and adapters merged into it."""

import copy

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from bundle.errors import InputError
from bundle.tuning import Trainable, Variant, trainable, tunable
from bundle.weights import digest, load_weights, save_weights


@pytest.fixture
def unet():
    torch.manual_seed(0)
    network = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=2,
        channels=[8, 8],
        attention_levels=[False, True],
        num_res_blocks=1,
        num_head_channels=4,
        norm_num_groups=4,
        with_conditioning=True,
        cross_attention_dim=6,
    )
    for parameter in network.parameters():  # MONAI begins with zeros at the end of each block
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
    return network.eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return {"x": torch.randn(2, 2, 8, 8), "timesteps": torch.tensor([5, 900]), "context": torch.randn(2, 3, 6)}


def moved(network):
    """The trainable parameters after one step of a training of some loss."""
    for parameter in trainable(network).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.1)
    return network


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["all weights", "adapters"])
class TestBoth:
    def test_a_variant_keeps_what_the_network_was(self, unet, inputs, lora):
        before = unet(**inputs).detach()
        network = tunable(unet, lora)
        assert network.training
        reference = Variant(network)
        moved(network)
        assert torch.equal(reference(**inputs), before)
        assert (network(**inputs) - before).abs().max() > 0.01
        assert network.training  # the variant is in eval mode, and the network is put back

    def test_its_state_fits_the_network_without_adapters(self, unet, inputs, lora, tmp_path):
        fresh = copy.deepcopy(unet)
        tuned = Variant(moved(tunable(unet, lora)))
        loaded = load_weights(copy.deepcopy(fresh), save_weights(tuned, tmp_path / "model.pt"))
        fresh.load_state_dict(tuned.state_dict())
        assert torch.allclose(fresh(**inputs), tuned(**inputs), atol=1e-5)
        assert torch.allclose(loaded(**inputs), tuned(**inputs), atol=0.02)  # in half precision

    def test_what_is_trained_survives_a_restart(self, unet, inputs, lora):
        other = copy.deepcopy(unet)
        network = moved(tunable(unet, lora))
        again = tunable(other, lora)
        Trainable(again).load_state_dict(Trainable(network).state_dict())
        assert torch.equal(again(**inputs), network(**inputs))


def test_a_variant_holds_no_more_than_the_adapters(unet):
    whole = sum(parameter.numel() for parameter in unet.parameters())
    network = tunable(unet, {"r": 2})
    held = sum(value.numel() for value in Variant(network).values.values())
    # three matrices of eight and of four attention layers: rank 2 times what goes in and out
    assert 0 < held < whole / 10
    assert all(parameter.requires_grad == (".lora_" in name) for name, parameter in network.named_parameters())


def test_adapters_start_from_their_seed_alone(unet):
    first, second, other = (tunable(copy.deepcopy(unet), {"r": 2}, seed) for seed in (0, 0, 1))
    first, second, other = (torch.cat([v.flatten() for v in trainable(n).values()]) for n in (first, second, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_adapters_without_effect_have_the_digest_of_the_base(unet):
    before = digest(unet)
    assert digest(Variant(tunable(unet, {"r": 2}))) == before


def test_merging_is_that_of_peft():
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    options = {"r": 2, "lora_alpha": 6, "target_modules": ["0", "2"]}
    theirs = get_peft_model(copy.deepcopy(plain), LoraConfig(**options))
    network = moved(tunable(copy.deepcopy(plain), options))
    values = {f"base_model.model.{name}": value for name, value in trainable(network).items()}
    theirs.load_state_dict(values, strict=False)
    assert isinstance(theirs, PeftModel)
    for name, value in theirs.merge_and_unload().state_dict().items():
        assert torch.allclose(Variant(network).state_dict()[name], value, atol=1e-6)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 8}, "rank"),
        ({"r": 8, "target_modules": ["nowhere"]}, "nowhere"),
        ({"r": 8, "target_modules": ["conv"]}, "linear"),
        ({"r": 0}, "r"),
        ({"r": 8, "use_dora": True}, "merged"),
    ],
)
def test_what_cannot_be_tuned_is_refused(unet, lora, message):
    with pytest.raises(InputError, match=message):
        tunable(unet, lora)
