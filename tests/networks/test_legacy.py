"""Networks of MONAI core with the weights of their predecessors, against these: the old forward is the reference."""

import sys

import monai
import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import nn

from bundle.errors import InputError
from bundle.networks import legacy

SMALL = {"spatial_dims": 2, "channels": [8, 16], "num_res_blocks": 1, "norm_num_groups": 4}
LOCAL = {"with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False}
AUTOENCODER = SMALL | LOCAL | {"in_channels": 1, "out_channels": 1, "latent_channels": 3}
DENOISER = SMALL | {"in_channels": 3, "out_channels": 3, "num_head_channels": 4}
TEXT = {"with_conditioning": True, "cross_attention_dim": 6}
PLAIN, ATTENTION = {"attention_levels": [False, False]}, {"attention_levels": [False, True]}

NETWORKS = {
    "autoencoder": (AutoencoderKL, AUTOENCODER | PLAIN),
    "autoencoder_attention": (AutoencoderKL, AUTOENCODER | ATTENTION),
    "autoencoder_nonlocal": (AutoencoderKL, AUTOENCODER | PLAIN | dict.fromkeys(LOCAL, True)),
    "autoencoder_without_projection": (AutoencoderKL, AUTOENCODER | ATTENTION | {"include_fc": False}),
    "autoencoder_3d": (AutoencoderKL, AUTOENCODER | ATTENTION | {"spatial_dims": 3}),
    "denoiser": (DiffusionModelUNet, DENOISER | PLAIN),
    "denoiser_attention": (DiffusionModelUNet, DENOISER | ATTENTION),
    "denoiser_without_projection": (DiffusionModelUNet, DENOISER | ATTENTION | {"include_fc": False}),
    "denoiser_updown": (DiffusionModelUNet, DENOISER | ATTENTION | {"resblock_updown": True}),
    "denoiser_text": (DiffusionModelUNet, DENOISER | ATTENTION | TEXT),
    "denoiser_text_layers": (DiffusionModelUNet, DENOISER | ATTENTION | TEXT | {"transformer_num_layers": 2}),
    "denoiser_classes": (DiffusionModelUNet, DENOISER | ATTENTION | {"num_class_embeds": 3}),
    "denoiser_3d": (DiffusionModelUNet, DENOISER | ATTENTION | TEXT | {"spatial_dims": 3}),
}


def predecessor(kind, arguments):
    """The old network with random weights everywhere: its own leave the last layers of a U-Net at zero."""
    named = {key: value for key, value in arguments.items() if key not in ("include_fc", "channels")}
    old = getattr(legacy.package("networks.nets"), kind.__name__)(num_channels=arguments["channels"], **named)
    torch.manual_seed(0)
    for parameter in old.parameters():
        nn.init.normal_(parameter, std=0.2)
    return old.eval()


@torch.no_grad()
def outputs(network, arguments):
    """In single precision, for inputs of the test's own."""
    torch.manual_seed(1)
    images = torch.randn(2, arguments["in_channels"], *[8] * arguments["spatial_dims"])
    if "latent_channels" in arguments:
        mean, deviation = network.encode(images)
        return torch.cat([mean.flatten(), deviation.flatten(), network.decode(mean).flatten()])
    given = {"context": torch.randn(2, 4, 6)} if "cross_attention_dim" in arguments else {}
    classes = {"class_labels": torch.tensor([2, 1])} if "num_class_embeds" in arguments else {}
    return network(images, timesteps=torch.tensor([10, 900]), **given, **classes)


def saved(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_converted_networks_do_what_the_old_ones_did(name, tmp_path):
    kind, arguments = NETWORKS[name]
    old, new = predecessor(kind, arguments), kind(**arguments).eval()
    difference = legacy.load_legacy(new, arguments, saved(old.state_dict(), tmp_path / "old.pth"))
    assert difference < 1e-12  # in double precision
    expected = outputs(old, arguments)
    assert expected.std() > 0.1
    assert (outputs(new, arguments) - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ["autoencoder_attention", "autoencoder_nonlocal", "denoiser_attention"])
def test_cores_own_conversion_is_at_fault(name):
    """It applies projections that were never applied; once it no longer does, this module may go."""
    kind, arguments = NETWORKS[name]
    old, new = predecessor(kind, arguments), kind(**arguments).eval()
    new.load_old_state_dict(dict(old.state_dict()))
    assert (outputs(new, arguments) - outputs(old, arguments)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["autoencoder_attention", "denoiser_attention"])
def test_the_proof_finds_what_names_cannot(name, monkeypatch, tmp_path):
    """With projections applied every tensor fits, and only the outputs tell."""
    kind, arguments = NETWORKS[name]
    old, new = predecessor(kind, arguments), kind(**arguments)
    before = {key: value.clone() for key, value in new.state_dict().items()}
    correct = legacy._core_state

    def applied(state, network):
        core = correct(state, network)
        for key in core:
            if ".attn.out_proj." in key:
                core[key] = state[key.replace(".attn.out_proj.", ".proj_attn.")]
        return core

    monkeypatch.setattr(legacy, "_core_state", applied)
    with pytest.raises(InputError, match=r"old.pth: outputs of core's network and of the old one differ by \d.*not us"):
        legacy.load_legacy(new, arguments, saved(old.state_dict(), tmp_path / "old.pth"))
    assert all(torch.equal(before[key], value) for key, value in new.state_dict().items())


def test_no_number_is_no_proof(tmp_path):
    kind, arguments = NETWORKS["denoiser"]
    state = predecessor(kind, arguments).state_dict()
    state["conv_in.conv.bias"].fill_(torch.nan)
    with pytest.raises(InputError, match="differ by nan; not usable"):
        legacy.load_legacy(kind(**arguments), arguments, saved(state, tmp_path / "old.pth"))


def test_outputs_of_zero_are_no_proof(tmp_path):
    kind, arguments = NETWORKS["denoiser"]
    state = predecessor(kind, arguments).state_dict()
    for part in ("weight", "bias"):
        state[f"out.2.conv.{part}"].zero_()
    with pytest.raises(InputError, match="old.pth: outputs of the old network are 0 and prove nothing; give weights"):
        legacy.load_legacy(kind(**arguments), arguments, saved(state, tmp_path / "old.pth"))


def test_checkpoints_and_networks_in_parallel(tmp_path):
    kind, arguments = NETWORKS["denoiser_text"]
    old, new = predecessor(kind, arguments), kind(**arguments).eval()
    parallel = {f"module.{key}": value for key, value in old.state_dict().items()}
    legacy.load_legacy(new, arguments, saved({"epoch": 3, "diffusion": parallel}, tmp_path / "old.pth"))
    assert torch.allclose(outputs(new, arguments), outputs(old, arguments), atol=1e-6)


def test_how_a_network_computes_is_left_to_it(tmp_path):
    """The old ones refuse flash attention without a GPU, and the proof is in double precision."""
    kind, arguments = NETWORKS["denoiser_text"]
    old, computed = predecessor(kind, arguments), {"use_flash_attention": True, "upcast_attention": True}
    new = kind(**arguments, **computed).eval()
    legacy.load_legacy(new, arguments | computed, saved(old.state_dict(), tmp_path / "old.pth"))
    assert torch.allclose(outputs(new, arguments), outputs(old, arguments), atol=1e-5)


def drop(state):
    del state["encoder.blocks.0.conv.weight"]


def add(state):
    state["extra.weight"] = torch.zeros(1)


def widen(state):
    state["encoder.blocks.0.conv.bias"] = torch.zeros(9)


@pytest.mark.parametrize(
    ("damage", "changed", "reason"),
    [
        (drop, {}, "AutoencoderKL: encoder.blocks.0.conv.weight missing; declare the network that it was trained as"),
        (add, {}, "extra.weight unexpected; declare"),
        (widen, {}, "encoder.blocks.0.conv.bias of another shape; declare"),
        (
            None,
            {"attention_levels": [True, True]},
            r"encoder.blocks.2.norm.weight, .* and \d+ more missing; .*; declare",
        ),
        (None, {"use_combined_linear": True}, "missing; .*leave include_fc and use_combined_linear at their defaults"),
        (None, {"use_convtranspose": True}, "use_convtranspose: core's kernels have another size than the old ones"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(damage, changed, reason, tmp_path):
    kind, arguments = NETWORKS["autoencoder_attention"]
    state = predecessor(kind, arguments).state_dict()
    if damage:
        damage(state)
    new = kind(**arguments | changed)
    before = {key: value.clone() for key, value in new.state_dict().items()}
    with pytest.raises(InputError, match=reason) as caught:
        legacy.load_legacy(new, arguments | changed, saved(state, tmp_path / "old.pth"))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in new.state_dict().items())


def test_transformers_applied_their_projections(tmp_path):
    kind, arguments = NETWORKS["denoiser_text"]
    path = saved(predecessor(kind, arguments).state_dict(), tmp_path / "old.pth")
    without = arguments | {"include_fc": False}
    with pytest.raises(InputError, match="out_proj.*unexpected; leave include_fc"):
        legacy.load_legacy(kind(**without), without, path)


def test_only_two_networks_are_read(tmp_path):
    path = saved({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, tmp_path / "old.pth")
    with pytest.raises(InputError, match="Linear: not read from old files"):
        legacy.load_legacy(nn.Linear(2, 2), {"in_features": 2, "out_features": 2}, path)


def test_old_modules_find_what_has_moved(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("generative")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(monai.config, "IgniteInfo", raising=False)
    with pytest.raises(ImportError, match="IgniteInfo"):
        __import__("generative.networks.schedulers")
    assert legacy.package("networks.schedulers").DDIMScheduler
    monkeypatch.setattr(monai.config, "IgniteInfo", "as MONAI has it")
    legacy.package("networks.nets")
    assert monai.config.IgniteInfo == "as MONAI has it"


def test_without_the_old_package_nothing_is_converted(monkeypatch, tmp_path):
    kind, arguments = NETWORKS["denoiser"]
    path = saved(predecessor(kind, arguments).state_dict(), tmp_path / "old.pth")
    for name in [name for name in sys.modules if name.startswith("generative")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "generative", None)
    with pytest.raises(InputError, match="monai-generative: .*; install it as requirements.txt names it"):
        legacy.load_legacy(kind(**arguments), arguments, path)
