"""What to try next: Sobol points, or what models under a sparse prior expect to enlarge the hypervolume most."""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .engine import Evaluation
from .space import Point, Space

__all__ = ["Nuts", "Saas", "Sobol"]


@dataclass(frozen=True)
class Sobol:
    """The next points of one scrambled Sobol sequence, whatever came of those before."""

    def __call__(self, space: Space, done: Sequence[Evaluation], count: int, seed: int) -> list[Point]:
        """See :class:`~sw.search.engine.Proposer`."""
        sequence = torch.quasirandom.SobolEngine(len(space.choices), scramble=True, seed=seed)
        return [space.decode(unit) for unit in sequence.fast_forward(len(done)).draw(count).tolist()]


@dataclass(frozen=True, kw_only=True)
class Nuts:
    """Settings of the No-U-Turn sampler; the defaults are BoTorch's."""

    warmup: int = 512
    samples: int = 256
    thinning: int = 16
    max_tree_depth: int = 6


@dataclass(frozen=True, kw_only=True)
class Saas:
    """Latency-aware search as of Eriksson et al. (arXiv 2106.11890), with today's BoTorch; begins with Sobol points.

    One Gaussian process per objective under the SAAS prior, its hyper-parameters sampled by NUTS
    (``SaasFullyBayesianSingleTaskGP``, ``fit_fully_bayesian_model_nuts``), and the batch that has the largest expected
    gain of the hypervolume over the points so far (``qLogNoisyExpectedHypervolumeImprovement``), one point after the
    other. A point that is there already gives way to the next one of the Sobol sequence.

    Parameters
    ----------
    reference : (first, second)
        Where the hypervolume begins, in each objective.
    nuts : :class:`Nuts`
    samples : :class:`int`
        Of the posterior in the acquisition function.
    restarts, raw_samples : :class:`int`
        Of its optimization.
    """

    reference: tuple[float, float]
    nuts: Nuts = field(default_factory=Nuts)
    samples: int = 64
    restarts: int = 4
    raw_samples: int = 64

    def __call__(self, space: Space, done: Sequence[Evaluation], count: int, seed: int) -> list[Point]:
        """See :class:`~sw.search.engine.Proposer`."""
        if not done:
            return Sobol()(space, done, count, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + len(done))
            candidates = [space.decode(unit) for unit in self._candidates(space, done, count, seed)]
        known = [evaluation.point for evaluation in done]
        points: list[Point] = []
        for candidate in itertools.chain(candidates, Sobol()(space, done, 100 * count, seed), space.points()):
            if len(points) == count:
                break
            if candidate not in known:
                points.append(candidate)
                known.append(candidate)
        return points

    def _candidates(self, space: Space, done: Sequence[Evaluation], count: int, seed: int) -> list[list[float]]:
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_fully_bayesian_model_nuts
        from botorch.models import ModelListGP
        from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from botorch.sampling import SobolQMCNormalSampler

        x = torch.tensor([space.encode(evaluation.point) for evaluation in done], dtype=torch.float64)
        y = torch.tensor([evaluation.values for evaluation in done], dtype=torch.float64)
        models = []
        for objective in range(y.shape[1]):
            model = SaasFullyBayesianSingleTaskGP(x, y[:, objective:objective + 1], outcome_transform=Standardize(m=1))
            fit_fully_bayesian_model_nuts(
                model, warmup_steps=self.nuts.warmup, num_samples=self.nuts.samples, thinning=self.nuts.thinning,
                max_tree_depth=self.nuts.max_tree_depth, disable_progbar=True, seed=seed + 1000 * objective + len(done))
            models.append(model)
        gain = qLogNoisyExpectedHypervolumeImprovement(
            ModelListGP(*models), ref_point=list(self.reference), X_baseline=x, prune_baseline=True,
            sampler=SobolQMCNormalSampler(torch.Size([self.samples]), seed=seed + len(done)))
        bounds = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).double()
        found, _ = optimize_acqf(gain, bounds, q=count, num_restarts=self.restarts, raw_samples=self.raw_samples,
                                 sequential=True, options={"batch_limit": self.restarts, "maxiter": 100})
        return found.tolist()
