"""torchvision and open_clip import after the bundle, whichever build of torch stands beside them."""

import subprocess
import sys

import pytest
import torch

from bundle import _torchvision

IMPORTS = """
import bundle
import torchvision
import open_clip
import torch
from torchvision.transforms import functional

assert bundle._torchvision.make_importable() is False, "a second call finds nothing to do"
assert functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)
assert open_clip.get_tokenizer("ViT-B-32")(["an axial FLAIR slice"]).shape == (1, 77)
"""


def test_fresh_process_imports_torchvision_and_open_clip():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Call the function beside a torchvision whose import runs the given line; return result and declarations."""
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    declared = []

    class Library:
        def __init__(self, *arguments):
            declared.append(arguments)

        def define(self, schema):
            declared.append(schema.partition("(")[0])

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]

    def call(line):
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "part.py").touch()
        (tmp_path / "torchvision" / "__init__.py").write_text(f"import torchvision.part\n{line}\n")
        return _torchvision.make_importable(), declared

    forget()
    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(_torchvision, "_libraries", [])
    monkeypatch.syspath_prepend(tmp_path)
    yield call
    forget()
    sys.modules.update(kept)


def test_missing_operators_are_declared_and_the_failed_import_forgotten(attempt):
    result, declared = attempt("raise RuntimeError('operator torchvision::nms does not exist')")
    assert result is True
    assert declared == [("torchvision", "FRAGMENT"), "nms", "qnms"]
    assert not [name for name in sys.modules if name.startswith("torchvision")]


@pytest.mark.parametrize("line", ["pass", "raise ModuleNotFoundError('none', name='torchvision')"])
def test_nothing_happens_beside_a_matched_pair_or_without_torchvision(attempt, line):
    assert attempt(line) == (False, [])


@pytest.mark.parametrize(
    "line", ["raise RuntimeError('driver too old')", "raise ModuleNotFoundError('none', name='PIL')"]
)
def test_other_failures_are_not_hidden(attempt, line):
    with pytest.raises((RuntimeError, ModuleNotFoundError), match="driver too old|none"):
        attempt(line)
