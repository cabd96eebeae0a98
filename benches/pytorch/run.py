"""Runs one piece of work and reports each step as a line of JSON.

    python run.py WORK --config CONFIG.json --weights DIR/weights.safetensors [--inputs DIR/inputs.safetensors]
                  [--threads 2] [--rounds N] [--save OUT.safetensors]

With --rounds it runs N steps and ends. Without, it runs one step for each line `step` on its standard input and ends at `quit`
or at the end of the input, so that a driver can alternate steps between two processes.

The first line tells that everything is loaded; the others are steps:

    {"event": "ready", "name": ..., "torch": ..., "threads": ..., "omp_wait_policy": ...,
     "baseline_mb": ..., "loaded_mb": ...}
    {"event": "step", "name": ..., "round": 0, "ms": ..., "peak_mb": ..., "checksum": ..., further numbers of the work}

Memory is the high-water mark of the resident set of the whole process, in MiB: `baseline_mb` after the imports, `loaded_mb` with
weights and inputs in memory, `peak_mb` after the step. Time is that of the step alone. The environment variable OMP_WAIT_POLICY
decides how PyTorch's threads wait for each other; it is reported because it can change the times tenfold on a busy machine.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from works import WORKS, read_config


def peak_mb():
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def say(**line):
    print(json.dumps(line), flush=True)


def parse():
    parser = argparse.ArgumentParser(description="Time one piece of work in PyTorch.")
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="not needed for the searches")
    parser.add_argument("--inputs", type=Path, help="default: inputs.safetensors beside the weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="default: a step for each line on standard input")
    parser.add_argument("--save", type=Path, help="write the tensors of the last step here")
    args = parser.parse_args()
    if args.weights is None and not args.work.startswith("nearest"):
        parser.error(f"--weights is needed for {args.work}")
    if args.inputs is None:
        if args.weights is None:
            parser.error("--inputs is needed where there are no weights")
        args.inputs = args.weights.with_name("inputs.safetensors")
    return args


def requests(rounds):
    """One item a step to run."""
    if rounds is not None:
        yield from range(rounds)
        return
    for line in sys.stdin:
        word = line.strip()
        if word == "quit":
            return
        if word != "step":
            raise SystemExit(f"expected `step` or `quit`, got {word!r}")
        yield


def main():
    args = parse()
    baseline = peak_mb()
    torch.set_num_threads(args.threads)
    kind = WORKS[args.work]
    weights = load_file(args.weights) if args.weights else {}
    work = kind(read_config(kind.config, args.config), weights, load_file(args.inputs))
    del weights
    setting = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }
    say(event="ready", name=args.work, **setting, baseline_mb=baseline, loaded_mb=peak_mb())
    tensors = {}
    for index, _ in enumerate(requests(args.rounds)):
        start = time.perf_counter()
        numbers, tensors = work.step()
        ms = round((time.perf_counter() - start) * 1e3, 3)
        say(event="step", name=args.work, round=index, ms=ms, peak_mb=peak_mb(), **numbers)
    if args.save:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.save)


if __name__ == "__main__":
    main()
