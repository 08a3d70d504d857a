"""The command that converts old checkpoints, with the networks that the configs ship."""

import re

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from bundle.networks.legacy import package
from bundle.weights import load_weights
from scripts.convert_checkpoint import convert_checkpoint
from tests.forked import call

PLACES = {"autoencoder": "autoencoder_def::autoencoder", "denoiser": "denoiser_def"}


@pytest.fixture(scope="module")
def config(root):
    parser = ConfigParser(ConfigParser.load_config_file(root / "configs" / "common.yaml"))
    parser.parse()
    return parser


@pytest.fixture(scope="module")
def old(config):
    """Predecessors of the shipped networks, with random weights everywhere."""
    networks = {}
    for name, place in PLACES.items():
        given = {key: config.get_parsed_content(f"{place}::{key}") for key in config[place] if key[0] != "_"}
        kind = getattr(package("networks.nets"), config[place]["_target_"])
        networks[name] = kind(num_channels=given.pop("channels"), **given).eval()
        torch.manual_seed(0)
        for parameter in networks[name].parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return networks


@pytest.fixture
def files(old, tmp_path):
    paths = {name: tmp_path / f"{name}.pth" for name in old}
    for name, network in old.items():
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, paths[name])
    return {name: str(path) for name, path in paths.items()}


@torch.no_grad()
def test_every_job_reads_what_is_written(config, old, files, tmp_path, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    models = tmp_path / "models"
    convert_checkpoint(files["autoencoder"], "autoencoder_def", str(models / "autoencoder.pt"), scale_factor=0.5)
    convert_checkpoint(files["denoiser"], "denoiser_def", str(models / "denoiser.pt"), "configs/align.yaml")
    printed = capsys.readouterr().out.strip().splitlines()
    proof = "outputs differ from the old network's by at most"
    assert printed[-2].startswith(f"{models}/autoencoder.pt: AutoencoderKL, {proof}")
    assert printed[-1].startswith(f"{models}/denoiser.pt: DiffusionModelUNet, {proof}")
    assert sorted(path.name for path in models.iterdir()) == ["autoencoder.pt", "denoiser.pt"]

    autoencoder = load_weights(config.get_parsed_content("autoencoder_def"), models / "autoencoder.pt")
    images = torch.rand(2, 1, 32, 32)
    mean, _ = old["autoencoder"].encode(images)
    assert torch.allclose(autoencoder.encode(images), mean * 0.5, atol=1e-6)
    assert torch.allclose(autoencoder.decode(mean * 0.5), old["autoencoder"].decode(mean), atol=1e-6)

    denoiser = load_weights(config.get_parsed_content("denoiser_def"), models / "denoiser.pt")
    inputs = {"x": torch.randn(2, 4, 16, 16), "timesteps": torch.tensor([3, 900]), "context": torch.randn(2, 5, 64)}
    expected = old["denoiser"](**inputs)
    assert (denoiser(**inputs) - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())


DENOISER = {"_target_": "DiffusionModelUNet", "spatial_dims": 2, "in_channels": 4, "out_channels": 4}
ENTRIES = {
    "old_name": DENOISER | {"num_channels": [8, 8]},
    "mistyped": DENOISER | {"colour": 3},
    "reference": DENOISER | {"channels": "@nowhere"},
    "unknown": DENOISER | {"_target_": "NoSuchNet"},
    "no_network": {"channels": [8, 8]},
}


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("autoencoder", {"network": "autoencoder_def"}, "--scale_factor: not given; give that of the old training"),
        ("autoencoder", {"network": "autoencoder_def", "scale_factor": 0}, "--scale_factor: 0; give"),
        ("autoencoder", {"network": "autoencoder_def", "scale_factor": "one"}, "--scale_factor: one; give"),
        ("denoiser", {"scale_factor": 1}, "--scale_factor: denoiser_def has no latents to scale; leave it out"),
        ("autoencoder", {}, "autoencoder.pth: does not fit DiffusionModelUNet: "),
        ("nothing", {}, "nothing.pth: no such weights"),
        ("denoiser", {"network": "seed"}, "--network seed: the config declares none there"),
        ("denoiser", {"network": "no_network"}, "--network no_network: the config declares none there"),
        ("denoiser", {"network": "guide_def"}, "AttributeClassifier: not read from old files"),
        ("denoiser", {"network": "old_name"}, "num_channels of old_name is the old name; write channels"),
        ("denoiser", {"network": "mistyped"}, "mistyped: .*'colour'; correct its arguments"),
        ("denoiser", {"network": "reference"}, "reference: .*'nowhere'"),
        ("denoiser", {"network": "unknown"}, "unknown: .*'NoSuchNet'"),
        ("denoiser", {"config_file": "nowhere.yaml"}, "--config_file .*nowhere.yaml: no such file; correct the path"),
        ("denoiser", {"config_file": "broken.yaml"}, "--config_file .*broken.yaml.*: not readable as configs"),
        ("denoiser", {"config_file": "macro.yaml"}, "--config_file .*macro.yaml.*: not readable as configs: .*nowhere"),
        ("denoiser", {"out": "."}, "--out .*: is the old file, or a folder; give the name of a file to write"),
        ("denoiser", {"out": "denoiser.pth"}, "--out .*denoiser.pth: is the old file, or a folder"),
    ],
)
def test_what_cannot_be_converted_ends_with_one_line(name, options, reason, files, tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    (tmp_path / "entries.yaml").write_text(yaml.safe_dump(ENTRIES))
    (tmp_path / "broken.yaml").write_text("a: [1, 2\n")
    (tmp_path / "macro.yaml").write_text('a: "%nowhere.yaml::a"\n')
    given = {"network": "denoiser_def", "out": "new.pt", "config_file": "entries.yaml", **options}
    config, out = tmp_path / given.pop("config_file"), tmp_path / given.pop("out")
    words = [files.get(name, "nothing.pth"), "--config_file", f"['configs/common.yaml', '{config}']", "--out", str(out)]
    words += [text for key, value in given.items() for text in (f"--{key}", str(value))]
    status, last = call(convert_checkpoint, words)
    assert status == 1
    assert re.match(f"error: .*{reason}", last), last
    assert not (tmp_path / "new.pt").exists()
