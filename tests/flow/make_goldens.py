"""Writes goldens.json with PyTorch, flow-matching and diffusers, which no test needs:

    python -m tests.flow.make_goldens
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    PolynomialConvexScheduler,
    VPScheduler,
)

GOLDENS = Path(__file__).with_name("goldens.json")
TIMES = np.linspace(0.02, 0.98, 9)
LEVELS = (0, 10, 500, 999)
STEPS = 12
SIGMAS = [*np.linspace(0.98, 0.03, STEPS).tolist(), 0.0]
PATHS = {
    "linear": CondOTScheduler(),
    "cosine": CosineScheduler(),
    "polynomial": PolynomialConvexScheduler(1.5),
    "variance_preserving": VPScheduler(0.1, 20.0),
}


def numbers(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def paths():
    """Coefficients, states, velocities, and what flow-matching converts velocities to."""
    t, x0, x1 = torch.from_numpy(TIMES), numbers(0, 9), numbers(1, 9)
    found = {}
    for name, scheduler in PATHS.items():
        path, at = AffineProbPath(scheduler), scheduler(t)
        sample = path.sample(t=t, x_0=x0, x_1=x1)
        x, v = sample.x_t, sample.dx_t
        rows = {"alpha": at.alpha_t, "sigma": at.sigma_t, "alpha_dot": at.d_alpha_t, "sigma_dot": at.d_sigma_t}
        rows |= {"x": x, "velocity": v, "data": path.velocity_to_target(v, x, t)}
        rows |= {"noise": path.velocity_to_epsilon(v, x, t)}
        rows |= {"velocity_of_data": path.target_to_velocity(x1, x, t)}
        rows |= {"velocity_of_noise": path.epsilon_to_velocity(x0, x, t)}
        found[name] = {key: value.tolist() for key, value in rows.items()}
    return {"t": TIMES.tolist(), "x0": x0.tolist(), "x1": x1.tolist(), "paths": found}


def ddpm():
    """Levels of diffusers' linear betas, v-predictions at them, and steps down with a learned variance."""
    x1, noise = numbers(2, 1, 4, 2, 2), numbers(3, 1, 4, 2, 2)
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    rows = []
    for level in LEVELS:
        x = scheduler.add_noise(x1, noise, torch.tensor([level]))
        v = scheduler.get_velocity(x1, noise, torch.tensor([level]))
        said = torch.cat([0.9 * noise, 0.3 * torch.ones_like(noise)], dim=1)
        draw = torch.Generator().manual_seed(level)
        fresh = torch.randn(x1.shape, generator=torch.Generator().manual_seed(level), dtype=x1.dtype)
        below = scheduler.step(said, level, x, generator=draw).prev_sample
        rows.append({"level": level, "x": x, "v": v, "fresh": fresh, "below": below})
    return {
        "alpha_bar": scheduler.alphas_cumprod.tolist(),
        "x1": x1.flatten().tolist(),
        "noise": noise.flatten().tolist(),
        "steps": [{k: v.flatten().tolist() if torch.is_tensor(v) else v for k, v in row.items()} for row in rows],
    }


def velocity(x, sigma):
    """A field that is not linear in x, in diffusers' direction: sigma falls from 1, noise, to 0, data."""
    return torch.sin(2.0 * x) + sigma * x


def trajectories():
    """Where samplers end along the linear path, asking at the noise levels SIGMAS."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "final_sigmas_type": "zero"}
    samplers = {
        "euler": FlowMatchEulerDiscreteScheduler(),
        "ddim": DPMSolverMultistepScheduler(**flow, solver_order=1),
        "dpm_solver": DPMSolverMultistepScheduler(**flow, solver_order=2),
        "unipc": UniPCMultistepScheduler(**flow, solver_order=2),
    }
    found = {}
    for name, sampler in samplers.items():
        sampler.set_timesteps(STEPS)
        sampler.sigmas = torch.tensor(SIGMAS)  # instead of each sampler's own
        x = numbers(4, 2, 8)
        for index, t in enumerate(sampler.timesteps):
            x = sampler.step(velocity(x, sampler.sigmas[index].double()), t, x).prev_sample
        found[name] = x.flatten().tolist()
    return {"x0": numbers(4, 2, 8).flatten().tolist(), "sigmas": SIGMAS, "ends": found}


def main():
    found = {"flow_matching": paths(), "ddpm": ddpm(), "trajectories": trajectories()}
    GOLDENS.write_text(json.dumps(found, indent=None) + "\n")


if __name__ == "__main__":
    main()
