"""Speed and memory of PH-Reg's teacher target against a target computed straight from the paper.

python benchmarks/bench_ph_reg.py --json benchmarks/results/bench_ph_reg.json

The weights are random: they change no time. The baseline makes every view as an image, keeps maps of indices, runs all
views at once and builds the whole matrices of attention, see ``plain_ph_reg``.
"""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import plain_ph_reg
import torch
from _common import Row, keep_memory, parse_arguments, peak_mb, report
from torch import Tensor

from vfd.backbones import RegisterViT
from vfd.methods.ph_reg.denoise import denoise
from vfd.methods.ph_reg.views import Views, sample_views, token_index

SHIFT = 0.15


class Case:
    """One network, one image, N views."""

    def __init__(self, arch: str, size: int, number: int, patch: int | None = None, depth: int = 12) -> None:
        torch.manual_seed(0)
        keywords: dict[str, Any] = {'depth': depth}
        if patch is not None:
            keywords['patch_size'] = patch
        self.network = RegisterViT(arch, num_registers=0, img_size=size, **keywords).eval()
        self.network.requires_grad_(False)
        self.plain = plain_ph_reg.eager(copy.deepcopy(self.network))
        self.patch = self.network.patch_size
        self.grid = (size // self.patch,) * 2
        self.image = torch.randn(3, size, size)
        mean, std = torch.tensor(self.network.mean), torch.tensor(self.network.std)
        self.white = (1 - mean) / std
        self.views = sample_views(self.grid, number, SHIFT, (0, 1, 2))

    def ours(self, chunk: int = 1, dtype: torch.dtype | None = None) -> Tensor:
        """(P * P, D)."""
        views = Views(self.views.shifts[None], self.views.flips[None])
        with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
            return denoise(self.network, self.image[None], views, self.white, chunk)[0]

    @torch.no_grad()
    def baseline(self) -> Tensor:
        """(P * P, D)."""
        pixels, places = plain_ph_reg.views(
            self.image, self.views.shifts, self.views.flips, self.patch, self.white
        )
        return plain_ph_reg.restore(self.plain.dense(pixels).unflatten(1, self.grid), places)

    @torch.no_grad()
    def our_embedding(self) -> Tensor:
        """Embedded patches of all views, (N, P * P, D)."""
        index = token_index(self.grid, self.views)
        return self.network.patch_table(self.image[None], self.white)[0][index]

    @torch.no_grad()
    def plain_embedding(self) -> Tensor:
        """The same through images."""
        pixels, _ = plain_ph_reg.views(
            self.image, self.views.shifts, self.views.flips, self.patch, self.white
        )
        return self.plain.project(pixels).flatten(1, 2)


def compare(
    sides: dict[str, Callable[[], Tensor]],
    baseline: Callable[[], Tensor],
    aim: float,
    setting: str,
    repeats: int,
    allowed: float = 1e-5,
) -> list[Row]:
    """Results first, then CPU seconds of all sides, which take turns; one row a side of ours, by its name."""
    expected = baseline()
    differences = [(side() - expected).abs().max().item() for side in sides.values()]
    assert max(differences) <= allowed * max(1.0, expected.abs().max().item()), differences
    seconds: list[list[float]] = [[] for _ in range(len(sides) + 1)]
    for _ in range(repeats):
        for side, times in zip((*sides.values(), baseline), seconds, strict=True):
            begun = time.process_time()
            side()
            times.append(time.process_time() - begun)
    *ours, base = seconds
    return [
        Row.of(name, times, base, aim, difference, f'{setting}, float32, random weights, CPU time')
        for name, times, difference in zip(sides, ours, differences, strict=True)
    ]


def timed_rows(allocator: str, quick: bool) -> list[Row]:
    """Run all comparisons of time, under the allocator as it now is."""
    repeats = 2 if quick else 5
    case = Case('vit_base_patch14_dinov2', 518, 10, depth=1)
    setting = f'{allocator}, width 768, 518/14, 10 views'
    sides = {'views and patch embedding': case.our_embedding}
    rows = compare(sides, case.plain_embedding, 3.0, setting, repeats)
    settings = [
        ('vit_small_patch14_dinov2', 518, 4, None, 1.6, 'ViT-S/14 at 518 px, 4 views'),
        ('vit_small_patch16_224', 224, 10, None, 1.0, 'ViT-S/16 at 224 px, 10 views'),
    ]
    for arch, size, number, patch, aim, setting in settings[: 1 if quick else 2]:
        case = Case(arch, size, number, patch, depth=2 if quick else 12)
        sides = {
            f'target of one image, chunk {chunk}': lambda case=case, chunk=chunk: case.ours(chunk)
            for chunk in (1, number)
        }
        rows += compare(sides, case.baseline, aim, f'{allocator}, {setting}', repeats)
    return rows


def half_rows() -> list[Row]:
    """How far bfloat16 is from float32; a CPU without bfloat16 arithmetic is slow at it."""
    case = Case('vit_small_patch16_224', 224, 10)
    sides = {'target of one image, bf16 autocast': lambda: case.ours(dtype=torch.bfloat16).float()}
    setting = 'ViT-S/16 at 224 px, 10 views, 1 at once; ours in bfloat16'
    return compare(sides, case.baseline, 1.0, setting, 2, allowed=0.1)


def peak_alone(work: Callable[[], object]) -> float:
    """Measure the peak memory in MiB of a process that does one thing."""

    def run(sender: Any) -> None:
        before = peak_mb()
        work()
        sender.send(peak_mb() - before)

    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(sender,))
    process.start()
    peak = receiver.recv()
    process.join()
    return peak


def memory_rows(depth: int) -> list[Row]:
    """Memory that one target takes on top of the network, for several chunks; the ratio is that of memory."""
    rows = []
    for size in (224, 518):
        case = Case('vit_small_patch14_dinov2', size, 10, depth=depth)
        baseline = peak_alone(case.baseline)
        for chunk in (1, 4, 10):
            ours = peak_alone(lambda case=case, chunk=chunk: case.ours(chunk))
            setting = (
                f'ViT-S/14 at {size} px ({case.grid[0] ** 2} patches), {depth} blocks, 10 views, {chunk} at once; MiB '
                f'beyond the network, baseline {baseline:.0f} MiB; the columns of seconds are not used'
            )
            row = Row.of(f'memory of a target, {size} px, chunk {chunk}', [1, 1], [1, 1], 1.0, 0.0, setting)
            rows.append(dataclasses.replace(row, ratio=baseline / ours, ratio_error=0.0, peak_mb=ours))
    return rows


def main() -> None:
    arguments = parse_arguments(__doc__ or '')
    quick = arguments.quick
    memory = memory_rows(2 if quick else 12)  # in processes that are forked before this one has grown
    rows = timed_rows('default allocator', quick)
    keep_memory()
    rows += timed_rows('freed memory kept', quick)
    if not quick:
        rows += half_rows()
    report([*rows, *memory], arguments, "PH-Reg: speed and memory of the teacher's target")


if __name__ == '__main__':
    main()
