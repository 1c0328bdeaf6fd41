"""The pretended GPU refuses what a real one refuses, and takes what that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.pretended_gpu import GPU, pretended_gpu


@pytest.fixture(autouse=True)
def there() -> Iterator[None]:
    with pretended_gpu():
        yield


def both() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(3.0, device="cuda"), torch.arange(3.0)


@pytest.mark.parametrize(
    "mix",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: cpu + gpu.sum(),
        lambda gpu, cpu: cpu.add_(gpu),
        lambda gpu, cpu: torch.cat([gpu, cpu]),
        lambda gpu, cpu: torch.where(cpu > 0, gpu, 0.0),
        lambda gpu, cpu: gpu.gather(0, cpu.long()),
        lambda gpu, cpu: cpu[gpu.long()],
        lambda gpu, cpu: torch.nn.functional.embedding(cpu.long(), gpu[:, None]),
    ],
)
def test_memory_of_both_is_refused(mix: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        mix(*both())


def test_numpy_does_not_reach_it() -> None:
    gpu, _ = both()
    for reach in (lambda: gpu.numpy(), lambda: np.asarray(gpu), lambda: np.stack([gpu[0]])):
        with pytest.raises(TypeError, match="to numpy"):
            reach()
    np.testing.assert_array_equal(gpu.cpu().numpy(), [0, 1, 2])


def test_what_goes_together_goes() -> None:
    gpu, cpu = both()
    made = (
        gpu + cpu.sum(), gpu[cpu.long()], gpu.clone().copy_(cpu), gpu * 2, gpu.new_zeros(2), torch.zeros_like(gpu),
        cpu.to(gpu), cpu.to("cuda", torch.bfloat16), cpu.cuda(), torch.tensor([1], device=gpu.device), gpu[1:].view(2),
    )  # fmt: skip
    assert {tensor.device for tensor in made} == {GPU}
    back = (gpu.cpu(), gpu.to(cpu), gpu.to("cpu"), cpu.clone().copy_(gpu), torch.zeros_like(gpu, device="cpu"), cpu * 2)
    assert {tensor.device.type for tensor in back} == {"cpu"}
    with torch.device("cuda"):
        assert torch.zeros(2).is_cuda
    assert gpu.sum().item() == 3
    assert gpu.tolist() == [0, 1, 2]


def test_a_module_learns_there() -> None:
    module = torch.nn.Linear(3, 2).to("cuda")
    gpu, _ = both()
    checkpoint(module, gpu, use_reentrant=False).sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.is_cuda
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    optimizer.step()
    assert {value.device for value in optimizer.state[module.weight].values()} == {GPU}
    assert not module.to("cpu").weight.is_cuda


def test_a_thread_that_is_begun_is_there_too() -> None:
    found: list[torch.device] = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(1, device="cuda").device))
    thread.start()
    thread.join()
    assert found == [GPU]


def test_memory_that_is_given_back_is_anybodys() -> None:
    for _ in range(5000):
        torch.zeros(2, device="cuda")
    assert not any(torch.zeros(2).is_cuda for _ in range(5000))
