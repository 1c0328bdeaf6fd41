"""Tasks: from JSONL files and Python values, and their split into those to train on and those held out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, overload

from agentgym.envs.data_files import find_files, rows_of
from agentgym.errors import ConfigError, DataError
from agentgym.json_files import file_version
from agentgym.types import Message, Task

Row = Mapping[str, Any]
Drawn = tuple[str, Mapping[str, Any]]
"""A question, and the metadata of its task."""
SPLITS = ("train", "test")


class TaskSet(Sequence[Task]):
    """Tasks in order, also by id. Raises `DataError` where two share an id."""

    def __init__(self, tasks: Iterable[Task]):
        self._tasks = tuple(tasks)
        self._by_id = {task.id: task for task in self._tasks}
        if len(self._by_id) < len(self._tasks):
            seen: set[str] = set()
            twice = next(task.id for task in self._tasks if task.id in seen or seen.add(task.id))  # type: ignore[func-returns-value]
            raise DataError(f"two tasks have the id {twice!r}; ids must differ")

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        return self._tasks[index]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def by_id(self, task_id: str) -> Task:
        try:
            return self._by_id[task_id]
        except KeyError:
            raise DataError(f"no task has the id {task_id!r} (there are {len(self)} tasks)") from None

    def named(self, options: Mapping[str, Any]) -> Task | None:
        """The task that reset's options name by `task_id` or `index`, None where they name none."""
        if (task_id := options.get("task_id")) is not None:
            return self.by_id(str(task_id))
        index: int | None = options.get("index")
        if index is None:
            return None
        if not -len(self) <= index < len(self):
            raise DataError(f"there is no task {index}: the split has {len(self)}")
        return self._tasks[index]


def chosen_kinds(env: str, given: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The kinds of task that a user asks an env for; raises `ConfigError` where there are none, or one is unknown."""
    known = tuple(known)
    if isinstance(given, str) or not given or any(kind not in known for kind in given):
        raise ConfigError(f"{env}: kinds = {given!r}: give a list of some of {', '.join(known)}")
    return tuple(given)


def question(task: Task) -> str:
    """The text that a task is held out by."""
    if isinstance(task.prompt, str):
        return task.prompt
    return "\n".join(message.text for message in task.prompt if message.role == "user")


def held_out(text: str, share: float) -> bool:
    """Whether a question belongs to the test split: by its hash alone, so that no edit of the set moves it."""
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") < share * (1 << 48)


def generated_tasks(split: str, size: int, share: float, draws: Mapping[str, Iterator[Drawn]]) -> TaskSet:
    """`size` tasks, task i of the i-th kind in turn, from endless draws by kind.

    Always the same ones where the draws are: no question twice, each in the split that its hash says.
    """
    seen: set[str] = set()
    fresh = {kind: _fresh(drawn, split, share, seen) for kind, drawn in draws.items()}
    kinds = itertools.islice(itertools.cycle(draws), size)
    made = ((kind, *next(fresh[kind])) for kind in kinds)
    return TaskSet(Task(f"{split}-{i}", prompt, None, kind, more) for i, (kind, prompt, more) in enumerate(made))


def _fresh(drawn: Iterator[Drawn], split: str, share: float, seen: set[str]) -> Iterator[Drawn]:
    for prompt, more in drawn:
        if prompt not in seen and held_out(prompt, share) == (split == "test"):
            seen.add(prompt)
            yield prompt, more


def split_tasks(tasks: Iterable[Task], split: str, share: float) -> TaskSet:
    """The tasks of one split. A row's own `split` (in its metadata) wins over the hash.

    With share 0, and where one of the splits would be empty, both hold all tasks.
    """
    tasks = tuple(tasks)
    if share <= 0:
        return TaskSet(tasks)
    test = [_is_test(task, share) for task in tasks]
    if all(test) or not any(test):
        return TaskSet(tasks)
    return TaskSet(task for task, is_test in zip(tasks, test, strict=True) if is_test == (split == "test"))


def _is_test(task: Task, share: float) -> bool:
    own = task.metadata.get("split")
    return bool(own == "test") if own in SPLITS else held_out(question(task), share)


def task_from_row(row: Row, default_id: str = "") -> Task:
    """A dict -> `Task`; raises `ValueError` naming the field that is wrong.

    Fields: `question`, `prompt` or `messages` (OpenAI chat shape); `answer`; optional `id`, `kind`, `demo` (a gold
    conversation in the same shape). Everything else is kept as metadata.
    """
    prompt: str | tuple[Message, ...]
    if "messages" in row:
        prompt = _messages(row["messages"], "messages")
    elif (text := row.get("question", row.get("prompt"))) is not None:
        prompt = text if isinstance(text, str) else _messages(text, "prompt")
    else:
        raise ValueError("no 'question', 'prompt' or 'messages'")
    if "answer" not in row:
        raise ValueError("no 'answer'")
    demo = _messages(row["demo"], "demo") if row.get("demo") else None
    known = {"messages", "question", "prompt", "answer", "id", "kind", "demo"}
    metadata = {key: value for key, value in row.items() if key not in known}
    task_id = str(row["id"]) if row.get("id") is not None else default_id
    return Task(task_id, prompt, row["answer"], str(row.get("kind") or ""), metadata, demo)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r}: expected text or a list of messages")
    messages = []
    for i, row in enumerate(value):
        if not isinstance(row, Mapping):
            raise ValueError(f"{name}[{i}]: expected an object")
        try:
            messages.append(Message.from_openai(row))
        except (ValueError, KeyError) as e:
            raise ValueError(f"{name}[{i}]: {e}") from None
    return tuple(messages)


def as_tasks(given: Iterable[Any], name: str = "tasks") -> tuple[Task, ...]:
    """Tasks, dicts as in a JSONL file, or (question, answer) pairs -> tasks; raises `DataError` naming the item."""
    tasks = []
    for i, item in enumerate(given):
        if isinstance(item, Task):
            tasks.append(item)
            continue
        row = {"question": item[0], "answer": item[1]} if isinstance(item, tuple) and len(item) == 2 else item
        if not isinstance(row, Mapping):
            raise DataError(f"{name}[{i}]: expected a Task, a dict or a (question, answer) pair, got {item!r}")
        try:
            tasks.append(task_from_row(row, str(i)))
        except ValueError as e:
            raise DataError(f"{name}[{i}]: {e}") from None
    return tuple(tasks)


def given_tasks(given: Any, split: str, share: float) -> TaskSet:
    """One split of what a user gave: a dict of splits, a function of the split, or items to be split by hash."""
    if isinstance(given, Mapping):
        if split not in given:
            raise ConfigError(f"tasks: there is no split {split!r} (there are: {', '.join(given)})")
        return TaskSet(as_tasks(given[split]))
    if callable(given):
        return TaskSet(as_tasks(given(split)))
    return split_tasks(as_tasks(given), split, share)


def load_tasks(path: str, read: Callable[[Row, str], Task] = task_from_row) -> TaskSet:
    """The tasks of a JSONL file, one object a line; raises `DataError` naming file and line.

    `read(row, default_id)` makes the task and raises `ValueError` for a row it cannot use.
    """
    return load_split(path, read, "train", 0.0)


def load_split(data: str, read: Callable[[Row, str], Task], split: str, share: float) -> TaskSet:
    """One split of a JSONL file, or of a data set on the hub (`data_files.find_files`): the data's own files for it,
    else as `split_tasks`. A file is read once as long as it does not change."""
    files = find_files(data)
    paths = files.test if files.test and split == "test" else files.train
    version = tuple([file_version(path, "the tasks", "a JSONL file") for path in paths])
    return _load_split(paths, read, split, 0.0 if files.test else share, version)


@lru_cache(maxsize=16)
def _load_split(
    paths: tuple[str, ...], read: Callable[[Row, str], Task], split: str, share: float, version: Any
) -> TaskSet:
    return split_tasks(_read_files(paths, read, version), split, share)


@lru_cache(maxsize=8)
def _read_files(paths: tuple[str, ...], read: Callable[[Row, str], Task], version: Any) -> tuple[Task, ...]:
    tasks: list[Task] = []
    for path in paths:
        for where, row in rows_of(path):
            try:
                tasks.append(read(row, str(len(tasks))))
            except ValueError as e:
                raise DataError(f"{where}: {e}") from None
    if not tasks:
        raise DataError(f"{paths[0]}: no tasks in it")
    return tuple(tasks)
