"""RQ-VAE in plain PyTorch: encoder, decoder, residual quantizer with an EMA codebook, losses.

The published form of "Autoregressive Image Generation using Residual Quantization" (Lee et al., CVPR 2022), stage 1,
written from its description, as a baseline to measure against. Parameter names are those of the published checkpoints,
so weights are exchanged by name.

Shapes: images [batch, 3, height, width] in [-1, 1]; inside the quantizer latents are [batch, h, w, code_dim] and codes are
[batch, h, w, depth], the published order. For x = encoder(image), with r_0 = sg(x) and depth d = 1..D:

    k_d = argmin_k |r_{d-1} - e(k)|^2,   r_d = r_{d-1} - e(k_d),   zhat_d = zhat_{d-1} + e(k_d)
    output = x + sg(zhat_D - x),   commitment = 1/D sum_d mean (x - sg(zhat_d))^2

The codebook receives no gradient. In training mode every depth step ends with an EMA update of the table, so with one
codebook for all depths the table changes between the depths of one forward pass.

Left out on purpose: LPIPS and the discriminator, gradient checkpointing, distributed reduction.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class RqVaeConfig:
    resolution: int
    channels: int
    multipliers: list
    blocks: int
    attention_resolutions: list
    z_channels: int
    code_dim: int
    codebook_sizes: list  # one a depth
    decays: list  # one a depth
    shared_codebook: bool = True
    restart_unused_codes: bool = False
    fold: tuple = (1, 1)  # latent rows and columns folded into one code position
    reconstruction: str = "mse"
    commitment_weight: float = 0.25
    dropout: float = 0.0
    norm_groups: int = 32

    @property
    def depth(self):
        return len(self.codebook_sizes)

    @classmethod
    def from_published(cls, arch):
        """From the `arch` table of a published config.yaml."""
        net, quant = arch["ddconfig"], arch["hparams"]
        depth = quant["code_shape"][2]

        def per_depth(value):
            return list(value) if isinstance(value, (list, tuple)) else [value] * depth

        return cls(
            resolution=net["resolution"],
            channels=net["ch"],
            multipliers=list(net["ch_mult"]),
            blocks=net["num_res_blocks"],
            attention_resolutions=list(net["attn_resolutions"]),
            z_channels=net["z_channels"],
            code_dim=quant["embed_dim"],
            codebook_sizes=per_depth(quant["n_embed"]),
            decays=per_depth(quant["decay"]),
            shared_codebook=quant["shared_codebook"],
            restart_unused_codes=quant.get("restart_unused_codes", False),
            fold=tuple(a // b for a, b in zip(quant["latent_shape"][:2], quant["code_shape"][:2])),
            reconstruction=quant.get("loss_type", "l1"),
            commitment_weight=quant["latent_loss_weight"],
            dropout=net["dropout"],
        )


def group_norm(channels, groups=32):
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv3(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ResnetBlock(nn.Module):
    def __init__(self, inputs, outputs, config):
        super().__init__()
        self.norm1 = group_norm(inputs, config.norm_groups)
        self.conv1 = conv3(inputs, outputs)
        self.norm2 = group_norm(outputs, config.norm_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = conv3(outputs, outputs)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """One head over all positions."""

    def __init__(self, channels, config):
        super().__init__()
        self.norm = group_norm(channels, config.norm_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        batch, channels, height, width = x.shape
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * channels**-0.5, dim=2)
        h = torch.bmm(v, weights.transpose(1, 2)).view(batch, channels, height, width)
        return x + self.proj_out(h)


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # one zero at the right and the bottom only


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, config)
        self.attn_1 = AttnBlock(channels, config)
        self.block_2 = ResnetBlock(channels, channels, config)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The blocks at one resolution, each followed by attention where the configuration asks for it."""

    def __init__(self, widths, attention, config):
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b, config) for a, b in zip(widths, widths[1:]))
        self.attn = nn.ModuleList(AttnBlock(b, config) for b in widths[1:] if attention)

    def forward(self, x):
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 0:
                x = self.attn[i](x)
        return x


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.conv_in = conv3(3, config.channels)
        self.down = nn.ModuleList()
        width, resolution = config.channels, config.resolution
        for index, multiplier in enumerate(config.multipliers):
            target = config.channels * multiplier
            attention = resolution in config.attention_resolutions
            level = Level([width] + [target] * config.blocks, attention, config)
            if index + 1 < len(config.multipliers):
                level.downsample = Downsample(target)
                resolution //= 2
            self.down.append(level)
            width = target
        self.mid = Middle(width, config)
        self.norm_out = group_norm(width, config.norm_groups)
        self.conv_out = conv3(width, config.z_channels)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.channels * config.multipliers[-1]
        resolution = config.resolution >> (len(config.multipliers) - 1)
        self.conv_in = conv3(config.z_channels, width)
        self.mid = Middle(width, config)
        levels = []  # from the lowest resolution up; stored the other way round
        for index in reversed(range(len(config.multipliers))):
            target = config.channels * config.multipliers[index]
            attention = resolution in config.attention_resolutions
            level = Level([width] + [target] * (config.blocks + 1), attention, config)
            if index > 0:
                level.upsample = Upsample(target)
                resolution *= 2
            levels.append(level)
            width = target
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(width, config.norm_groups)
        self.conv_out = conv3(width, 3)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class RandomDraws:
    """What a restart of unused codes draws; a check replaces it by recorded values."""

    def noise(self, rows, width):
        return torch.rand(rows, width)

    def permutation(self, rows):
        return torch.randperm(rows)


class EmaCodebook(nn.Module):
    """K code vectors and a last row of zeros that is never searched, learned by exponential moving averages."""

    def __init__(self, codebook_size, code_dim, decay, restart):
        super().__init__()
        self.decay, self.restart, self.eps = decay, restart, 1e-5
        self.draws = RandomDraws()
        rows = torch.randn(codebook_size + 1, code_dim)
        rows[-1] = 0.0
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.register_buffer("cluster_size_ema", torch.zeros(codebook_size))
        self.register_buffer("embed_ema", rows[:-1].clone())

    def distances(self, x):
        """Squared distances of [..., C] vectors to the K codes: |x|^2 + |c|^2 - 2 x c."""
        flat, table = x.reshape(-1, x.shape[-1]), self.weight[:-1]
        norms = flat.pow(2).sum(1, keepdim=True) + table.pow(2).sum(1)
        return torch.addmm(norms, flat, table.t(), alpha=-2.0).view(*x.shape[:-1], -1)

    @torch.no_grad()
    def search(self, x):
        return self.distances(x).argmin(dim=-1)

    @torch.no_grad()
    def accumulate(self, x, codes):
        """N <- decay N + (1 - decay) n and the same for the vector sums M, then restarts of codes with N < 1."""
        flat, index = x.reshape(-1, x.shape[-1]), codes.reshape(-1)
        counts = torch.bincount(index, minlength=self.cluster_size_ema.shape[0]).to(flat.dtype)
        sums = torch.zeros_like(self.embed_ema).index_add_(0, index, flat)
        self.cluster_size_ema.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.embed_ema.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        if self.restart:
            candidates = self.candidates(flat)
            used = (self.cluster_size_ema >= 1).unsqueeze(1)
            self.embed_ema.copy_(torch.where(used, self.embed_ema, candidates))
            self.cluster_size_ema.clamp_(min=1.0)

    def candidates(self, flat):
        size, (rows, width) = self.cluster_size_ema.shape[0], flat.shape
        if rows < size:
            flat = flat.repeat(-(-size // rows), 1)
            flat = flat + self.draws.noise(*flat.shape) * (0.01 / width**0.5)
        return flat[self.draws.permutation(flat.shape[0])][:size]

    @torch.no_grad()
    def rewrite(self):
        """e = M / (n (N + eps) / (n + K eps)), n = sum N."""
        total, size = self.cluster_size_ema.sum(), self.cluster_size_ema.shape[0]
        smoothed = total * (self.cluster_size_ema + self.eps) / (total + size * self.eps)
        self.weight[:-1] = self.embed_ema / smoothed.unsqueeze(1)


class ResidualQuantizer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fold_rows, self.fold_columns = config.fold
        width = config.code_dim * self.fold_rows * self.fold_columns

        def codebook(depth):
            return EmaCodebook(config.codebook_sizes[depth], width, config.decays[depth], config.restart_unused_codes)

        if config.shared_codebook:
            self.codebooks = nn.ModuleList([codebook(0)] * config.depth)  # one object under `depth` names
        else:
            self.codebooks = nn.ModuleList(codebook(depth) for depth in range(config.depth))

    def fold(self, x):
        b, h, w, c = x.shape
        p, q = self.fold_rows, self.fold_columns
        return x.view(b, h // p, p, w // q, q, c).transpose(2, 3).reshape(b, h // p, w // q, p * q * c)

    def unfold(self, x):
        b, h, w, c = x.shape
        p, q = self.fold_rows, self.fold_columns
        return x.view(b, h, w, p, q, c // (p * q)).transpose(2, 3).reshape(b, h * p, w * q, c // (p * q))

    @torch.no_grad()
    def quantize(self, x):
        """Partial sums, one a depth, and codes of folded latents; updates the codebooks in training mode."""
        residual, total = x.detach(), torch.zeros_like(x)
        sums, codes = [], []
        for codebook in self.codebooks:
            index = codebook.search(residual)
            if self.training:
                codebook.accumulate(residual, index)
            chosen = F.embedding(index, codebook.weight)  # from the table that was searched, not the updated one
            if self.training:
                codebook.rewrite()
            residual, total = residual - chosen, total + chosen
            sums.append(total)
            codes.append(index)
        return sums, torch.stack(codes, dim=-1)

    def forward(self, latents):
        """[b, h, w, c] -> straight-through latents, commitment, codes [b, h, w, depth]."""
        x = self.fold(latents)
        sums, codes = self.quantize(x)
        commitment = torch.stack([(x - s).pow(2).mean() for s in sums]).mean()
        return self.unfold(x + (sums[-1] - x).detach()), commitment, codes

    def embed(self, codes, depths=None):
        """The sum of the code vectors of the given depths (all, if none are given), in the latent layout."""
        depths = range(codes.shape[-1]) if depths is None else depths
        return self.unfold(sum(F.embedding(codes[..., d], self.codebooks[d].weight) for d in depths))

    @torch.no_grad()
    def soft_codes(self, latents, temperature, stochastic):
        """Q(k | r) = softmax(-|r - e(k)|^2 / temperature) at every depth, and the codes drawn from it or nearest.

        The next residual subtracts the code that was taken. All codebooks must have one size.
        """
        residual, targets, codes = self.fold(latents), [], []
        for codebook in self.codebooks:
            distances = codebook.distances(residual)
            soft = torch.softmax(-distances / temperature, dim=-1)
            if stochastic:
                index = torch.multinomial(soft.flatten(0, -2), 1).view(soft.shape[:-1])
            else:
                index = distances.argmin(dim=-1)
            residual = residual - F.embedding(index, codebook.weight)
            targets.append(soft)
            codes.append(index)
        return torch.stack(targets, dim=-2), torch.stack(codes, dim=-1)


class RqVae(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = ResidualQuantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.z_channels, 1)

    def encode(self, images):
        """Images -> latents [b, h, w, c]."""
        return self.quant_conv(self.encoder(images)).permute(0, 2, 3, 1).contiguous()

    def decode(self, latents):
        """Latents [b, h, w, c] -> images, not clamped."""
        return self.decoder(self.post_quant_conv(latents.permute(0, 3, 1, 2).contiguous()))

    def decode_codes(self, codes, depths=None):
        return self.decode(self.quantizer.embed(codes, depths))

    def forward(self, images):
        quantized, commitment, codes = self.quantizer(self.encode(images))
        return self.decode(quantized), commitment, codes

    def losses(self, images, reconstruction, commitment):
        """Total, reconstruction, commitment."""
        distance = {"mse": F.mse_loss, "l1": F.l1_loss}[self.config.reconstruction]
        loss = distance(reconstruction, images)
        return loss + self.config.commitment_weight * commitment, loss, commitment


class Stage1Trainer:
    """One Adam step a batch: forward (with the EMA updates), loss, backward, step. Learning rate constant."""

    def __init__(self, model, learning_rate=4e-5, betas=(0.5, 0.9)):
        self.model = model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=betas)

    def step(self, images):
        reconstruction, commitment, _ = self.model(images)
        total, loss, commitment = self.model.losses(images, reconstruction, commitment)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {"loss": total.item(), "reconstruction": loss.item(), "commitment": commitment.item()}
