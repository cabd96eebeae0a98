"""The pieces of work that are timed, and the configuration files that size them.

A work is built from a configuration, weights and inputs, and has one method: `step()` does the work once and returns
(numbers for the report, tensors that another implementation can be compared with). Inputs are the same at every step.
Random choices are off or fixed: no dropout, no restart of unused codes, stage-2 codes are the nearest ones, and the draws of
the sampler come from the inputs unless `fixed_draws` is false.

Shapes outside the models: images [batch, 3, height, width], latents [batch, code_dim, h, w], codes [batch, depth, h, w].
"""

import json
from dataclasses import dataclass, fields

import torch

import gpt
from rqtransformer import RqTransformer, RqTransformerConfig, Sampler, Stage2Trainer
from rqvae import ResidualQuantizer, RqVae, RqVaeConfig, Stage1Trainer


@dataclass
class RqVaeBench:
    resolution: int
    batch: int
    channels: int
    multipliers: list
    blocks: int
    attention_resolutions: list
    z_channels: int
    code_dim: int
    codebook_size: int
    depth: int
    decay: float = 0.99
    commitment_weight: float = 0.25
    learning_rate: float = 4e-5
    norm_groups: int = 32

    def model(self):
        return RqVae(
            RqVaeConfig(
                resolution=self.resolution,
                channels=self.channels,
                multipliers=self.multipliers,
                blocks=self.blocks,
                attention_resolutions=self.attention_resolutions,
                z_channels=self.z_channels,
                code_dim=self.code_dim,
                codebook_sizes=[self.codebook_size] * self.depth,
                decays=[self.decay] * self.depth,
                commitment_weight=self.commitment_weight,
                norm_groups=self.norm_groups,
            )
        )


@dataclass
class RqTransformerBench:
    height: int
    width: int
    depth: int
    codebook_size: int
    code_dim: int
    classes: int
    embed_dim: int
    heads: int
    body_layers: int
    head_layers: int
    batch: int
    learning_rate: float = 5e-4
    target_temperature: float | None = 0.5  # None: the codes themselves are the targets
    sample_batch: int = 16
    top_k: int | None = None
    top_p: float = 1.0
    fixed_draws: bool = True

    def model(self, codebook):
        return RqTransformer(
            RqTransformerConfig(
                height=self.height,
                width=self.width,
                depth=self.depth,
                codebook_size=self.codebook_size,
                embed_dim=self.embed_dim,
                code_dim=self.code_dim,
                body_layers=self.body_layers,
                body_heads=self.heads,
                head_layers=self.head_layers,
                head_heads=self.heads,
                cond_vocab=self.classes,
                dropout=0.0,
            ),
            codebook,
        )

    def quantizer(self, codebook):
        """Only the stage-1 quantizer: the step starts at latents."""
        quantizer = ResidualQuantizer(
            RqVaeConfig(
                resolution=self.height,
                channels=32,
                multipliers=[1],
                blocks=0,
                attention_resolutions=[],
                z_channels=self.code_dim,
                code_dim=self.code_dim,
                codebook_sizes=[self.codebook_size] * self.depth,
                decays=[0.99] * self.depth,
            )
        )
        with torch.no_grad():
            quantizer.codebooks[0].weight[:-1] = codebook
        return quantizer.eval()


@dataclass
class NearestBench:
    codebook_size: int
    code_dim: int
    latents: int


@dataclass
class GptBench:
    layers: int
    width: int
    heads: int
    batch: int
    context: int
    steps: int  # at most; the cache has room for them

    def model(self):
        return gpt.new_stack(self.layers, self.width, self.heads)


def read_config(kind, path):
    values = json.loads(path.read_text())
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise SystemExit(f"{path}: unknown fields {unknown}; known are {sorted(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise SystemExit(f"{path}: {error}") from None


def load_weights(model, weights):
    """Strict; the copies of a codebook that all depths share must be equal, because they fill one tensor."""
    for name, value in weights.items():
        prefix, _, rest = name.partition("quantizer.codebooks.")
        if rest and prefix == "":
            first = "quantizer.codebooks.0." + rest.partition(".")[2]
            if not torch.equal(value, weights[first]):
                raise SystemExit(f"{name} differs from {first}, expected one codebook for all depths")
    model.load_state_dict(weights, strict=True)
    return model


def codes_checksum(codes):
    """sum (i mod 997 + 1) * code_i over the flattened codes: equal only if order and values are, for all practical purposes."""
    flat = codes.flatten()
    return int(((torch.arange(flat.numel()) % 997 + 1) * flat).sum())


def magnitude(tensor):
    return tensor.double().abs().mean().item()


class Stage1Step:
    """Forward with EMA updates, mean squared error and commitment, backward, Adam."""

    config = RqVaeBench

    def __init__(self, config, weights, inputs):
        model = load_weights(config.model(), weights)
        self.trainer = Stage1Trainer(model, learning_rate=config.learning_rate)
        self.images = inputs["images"]

    def step(self):
        losses = self.trainer.step(self.images)
        return losses | {"checksum": losses["loss"]}, {}


class Encode:
    """Encoder with its 1x1 convolution, without quantization."""

    config = RqVaeBench

    def __init__(self, config, weights, inputs):
        self.model = load_weights(config.model(), weights).eval()
        self.images = inputs["images"]

    @torch.inference_mode()
    def step(self):
        latents = self.model.encode(self.images)
        return {"checksum": magnitude(latents)}, {"latents": latents.permute(0, 3, 1, 2)}


class Decode:
    """1x1 convolution and decoder, from latents."""

    config = RqVaeBench

    def __init__(self, config, weights, inputs):
        self.model = load_weights(config.model(), weights).eval()
        self.latents = inputs["latents"].permute(0, 2, 3, 1)

    @torch.inference_mode()
    def step(self):
        images = self.model.decode(self.latents)
        return {"checksum": magnitude(images)}, {"images": images}


class Stage2Step:
    """Codes and targets of latents, forward, cross entropy, backward, clipping, AdamW."""

    config = RqTransformerBench

    def __init__(self, config, weights, inputs):
        model = load_weights(config.model(inputs["codebook"]), weights)
        quantizer = config.quantizer(inputs["codebook"])
        self.trainer = Stage2Trainer(model, quantizer, config.learning_rate, stochastic=False)
        self.latents = inputs["latents"].permute(0, 2, 3, 1).contiguous()
        self.classes = inputs["classes"].unsqueeze(1)
        self.temperature = config.target_temperature

    def step(self):
        report = self.trainer.step(self.latents, self.classes, self.temperature)
        return report | {"checksum": report["loss"]}, {}


class Sample:
    """A whole batch of code maps, with caches."""

    config = RqTransformerBench

    def __init__(self, config, weights, inputs):
        self.model = load_weights(config.model(inputs["codebook"]), weights).eval()
        self.classes = inputs["sample_classes"].unsqueeze(1)
        self.race = inputs["race"] if config.fixed_draws else None
        self.settings = {"top_k": config.top_k, "top_p": config.top_p}
        self.empty = torch.zeros(config.sample_batch, config.height, config.width, config.depth, dtype=torch.int64)

    @torch.inference_mode()
    def step(self):
        codes = self.model.sample(self.empty, self.classes, Sampler(**self.settings, race=self.race))
        codes = codes.permute(0, 3, 1, 2)
        return {"checksum": codes_checksum(codes)}, {"codes": codes}


class GptDecode:
    """The next position of every sequence, `context` positions after its beginning and one further each time."""

    config = GptBench

    def __init__(self, config, weights, inputs):
        stack = load_weights(config.model(), weights).eval()
        self.decoder = gpt.Decoder(stack, config.heads, config.batch, config.context + config.steps)
        self.next = inputs["next"]
        with torch.inference_mode():
            self.decoder(inputs["prefix"])

    @torch.inference_mode()
    def step(self):
        hidden = self.decoder(self.next)
        return {"checksum": magnitude(hidden)}, {"hidden": hidden}


class Nearest:
    """The nearest code of every latent: all distances, then the smallest."""

    config = NearestBench

    def __init__(self, config, weights, inputs):
        self.codebook, self.latents = inputs["codebook"], inputs["latents"]

    @torch.inference_mode()
    def step(self):
        codes = torch.cdist(self.latents, self.codebook).argmin(dim=1)
        return {"checksum": codes_checksum(codes)}, {"codes": codes}


class NearestFaiss:
    """The nearest code by faiss, whose index is built once."""

    config = NearestBench

    def __init__(self, config, weights, inputs):
        import faiss  # only this work needs it

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.index = faiss.IndexFlatL2(config.code_dim)
        self.index.add(inputs["codebook"].numpy())
        self.latents = inputs["latents"].numpy()

    def step(self):
        _, found = self.index.search(self.latents, 1)
        codes = torch.from_numpy(found[:, 0])
        return {"checksum": codes_checksum(codes)}, {"codes": codes}


WORKS = {
    "stage1_step": Stage1Step,
    "encode": Encode,
    "decode": Decode,
    "stage2_step": Stage2Step,
    "sample": Sample,
    "gpt_decode": GptDecode,
    "nearest": Nearest,
    "nearest_faiss": NearestFaiss,
}
