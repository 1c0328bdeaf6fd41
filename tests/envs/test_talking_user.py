"""An env whose user goes on talking, and tasks that bring their own tools."""

from agentgym.envs.rubric import Component
from agentgym.envs.script import call, say
from agentgym.envs.tool_env import ToolEnv
from agentgym.tools import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, StopReason, Task
from tests.envs.test_tool_env import Rows, bad_call, note, start, step


class Talker(ToolEnv):
    """A user who has two more things to say, and tasks that bring tools of their own."""

    def tools_for(self, task: Task) -> ToolSet | None:
        return ToolSet(task.metadata["own"]) if "own" in task.metadata else None

    def reply(self, episode: Episode, message: Message) -> Message | None:
        said = episode.state.setdefault("said", [])
        if len(said) == 2:
            return None
        said.append(message.text)
        return Message("user", f"And then? ({len(said)})")


def test_a_user_may_go_on_talking(rows: Rows) -> None:
    env = Talker(rows, tools=[note], holdout=0, reward=lambda task, answer, episode: answer == "third")
    start(env)
    first = step(env, say("first"))
    assert (first.done, first.messages) == (False, (Message("user", "And then? (1)"),))
    assert step(env, call("note", text="x")).messages[0].text == "noted x"
    assert step(env, say("second")).messages[0].text == "And then? (2)"
    assert not env.reset()[1]["stop_reason"]  # what was said belongs to the episode
    assert env.step("first")[0] == "And then? (1)"
    for text in ("second", "third"):
        _, reward, terminated, _, info = env.step(text)
    assert (reward, terminated, info["stop_reason"]) == (1.0, True, "completed")
    assert [row["role"] for row in info["messages"]] == ["user", "assistant"] * 3


def test_limits_hold_while_a_user_talks(rows: Rows) -> None:
    env = Talker(rows, tools=[note], holdout=0, max_turns=2)
    start(env)
    step(env, say("first"))
    end = step(env, say("second"))
    assert (end.truncated, end.stop_reason) == (True, StopReason.max_turns)
    env = Talker(rows, tools=[note], holdout=0, max_parse_errors=2)
    start(env)
    step(env, bad_call())
    step(env, say("a message that parses"))
    assert not step(env, bad_call(1)).done


def test_turns_with_a_talking_user_are_paid(rows: Rows) -> None:
    paid = Component(lambda task, text, episode: len(text), "length", per_turn=True)
    env = Talker(rows, tools=[note], holdout=0, reward=[paid])
    start(env)
    assert [step(env, say(text)).reward for text in ("a", "bb", "ccc")] == [1.0, 2.0, 3.0]


def test_tasks_may_bring_their_own_tools() -> None:
    own = {"question": "?", "answer": "x", "own": ["calculator"]}
    env = Talker([own, {"question": "!", "answer": "x", "own": []}, {"question": ".", "answer": "x"}], tools=[note])
    env.holdout = 0
    names = [[tool["function"]["name"] for tool in start(env, index=index).tools] for index in range(3)]
    assert names == [["calculator"], [], ["note"]]
    start(env, index=0)
    assert step(env, call("calculator", expression="2*3")).messages[0].text == "6"
    assert "the tools are: calculator" in step(env, call("note", text="x")).messages[0].text
    start(env, index=2)
    assert step(env, call("note", text="x")).messages[0].text == "noted x"
