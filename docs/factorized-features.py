#!/usr/bin/env python3
"""Features of images by the trunk of the shift-tolerant LPIPS, as a file that a run's `representation` reads.

    pip install torch numpy pillow safetensors
    python docs/factorized-features.py cifar10-train.tar.gz alex_shift_tolerant.pth 10000 features.safetensors

One row of 256 numbers for each of the first images of the archive: the last rectifier of the AlexNet, averaged
over positions.
"""

import io
import sys
import tarfile

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import conv2d, max_pool2d, pad

SHIFT = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
SCALE = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)


def blur(maps):
    """1-2-1 in both directions at every second place, two rows reflected on each side."""
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, 3, 3)
    return conv2d(pad(maps, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=maps.shape[1])


def features(images, layer):
    maps = blur(layer(images, 0, 2)).relu()
    maps = layer(blur(max_pool2d(maps, 3, 1)), 5, 2).relu()
    maps = layer(blur(max_pool2d(maps, 3, 1)), 9, 1).relu()
    maps = layer(layer(maps, 11, 1).relu(), 13, 1).relu()
    return maps.mean((2, 3))


def pictures(archive):
    """The archive's images in its order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.rsplit(".", 1)[-1] in ("jpg", "jpeg", "png", "webp"):
                picture = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
                yield torch.from_numpy(numpy.array(picture)).permute(2, 0, 1) / 127.5 - 1


def main(archive, weights, count, target):
    state = torch.load(weights, map_location="cpu", weights_only=True)
    state = {name.split(".", 2)[-1]: value for name, value in state.items() if ".slice" in f".{name}"}

    def layer(maps, number, padding):
        return conv2d(maps, state[f"{number}.weight"], state[f"{number}.bias"], padding=padding)

    source, rows = pictures(archive), []
    with torch.no_grad():
        while len(rows) * 100 < count:
            images = torch.stack([next(source) for _ in range(min(100, count - len(rows) * 100))])
            rows.append(features((images - SHIFT) / SCALE, layer))
    save_file({"features": torch.cat(rows)}, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
