"""Builds emoji/emoji.png and emoji/emoji.json from the npm package emoji-datasource-google 16.0.0.

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    pip install pillow==12.0.0 pyoxipng==9.1.1
    python build/emoji_atlas.py package emoji

One tile for each base emoji with an image (skin tones and the category "Component" left out): composited on white,
then reduced from 64 to 32 pixels with Lanczos. Tiles stand row after row in Unicode's order of emoji.
"""

import hashlib
import json
import sys
from pathlib import Path

import oxipng
from PIL import Image

TILE = 32
COLUMNS = 44
VALIDATION_ONE_IN = 20
SPLIT_PREFIX = "smalti-8/"

# What turns one emoji into a variant of another: joiner, presentation, genders, direction, people, children.
VARIANT_PARTS = {"200D", "FE0F", "2640", "2642", "27A1", "1F468", "1F469", "1F9D1", "1F466", "1F467", "1F9D2"}
CLOCK_FACES = {f"{code:X}" for code in range(0x1F550, 0x1F568)}


def family(unified):
    """The key that all variants of an emoji share, so that none of them is learned from and measured on at once."""
    parts = unified.split("-")
    if parts[0] in CLOCK_FACES:
        return "clock"
    kept = [part for part in parts if part not in VARIANT_PARTS]
    if not kept:
        return "person"
    flag = all(0x1F1E6 <= int(part, 16) <= 0x1F1FF for part in kept)
    return "-".join(kept) if flag else kept[0]


def split(key):
    # The prefix was chosen so that the largest families (people, clock faces) fall to training.
    digest = hashlib.sha256(f"{SPLIT_PREFIX}{key}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") % VALIDATION_ONE_IN == 0 else "train"


def tile(path):
    image = Image.open(path).convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white.resize((TILE, TILE), Image.Resampling.LANCZOS)


def main(package, target):
    entries = json.loads((package / "emoji.json").read_text())
    entries = [e for e in entries if e["has_img_google"] and e["category"] != "Component"]
    entries.sort(key=lambda e: (e["sort_order"], e["unified"]))
    classes = sorted({e["category"] for e in entries})
    rows = -(-len(entries) // COLUMNS)
    atlas = Image.new("RGB", (COLUMNS * TILE, rows * TILE), "white")
    tiles = []
    for index, entry in enumerate(entries):
        place = (index % COLUMNS * TILE, index // COLUMNS * TILE)
        atlas.paste(tile(package / "img/google/64" / entry["image"]), place)
        tiles.append(
            {
                "name": entry["short_name"],
                "code_points": entry["unified"],
                "class": classes.index(entry["category"]),
                "split": split(family(entry["unified"])),
            }
        )
    target.mkdir(exist_ok=True)
    atlas.save(target / "emoji.png")
    oxipng.optimize(target / "emoji.png", level=4, strip=oxipng.StripChunks.all())
    lines = ",\n".join(json.dumps(t, ensure_ascii=False) for t in tiles)
    head = json.dumps({"tile": TILE, "columns": COLUMNS, "classes": classes}, ensure_ascii=False)[:-1]
    (target / "emoji.json").write_text(f'{head}, "tiles": [\n{lines}\n]}}\n')
    held_out = sum(t["split"] == "validation" for t in tiles)
    print(f"{len(tiles)} tiles, {held_out} of them for validation, {(target / 'emoji.png').stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
