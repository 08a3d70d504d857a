"""Text-to-brain-MR latent diffusion whose images show the sexes in the cohort's proportion."""

from bundle import _torchvision

_torchvision.make_importable()  # before anything imports open_clip

from bundle import errors  # noqa: E402, F401  (configs say `$import bundle` and call `bundle.errors`)

__version__ = "0.2.0"
