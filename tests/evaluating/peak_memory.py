"""Print the megabytes that an evaluation of so many images of a folder takes at most: python -m ... <number> <folder>.

Images of 128 x 128 from noise, with the configs' networks as they are before any training: what they are does not
matter to memory.
"""

import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.evaluating import folders
from bundle.evaluating.folders import FolderEvaluation
from bundle.images import write_images

SEX = Attribute("sex", ["female", "male"])


def slices(number, name):
    images = torch.randint(0, 256, (number, 1, 128, 128), generator=torch.Generator().manual_seed(0)) / 255
    images[number // 2 :, :, :64] /= 2  # something to tell the sexes apart by
    rows = [{"subject": f"{name}{i // 2}", "sex": SEX.groups[int(i >= number // 2)]} for i in range(number)]
    return Slices(images, rows)


def stored(number, folder):
    stream = torch.Generator().manual_seed(1)
    sizes = [min(64, number - start) for start in range(0, number, 64)]
    made = (torch.rand(size, 1, 128, 128, generator=stream) for size in sizes)
    return write_images(made, number, folder / "images.npy")


def features(images):
    """Of 512 elements, as a large encoder has."""
    return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(images, (4, 8)).flatten(1) - 0.4, dim=1)


def main(number, folder):
    torch.manual_seed(0)
    parser = ConfigParser(ConfigParser.load_config_file("configs/common.yaml"))
    judge, guide = (parser.get_parsed_content(f"{name}_def").eval() for name in ("judge", "guide"))
    images = stored(number, folder)
    folders.picture_names = lambda _: [f"{i}.png" for i in range(number)]
    folders.read_pictures = lambda *_: images
    evaluation = FolderEvaluation(
        str(folder), {}, judge, SEX, slices(400, "v"), slices(400, "r"), {"space": features}, "space",
        str(folder / "report"), str(folder / "cache"), guide=guide, training=slices(1000, "t"),
    )  # fmt: skip
    evaluation.run()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin at the size of the process that started this
    print(f"\npeak: {int(status.split('VmHWM:')[1].split()[0]) // 1024} MB", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
