"""From nothing to one image's codes on disk, as a script in PyTorch does it.

    python cold_start.py --config CONFIG.json --weights WEIGHTS.safetensors IMAGE.png CODES.safetensors
    python cold_start.py --config CONFIG.json --weights WEIGHTS.safetensors --make-image IMAGE.png

The second form writes an image of the configured size for the first. Only what the work needs is imported; weights are mapped
from the file, not copied, and taken over by assignment.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from works import RqVaeBench, read_config


def make_image(config, path):
    """A smooth picture with some grain, the same every time."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((config.resolution, config.resolution), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.integers(-8, 9, smooth.shape)
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description="Encode one image in PyTorch.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--make-image", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("codes", type=Path, nargs="?")
    args = parser.parse_args()
    config = read_config(RqVaeBench, args.config)
    if args.make_image:
        return make_image(config, args.make_image)
    with torch.device("meta"):
        model = config.model().eval()
    model.load_state_dict(load_file(args.weights), assign=True)
    pixels = np.asarray(Image.open(args.image).convert("RGB"), dtype=np.float32)
    image = torch.from_numpy(pixels / 127.5 - 1.0).permute(2, 0, 1).unsqueeze(0)
    _, codes = model.quantizer.quantize(model.quantizer.fold(model.encode(image)))
    save_file({"codes": codes.permute(0, 3, 1, 2).to(torch.int32).contiguous()}, args.codes)


if __name__ == "__main__":
    main()
