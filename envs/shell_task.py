"""`agentgym/ShellTask-v0`: questions about files and work on files, in a sandbox's shell."""

from __future__ import annotations

import io
import itertools
import random
import re
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.envs.data_files import find_files
from agentgym.envs.script import call, say
from agentgym.envs.shell_chores import Job, draw, generate, gold_command
from agentgym.envs.shell_rows import read_row, rows
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, DataError, SandboxFileError, VerifierFault
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

SYSTEM = "Work with the shell in your working directory. Your last message is the answer alone, such as: 3 812"
GIVES_UP = "0"
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_MAX_ANSWER = 4000


class ShellTaskEnv(ToolEnv):
    """Folders of files to search, to count, and to put in order.

    ## Description
    A folder tree with texts, logs and tables. The agent has a shell in a sandbox of its own and answers a question, or
    changes files as it is told and then says how many there were. What a folder holds is drawn anew each episode.

    ## Kinds
    `word`: which files of a kind hold a word (longer words are no match). `dates`: which were last changed before a
    year. `sum`: amounts of a name over several tables. `rename`, `move`, `delete`, `list` (write a sorted list):
    what is there at the end is compared with what should be. With `data=`: as the file says.

    ## Tools
    `shell(command)`: a terminal that lives on. More with `tools=["shell", "read_file", "write_file"]`.

    ## Starting state
    20 files in 5 folders, drawn from the episode's generator, and a system message that says how to answer.

    ## Reward
    `reward`: 1 if the agent's own last message is the right number (or the two, in order) and nothing else, and, where
    work was to be done, every file below the folder is as it should be, in place and content; else 0. A right
    answer after the wrong work pays nothing. `answered`, `done` (metrics): each of the two alone. Guessing two
    numbers, one of them of thousands of bytes, pays next to nothing.

    The files are read after the agent has ended, as an archive taken by a shell that knows nothing of the agent's
    (its aliases, functions, PATH and start-up files), and compared outside of the sandbox: nothing in there decides.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 16 messages.

    ## Tasks
    420 generated train tasks and 140 test tasks; task i is of kind i % 7. A question is held out by its hash. `data`:
    JSONL, or a .json list, with rows of
    - our own: `question`, `answer` and, optionally, `files` (texts by path), `setup` (a command), `expect` (the
      texts by path that must be below the folder `top` at the end), `gold` (a command that prints the answer);
    - AgentBench's os_interaction: `create.init` prepares, and the answer is `evaluation.match`, or what
      `evaluation.example` prints on an untouched copy (integer-match, string-match);
    - InterCode's NL2Bash: `query` and `gold`, whose output on an untouched copy is the answer. The rows do not hold
      the file systems they are about: they want an image, or a set-up command that builds it.

    ## Arguments
    sandbox: settings of the sandbox, such as `{"backend": "docker", "image": "..."}`.
    unrunnable: what to do with rows that need what is not there (root, other users, processes of their machine,
    scripts beside the file): "refuse" (default), "skip" them, or "keep" them, for a backend that has it all.
    demo_mistakes: probability that the `demo` expert answers "0" straight away.

    ## Versions
    v0: first.
    """

    tools = ("shell",)
    weights = {"answered": 0.0, "done": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 16
    holdout = 0.25
    sandbox = {"timeout": 10.0}  # noqa: RUF012 - read-only

    def __init__(self, *args: Any, unrunnable: str = "refuse", demo_mistakes: float = 0.5, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if unrunnable not in ("refuse", "skip", "keep"):
            raise ConfigError(f"ShellTask-v0: unrunnable = {unrunnable!r}: give 'refuse', 'skip' or 'keep'")
        self.unrunnable = unrunnable
        self.demo_mistakes = demo_mistakes

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    def _make_split(self, split: str) -> TaskSet:
        if not self._data:
            return super()._make_split(split)
        files = find_files(self._data)
        paths = files.test if files.test and split == "test" else files.train
        tasks = self._runnable(paths)
        return split_tasks(tasks, split, 0.0 if files.test else self.holdout)

    def _runnable(self, paths: Sequence[str]) -> list[Task]:
        furnished = self.sandbox.get("image") or self.sandbox.get("dockerfile") or self.sandbox.get("setup")
        tasks: list[Task] = []
        for number, (where, row) in enumerate(itertools.chain.from_iterable(map(rows, paths))):
            try:
                task = read_row(row, str(number))
            except ValueError as e:
                raise DataError(f"{where}: {e}") from None
            needs = "" if furnished and task.kind == "nl2bash" else task.metadata["needs"]
            if needs and self.unrunnable == "refuse":
                raise DataError(f"{where}: needs {needs}. Leave such rows out with env.args.unrunnable=skip")
            if not needs or self.unrunnable == "keep":
                tasks.append(task)
        if not tasks:
            raise DataError(
                f"{paths[0]}: no row in it that can be played here; see unrunnable in the env's description"
            )
        return tasks

    async def setup(self, episode: Episode) -> None:
        metadata = episode.task.metadata
        job = draw(metadata["chore"], episode.rng) if "chore" in metadata else metadata["job"]
        given = dict(episode.sandbox_settings)
        files = {**given.get("files", {}), **job.files}
        setup = "\n".join(filter(None, (given.get("setup", ""), job.setup)))
        episode.sandbox_settings = {**given, "files": files, "setup": setup}
        episode.state = {"job": job, "start": b""}
        if job.truth:  # its files need not be the same twice, so the truth is found on a copy of these
            episode.state["start"] = await (await episode.sandbox()).snapshot()

    async def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        if not answer.strip() or len(answer) > _MAX_ANSWER:
            return {"reward": 0.0, "answered": 0.0, "done": 0.0}
        job: Job = episode.state["job"]
        # an agent that called nothing has changed nothing: no sandbox is made to see that
        done = job.expected is None or (bool(episode.calls) and await _files_below(job.top, episode) == job.expected)
        truth = await _truth(job, episode) if job.truth else job.answer
        answered = not truth or _agree(answer, truth, task.metadata.get("compare", "words"))
        return {"reward": float(done and answered), "answered": float(answered), "done": float(done)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        """Runs the command that does it and says what it printed; `demo` often says "0" at once. None without one."""
        chore, answer = task.metadata.get("chore"), str(task.answer or "")
        command = gold_command(chore) if chore else task.metadata["gold"]
        if not command and (not answer or task.metadata["job"].expected is not None):
            return None
        lazy = style == "demo" and random.Random(seed).random() < self.demo_mistakes

        def policy(conversation: Sequence[Message]) -> Message:
            if lazy:
                return say(GIVES_UP)
            if command and conversation[-1].role != "tool":
                return call("shell", command=command)
            return say(answer or conversation[-1].text)

        return policy


def _agree(answer: str, truth: str, compare: str) -> bool:
    if compare == "integer":
        said = re.fullmatch(r"\s*([+-]?\d{1,18})\s*\.?\s*", answer)
        return said is not None and int(said[1]) == int(truth)
    if compare == "words":
        return _WORDS.findall(answer) == _WORDS.findall(truth)
    return answer.split() == truth.split()


async def _truth(job: Job, episode: Episode) -> str:
    """What the row's own command prints on the files as they were; in a session that the agent never had."""
    start: bytes = episode.state["start"]
    await episode.release()
    episode.sandbox_settings = {**episode.sandbox_settings, "files": {}}
    box = await episode.sandbox()
    await box.restore(start)
    done = await box.shell(job.truth)
    found = done.stdout.strip()
    whole = episode.task.metadata.get("compare") != "integer" or re.fullmatch(r"[+-]?\d{1,18}", found)
    if not found or not whole:
        told = (done.stderr.strip() or done.error or found)[-200:]
        raise VerifierFault(f"the row's own command gives no answer here (exit code {done.exit_code}): {told}")
    return found


async def _files_below(top: str, episode: Episode) -> Mapping[str, bytes] | None:
    """Text by path of what lies below a folder; None where that cannot be told, or is not all plain files.

    The archive is made in the sandbox, so it is read with suspicion; but an agent that forged it would need to know
    the right files, and could as well have made them.
    """
    try:
        packed = await (await episode.sandbox()).snapshot()
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            found = {}
            for member in archive:
                path = member.name.removeprefix("./")
                if not path.startswith(f"{top}/") or member.isdir():
                    continue
                content = archive.extractfile(member) if member.isreg() or member.islnk() else None
                if content is None:
                    return None
                found[path] = content.read()
            return found
    except (SandboxFileError, tarfile.TarError, KeyError, EOFError):
        return None
