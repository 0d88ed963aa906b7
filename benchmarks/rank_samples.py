"""How much a comparison of scores owes to the students that happened to be drawn.

python benchmarks/rank_samples.py work_dirs/search_nb201_resnet56_quickstart-cifar10/ranking.json --size 60 --samples 10

Reads the ranking of a search with known accuracies; nothing is scored anew. For the mean of every score over the
seeds: Kendall's tau and its partial form at fixed parameters, on all students with a bootstrap interval of 95 %, and on
samples drawn from them without replacement (mean, deviation, range); and how far each score is ahead of the first on
the same students.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vfd.evaluation import rank_statistics as rs


def read(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Accuracies (n,) and score -> means over the seeds (n,): the one that was searched by, the others, the sizes."""
    content = json.loads(path.read_text(encoding='utf-8'))
    known = sorted(
        (one for one in content['candidates'] if one['accuracy'] is not None),
        key=lambda one: one['candidate'],
    )
    names = dict.fromkeys([content['ranked_by'], *known[0]['scores']])
    scores = {name: np.array([one['scores'][name]['mean'] for one in known]) for name in names}
    scores |= {size: np.array([one[size] for one in known], float) for size in ('params', 'flops')}
    return np.array([one['accuracy'] for one in known]), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('ranking', type=Path, help='ranking.json of a finished search with accuracies')
    parser.add_argument('--size', type=int, default=60, help='students of a sample')
    parser.add_argument('--samples', type=int, default=10)
    args = parser.parse_args()
    true, scores = read(args.ranking)
    count, first = len(true), next(iter(scores))
    if not 5 <= args.size < count:
        parser.error(f'--size is from 5 to {count - 1}: the ranking has {count} students with an accuracy')
    everything = np.ones((1, count))
    drawings = everything, rs.bootstrap_weights(count), rs.subset_weights(count, args.size, args.samples)
    print(f'{count} students; samples: {args.samples} of {args.size} students, drawn from them\n')
    for budget, title in (('', 'tau'), ('params', 'partial tau at fixed parameters')):
        fixed = scores[budget] if budget else np.zeros(count)
        taus = {
            name: [rs.sampled_partial_kendall(true, values, fixed, weights) for weights in drawings]
            for name, values in scores.items()
            if name != budget
        }
        print(f'| {title} | all [95 %] | samples | range | ahead of {first} [95 %] | in samples |')
        print('| --- | --- | --- | --- | --- | --- |')
        for name, (whole, bootstrap, samples) in taus.items():
            cells = [
                name, f'{whole[0]:.2f} {bounds(bootstrap)}', f'{samples.mean():.2f} ± {samples.std(ddof=1):.2f}',
                f'{samples.min():.2f} to {samples.max():.2f}',
            ]  # fmt: skip
            if np.isnan(whole).any():  # the parameters alone give this score
                continue
            if name == first or first not in taus:
                cells += ['', '']
            else:
                ahead = [one - other for one, other in zip(taus[name], taus[first], strict=True)]
                cells += [
                    f'{ahead[0][0]:+.2f} {bounds(ahead[1])}',
                    f'{(ahead[2] > 0).sum()} of {args.samples}',
                ]
            print(f'| {" | ".join(cells)} |')
        print()


def bounds(values: np.ndarray) -> str:
    """The interval that 95 % of them lie in."""
    low, high = rs.interval(values)
    return f'[{low:.2f}, {high:.2f}]'


if __name__ == '__main__':
    main()
