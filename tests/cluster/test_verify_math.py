"""The math verifier inside Ray workers: its own worker processes live there too, and go with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentgym.types import Outcome

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ASKED = [
    ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"),
    ("(x-1)(x+1)", "\\boxed{x^2-1}"),
    ("5", "\\boxed{9^{9^{9^9}}}"),
    ("7", "8"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def verdicts() -> list[str]:
    from agentgym import verify_math

    return [verify_math(gold, answer).value for gold, answer in ASKED]


class Grader:
    """An asynchronous actor, as rollout workers are."""

    async def verdicts(self) -> list[str]:
        import asyncio

        from agentgym import averify_math

        return [v.value for v in await asyncio.gather(*(averify_math(gold, answer) for gold, answer in ASKED))]


def test_tasks_and_asynchronous_actors_get_verdicts() -> None:
    right = [Outcome.correct, Outcome.correct, Outcome.timeout, Outcome.incorrect]
    task = ray.remote(verdicts)
    actor = ray.remote(Grader).options(max_concurrency=8).remote()
    asked = [task.remote(), task.remote(), actor.verdicts.remote()]
    assert ray.get(asked, timeout=120) == [[verdict.value for verdict in right]] * 3
