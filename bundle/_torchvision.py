"""Make ``torchvision`` (and with it ``open_clip``) importable beside a CPU build of torch."""

import sys

# A schema lives as long as the library object that defined it.
_libraries: list[object] = []


def make_importable() -> bool:
    """Declare torchvision's compiled operators if, and only if, their absence stops its import.

    The default Linux wheel of torchvision is built for CUDA. Beside a CPU torch its shared library cannot be loaded,
    and the Python part stops at the first operator it registers a shape function for. The bundle needs none of these
    operators (box suppression), only their names.

    Returns:
        True where the operators had to be declared; False for a matched pair, or where torchvision is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name in ("torch", "torchvision"):
            return False
        raise
    except RuntimeError as error:
        # Declaring the operators beforehand would break a matched pair: an operator is declared once.
        if "torchvision::nms" not in str(error):
            raise
    else:
        return False

    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    # The failed attempt left half-imported modules; without them the next import starts afresh.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return True
