"""DisWOT: metrics, whole scores, zero-cost proxies, losses between networks."""

from __future__ import annotations

import json
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from golden_tools import close, floats
from torch import Tensor, nn

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.checkpoints import load_into
from vfd.losses import feature_maps, sample_relations
from vfd.losses.soft_label import kl
from vfd.methods.diswot import core
from vfd.methods.diswot.networks import batch_statistics, compute_outputs
from vfd.methods.diswot.zero_cost import LAYERED, ZERO_COST, zero_cost


def check_metrics(case) -> None:
    t_map, s_map = floats(case['teacher_feat']), floats(case['student_feat'])
    t_grad, s_grad = floats(case['teacher_fc_grad']), floats(case['student_fc_grad'])
    t_pool, s_pool = t_map.mean((2, 3)), s_map.mean((2, 3))
    ours = {
        'relation': sample_relations.similarity_preserving(s_map, t_map),
        'relation_pooled': sample_relations.similarity_preserving(s_pool, t_pool),
        'relation_other_shape': sample_relations.similarity_preserving(
            floats(case['student_feat_other_shape']), t_map
        ),
        'semantic_grad': core.semantic_distance(s_grad, t_grad),
        'semantic_feature': feature_maps.channel_correlation(s_map, t_map),
        'quirk_sp_first_sample_map': core.first_sample_distance(s_map, t_map),
        'quirk_sp_first_sample_pooled': core.first_sample_distance(s_pool, t_pool),
    }
    ours['score'] = core.score(ours['semantic_grad'], ours['relation'])
    compare(case, ours, 1e-12)


def compare(case, ours: dict, tolerance: float) -> None:
    for name, reference in case.under('out::').items():
        close(ours[name], reference, tolerance, name)


def build(description: list, cfg: dict, weights: dict) -> nn.Module:
    """A network of the file in float64."""
    kind, what = description
    if kind == 'nb201':
        arguments = {'model_name': 'nas_bench_201', 'cell': what, 'cells': cfg['N']}
    else:
        blocks = what if kind == 's0' else [(what - 2) // 6] * 3
        arguments = {'model_name': 'cifar_resnet', 'blocks': blocks}
    network = timm.create_model(**arguments, width=cfg['C'], num_classes=cfg['num_classes'])
    load_into(
        network,
        {name: torch.from_numpy(value) for name, value in weights.items()},
        needed=lambda name: 'running' not in name,  # not stored: batch statistics are used
    )
    assert not set(weights) - set(network.state_dict())
    return network.double()


def check_score(case) -> None:
    cfg = json.loads(str(case['cfg']))
    images, labels = floats(case['images']), torch.from_numpy(case['labels'])
    outputs, gradients = {}, {}
    for who, prefix in (('teacher', 't::'), ('student', 's::')):
        network = build(cfg[who], cfg, case.under(prefix))
        with batch_statistics(network), torch.inference_mode():
            outputs[who] = compute_outputs(network, images)
        output = outputs[who]
        gradients[who] = core.classifier_gradient(output.logits, output.pooled, labels)
        close(output.features, case[f'{who}_feat'])
        close(output.logits, case[f'{who}_logits'])
        close(gradients[who], case[f'{who}_fc_grad'])
    student, teacher = outputs['student'], outputs['teacher']
    semantic = core.semantic_distance(gradients['student'], gradients['teacher'])
    relation = sample_relations.similarity_preserving(student.features, teacher.features)
    pooled_quirk = core.first_sample_distance(student.pooled, teacher.pooled)
    compare(
        case,
        {
            'relation': relation,
            'semantic': semantic,
            'score': core.score(semantic, relation),
            'quirk_sp_map': core.first_sample_distance(student.features, teacher.features),
            'quirk_sp_pooled': pooled_quirk,
            'quirk_score_benchmark_script': core.score(semantic, pooled_quirk),
            'quirk_semantic_accumulated_teacher': core.accumulated_semantic_distance(
                gradients['student'], [gradients['teacher']]
            ),
        },
        1e-9,
    )


def check_zero_cost(case) -> None:
    cfg = json.loads(str(case['cfg']))
    network = build(cfg['net'], cfg, case.under('w::'))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    noise = (floats(case['noise1']), floats(case['noise2']))
    values, layers = zero_cost(network, floats(case['images']), torch.from_numpy(case['labels']), noise=noise)
    assert set(values) == set(ZERO_COST) and set(layers) == set(LAYERED)
    for name, reference in case.under('layer::').items():
        close(layers[name], reference, 1e-6, name)
    compare(case, {**values, 'params': sum(p.numel() for p in network.parameters())}, 1e-6)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def check_kd_losses(case) -> None:
    def side(name: str) -> dict:
        maps = [
            floats(value)
            for key, value in sorted(case.under(f'{name}_feat').items(), key=lambda kv: int(kv[0]))
        ]
        return {
            'logits': floats(case[f'{name}_logits']),
            'pooled': floats(case[f'{name}_pooled']),
            'maps': maps,
        }

    student, teacher = side('student'), side('teacher')
    for tensor in (student['logits'], student['pooled'], *student['maps']):
        tensor.requires_grad_()

    def on(part: str, loss: Callable) -> tuple[list[Tensor], Tensor]:
        if part == 'last':
            return [student['maps'][-1]], loss(student['maps'][-1], teacher['maps'][-1])
        inputs = student[part] if part == 'maps' else [student[part]]
        return inputs, loss(student[part], teacher[part])

    ours = {
        'FitNet': on('pooled', F.mse_loss),
        'RKD': on('pooled', sample_relations.rkd),
        'PKT': on('pooled', sample_relations.pkt),
        'CC': on('pooled', sample_relations.correlation_congruence),
        'AT': on('maps', feature_maps.attention_transfer),
        'NST': on('maps', feature_maps.neuron_selectivity),
        'KDSVD': on('maps', feature_maps.singular_vectors),
        'SP': on('last', sample_relations.similarity_preserving),
        'ICKD': on('last', feature_maps.channel_correlation),
    }
    for name in case.under('out::'):
        if name.startswith('KD_T'):
            temperature = float(name.removeprefix('KD_T'))
            ours[name] = on('logits', lambda s, t, temperature=temperature: kl(s, t, temperature))
    compare(case, {name: value for name, (_, value) in ours.items() if name != 'KDSVD'} | {
        'KDSVD': ours['KDSVD'][1].detach()
    }, 1e-8)  # fmt: skip
    for name, reference in case.under('grad::').items():
        inputs, value = ours[name]
        gradients = torch.autograd.grad(value, inputs, retain_graph=True)
        close(torch.cat([g.flatten() for g in gradients]), reference, 1e-6 if name == 'KDSVD' else 1e-8, name)


CHECKS = {
    'metrics': check_metrics,
    'score': check_score,
    'zero_cost': check_zero_cost,
    'kd_losses': check_kd_losses,
}
