"""Speed of SSLD: the one-pass loss, and what the runner costs on top of a bare torch loop.

python benchmarks/bench_ssld.py --json benchmarks/results/bench_ssld.json
"""

from __future__ import annotations

import logging
import tempfile
import time

import timm
import torch
from _common import Row, interleaved, keep_memory, parse_arguments, report
from mmengine.hooks import Hook
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vfd.engine import Runner
from vfd.engine.schedulers import warmup_cosine
from vfd.losses import js

MEAN, STD = [127.5] * 3, [127.5] * 3  # for both networks: nothing is re-normalised
TEACHER, STUDENT = 'resnet50', 'mobilenetv3_large_100'
BATCH, SIZE = 8, 112
LR, MOMENTUM, L2, WARMUP = 0.1, 0.9, 1e-5, 4


# ------------------------------------------------------------------------------------------------------ the loss


def two_kl_form(student_logits: Tensor, teacher_logits: Tensor, eps: float = 1e-12) -> Tensor:
    """The loss as the paper's formula reads: one divergence after the other."""
    student, teacher = student_logits.softmax(-1), teacher_logits.softmax(-1)
    forward = (teacher * torch.log((teacher + eps) / (student + eps))).sum(-1)
    backward = (student * torch.log((student + eps) / (teacher + eps))).sum(-1)
    return (0.5 * (forward + backward)).mean()


def loss_row(repeats: int, memory: str, shape: tuple[int, int] = (1024, 1000)) -> Row:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3 for _ in range(2))

    def run(loss, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        logits = student.to(dtype).requires_grad_()
        value = loss(logits, teacher.to(dtype))
        value.backward()
        return value.detach(), logits.grad

    pairs = zip(run(js, torch.float64), run(two_kl_form, torch.float64), strict=True)
    difference = max((a - b).abs().max().item() for a, b in pairs)
    assert difference < 1e-12, difference

    logits, target = student.float().requires_grad_(), teacher.float()

    def side(loss):
        def step() -> None:
            logits.grad = None
            loss(logits, target).backward()

        return step

    ours, baseline = interleaved([side(js), side(two_kl_form)], repeats)
    setting = f'{list(shape)} float32, forward and backward, {memory}; difference in float64'
    return Row.of('one-pass loss against two divergences', ours, baseline, 1.5, difference, setting)


# ------------------------------------------------------------------------------------------------------ the step


class Images(Dataset):
    """Random images in memory, for both sides."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, count: int, samples: bool) -> None:
        self.images = torch.randint(
            0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        self.samples = samples

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        if self.samples:
            sample = DataSample(metainfo={'img_path': f'{index}.png'})
            return {'inputs': self.images[index], 'data_samples': sample}
        return self.images[index], 0


class BareLoop:
    """The same training written without a framework.

    Args:
        student: starts from the runner's weights.
        teacher: likewise; normalises with batch statistics.
        total: iterations of the schedule.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, total: int) -> None:
        self.student, self.teacher = (
            timm.create_model(STUDENT),
            timm.create_model(TEACHER).requires_grad_(False),
        )
        self.student.load_state_dict(student.state_dict())
        self.teacher.load_state_dict(teacher.state_dict())
        self.student.train()
        self.teacher.train()
        self.optimizer = torch.optim.SGD(self.student.parameters(), LR, MOMENTUM, weight_decay=L2)
        self.batches = iter(DataLoader(Images(BATCH * total, samples=False), BATCH))
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        self.total, self.iteration = total, 0

    def step(self) -> float:
        """Run one iteration; return the loss."""
        images, _ = next(self.batches)
        images = (images.flip(1).float() - self.mean) / self.std
        for group in self.optimizer.param_groups:
            group['lr'] = LR * warmup_cosine(self.iteration, self.total, WARMUP)
        with torch.no_grad():
            target = self.teacher(images)
        loss = js(self.student(images), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        return loss.item()


class TakeTurns(Hook):
    """After every iteration of the runner, one step of the bare loop; both are timed."""

    priority = 'LOWEST'

    def __init__(self, total: int) -> None:
        self.total = total
        self.ours: list[float] = []
        self.baseline: list[float] = []
        self.differences: list[float] = []

    def before_train(self, runner) -> None:
        """Start the bare loop from the same weights."""
        model = runner.model
        self.bare = BareLoop(model.student.model, model.teacher.network, self.total)
        self.begun = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Run one step of the bare loop after the runner's iteration."""
        self.ours.append(time.perf_counter() - self.begun)
        begun = time.perf_counter()
        loss = self.bare.step()
        self.baseline.append(time.perf_counter() - begun)
        self.differences.append(abs(loss - outputs['loss'].item()))
        self.begun = time.perf_counter()

    def after_train(self, runner) -> None:
        """Compare the weights that both sides ended with."""
        baseline = self.bare.student.state_dict()
        for name, value in runner.model.student.model.state_dict().items():
            self.differences.append((value - baseline[name]).abs().max().item())


def step_row(repeats: int, warmup: int = 3) -> Row:
    total = repeats + warmup
    turns = TakeTurns(total)
    preprocessor = {'type': 'mmpretrain.ClsDataPreprocessor', 'mean': MEAN, 'std': STD, 'to_rgb': True}
    overlay = {'mean': (0.5,) * 3, 'std': (0.5,) * 3}
    source = {'type': 'vfd.TimmSource', 'model_name': TEACHER, 'pretrained_cfg_overlay': overlay}
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner(
            model={
                'type': 'vfd.SSLDDistiller',
                'student': {'type': 'mmpretrain.TimmClassifier', 'model_name': STUDENT},
                'teacher': {'type': 'vfd.Teacher', 'source': source, 'checkpoint': 'random'},
                'teacher_bn': 'train',
                'data_preprocessor': preprocessor,
            },
            work_dir=work_dir,
            train_dataloader={
                'dataset': Images(BATCH * total, samples=True),
                'batch_size': BATCH,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'collate_fn': {'type': 'default_collate'},
            },
            train_cfg={'by_epoch': True, 'max_epochs': 1},
            optim_wrapper={'optimizer': {'type': 'SGD', 'lr': LR, 'momentum': MOMENTUM, 'weight_decay': L2}},
            param_scheduler={
                'type': 'vfd.WarmupCosineByIter',
                'warmup': WARMUP,
                'end': total,
                'by_epoch': False,
            },
            default_hooks={
                'logger': {'type': 'LoggerHook', 'interval': 10},
                'checkpoint': {'type': 'CheckpointHook', 'interval': -1, 'save_last': False},
            },
            custom_hooks=[turns],
            default_scope='mmpretrain',
            log_level=logging.ERROR,
            randomness={'seed': 0},
            experiment_name=f'bench{time.time_ns()}',
        )
        runner.train()
    assert max(turns.differences) < 1e-6, max(turns.differences)  # every loss and the final weights
    ours, baseline = turns.ours[warmup:], turns.baseline[warmup:]
    return Row.of(
        'training step in the runner against a bare loop',
        ours,
        baseline,
        1 / 1.03,
        max(turns.differences),
        f'{TEACHER} (batch statistics) -> {STUDENT}, batch {BATCH} at {SIZE} px, float32, memory kept',
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or '')
    repeats = 60 if arguments.quick else 200
    rows = [loss_row(repeats, "system's allocator")]
    keep_memory()
    rows += [loss_row(repeats, 'memory kept'), step_row(8 if arguments.quick else 80)]
    report(rows, arguments, 'SSLD: speed')


if __name__ == '__main__':
    main()
