"""The re-stated ways of the speed table do what they are said to."""

import pytest
import torch

from bundle.sampling import sample, step_weights, surrogate_gradient
from scripts import speed


@pytest.fixture(scope="module")
def case(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        case = speed.Case(num_steps=3, batch=2, width=1)
    torch.manual_seed(0)
    for parameter in case.denoiser.parameters():  # MONAI begins with zeros at the end of each block
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.02)
    return case


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def test_hooks_on_every_step_give_the_adjusted_gradient_of_all_steps(case):
    (part,) = case.parts()
    schedule = case.sampler.schedule
    with torch.no_grad():
        chain = sample(case.noise(part), case.start(part), schedule)
    leaf = chain[-1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.loss(leaf, part), leaf)
    weights = step_weights(schedule, "adjusted")
    expected = flat(surrogate_gradient(case.noise(part), chain, gradient, weights, range(3), case.parameters))
    found = flat(speed.hooks(case))
    assert float(expected.norm()) > 0
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_steps_that_are_computed_again_give_the_same(case):
    kept, again = flat(speed.full(case)), flat(speed.full(case, recompute=True))
    assert torch.allclose(kept, again, rtol=1e-4, atol=1e-6 * float(kept.abs().max()))


def test_a_stopped_run_is_gone_on_with_on_the_same_machine(monkeypatch):
    monkeypatch.setattr(speed, "SIZES", [(1, 1, 1), (2, 1, 1)])
    monkeypatch.setattr(speed, "_measured", lambda size: {"steps": size[0], "batch": 1, "width": 1})
    whole = list(speed.measure({}))
    assert [len(result["sizes"]) for result in whole] == [2, 2]  # the same list, which grows
    first = {**whole[-1], "sizes": whole[-1]["sizes"][:1]}
    assert [size["steps"] for size in next(speed.measure(first))["sizes"]] == [1, 2]
    assert [size["steps"] for size in next(speed.measure({**first, "device": "another"}))["sizes"]] == [1]


def test_the_table():
    way = {"seconds": [2.0, 1.9, 2.1], "ratio": [1.0, 0.9, 1.1], "peak_mb": 1200}
    size = {"steps": 20, "batch": 16, "width": 1, "gflops": 140.0, "matmul_share": 0.41, "ways": {"ours": way}}
    size["ways"]["full backpropagation"] = {**way, "peak_mb": None}
    lines = speed.speed_table({"device": "2 cores", "rounds": 5, "sizes": [size]}).splitlines()
    assert lines[2] == "| T 20, B 16, width 1 | ours | 1.00 [0.90, 1.10] | 8.00 | 1,200 MB |"
    assert lines[3].endswith("| killed |")
    assert "(140 to 140 GFLOP/s) ours keeps, size by size, 41 %" in lines[-1]
    assert speed.speed_table({}) == ""
