"""Writes the weights and the inputs that both sides of a comparison start from.

    python prepare.py WORK --config CONFIG.json --out DIR [--seed 0]

DIR gets `weights.safetensors` (published names; a codebook that all depths share is listed once a depth) and
`inputs.safetensors`; works that read the same kind of configuration share one DIR. The search for nearest codes has no weights.

The EMA state starts as if every code had been hit once (sizes 1, sums equal to the rows): restarts are off, and the published
start from sizes 0 would then throw used codes far away at the first update.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import gpt
from works import WORKS, GptBench, NearestBench, RqTransformerBench, RqVaeBench, read_config


def scaled_rows(codebook_size, code_dim, depth, scale, generator):
    """Normal rows whose size halves from one quarter (for four depths) of the table to the next."""
    rows = scale * torch.randn(codebook_size, code_dim, generator=generator)
    level = torch.arange(codebook_size) * depth // codebook_size
    return rows * 0.5 ** level.unsqueeze(1)


@torch.no_grad()
def prepare_rqvae(config, generator):
    model = config.model().eval()
    noise = torch.randn(config.batch, 3, 8, 8, generator=generator)
    size = (config.resolution, config.resolution)
    images = F.interpolate(noise, size=size, mode="bicubic")
    images = (0.5 * images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    latents = model.encode(images)
    flat = latents.flatten(0, 2)
    rows = scaled_rows(config.codebook_size, config.code_dim, config.depth, 0.5 * flat.std().item(), generator)
    first = config.codebook_size // config.depth
    rows[:first] += flat[torch.randint(flat.shape[0], (first,), generator=generator)]
    codebook = model.quantizer.codebooks[0]
    codebook.weight[:-1] = rows
    codebook.embed_ema.copy_(rows)
    codebook.cluster_size_ema.fill_(1.0)
    return model.state_dict(), {"images": images, "latents": latents.permute(0, 3, 1, 2)}


@torch.no_grad()
def prepare_rqtransformer(config, generator):
    def randint(high, *shape):
        return torch.randint(high, shape, generator=generator)

    positions = config.batch * config.height * config.width
    codebook = scaled_rows(config.codebook_size, config.code_dim, config.depth, 2 * config.code_dim**-0.5, generator)
    latents = codebook[randint(config.codebook_size, positions, config.depth)].sum(dim=1)
    latents = latents.view(config.batch, config.height, config.width, -1).permute(0, 3, 1, 2)
    # 37 draws in turn: a prime, so that the cycle falls in step with neither the depths nor the rows
    race = torch.empty(37, config.sample_batch, config.codebook_size).exponential_(generator=generator)
    inputs = {
        "codebook": codebook,
        "latents": latents,
        "classes": randint(config.classes, config.batch),
        "sample_classes": randint(config.classes, config.sample_batch),
        "race": race,
    }
    return config.model(codebook).initialize(generator).state_dict(), inputs


def prepare_gpt(config, generator):
    inputs = {
        "prefix": torch.randn(config.batch, config.context - 1, config.width, generator=generator),
        "next": torch.randn(config.batch, 1, config.width, generator=generator),
    }
    return gpt.initialize(config.model(), generator).state_dict(), inputs


def prepare_nearest(config, generator):
    return {}, {
        "codebook": torch.randn(config.codebook_size, config.code_dim, generator=generator),
        "latents": torch.randn(config.latents, config.code_dim, generator=generator),
    }


PREPARE = {
    RqVaeBench: prepare_rqvae,
    RqTransformerBench: prepare_rqtransformer,
    GptBench: prepare_gpt,
    NearestBench: prepare_nearest,
}


def main():
    parser = argparse.ArgumentParser(description="Write weights and inputs for a benchmark.")
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kind = WORKS[args.work].config
    torch.manual_seed(args.seed)  # layers initialise themselves from the global generator
    weights, inputs = PREPARE[kind](read_config(kind, args.config), torch.Generator().manual_seed(args.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in [("weights", weights), ("inputs", inputs)]:
        if tensors:
            save_file({k: v.clone().contiguous() for k, v in tensors.items()}, args.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
