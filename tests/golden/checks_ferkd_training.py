"""FKD and FerKD, training: loss, mixing, epochs, steps and loader on the released code's numbers."""

from __future__ import annotations

import numpy as np
import torch
from golden_tools import close, equal, floats
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import MultiStepLR
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vfd.engine import WarmupCosineByEpoch, crop_passes
from vfd.losses import soft_cross_entropy, sparse_labels
from vfd.methods.ferkd import Mix, MixupCutmix, StoredCropDataset, crop_major_collate
from vfd.methods.ferkd.mixing import share_outside
from vfd.methods.ferkd.stored_crops import crop_major_labels

IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))


def check_soft_ce(case) -> None:
    logits, soft = case['logits'], floats(case['soft'])
    names = [key.removeprefix('loss_T') for key in case if key.startswith('loss_T')]
    assert names
    for name in names:
        z = floats(logits).requires_grad_()
        loss = soft_cross_entropy(z, soft, float(name))
        loss.backward()
        close(loss, case[f'loss_T{name}'], 1e-10, name)
        close(z.grad, case[f'grad_T{name}'], 1e-10, name)


def check_mixup_cutmix(case) -> None:
    images, soft = floats(case['images']), floats(case['soft'])
    settings = MixupCutmix(*(float(case[key]) for key in ('mixup', 'cutmix', 'prob', 'switch_prob')))
    seed, size = int(case['seed_np_and_torch']), images.shape[-2:]
    np.random.seed(seed)
    torch.manual_seed(seed)
    mix = settings.draw(len(images), 1, tuple(size), np.random)
    explicit = settings.draw(
        len(images), 1, tuple(size), np.random.RandomState(seed), torch.Generator().manual_seed(seed)
    )
    if mix is None:
        assert explicit is None and case['applied'] == 'none' and np.isnan(case['lam_drawn'])
        assert not case['perm'].size and not case['bbox'].size
        equal(images, case['mixed'])
        equal(soft, case['mixed_soft'])
        return
    for drawn in (mix, explicit):
        equal(drawn.partner, case['perm'])
        assert (drawn.boxes is None) == (str(case['applied']) == 'mixup')
        if drawn.boxes is None:
            assert not case['bbox'].size
            close(drawn.share, np.full(len(images), case['lam_drawn']), 1e-12)
        else:
            equal(drawn.boxes[0], case['bbox'])
        close(drawn.images(images), case['mixed'], 1e-12)
        close(drawn.labels(soft), case['mixed_soft'], 1e-12)
    lam = float(case['lam_drawn'])
    assert 0 <= lam <= 1
    if mix.boxes is not None:  # the box is as large as the drawn lambda says, but for the edges
        top, left, bottom, right = mix.boxes[0].tolist()
        assert bottom - top <= size[0] * (1 - lam) ** 0.5 and right - left <= size[1] * (1 - lam) ** 0.5


def check_selfmix(case) -> None:
    images, soft, partner = floats(case['images']), floats(case['soft']), torch.from_numpy(case['partner'])
    count, crops = int(case['num_images']), int(case['num_crops'])
    rows = count * crops
    assert len(images) == rows and (partner % count == torch.arange(rows) % count).all()
    box = tuple(case['box_h0_w0_h1_w1'].tolist())
    outside = share_outside(box, tuple(images.shape[-2:]))
    close(outside, case['cutmix_lam'], 1e-12)
    boxes = torch.tensor([box]).repeat(rows, 1)
    forms = {
        'cutmix': Mix(partner, torch.full((rows,), outside, dtype=torch.float64), boxes),
        'mixup': Mix(partner, torch.full((rows,), float(case['lam_mixup']), dtype=torch.float64)),
    }
    for kind, mix in forms.items():
        close(mix.images(images), case[f'{kind}_images'], 1e-12)
        close(mix.labels(soft), case[f'{kind}_soft'], 1e-12)
        ids = torch.arange(soft.shape[1]).repeat(rows, 1).double()
        sparse = sparse_labels(
            torch.stack([ids, soft], dim=1), f'marginal_smoothing_k{soft.shape[1]}', soft.shape[1]
        )
        close(mix.labels(sparse).dense(soft.shape[1]), case[f'{kind}_soft'], 1e-12)


def check_epoch_lr_plan(case) -> None:
    names = [key.removesuffix('_epochs_crops_cos') for key in case if key.endswith('_epochs_crops_cos')]
    assert names
    for name in names:
        epochs, crops, cosine = case[f'{name}_epochs_crops_cos'].tolist()
        milestones = case[f'{name}_schedule'].tolist()
        table = case[f'{name}_epoch_lr_cropsused']
        passes = crop_passes(epochs, crops)
        equal([tuple(each) for each in passes], table[:, [0, 2]], name)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=table[0, 1])
        if cosine:
            scheduler = WarmupCosineByEpoch(optimizer, end=epochs)
        else:
            scheduler = MultiStepLR(optimizer, milestones, gamma=0.1)
        rates = []
        for each in passes:
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for _ in range(each.crops):
                scheduler.step()
        np.testing.assert_allclose(rates, table[:, 1], rtol=0, atol=1e-12, err_msg=name)


class TinyNet(nn.Module):
    """Convolution, ReLU, mean, linear, with scaled logits: shapes and weights as stored."""

    def __init__(self, tensors: dict[str, np.ndarray], scale: float) -> None:
        super().__init__()
        width, channels, kernel, _ = tensors['c.weight'].shape
        self.c = nn.Conv2d(channels, width, kernel, stride=3)
        self.f = nn.Linear(*tensors['f.weight'].shape[::-1])
        self.double().load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.f(self.c(images).relu().mean((2, 3)))


def check_train_steps(case) -> None:
    network = TinyNet(case.under('init/'), float(case['logit_scale']))
    classes = network.f.out_features
    wrapper = OptimWrapper(
        torch.optim.SGD(
            network.parameters(),
            lr=float(case['lr']),
            momentum=float(case['momentum']),
            weight_decay=float(case['weight_decay']),
        )
    )
    losses = []
    for images, stored in zip(floats(case['images']), floats(case['quantised']), strict=True):
        stored = stored.float()  # as a store holds them
        labels = sparse_labels(stored, f'marginal_smoothing_k{stored.shape[2]}', classes)
        loss = soft_cross_entropy(network(images), labels)
        wrapper.update_params(loss)
        losses.append(loss.item())
    close(losses, case['losses'], 1e-8)
    for name, value in case.under('final/').items():
        close(network.get_parameter(name), value, 1e-8, name)


def check_loader(case, folder, store: str, kind: str) -> None:
    """What the released training loader gives from a store that it wrote.

    Args:
        case: ``slg_and_loader``.
        folder: with the images of the store.
        store: folder of a label store of those images, in their order.
        kind: ``fp32`` or ``fp16``.
    """
    size, classes = int(case['train_size']), int(case['num_classes'])
    images = case[f'train_images_{kind}']
    count = sum(key.startswith('image') and key[5:].isdigit() for key in case)
    dataset = StoredCropDataset(store, str(folder), num_crops=len(images) // count, crop_size=size)
    torch.manual_seed(int(case['seed_loader']))
    (batch,) = DataLoader(dataset, batch_size=count, collate_fn=crop_major_collate)
    np.testing.assert_allclose(normalised(batch['inputs']), images, rtol=0, atol=1e-5)
    samples = batch['data_samples']
    stored = crop_major_labels(samples)
    reference = case[f'train_soft_{kind}']
    equal(stored[:, 0], reference[:, 0].astype(np.float32))
    np.testing.assert_allclose(stored[:, 1], reference[:, 1].astype(np.float32), rtol=0, atol=1e-5)
    targets = [sample.ground_truth for sample in samples] * (len(images) // count)
    equal(targets, case[f'train_target_{kind}'])
    if kind == 'fp32':
        labels = sparse_labels(stored, samples[0].label_type, classes)
        np.testing.assert_allclose(labels.dense(classes), case['train_recovered'], rtol=0, atol=1e-5)
        whole = StoredCropDataset(store, str(folder), num_crops=dataset.store.crops, crop_size=size)
        perm = torch.randperm(dataset.store.crops, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        crops = normalised(whole[0]['inputs'])
        np.testing.assert_allclose(crops, case['train_crops0'][perm.numpy()], rtol=0, atol=1e-5)
        boxes = dataset.store.read(0).boxes
        corners = np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1)
        equal(corners, case['pil_boxes_ltrb0'])


def normalised(pixels: Tensor) -> np.ndarray:
    """BGR bytes (N, 3, S, S) as RGB with ImageNet's statistics."""
    mean, std = (values[:, None, None] for values in IMAGENET)
    return (pixels.flip(1).numpy() / 255 - mean) / std


CHECKS = {
    'soft_ce': check_soft_ce,
    'mixup_cutmix': check_mixup_cutmix,
    'selfmix': check_selfmix,
    'epoch_lr_plan': check_epoch_lr_plan,
    'train_steps': check_train_steps,
}
