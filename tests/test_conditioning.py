"""The bundle's CLIP from its own config with random weights: contexts, features, and models that cannot be had."""

import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file

from bundle.conditioning import Clip
from bundle.errors import InputError

PROMPTS = ["axial FLAIR brain MRI, ventricular level, no tumor", ""]


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """A ``local-dir:`` model in the layout that ``train_clip.yaml`` leaves."""
    folder = tmp_path_factory.mktemp("clip")
    config = (root / "models" / "clip" / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(config)
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip(folder):
    return Clip(f"local-dir:{folder}")


@pytest.fixture(scope="module")
def width(folder):
    return json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]["width"]


def test_the_tower_is_frozen_and_loaded(clip, folder):
    saved = open_clip.create_model(f"local-dir:{folder}").state_dict()
    assert torch.equal(clip.model.state_dict()["token_embedding.weight"], saved["token_embedding.weight"])
    assert not any(p.requires_grad for p in clip.parameters())
    assert not clip.training


def test_context_is_per_token_and_ends_in_the_text_embedding(clip, width):
    """CLIP's text embedding is the projection of the state at the end-of-text token, the largest index."""
    context, tokens = clip.context(PROMPTS), clip.tokenize(PROMPTS)
    assert context.shape == (2, 32, width)
    assert not context.requires_grad
    last = context[torch.arange(2), tokens.argmax(1)] @ clip.model.text_projection
    assert torch.allclose(torch.nn.functional.normalize(last, dim=1), clip.text_features(PROMPTS), atol=1e-5)


def test_the_null_context_is_that_of_the_empty_prompt(clip):
    null = clip.context([""])
    assert null.shape[0] == 1
    assert torch.allclose(null, clip.context(PROMPTS)[1:], atol=1e-6)
    assert not torch.allclose(null, clip.context(PROMPTS)[:1], atol=1e-3)
    assert clip.tokenize([""])[0, 2:].sum() == 0  # start, end, and nothing else


def test_image_features_are_unit_and_differentiable(clip):
    images = torch.rand(2, 1, 128, 128, requires_grad=True)
    features = clip.image_features(images)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)
    (gradient,) = torch.autograd.grad(features[0, 0], images)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_images_are_resized_and_normalised_as_the_config_says(clip):
    prepared = clip.prepare(torch.full((1, 1, 64, 64), 0.45))
    assert prepared.shape == (1, 3, 128, 128)
    assert torch.allclose(prepared, torch.tensor((0.45 - 0.2) / 0.25), atol=1e-5)


def test_a_model_to_be_trained_needs_no_weights(folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    clip = Clip(f"local-dir:{tmp_path}", trainable=True)
    assert all(p.requires_grad for p in clip.model.parameters())
    with pytest.raises(InputError, match="local-dir"):
        Clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-Q-99", None),
        ("local-dir:/no/such/folder", None),
        ("hf-hub:nobody/nothing", None),
    ],
)
def test_a_model_that_cannot_be_had_is_named(monkeypatch, name, pretrained):
    """With no network, as inside a hospital."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=f"CLIP '{name}'.*open_clip.list_pretrained") as caught:
        Clip(name, pretrained)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def named(folder):
    """The same model under a name, as open_clip's own ones have."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (folder / "tiny_test_clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny_test_clip.json")
    return "tiny_test_clip"


def test_a_local_checkpoint(named, folder, clip):
    loaded = Clip(named, str(folder / "open_clip_model.safetensors"))
    assert torch.equal(loaded.context(PROMPTS), clip.context(PROMPTS))
    assert not torch.equal(loaded.mean, clip.mean)  # the normalisation is no part of a bare checkpoint


@pytest.mark.parametrize("pretrained", ["no_such_tag", "no_such_file.pt", None])
def test_weights_that_cannot_be_had_are_named(named, pretrained):
    with pytest.raises(InputError, match=f"CLIP '{named}', pretrained '{pretrained}'"):
        Clip(named, pretrained)


def test_a_text_tower_of_another_library_is_refused(monkeypatch):
    foreign = SimpleNamespace(text=HFTextEncoder.__new__(HFTextEncoder))
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: foreign)
    with pytest.raises(InputError, match="CLIP 'ViT-B-32': its text tower is a language model of another library"):
        Clip("ViT-B-32", "openai")
