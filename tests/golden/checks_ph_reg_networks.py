"""PH-Reg: the two networks with registers, denoised targets, and steps of training."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch
from checks_ph_reg_core import views_of
from golden_tools import close, equal, floats
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from vfd.backbones import RegisterCLIP, RegisterViT
from vfd.checkpoints.dinov2_layout import from_hugging_face_dinov2, to_hugging_face_dinov2
from vfd.checkpoints.ph_reg_layouts import to_ph_reg_dinov2
from vfd.engine.schedulers_exponential import ShiftedExponentialByIter
from vfd.methods.ph_reg.core import cosine_loss, squared_loss
from vfd.methods.ph_reg.denoise import denoise
from vfd.methods.ph_reg.views import Views, shift_images, source_index


def vit(case, num_registers: int) -> RegisterViT:
    """The file's network in float64, with its weights."""
    config = json.loads(str(case['cfg_json']))
    with_scale = any('layer_scale1' in key for key in case)
    network = RegisterViT(
        'vit_small_patch14_dinov2',
        num_registers,
        unlock_last_blocks=1,
        img_size=config['image_size'],
        patch_size=config['patch_size'],
        embed_dim=config['hidden_size'],
        depth=config['layers'],
        num_heads=config['heads'],
        mlp_ratio=config['mlp_ratio'],
        init_values=1.0 if with_scale else None,
    )
    for part in network.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = config['layer_norm_eps']
    weights = from_hugging_face_dinov2({key: floats(value) for key, value in case.under('w/').items()})
    if num_registers:
        weights['reg_token'] = floats(case['registers'])
    report = network.double().load_weights(weights)
    assert report.unused == ['mask_token']
    return network


def published_order(tokens: Tensor, registers: int) -> Tensor:
    """Registers, class token, patches."""
    return torch.cat([tokens[:, 1 : 1 + registers], tokens[:, :1], tokens[:, 1 + registers :]], dim=1)


def white(case) -> Tensor:
    """The colour of empty pixels, rounded as the stored views are."""
    return torch.from_numpy(case['fill']).float().double()


def batch_views(case) -> Views:
    return Views(torch.from_numpy(case['offsets']), torch.from_numpy(case['flips']).bool())


@torch.no_grad()
def check_forward(case) -> None:
    config = json.loads(str(case['cfg_json']))
    registers, images, fill = config['num_registers'], floats(case['images']), white(case)
    teacher, student = vit(case, 0), vit(case, registers)
    side = (config['image_size'] // config['patch_size'],) * 2
    shape = (len(images), config['counts'])
    views = views_of(case)
    shifted = shift_images(
        images.repeat_interleave(config['counts'], dim=0), views, config['patch_size'], fill
    )
    close(shifted.unflatten(0, shape), case['shifted_images'], 1e-6)
    equal(source_index(side, views).unflatten(0, shape), case['shifted_idxs'])

    close(teacher.tokens(images), case['teacher_last_hidden'], 1e-10)
    target = denoise(teacher, images, batch_views(case), fill)
    close(target, case['teacher_denoised'], 1e-10)
    hidden = student.sequence(student.embed(images).flatten(1, 2), side)
    close(published_order(hidden, registers), case['student_hidden_first'], 1e-10)
    close(published_order(student.blocks(hidden), registers), case['student_hidden_last'], 1e-10)
    close(published_order(student.tokens(images), registers), case['student_last_hidden'], 1e-10)
    close(cosine_loss(student.dense(images), target), case['loss_cos'], 1e-10)
    close(squared_loss(student.dense(images), target), case['loss_mse'], 1e-10)
    other = student.tokens(floats(case['image_other']))  # Hugging Face interpolates positions in float32
    close(published_order(other, registers), case['student_other_last_hidden'], 1e-6)


def published_names(state: dict[str, Any]) -> dict[str, Any]:
    """The released student's names, of values by ours; q, k and v are thirds of one tensor."""
    registers = {'registers': state['reg_token']} if 'reg_token' in state else {}
    others = {name: value for name, value in state.items() if name != 'reg_token'}
    return registers | {f'model.{name}': value for name, value in to_hugging_face_dinov2(others).items()}


def check_gradients(ours: dict[str, Tensor], stored: dict[str, np.ndarray]) -> None:
    largest = max(np.abs(gradient).max() for gradient in stored.values())
    for name, gradient in stored.items():
        if name.endswith(
            'key.bias'
        ):  # adds one number to whole rows of the attention: rounding is all there is
            assert max(np.abs(gradient).max(), ours[name].abs().max()) < 1e-12 * largest, name
        else:
            close(ours[name], gradient, 1e-9, name)


def check_train_steps(case) -> None:
    own = re.sub('train_steps', 'register_forward', case.path.name)
    inputs = case.companion(own if (case.path.parent / own).exists() else 'dinov2_register_forward.npz')
    config = json.loads(str(inputs['cfg_json']))
    student = vit(inputs, config['num_registers'])
    parameters = {name: p for name, p in student.named_parameters() if p.requires_grad}
    frozen = {name: p.clone() for name, p in student.named_parameters() if not p.requires_grad}
    assert set(published_names(parameters)) == set(case['trainable_names'].tolist())
    assert set(to_ph_reg_dinov2(student.state_dict())) == set(case['all_state_keys'].tolist())

    lr, end_lr, decay, epochs, length = case['hyper'].tolist()
    images = floats(inputs['images'])
    with torch.no_grad():
        target = denoise(vit(inputs, 0), images, batch_views(inputs), white(inputs))
    wrapper = build_optim_wrapper(
        student, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=lr, weight_decay=decay))
    )
    schedule = ShiftedExponentialByIter.build_iter_from_epoch(
        wrapper, eta_min_ratio=end_lr / lr, end=int(epochs), epoch_length=int(length)
    )
    terms, rates = [], []
    for step in range(int(epochs * length)):
        ours = student.dense(images)
        losses = [cosine_loss(ours, target), squared_loss(ours, target)]
        terms.append([loss.item() for loss in losses])
        rates.append(wrapper.get_lr()['lr'][0])
        wrapper.optimizer.zero_grad()
        sum(losses).backward()
        if step == 0:
            gradients = published_names({name: p.grad for name, p in parameters.items()})
            check_gradients(gradients, case.under('grad0/'))
        wrapper.step()
        schedule.step()
    close(np.array(terms), case['losses_cos_mse'], 1e-9)
    close(np.array(rates), case['lr_used'], 1e-12)
    close(wrapper.get_lr()['lr'][0], case['lr_after'], 1e-12)
    final = published_names(parameters)
    for name, value in case.under('final/').items():
        close(final[name], value, 1e-7, name)
    assert all(torch.equal(student.get_parameter(name), value) for name, value in frozen.items())


def clip(case, registers: int, size: int, **options) -> RegisterCLIP:
    config = json.loads(str(case['cfg_json']))
    network = RegisterCLIP(
        'ViT-B-16-quickgelu',
        registers,
        img_size=size,
        embed_dim=config['output_dim'],
        vision_cfg=dict(
            layers=config['layers'],
            width=config['width'],
            head_width=config['width'] // config['heads'],
            patch_size=config['patch'],
        ),
        **options,
    ).double()
    weights = {key: floats(value) for key, value in case.under('w/').items()}
    if registers:
        weights['register_tokens'] = floats(case['registers'])
    assert not network.load_weights(weights).unused
    return network


def check_clip(case) -> None:
    config = json.loads(str(case['cfg_json']))
    images, registers = floats(case['images']), config['num_registers']
    with torch.no_grad():
        for key in (key for key in case if key.startswith('feat_')):
            arch, attention, std = key.removeprefix('feat_').split('_')
            last_block = 'full' if arch == 'vanilla' else arch
            teacher = clip(
                case,
                0,
                config['pretrain_res'],
                head=attention,
                last_block=last_block,
                gaussian_std=float(std),
            )
            close(teacher.tokens(images), case[key], 1e-7, key)
        teacher = clip(case, 0, config['pretrain_res'], head='naclip')
        side = (config['res'] // config['patch'],) * 2
        indices = source_index(side, views_of(case)).unflatten(0, (len(images), config['counts']))
        equal(indices, case['shifted_idxs'])
        target = denoise(teacher, images, batch_views(case), white(case))
        close(target, case['teacher_denoised'], 1e-7)

    student = clip(case, registers, config['res'], head='maskclip')
    close(student.positional_embedding[None], case['student_pos_embed_interpolated'], 1e-10)
    close(student.tokens(images), case['student_tokens'], 1e-10)
    close(student.tokens(floats(case['image_other'])), case['student_tokens_other'], 1e-10)
    ours = student.dense(images)
    stored = floats(case['teacher_denoised'])  # ours differs by the rounding of omega
    losses = [cosine_loss(ours, stored), squared_loss(ours, stored)]
    close(losses[0], case['loss_cos'], 1e-9)
    close(losses[1], case['loss_mse'], 1e-9)
    sum(losses).backward()
    last = student.transformer.resblocks[-1]
    gradients = {
        'grad_registers': student.register_tokens.grad,
        'grad_pos': student.positional_embedding.grad[None],
        'grad_conv1': student.conv1.weight.grad,
        'grad_last_in_proj': last.attn.in_proj_weight.grad,
    }
    for name, gradient in gradients.items():
        close(gradient, case[name], 1e-9, name)
    without = {name for name, p in student.named_parameters() if p.grad is None}
    published = {
        re.sub(r'^(vit|original_image_encoder)\.', '', name) for name in case['params_without_grad'].tolist()
    }
    assert without == published


CHECKS = {
    'dinov2_register_forward': check_forward,
    'dinov2_train_steps': check_train_steps,
    'clip_naclip_register': check_clip,
}
