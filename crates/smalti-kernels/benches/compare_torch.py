"""Times the kernels of `benches/rows.rs` against PyTorch on the CPU, in alternating rounds.

    cargo bench -p smalti-kernels --bench rows --no-run      # prints the path of the program
    RAYON_NUM_THREADS=2 python benches/compare_torch.py PROGRAM [ROUNDS] [NAME-PART]

Each round runs every case once in both programs, one after the other, so that other load on the
machine meets both. Printed are medians, and the median of the rounds' ratios: over 1 means that
PyTorch took longer.
"""

import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ["RAYON_NUM_THREADS"]))
torch.manual_seed(0)


def nearest(size, dim, rows):
    codes, queries = torch.randn(size, dim), torch.randn(rows, dim)
    return lambda: torch.cdist(queries, codes).argmin(1)


def trained(forward, *inputs):
    """Forward and backward with a given gradient of the output."""
    inputs = [x.requires_grad_() for x in inputs]
    grad = torch.randn_like(forward(*inputs))

    def step():
        for x in inputs:
            x.grad = None
        forward(*inputs).backward(grad)

    return step


def free(forward, *inputs):
    def step():
        with torch.no_grad():
            forward(*inputs)

    return step


def both(name, forward, *inputs):
    return {
        name.format("forward"): free(forward, *[x.clone() for x in inputs]),
        name.format("both"): trained(forward, *inputs),
    }


def group_norm(batch, channels, side):
    inputs = torch.randn(batch, channels, side, side), torch.randn(channels), torch.randn(channels)
    run = lambda x, g, b: F.silu(F.group_norm(x, 32, g, b, 1e-6))
    return both(f"group norm {{}} {batch},{channels},{side},{side}", run, *inputs)


def soft_loss(logits, targets):
    return -(targets * F.log_softmax(logits, -1)).sum(-1)


def attention(heads, length, width):
    inputs = [torch.randn(1, heads, length, width) for _ in range(3)]
    run = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return both(f"attention {{}} {heads},{length},{width}", run, *inputs)


def decoding():
    q, k, v = torch.randn(1, 256, 1, 64), *[torch.randn(1, 256, 256, 64) for _ in range(2)]
    return free(lambda: F.scaled_dot_product_attention(q, k[:, :, :200], v[:, :, :200]))


def adamw():
    parameter = torch.nn.Parameter(torch.randn(4 << 20))
    parameter.grad = torch.randn(4 << 20)
    optimiser = torch.optim.AdamW([parameter], 1e-4, (0.9, 0.95), weight_decay=1e-4, fused=True)
    return lambda: optimiser.step()


def cases():
    yield "nearest 65536x16 for 4096", nearest(65536, 16, 4096)
    yield "nearest 512x64 for 16384", nearest(512, 64, 16384)
    for shape in (4, 128, 64), (32, 32, 32), (64, 128, 4):
        yield from group_norm(*shape).items()
    norm = lambda x, g, b: F.layer_norm(x, (256,), g, b)
    inputs = torch.randn(4096, 256), torch.randn(256), torch.randn(256)
    yield from both("layer norm {} 4096,256", norm, *inputs).items()
    yield from both("gelu {} 4096,1024", F.gelu, torch.randn(4096, 1024)).items()
    targets = torch.rand(1024, 4096) / 4096
    loss = lambda x: soft_loss(x, targets)
    yield from both("cross entropy {} 1024,4096", loss, torch.randn(1024, 4096)).items()
    yield from attention(256, 64, 32).items()
    yield from attention(64, 256, 64).items()
    yield from attention(8192, 4, 32).items()
    yield "decode 256 heads, 200 of 256, 64", decoding()
    yield "adamw 4194304", adamw()


def main():
    program = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 21
    part = sys.argv[3] if len(sys.argv) > 3 else ""
    served = subprocess.Popen(
        [program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )

    def ours(name):
        served.stdin.write(name + "\n")
        served.stdin.flush()
        return float(served.stdout.readline())

    for name, step in cases():
        if part not in name:
            continue
        ours(name), step()
        pairs = []
        for _ in range(rounds):
            mine = ours(name)
            start = time.perf_counter()
            step()
            pairs.append((mine, (time.perf_counter() - start) * 1e3))
        mine, theirs = (statistics.median(column) for column in zip(*pairs))
        ratio = statistics.median(theirs / mine for mine, theirs in pairs)
        print(f"{name:40} smalti {mine:9.3f} ms, torch {theirs:9.3f} ms, ratio {ratio:6.2f}", flush=True)
    served.stdin.close()


if __name__ == "__main__":
    main()
