"""Compares rqvae.py and rqtransformer.py with reference tensors; exits with 1 if anything disagrees.

    python check.py GOLDENS_DIR

GOLDENS_DIR holds one folder a case, with `tensors.safetensors` and, for models, `model.pt` and `config.yaml`.
Every line is one comparison: its largest error, or the number of codes that differ. Codes may differ only where the recorded
margin between the two best choices is below the case's tolerance of 1e-4; after a first such code the later depths of that
position follow another residual and are not compared.
"""

import argparse
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from rqtransformer import (
    RqTransformer,
    RqTransformerConfig,
    Sampler,
    hard_cross_entropy,
    soft_target_cross_entropy,
)
from rqvae import EmaCodebook, ResidualQuantizer, RqVae, RqVaeConfig


class Report:
    def __init__(self):
        self.failures = 0
        self.case = ""

    def line(self, name, good, text):
        self.failures += not good
        print(f"{'ok  ' if good else 'FAIL'} {self.case:28} {name:26} {text}")

    def close(self, name, got, want, atol=2e-5, rtol=1e-4):
        if got.shape != want.shape:
            self.line(name, False, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")
            return
        error = (got.double() - want.double()).abs()
        good = bool((error <= atol + rtol * want.double().abs()).all())  # NaN compares false
        self.line(name, good, f"max error {error.max().item():.3e} (values up to {want.abs().max().item():.3g})")

    def scalar(self, name, got, want):
        self.close(name, got.detach(), want, atol=0.0, rtol=1e-5)

    def codes(self, name, got, want, margin=None):
        if got.shape != want.shape:
            self.line(name, False, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")
            return
        wrong = got != want
        differing = int(wrong.sum())
        if margin is not None:
            close_call = wrong & (margin < 1e-4)
            wrong = wrong & ~(close_call.cumsum(dim=-1) > 0)
        self.line(name, not bool(wrong.any()), f"{differing} of {want.numel()} codes differ")


def load_case(folder):
    return load_file(folder / "tensors.safetensors")


def load_model(folder, build, from_published):
    arch = yaml.safe_load((folder / "config.yaml").read_text())["arch"]
    model = build(from_published(arch))
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True)["state_dict"], strict=True)
    return model.eval()


@torch.no_grad()
def check_stage1(report, folder):
    want = load_case(folder)
    model = load_model(folder, RqVae, RqVaeConfig.from_published)
    quantizer = model.quantizer
    latents = model.encode(want["x"])
    report.close("latents", latents, want["z_e"])
    report.close("folded latents", quantizer.fold(latents), want["z_c"])
    sums, codes = quantizer.quantize(quantizer.fold(want["z_e"]))
    report.codes("codes of stored latents", codes, want["codes"], want["margin"])
    report.codes("codes of images", quantizer(latents)[2], want["codes"], want["margin"])
    for depth, partial in enumerate(sums):
        report.close(f"partial sum {depth}", partial, want[f"partial_sum_d{depth}"])
    row = want["z_c"][0].flatten(0, 1)[:8]
    report.close("distances", quantizer.codebooks[0].distances(row), want["dist_d0"])
    reconstruction, commitment, codes = model(want["x"])
    report.close("reconstruction", reconstruction, want["recon"])
    report.close("quantized", quantizer(want["z_e"])[0], want["z_q"])
    total, loss, latent = model.losses(want["x"], reconstruction, commitment)
    report.scalar("loss", total, want["loss_total"])
    report.scalar("reconstruction loss", loss, want["loss_recon"])
    report.scalar("commitment", latent, want["loss_latent"])
    codes = want["codes"]
    report.close("decoded codes", model.decode_codes(codes), want["decode_code"])
    report.close("embedded codes", quantizer.embed(codes), want["embed_code"])
    report.close("decoded depths 0 and 1", model.decode_codes(codes, [0, 1]), want["partial_add1"])
    report.close("decoded depth 1", model.decode_codes(codes, [1]), want["partial_select1"])
    if "soft_probs" in want:
        soft, codes = quantizer.soft_codes(want["z_e"], 0.5, stochastic=False)
        report.close("soft targets", soft[0, :2], want["soft_probs"])
        report.codes("codes with soft targets", codes, want["soft_codes"], want["margin"])


class RecordedDraws:
    """Restart draws of a case, served in the order of the depths."""

    def __init__(self, case, variant):
        self.case, self.variant, self.depth = case, variant, 0

    def noise(self, rows, width):
        noise = self.case[f"{self.variant}.restart_noise.{self.depth}"]
        assert noise.shape == (rows, width), f"expected noise {(rows, width)}, got {tuple(noise.shape)}"
        return noise

    def permutation(self, rows):
        self.depth += 1
        return self.case[f"{self.variant}.restart_perm.{self.depth - 1}"]


# variant: shared codebook, codebook size, code width, depth, restart, decay
EMA_VARIANTS = {
    "shared_norestart": (True, 40, 8, 3, False, 0.99),
    "shared_restart": (True, 32, 8, 3, True, 0.99),
    "shared_restart_tile": (True, 100, 6, 2, True, 0.95),
    "nonshared_norestart": (False, 24, 5, 2, False, 0.9),
    "zeroinit": (True, 16, 4, 2, False, 0.99),
}


def quantizer_only(shared, size, width, depth, restart, decay):
    return ResidualQuantizer(
        RqVaeConfig(
            resolution=8,
            channels=32,
            multipliers=[1],
            blocks=1,
            attention_resolutions=[],
            z_channels=width,
            code_dim=width,
            codebook_sizes=[size] * depth,
            decays=[decay] * depth,
            shared_codebook=shared,
            restart_unused_codes=restart,
        )
    )


@torch.no_grad()
def check_ema(report, folder):
    case = load_case(folder)
    for variant, setup in EMA_VARIANTS.items():
        report.case = f"{folder.name}.{variant}"
        quantizer = quantizer_only(*setup).train()
        draws = RecordedDraws(case, variant)
        tables = quantizer.codebooks[:1] if setup[0] else quantizer.codebooks
        state = ("weight", "cluster_size_ema", "embed_ema")
        for i, codebook in enumerate(tables):
            codebook.draws = draws
            for name in state:
                getattr(codebook, name).copy_(case[f"{variant}.before.{name}.{i}"])
        quantized, commitment, codes = quantizer(case[f"{variant}.x"])
        report.codes("codes", codes, case[f"{variant}.codes"], case[f"{variant}.margin"])
        report.close("quantized", quantized, case[f"{variant}.z_q"])
        report.close("commitment", commitment, case[f"{variant}.commit"], rtol=1e-4)
        for i, codebook in enumerate(tables):
            for name in state:
                want = case[f"{variant}.after.{name}.{i}"]
                report.close(f"{name}.{i} after", getattr(codebook, name), want, atol=1e-5)
        _, commitment, codes = quantizer.eval()(case[f"{variant}.x"])
        report.codes("codes after", codes, case[f"{variant}.eval_codes_after"])
        report.close("commitment after", commitment, case[f"{variant}.eval_commit_after"], rtol=1e-4)


@torch.no_grad()
def check_transformer(report, folder):
    want = load_case(folder)

    def build(config):
        return RqTransformer(config, want["codebook"])

    model = load_model(folder, build, RqTransformerConfig.from_published)
    codes, last = want["codes"], model.config.cond_length - 1
    cond = want.get("cond", torch.zeros(codes.shape[0], 1, dtype=torch.int64))
    report.close("body output", model.body_outputs(codes, cond)[:, last:], want["body_ctx"])
    logits, cond_logits = model(codes, cond)
    report.close("logits", logits, want["logits"])
    report.scalar("hard loss", hard_cross_entropy(logits, codes), want["loss_hard"])
    report.scalar("soft loss", soft_target_cross_entropy(logits, want["soft_targets"]), want["loss_soft"])
    per_depth = [hard_cross_entropy(logits[..., d, :], codes[..., d]) for d in range(codes.shape[-1])]
    report.close("hard loss of each depth", torch.stack(per_depth), want["per_depth_loss"], atol=0.0, rtol=1e-5)
    if last > 0:
        report.close("text logits", cond_logits, want["cond_logits"])
        report.scalar("text loss", hard_cross_entropy(cond_logits, cond[:, 1:]), want["loss_cond"])
    greedy = model.sample(torch.zeros_like(codes), cond, Sampler(top_k=1))
    report.codes("greedy sample", greedy, want["sample_greedy"])
    partial = model.sample(codes, cond, Sampler(top_k=1), tuple(want["start_loc"].tolist()))
    report.codes("greedy completion", partial, want["sample_partial"])


def check_worked_examples(report):
    """Small numbers worked out by hand, the sampler's set arithmetic, and sizes of the published models."""
    report.case = "worked examples"
    quantizer = quantizer_only(True, 3, 2, 2, False, 0.99)
    codebook: EmaCodebook = quantizer.codebooks[0]
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    with torch.no_grad():
        codebook.weight[:3] = table
        codebook.embed_ema.copy_(table)
    x = torch.tensor([[0.9, 0.1], [0.2, 1.7], [1.2, -0.2]]).view(1, 1, 3, 2).requires_grad_()
    soft, _ = quantizer.soft_codes(x.detach()[:, :, 1:2], 0.5, stochastic=False)
    report.close("soft target", soft[0, 0, 0, 0], torch.tensor([0.003680, 0.001108, 0.995211]), atol=1e-6)
    quantized, commitment, codes = quantizer.train()(x)
    report.codes("codes", codes[0, 0], torch.tensor([[1, 0], [2, 0], [1, 0]]))
    report.close("commitment", commitment.detach(), torch.tensor(0.0383333), atol=1e-6)
    rows = torch.tensor([[0.100017, -0.133356], [50.575262, -0.050025], [0.2, 199.7]])
    first_depth = EmaCodebook(3, 2, 0.99, False)
    with torch.no_grad():
        first_depth.weight[:3] = table
    first_depth.embed_ema.copy_(table)
    first_depth.accumulate(x.detach(), codes[..., 0])
    first_depth.rewrite()
    report.close("table after depth 1", first_depth.weight[1:3].detach(), rows[1:], rtol=1e-5)
    report.close("row 0 after depth 2", codebook.weight[0].detach(), rows[0], atol=1e-6)
    weights = torch.arange(1.0, 7.0).view(1, 1, 3, 2)
    (quantized * weights).sum().backward()
    report.close("straight-through gradient", x.grad, weights, atol=0.0, rtol=0.0)
    check_sampler(report)
    check_sizes(report)


def check_sampler(report):
    probabilities = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]])
    for top_k, top_p, kept in [(None, 1.0, 5), (None, 0.69, 2), (None, 0.71, 3), (2, 0.5, 1), (3, 0.95, 3), (1, 1.0, 1)]:
        # one very favourable draw for each code in turn: exactly the codes that were kept can be drawn
        race = torch.full((5, 1, 5), 1e9)
        race[range(5), 0, range(5)] = 1e-9
        sampler = Sampler(top_k=top_k, top_p=top_p, race=race)
        drawn = {int(sampler(probabilities.log())) for _ in range(5)}
        expected = set(probabilities[0].argsort(descending=True)[:kept].tolist())
        report.line(f"top_k {top_k} top_p {top_p}", drawn == expected, f"can draw {sorted(drawn)}")
    torch.manual_seed(0)
    sampler = Sampler(top_k=3)
    counts = torch.bincount(torch.cat([sampler(probabilities.log().expand(1000, 5)) for _ in range(20)]), minlength=5)
    want = torch.tensor([0.0, 0.4, 0.0, 0.3, 0.15]) / 0.85
    report.close("drawn frequencies", counts / 20000, want, atol=0.02, rtol=0.0)


def check_sizes(report):
    def count(module):
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        vae = RqVae(
            RqVaeConfig(256, 128, [1, 1, 2, 2, 4, 4], 2, [8], 256, 256, [16384] * 4, [0.99] * 4)
        )
        sizes = [
            ("RQ-VAE f32 encoder", count(vae.encoder), 41_101_312),
            ("RQ-VAE f32 decoder", count(vae.decoder), 58_974_595),
            ("RQ-VAE f32 state entries", len(vae.state_dict()), 398),
        ]
        for name, width, heads, body, head, cond, length, size, total in [
            ("FFHQ", 1024, 16, 24, 4, 1, 1, 2048, 355_393_536),
            ("ImageNet 480M", 1536, 24, 12, 4, 1000, 1, 16384, 480_921_088),
            ("CC-3M", 1280, 20, 26, 4, 16384, 32, 16384, 654_061_568),
        ]:
            config = RqTransformerConfig(8, 8, 4, size, width, 256, body, heads, head, heads, cond, length)
            sizes.append((f"{name} parameters", count(RqTransformer(config)), total))
    for name, got, want in sizes:
        report.line(name, got == want, f"{got}, expected {want}")


CASES = {
    "rqvae_stage1": check_stage1,
    "rqvae_stage1_nonshared": check_stage1,
    "rqvae_ema": check_ema,
    "rqtransformer_class": check_transformer,
    "rqtransformer_text": check_transformer,
    "rqtransformer_uncond_tokemb": check_transformer,
}


def main():
    parser = argparse.ArgumentParser(description="Compare the PyTorch baseline with reference tensors.")
    parser.add_argument("goldens", type=Path, help="folder with one folder a case")
    goldens = parser.parse_args().goldens
    report = Report()
    for name, check in CASES.items():
        report.case = name
        if (goldens / name / "tensors.safetensors").is_file():
            check(report, goldens / name)
        else:
            report.line("case", False, f"expected tensors.safetensors in {goldens / name}, found none")
    check_worked_examples(report)
    print(f"{report.failures} comparisons failed" if report.failures else "every comparison agrees")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
