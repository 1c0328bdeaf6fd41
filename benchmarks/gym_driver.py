"""Plays one scripted tool episode over and over in one gym, and prints the steps and what they took, as JSON.

gym_driver.py ours|skyrl-gym|skyrl-gym-step-alone|gem|verifiers|openenv EPISODES

Runs in a virtual environment of the gym's own, and imports nothing else. The episode is the same for all: four calls of
a calculator, of one function that they share, and then the answer; every observation and the reward are checked. Each
gym gets the calls as its own environments do: as the text of a model with its kind of markers, parsed by its own parser
(skyrl-gym, GEM, ours), or as a message with calls (verifiers), or as an action over a socket (OpenEnv).
"""

from __future__ import annotations

import ast
import asyncio
import json
import operator
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

EXPRESSIONS = ("37*41", "1517+12", "1529*3", "4587-7")
RESULTS = ("1517", "1529", "4587", "4580")
QUESTION = "What is (37*41+12)*3-7?"
STEPS = len(EXPRESSIONS) + 1
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def calculate(expression: str) -> int:
    """What every gym's calculator runs."""
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: Any) -> int:
    if isinstance(node, ast.Constant):
        return int(node.value)
    return int(_OPERATORS[type(node.op)](_value(node.left), _value(node.right)))


Episode = Callable[[], tuple[list[str], float]]
"""Plays one episode: what the tool said, in order, and the reward."""


def ours() -> Episode:
    import agentgym

    @agentgym.tool
    def calculator(expression: str) -> str:
        """Compute an arithmetic expression.

        Args:
            expression: such as 37*41
        """
        return str(calculate(expression))

    def score(task: Any, answer: str, episode: Any) -> float:
        return float(answer == task.answer)

    agentgym.register("Calculated-v0", tools=[calculator], tasks=[(QUESTION, RESULTS[-1])], reward=score)
    env = agentgym.make("Calculated-v0")
    calls = [{"name": "calculator", "arguments": {"expression": text}} for text in EXPRESSIONS]
    texts = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls]

    def episode() -> tuple[list[str], float]:
        env.reset(seed=0)
        said = [env.step(text)[0] for text in texts]
        return said, env.step(RESULTS[-1])[1]

    return episode


def skyrl_gym_step_alone() -> Episode:
    import skyrl_gym as gym
    from omegaconf import DictConfig
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
    from skyrl_gym.tools.core import ToolGroup, tool

    class Calculator(ToolGroup):
        def __init__(self) -> None:
            super().__init__(name="Calculator")

        @tool
        def calculator(self, expression: str) -> str:
            return str(calculate(expression))

    class Env(BaseTextEnv):
        """Built as its own tool environments are: a regular expression, a tool group, the chat kept."""

        def __init__(self, env_config: Any, extras: dict[str, Any]) -> None:
            super().__init__()
            self.answer = extras["reward_spec"]["ground_truth"]
            self.max_turns = extras["max_turns"]
            self.init_tool_groups([Calculator()])
            self.chat_history: list[dict[str, str]] = []

        def step(self, action: str) -> BaseTextEnvStepOutput:
            self.turns += 1
            self.chat_history.append({"role": "assistant", "content": action})
            match = re.search(r"<calculator>(.*?)</calculator>", action, re.DOTALL)
            done = match is None or self.turns >= self.max_turns
            if done:
                reward = float(action == self.answer)
                return BaseTextEnvStepOutput(observations=[], reward=reward, done=True, metadata={})
            try:
                said = self._execute_tool("Calculator", "calculator", [match.group(1)])
            except Exception as e:
                said = str(e)
            observation = {"role": "user", "content": said}
            self.chat_history.append(observation)
            metadata = {"tool_group": "Calculator", "tool_name": "calculator", "tool_input": match.group(1)}
            return BaseTextEnvStepOutput(observations=[observation], reward=0.0, done=False, metadata=metadata)

    gym.register(id="calculated", entry_point=Env)
    config = DictConfig({"env_class": "calculated"})
    texts = [f"<calculator>{text}</calculator>" for text in EXPRESSIONS]

    def episode() -> tuple[list[str], float]:
        # it has no reset: its generator makes one for each episode, like this
        extras = {"reward_spec": {"ground_truth": RESULTS[-1]}, "max_turns": 10}
        env = gym.make("calculated", env_config=config, extras=extras)
        env.init([{"role": "user", "content": QUESTION}])
        said = [env.step(text)["observations"][0]["content"] for text in texts]
        return said, env.step(RESULTS[-1])["reward"]

    return episode


def skyrl_gym() -> Episode:
    """The same as SkyRL's generator plays it by default (`max_env_workers = 32`): init and step go to a pool of
    threads, so that none can block its loop."""
    import concurrent.futures

    import skyrl_gym as gym
    from omegaconf import DictConfig

    skyrl_gym_step_alone()  # registers it
    config = DictConfig({"env_class": "calculated"})
    texts = [f"<calculator>{text}</calculator>" for text in EXPRESSIONS]
    loop = asyncio.new_event_loop()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=32)

    async def play() -> tuple[list[str], float]:
        extras = {"reward_spec": {"ground_truth": RESULTS[-1]}, "max_turns": 10}
        env = gym.make("calculated", env_config=config, extras=extras)
        await loop.run_in_executor(pool, env.init, [{"role": "user", "content": QUESTION}])
        said = [(await loop.run_in_executor(pool, env.step, text))["observations"][0]["content"] for text in texts]
        return said, (await loop.run_in_executor(pool, env.step, RESULTS[-1]))["reward"]

    return lambda: loop.run_until_complete(play())


def gem() -> Episode:
    from gem.core import Env
    from gem.tools.base_tool import BaseTool
    from gem.tools.tool_env_wrapper import ToolEnvWrapper

    class Calculator(BaseTool):
        tool_type = name = "calculator"

        def instruction_string(self) -> str:
            return "Put an expression between <calculator> and </calculator> to compute it."

        def execute_action(self, action: str) -> tuple[bool, bool, str, str]:
            match = re.search(r"<calculator>(.*?)</calculator>", action, re.DOTALL)
            if match is None:
                return False, True, "", ""
            parsed = action[: match.end()]
            try:
                return True, False, str(calculate(match.group(1))), parsed
            except Exception as e:
                return True, True, str(e), parsed

    class Question(Env):
        def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed)
            return QUESTION, {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            return "", float(action == RESULTS[-1]), True, False, {}

    env = ToolEnvWrapper(Question(), [Calculator()])
    texts = [f"<calculator>{text}</calculator>" for text in EXPRESSIONS]

    def episode() -> tuple[list[str], float]:
        env.reset()
        said = [env.step(text)[0] for text in texts]
        return said, float(env.step(RESULTS[-1])[1])

    return episode


def verifiers() -> Episode:
    import verifiers.legacy as vf
    from datasets import Dataset
    from verifiers.legacy.types import AssistantMessage, ToolCall

    def calculator(expression: str) -> str:
        """Compute an arithmetic expression.

        Args:
            expression: such as 37*41
        """
        return str(calculate(expression))

    rubric = vf.Rubric(funcs=[])
    data = Dataset.from_list([{"question": QUESTION, "answer": RESULTS[-1]}])
    env = vf.ToolEnv(tools=[calculator], dataset=data, rubric=rubric)
    calls = [
        AssistantMessage(
            role="assistant",
            content="",
            tool_calls=[ToolCall(id=f"c{i}", name="calculator", arguments=json.dumps({"expression": text}))],
        )
        for i, text in enumerate(EXPRESSIONS)
    ]
    loop = asyncio.new_event_loop()

    async def play() -> tuple[list[str], float]:
        # its tool step alone: a whole rollout would add its client and its bookkeeping
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        state: Any = {"trajectory": []}
        said = []
        for call in calls:
            messages.append(call)
            answers = await env.env_response(messages, state)
            messages += answers
            said.append(answers[0].content)
        return said, float(said[-1] == RESULTS[-1])

    return lambda: loop.run_until_complete(play())


def openenv() -> Episode:
    import uvicorn
    from openenv.core import GenericEnvClient
    from openenv.core.env_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Say(Action):
        text: str

    class Said(Observation):
        text: str = ""

    class Env(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._state = State(step_count=0)

        def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Said:
            self._state = State(episode_id=episode_id, step_count=0)
            return Said(text=QUESTION, done=False)

        def step(self, action: Say, timeout_s: float | None = None, **kwargs: Any) -> Said:
            self._state.step_count += 1
            match = re.search(r"<calculator>(.*?)</calculator>", action.text, re.DOTALL)
            if match is None:
                return Said(reward=float(action.text == RESULTS[-1]), done=True)
            return Said(text=str(calculate(match.group(1))), done=False)

        @property
        def state(self) -> State:
            return self._state

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_fastapi_app(Env, Say, Said), log_level="error"))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    client = GenericEnvClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}").sync()
    client.__enter__()
    texts = [f"<calculator>{text}</calculator>" for text in EXPRESSIONS]

    def episode() -> tuple[list[str], float]:
        client.reset()
        said = [client.step({"text": text}).observation["text"] for text in texts]
        return said, float(client.step({"text": RESULTS[-1]}).reward)

    return episode


GYMS = {
    "ours": ours,
    "skyrl-gym": skyrl_gym,
    "skyrl-gym-step-alone": skyrl_gym_step_alone,
    "gem": gem,
    "verifiers": verifiers,
    "openenv": openenv,
}


def main() -> None:
    name, episodes = sys.argv[1], int(sys.argv[2])
    began = time.process_time()
    play = GYMS[name]()
    imported = time.process_time() - began
    for _ in range(max(1, min(50, episodes // 10))):
        play()
    steps = STEPS if name != "verifiers" else STEPS - 1  # its final message takes no step of the env
    began, used = time.perf_counter(), time.process_time()
    for _ in range(episodes):
        said, reward = play()
        if tuple(said) != RESULTS or reward != 1.0:
            sys.exit(f"it went wrong: {said} {reward}")
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    print(json.dumps({"steps": steps * episodes, "wall": wall, "cpu": cpu, "import_cpu": imported}))


if __name__ == "__main__":
    main()
