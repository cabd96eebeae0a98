"""RQ-Transformer in plain PyTorch: body and depth transformers, losses, training step, sampling.

The published form of "Autoregressive Image Generation using Residual Quantization" (Lee et al., CVPR 2022), stage 2,
written from its description, as a baseline to measure against. Parameter names are those of the published checkpoints.

Shapes: codes [batch, height, width, depth]; cond [batch, cond_length]; logits [batch, height, width, depth, codebook_size].
With T = height * width positions, e the frozen stage-1 codebook and causal pre-norm blocks throughout:

    body input   cond_emb + pos_emb_cond, then for t = 0..T-2  sum_d (W_in e(S_td) + b_in) + pos_emb_hw[t]
    h_t          body output at cond_length - 1 + t
    head input   h_t + pos_emb_d[0], then for d = 1..D-1  W_head (sum_{d' < d} e(S_td')) + b_head + pos_emb_d[d]
    logits       Linear(LayerNorm(head output)), one classifier for all depths

Without the stage-1 codebook (`code_embedding` false) the model has its own table of D * K rows and no cumulative sum.

Sampling keeps the habits of the published form, because that is what is measured: keys and values are re-allocated by
concatenation at every step, the embedding of the whole prefix is computed again at every position, the head's input linear
runs again over all chosen depths at every depth, and the probabilities are fully sorted even where top_p is 1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class RqTransformerConfig:
    height: int
    width: int
    depth: int
    codebook_size: int
    embed_dim: int
    code_dim: int  # width of the stage-1 codebook's rows
    body_layers: int
    body_heads: int
    head_layers: int
    head_heads: int
    cond_vocab: int = 1
    cond_length: int = 1
    code_embedding: bool = True
    dropout: float = 0.1

    @classmethod
    def from_published(cls, arch):
        """From the `arch` table of a published config.yaml. Variants that no published model uses are refused."""
        if not arch["shared_cls_emb"]:
            raise ValueError("expected shared_cls_emb: true, got a classifier for each depth")
        kinds = {arch[name] for name in ("input_emb_vqvae", "head_emb_vqvae", "cumsum_depth_ctx", "shared_tok_emb")}
        if len(kinds) != 1:
            raise ValueError("expected input_emb_vqvae = head_emb_vqvae = cumsum_depth_ctx = shared_tok_emb")
        height, width, depth = arch["block_size"]
        return cls(
            height=height,
            width=width,
            depth=depth,
            codebook_size=arch["vocab_size"],
            embed_dim=arch["embed_dim"],
            code_dim=arch.get("input_embed_dim", 0),
            body_layers=arch["body"]["n_layer"],
            body_heads=arch["body"]["block"]["n_head"],
            head_layers=arch["head"]["n_layer"],
            head_heads=arch["head"]["block"]["n_head"],
            cond_vocab=max(arch["vocab_size_cond"], 1),
            cond_length=max(arch["block_size_cond"], 1),
            code_embedding=kinds.pop(),
            dropout=arch["body"]["block"].get("resid_pdrop", 0.1),
        )


class Attention(nn.Module):
    """Causal attention over [batch, length, width]; `past` holds the stacked keys and values of earlier tokens."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, past=None):
        batch, length, width = x.shape

        def split(y):
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if past is not None:
            k = torch.cat([past[0], k], dim=2)
            v = torch.cat([past[1], v], dim=2)
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        if length > 1:
            seen = k.shape[2]
            later = torch.ones(length, seen, dtype=torch.bool, device=x.device).triu(seen - length + 1)
            scores = scores.masked_fill(later, float("-inf"))
        y = torch.softmax(scores, dim=-1) @ v
        y = y.transpose(1, 2).reshape(batch, length, width)
        return self.dropout(self.proj(y)), (k, v)


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout))

    def forward(self, x, past=None):
        y, present = self.attn(self.ln1(x), past)
        x = x + y
        return x + self.mlp(self.ln2(x)), present


class Stack(nn.Module):
    """Causal blocks, without a norm at the end."""

    def __init__(self, layers, width, heads, dropout):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))

    def forward(self, x):
        for block in self.blocks:
            x, _ = block(x)
        return x

    def cached(self, x, past):
        """New tokens after those in `past` (None, or [layers, 2, batch, heads, length, head width]); a new cache."""
        present = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, None if past is None else past[i])
            present.append(torch.stack(kv))
        return x, torch.stack(present)


class Classifier(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x):
        return self.linear(self.layer_norm(x))


class DepthEmbedding(nn.Module):
    """One table for all depths in one matrix: depth d owns the rows from offsets[d] on."""

    def __init__(self, depth, codebook_size, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(depth * codebook_size, width))
        self.register_buffer("offsets", torch.arange(depth) * codebook_size)

    def forward(self, codes):
        return F.embedding(codes + self.offsets[: codes.shape[-1]], self.weight)


class RqTransformer(nn.Module):
    def __init__(self, config, codebook=None):
        """`codebook`: the frozen stage-1 table [codebook_size or more rows, code_dim]; not part of the weights."""
        super().__init__()
        self.config = c = config
        self.pos_emb_cond = nn.Parameter(torch.zeros(1, c.cond_length, c.embed_dim))
        self.pos_emb_hw = nn.Parameter(torch.zeros(1, c.height * c.width, c.embed_dim))
        self.pos_emb_d = nn.Parameter(torch.zeros(1, c.depth, c.embed_dim))
        self.cond_emb = nn.Embedding(c.cond_vocab, c.embed_dim)
        if c.code_embedding:
            self.input_mlp = nn.Linear(c.code_dim, c.embed_dim)
            self.head_mlp = nn.Linear(c.code_dim, c.embed_dim)
        else:
            self.tok_emb = DepthEmbedding(c.depth, c.codebook_size, c.embed_dim)
        self.body_transformer = Stack(c.body_layers, c.embed_dim, c.body_heads, c.dropout)
        self.head_transformer = Stack(c.head_layers, c.embed_dim, c.head_heads, c.dropout)
        self.classifier = Classifier(c.embed_dim, c.codebook_size)
        if c.cond_length > 1:
            self.cond_classifier = Classifier(c.embed_dim, c.cond_vocab)
        self.register_buffer("codebook", codebook, persistent=False)

    @torch.no_grad()
    def initialize(self, generator):
        """N(0, 0.02) for matrices, tables and positions; 0 for biases; 1 and 0 for layer norms."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        return self

    def embed_positions(self, codes):
        """[batch, n, depth] -> [batch, n, embed_dim]; the linear runs before the sum, so its bias counts depth times."""
        if self.config.code_embedding:
            tokens = self.input_mlp(F.embedding(codes, self.codebook))
        else:
            tokens = self.tok_emb(codes)
        return tokens.sum(dim=-2) + self.pos_emb_hw[:, : codes.shape[1]]

    def embed_depths(self, codes):
        """[..., n] -> [..., n, embed_dim]: head inputs 1..n that follow n chosen depths."""
        if self.config.code_embedding:
            tokens = self.head_mlp(F.embedding(codes, self.codebook).cumsum(dim=-2))
        else:
            tokens = self.tok_emb(codes)
        return tokens + self.pos_emb_d[0, 1 : codes.shape[-1] + 1]

    def body_input(self, codes, cond):
        """The condition and then the given positions [batch, n, depth]."""
        start = self.cond_emb(cond) + self.pos_emb_cond
        return torch.cat([start, self.embed_positions(codes)], dim=1)

    def body_outputs(self, codes, cond):
        """[batch, cond_length + T - 1, embed_dim] for codes [batch, height, width, depth]."""
        return self.body_transformer(self.body_input(codes.flatten(1, 2)[:, :-1], cond))

    def forward(self, codes, cond):
        """Logits [batch, height, width, depth, codebook_size], and the text's [batch, cond_length - 1, cond_vocab] or None."""
        batch, height, width, depth = codes.shape
        outputs, last = self.body_outputs(codes, cond), self.config.cond_length - 1
        first = outputs[:, last:].unsqueeze(2) + self.pos_emb_d[:, :1]
        rest = self.embed_depths(codes.flatten(1, 2)[..., :-1])
        x = torch.cat([first, rest], dim=2).flatten(0, 1)
        logits = self.classifier(self.head_transformer(x)).view(batch, height, width, depth, -1)
        return logits, self.cond_classifier(outputs[:, :last]) if last > 0 else None

    @torch.no_grad()
    def sample(self, codes, cond, sampler, start=(0, 0)):
        """Fills `codes` [batch, height, width, depth] from position `start` on, in raster and depth order; a new tensor."""
        config, shape = self.config, codes.shape
        codes = codes.flatten(1, 2).clone()
        body_past = None
        for t in range(start[0] * config.width + start[1], config.height * config.width):
            x = self.body_input(codes[:, :t], cond)
            context, body_past = self.body_transformer.cached(x if body_past is None else x[:, -1:], body_past)
            head_past = None
            for d in range(config.depth):
                if d == 0:
                    x = context[:, -1:] + self.pos_emb_d[:, :1]
                else:
                    x = self.embed_depths(codes[:, t, :d])[:, -1:]
                y, head_past = self.head_transformer.cached(x, head_past)
                codes[:, t, d] = sampler(self.classifier(y[:, -1]))
        return codes.view(shape)


class Sampler:
    """Codes [batch] from logits [batch, K]: temperature, top-k, softmax, top-p over a full sort, one draw.

    `race` [n, batch, K], exponentially distributed, fixes the draws: the i-th call takes argmax p / race[i mod n], which is how
    a draw from a discrete distribution is made with fresh exponential numbers. Without it torch.multinomial draws.
    """

    def __init__(self, top_k=None, top_p=1.0, temperature=1.0, race=None):
        self.top_k, self.top_p, self.temperature, self.race = top_k, top_p, temperature, race
        self.calls = 0

    def __call__(self, logits):
        logits = logits / self.temperature
        kth = torch.topk(logits, self.top_k or logits.shape[-1], dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
        probabilities = torch.softmax(logits, dim=-1)
        ordered, index = torch.sort(probabilities, dim=-1, descending=True)
        before = F.pad(ordered.cumsum(dim=-1)[:, :-1], (1, 0))  # what the entries in front add up to
        cut = before >= self.top_p
        probabilities = probabilities.masked_fill(torch.zeros_like(cut).scatter(-1, index, cut), 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
        if self.race is None:
            return torch.multinomial(probabilities, 1).squeeze(1)
        draw = self.race[self.calls % self.race.shape[0]]
        self.calls += 1
        return (probabilities / draw).argmax(dim=-1)


def log_softmax_published(logits):
    """Log-softmax with 1e-7 inside the logarithm of the partition sum."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return shifted - torch.log(shifted.exp().sum(dim=-1, keepdim=True) + 1e-7)


def soft_target_cross_entropy(logits, targets):
    return -(targets * log_softmax_published(logits)).sum(dim=-1).mean()


def hard_cross_entropy(logits, codes):
    return F.cross_entropy(logits.flatten(0, -2), codes.flatten())


class Stage2Trainer:
    """One AdamW step: codes and targets from latents, forward, loss, backward, clipping to norm 1, step.

    Without a temperature the codes themselves are the targets.

    Weight decay applies to every parameter: how the published training grouped them is not known.
    """

    def __init__(self, model, quantizer, learning_rate=5e-4, stochastic=True):
        self.model, self.quantizer, self.stochastic = model.train(), quantizer.eval(), stochastic
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)

    def step(self, latents, cond, temperature=0.5):
        if temperature is None:
            _, codes = self.quantizer.quantize(latents)
            logits, _ = self.model(codes, cond)
            loss = hard_cross_entropy(logits, codes)
        else:
            targets, codes = self.quantizer.soft_codes(latents, temperature, self.stochastic)
            logits, _ = self.model(codes, cond)
            loss = soft_target_cross_entropy(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss.item(), "gradient_norm": norm.item()}
