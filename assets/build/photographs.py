"""Builds photographs/*.jpg, *.png from the sample images of scikit-image 0.26.0.

    pip download --no-deps scikit-image==0.26.0 && unzip scikit_image-0.26.0-*.whl 'skimage/data/*'
    pip install pillow==12.0.0
    python build/photographs.py skimage/data photographs
"""

import sys
from pathlib import Path

from PIL import Image

LONGEST_SIDE = 512
PHOTOGRAPHS = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg"]


def main(source, target):
    target.mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        image = Image.open(source / name)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        stem = name.split(".")[0]
        if image.mode == "L":
            image.save(target / f"{stem}.png", optimize=True)
        else:
            image.convert("RGB").save(target / f"{stem}.jpg", quality=95, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
