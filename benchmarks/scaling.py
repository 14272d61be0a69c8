"""A training step shared by processes: what its parts take, and the whole. See docs/scaling.md.

usage: torchrun --standalone --nproc-per-node 2 benchmarks/scaling.py [options]

A tagging model in PyTorch (embedding of 5000 words, recurrent layers in both directions, output
layer, cross-entropy, SGD) on sequences of 40 steps. In turns:

    one process     a step with the whole batch in the first process, the others waiting: with the
                    threads of one process, and with those of all
    compute         each process's step with its share of the batch, till the last is done
    all-reduce      the sum of as many bytes as there are gradients, and of 4 bytes, over processes
    step            the whole step under DistributedDataParallel

Printed are the smallest and the median of the rounds, as the first process sees them.
"""

import argparse
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn

import fastrnn.torch

WORDS, TAGS, STEPS = 5000, 20, 40


class Tagger(nn.Module):
    def __init__(self, kind, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, hidden)
        self.recurrent = getattr(nn, kind)(hidden, hidden, layers, bidirectional=True)
        self.head = nn.Linear(2 * hidden, TAGS)

    def forward(self, words):
        return self.head(self.recurrent(self.embedding(words))[0])


def stepper(model, batch):
    words, tags = torch.randint(0, WORDS, (STEPS, batch)), torch.randint(0, TAGS, (STEPS, batch))
    sgd = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(model(words).flatten(0, 1), tags.flatten())
        loss.backward()
        sgd.step()

    return step


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--kind", choices=["RNN", "LSTM", "GRU"], default="LSTM")
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=2)
    add("--batch", type=int, default=32, help="of all processes together")
    add("--threads", type=int, default=1, help="of each process")
    add("--rounds", type=int, default=30)
    add("--plain", action="store_true", help="PyTorch's own layers")
    options = parser.parse_args()
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    all_threads = options.threads * ranks

    def model():
        made = Tagger(options.kind, options.hidden, options.layers)
        if not options.plain:
            fastrnn.torch.accelerate(made)
        return made

    whole = stepper(model(), options.batch)
    alone = stepper(model(), options.batch // ranks)
    shared = model()
    size = sum(p.numel() for p in shared.parameters())
    gradients, one = torch.zeros(size), torch.zeros(1)
    shared = stepper(nn.parallel.DistributedDataParallel(shared), options.batch // ranks)

    def in_first(threads):
        if rank == 0:
            torch.set_num_threads(threads)
            whole()
            torch.set_num_threads(options.threads)

    torch.set_num_threads(options.threads)
    calls = {
        f"one process, threads: {options.threads}": lambda: in_first(options.threads),
        f"one process, threads: {all_threads}": lambda: in_first(all_threads),
        "compute": lambda: (alone(), dist.barrier()),
        "all-reduce": lambda: dist.all_reduce(gradients),
        "all-reduce of 4 bytes": lambda: dist.all_reduce(one),
        "step": shared,
    }
    times = {name: [] for name in calls}
    for _ in range(options.rounds + 2):
        for name, call in calls.items():
            dist.barrier()
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    if rank == 0:
        print(
            f"{options.kind} of {options.hidden}, {options.layers} layers, {4e-6 * size:.1f} MB of "
            f"gradients, {options.batch} sequences; processes: {ranks}, threads of each: "
            f"{options.threads}"
        )
        for name, found in times.items():
            found = found[2:]
            print(f"  {name:24} {min(found):8.2f} ms, median {statistics.median(found):8.2f} ms")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
