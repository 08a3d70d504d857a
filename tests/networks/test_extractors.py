"""Features against what the libraries' own models give, for small encoders with random weights."""

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import interpolate
from torchvision.models import get_model

from bundle.errors import InputError
from bundle.networks.extractors import Extractor, load_extractor
from bundle.weights import digest

IMAGENET = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
SHUFFLENET = "shufflenet_v2_x0_5"
VIT = "test_vit.r160_in1k"  # 160 pixels, means and deviations of one half


def normalised(network):
    """A new network normalised by the statistics of some images, so that its features tell images apart."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64) * torch.rand(4, 3, 1, 1))
    return network.eval()


@pytest.fixture(scope="module")
def shufflenet():
    """As released, with a head of a thousand classes."""
    return normalised(get_model(SHUFFLENET, weights=None))


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model(VIT, pretrained=False).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def saved(content, path):
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def weights_file(shufflenet, tmp_path_factory):
    return saved(shufflenet.state_dict(), tmp_path_factory.mktemp("weights") / "shufflenet.pth")


@torch.no_grad()
def test_torchvision_gives_what_feeds_the_last_layer(shufflenet, weights_file, images):
    extract = load_extractor("torchvision", SHUFFLENET, weights_file)
    features = extract(images)
    assert features.shape == (2, 1024)
    mean, std = IMAGENET
    assert torch.allclose(shufflenet.fc(features), shufflenet((images - mean) / std), atol=1e-5)


@torch.no_grad()
def test_timm_gives_what_feeds_the_last_layer(vit, tmp_path, images):
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    small = images[..., :160, :160]
    features = load_extractor("timm", VIT, tmp_path / "vit.safetensors")(small)
    assert features.shape == (2, vit.num_features)
    prepared = (small - 0.5) / 0.5
    assert torch.allclose(features, vit.forward_head(vit.forward_features(prepared), pre_logits=True), atol=1e-5)
    assert torch.allclose(vit.head(features), vit(prepared), atol=1e-5)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3")])
def test_only_the_last_linear_layer_is_taken_off(name, last, tmp_path, images):
    network = normalised(get_model(name, weights=None))
    path = saved(network.state_dict(), tmp_path / "weights.pth")
    inputs = []
    network.get_submodule(last).register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    with torch.no_grad():
        network((images - IMAGENET[0]) / IMAGENET[1])
    assert torch.allclose(load_extractor("torchvision", name, path)(images), inputs[0], atol=1e-5)


@pytest.mark.parametrize("classes", [14, None])
def test_the_head_in_the_file_does_not_matter(shufflenet, weights_file, images, tmp_path, classes):
    body = {key: value for key, value in shufflenet.state_dict().items() if not key.startswith("fc.")}
    head = {"fc.weight": torch.zeros(classes, 1024), "fc.bias": torch.zeros(classes)} if classes else {}
    other = saved({**body, **head}, tmp_path / "other.pth")
    features = [load_extractor("torchvision", SHUFFLENET, path)(images) for path in (weights_file, other)]
    assert torch.equal(*features)


def test_timm_without_a_head_in_the_file(vit, tmp_path, images):
    headless = {key: value for key, value in vit.state_dict().items() if not key.startswith("head.")}
    files = saved(vit.state_dict(), tmp_path / "a.pt"), saved(headless, tmp_path / "b.pt")
    assert len(headless) < len(vit.state_dict())
    assert torch.equal(*(load_extractor("timm", VIT, file)(images) for file in files))


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_beside_other_things_in_a_checkpoint(shufflenet, weights_file, images, tmp_path, key):
    nested = saved({"epoch": 3, key: shufflenet.state_dict()}, tmp_path / "checkpoint.pth")
    assert torch.equal(*(load_extractor("torchvision", SHUFFLENET, file)(images) for file in (weights_file, nested)))


def test_half_precision_in_the_file_is_computed_in_full(shufflenet, images, tmp_path):
    half = {key: v.half() if v.is_floating_point() else v for key, v in shufflenet.state_dict().items()}
    extract = load_extractor("torchvision", SHUFFLENET, saved(half, tmp_path / "half.pth"))
    assert extract(images.half()).dtype == torch.float32


def test_grey_is_rgb_repeated(weights_file, images):
    extract = load_extractor("torchvision", SHUFFLENET, weights_file)
    grey = images[:, :1]
    assert torch.allclose(extract(grey), extract(grey.repeat(1, 3, 1, 1)), atol=1e-6)
    assert not torch.allclose(extract(grey), extract(images), atol=1e-3)


@pytest.mark.parametrize("shape", [(96, 96), (300, 260)])
def test_any_size_is_resized_whole_with_antialiasing(weights_file, shape):
    extract = load_extractor("torchvision", SHUFFLENET, weights_file)
    images = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(2))
    resized = interpolate(images, (224, 224), mode="bilinear", antialias=True)
    assert torch.allclose(extract(images), extract(resized), atol=1e-5)
    border = images.clone()
    border[..., :4] = 0  # a crop to the middle 224 of 256 would hardly see it
    assert not torch.allclose(extract(border), extract(images), atol=1e-3)


def test_size_and_means_are_the_encoders_own(weights_file, vit, tmp_path):
    extract = load_extractor("timm", VIT, saved(vit.state_dict(), tmp_path / "vit.pt"))
    assert (extract.size, extract.mean.unique().tolist(), extract.std.unique().tolist()) == ((160, 160), [0.5], [0.5])
    extract = load_extractor("torchvision", SHUFFLENET, weights_file)
    assert extract.size == (224, 224)
    assert torch.equal(extract.mean, IMAGENET[0])
    assert torch.equal(extract.std, IMAGENET[1])


def test_it_is_frozen_and_named_by_its_file(shufflenet, weights_file, images):
    extract = load_extractor("torchvision", SHUFFLENET, weights_file)
    assert isinstance(extract, Extractor)
    assert not any(module.training for module in extract.modules())
    assert not any(parameter.requires_grad for parameter in extract.parameters())
    assert not extract(images.requires_grad_()).requires_grad
    assert extract.weights == hashlib.sha256(weights_file.read_bytes()).hexdigest()[:16]
    body = nn.Sequential(*list(shufflenet.children())[:-1])
    assert len(digest(extract)) == 16
    assert len(digest(extract)) == 16
    for kept, released in zip(extract.network.state_dict().values(), body.state_dict().values(), strict=True):
        assert torch.equal(kept, released)


def test_nothing_is_downloaded(weights_file, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with pytest.raises(InputError, match="give one of timm.list_models"):
        load_extractor("timm", "hf-hub:timm/resnet18.a1_in1k", weights_file)
    load_extractor("torchvision", SHUFFLENET, weights_file)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("keras", "resnet18", "kind 'keras': no such source of encoders; give one of torchvision, timm"),
        ("torchvision", "resnet19", "torchvision 'resnet19': no such classifier"),
        ("torchvision", "fasterrcnn_resnet50_fpn", "no such classifier"),
        ("torchvision", "squeezenet1_1", "no linear layer to take off"),  # convolutions to the end
        ("timm", "resnet19", "timm 'resnet19': unknown to timm; give one of timm.list_models"),
        ("timm", "resnet18.no_such_tag", "timm 'resnet18.no_such_tag': Invalid pretrained tag"),
    ],
)
def test_encoders_that_are_not_there(weights_file, kind, name, reason):
    with pytest.raises(InputError, match=reason):
        load_extractor(kind, name, weights_file)


def test_files_that_cannot_be_used(shufflenet, vit, weights_file, tmp_path):
    def refused(match, path, name=SHUFFLENET):
        with pytest.raises(InputError, match=match) as caught:
            load_extractor("torchvision", name, path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("no such weights", tmp_path / "absent.pth")
    refused("does not fit torchvision 'shufflenet_v2_x1_0'", weights_file, name="shufflenet_v2_x1_0")
    refused("does not fit torchvision 'shufflenet_v2_x0_5'", saved(vit.state_dict(), tmp_path / "vit.pth"))
    refused("not readable as weights", saved(shufflenet, tmp_path / "pickled.pth"))
    refused("holds no state dict", saved([1, 2], tmp_path / "list.pth"))
    refused("holds no state dict", saved({"epoch": 3}, tmp_path / "epoch.pth"))
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(weights_file.read_bytes()[:1000])
        refused("not readable as weights", tmp_path / name)
