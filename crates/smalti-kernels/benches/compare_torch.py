"""Times the kernels of `benches/rows.rs` against PyTorch on the CPU, in alternating rounds.

    cargo bench -p smalti-kernels --bench rows --no-run      # prints the path of the program
    RAYON_NUM_THREADS=2 python benches/compare_torch.py PROGRAM [ROUNDS] [NAME-PART]

Each round runs every case once in both programs, one after the other, so that other load on the
machine meets both. Printed are medians, and the median of the rounds' ratios: over 1 means that
PyTorch took longer.
"""

import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(2)
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


def cases():
    yield "nearest 65536x16 for 4096", nearest(65536, 16, 4096)
    yield "nearest 512x64 for 16384", nearest(512, 64, 16384)
    for shape in (4, 128, 64), (32, 32, 32), (64, 128, 4):
        yield from group_norm(*shape).items()


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
