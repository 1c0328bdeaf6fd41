"""`agentgym/SearchQA-v0`: questions whose answers have to be searched for, some of them in two steps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from agentgym.envs.data_files import find_files
from agentgym.envs.script import call, say
from agentgym.envs.search_rows import corpus_of, read_qa_row
from agentgym.envs.search_world import Fact, world, world_corpus
from agentgym.envs.tasks import TaskSet, held_out, load_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.qa import exact_match, final_answer, normalise, token_f1
from agentgym.errors import ConfigError
from agentgym.protocols import Policy
from agentgym.tools.corpus import Corpus, load_corpus
from agentgym.tools.episode import Episode
from agentgym.tools.search import search_tools, shows
from agentgym.types import Message, Task

SYSTEM = "Search, then end with 'Answer: ' and a few words."
KINDS = ("one_hop", "two_hops")
SIZES = {"train": 2_400, "test": 480}
HOLDOUT = 1 / 6
WRONG = "Answer: unknown"
"""The wrong answer of the demonstrations, always the same, so that it can be their most likely one."""


class SearchQAEnv(ToolEnv):
    """Questions over a corpus of documents, answered with a search.

    ## Description
    The answer is a few words that only the corpus tells; a question of two hops names neither the document that says
    it nor its title: that has to be learnt from another one first. The corpus that ships is a made-up world of 768
    people, 24 towns and 24 firms, so that nothing that a model knows helps it. The world is always the same one:
    questions are held out, not people, and a long training may come to know it by heart, as `searches` would show.

    ## Kinds
    `one_hop`: "Where does Anya Berg live?". `two_hops`: "Who leads the employer of Anya Berg?". With `data=`: the
    row's `kind` or `type`.

    ## Tools
    `search(query, k)`: BM25; the best documents, a line each, `[id]` first. With a corpus of the user's also
    `read_document(id, start)`.

    ## Starting state
    A system message that says how to answer, and the question.

    ## Reward
    `reward`: 1 if the agent's own last message gives (one of) the gold answers: what its last line `Answer: ...` says,
    else the whole of it, matched exactly after SQuAD's normalisation. Metrics: `f1` (token F1), `answered` (whether
    something was), `searches`, and `gold_seen`: the share of the documents needed that a tool showed, or, where they
    are not known, whether one that was shown has a gold answer in it.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 8 messages.

    ## Tasks
    2,400 generated train tasks and 480 test tasks; task i is of kind i % 2. A question is held out by its hash.
    `data`: JSONL or a JSON list of `question` and `answer` (a text or several), in the formats of HotpotQA, HippoRAG,
    MuSiQue and Search-R1.

    ## Arguments
    corpus: a file of documents (JSONL or a JSON list of `id`, `title`, and `text` or `contents`), or a data set of such
        files. Without it, the passages that the rows of `data` bring.
    results: documents that a search shows where the call does not say; 0: 1 in the generated world, else 3.
    demo_mistakes: probability that the `demo` expert answers "Answer: unknown" in place of a search, each time.
    demo_two_hops: share of questions of two hops among `demo_tasks`.

    ## Versions
    v0: first.
    """

    weights = {"f1": 0.0, "answered": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 8

    def __init__(
        self,
        *args: Any,
        corpus: str = "",
        results: int = 0,
        demo_mistakes: float = 0.5,
        demo_two_hops: float = 0.12,
        **kwargs: Any,
    ):
        generated = not corpus and not kwargs.get("data") and not args and kwargs.get("tasks") is None
        self.corpus = self._corpus(corpus, kwargs.get("data") or "", generated)
        if kwargs.get("tools") is None:
            tools = search_tools(self.corpus, results=results or (1 if generated else 3))
            kwargs["tools"] = tools[:1] if generated else tools  # a whole document of the world is a line
        super().__init__(*args, **kwargs)
        self.demo_mistakes = demo_mistakes
        self.demo_two_hops = demo_two_hops

    @classmethod
    def _corpus(cls, corpus: str, data: str, generated: bool) -> Corpus:
        if generated:
            return world_corpus()
        if corpus:
            return load_corpus(*find_files(corpus).train)
        if not data:
            raise ConfigError("SearchQA: tasks of one's own need a corpus: give corpus=, a file of documents to search")
        return corpus_of(load_tasks(data, cls.read_row))

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        return read_qa_row(row, default_id)

    def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        episode.metrics["searches"] = sum(result.call.name == "search" for result in episode.calls)
        episode.metrics["gold_seen"] = self._gold_seen(task, episode)
        return {
            "reward": float(exact_match(task.answer, answer, extract="strict")),
            "f1": token_f1(task.answer, answer, extract="strict"),
            "answered": float(bool(final_answer(answer, "strict"))),
        }

    def _gold_seen(self, task: Task, episode: Episode) -> float:
        seen = [result.text for result in episode.calls if not result.error]
        needed = task.metadata.get("supporting") or ()
        if not needed:
            golds = [task.answer] if isinstance(task.answer, str) else task.answer
            texts = [f" {normalise(text)} " for text in seen]
            return float(any(f" {normalise(str(gold))} " in text for gold in golds for text in texts))
        found = [
            any(shows(text, document) for document in self.corpus.titled(title) for text in seen) for title in needed
        ]
        return sum(found) / len(found)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """Searches for one name after the other, then answers; `demo` often gives up before a search."""
        return Searcher(task, self.demo_mistakes if style == "demo" else 0.0, random.Random(seed))

    def demo_tasks(self, n: int, seed: int = 0) -> list[Task]:
        """`n` train tasks to demonstrate, those of two hops among them with their share."""
        rng = random.Random(seed)
        tasks = self.tasks("train")
        by_kind = [[task for task in tasks if (task.kind == "two_hops") == two] for two in (False, True)]
        shares = (1 - self.demo_two_hops, self.demo_two_hops) if all(by_kind) else [bool(kind) for kind in by_kind]
        return [rng.choice(rng.choices(by_kind, shares)[0]) for _ in range(n)]


class Searcher:
    """Plays a question whose names to search for are known, else searches for the question itself; then answers."""

    def __init__(self, task: Task, mistakes: float, rng: random.Random):
        self._hops: tuple[str, ...] = task.metadata.get("hops") or (_question(task),)
        self._answer = task.answer if isinstance(task.answer, str) else str(task.answer[0])
        self._gives_up = [rng.random() < mistakes for _ in self._hops]

    def __call__(self, conversation: Sequence[Message]) -> Message:
        made = sum(len(message.tool_calls) for message in conversation if message.role == "assistant")
        if made >= len(self._hops):
            return say(f"Answer: {self._answer}")
        return say(WRONG) if self._gives_up[made] else call("search", f"call_{made}", query=self._hops[made])


def _question(task: Task) -> str:
    if isinstance(task.prompt, str):
        return task.prompt
    return next((message.text for message in reversed(task.prompt) if message.role == "user"), "")


@cache
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 2, no question twice, each split by the question's hash."""
    facts = list(world().facts())
    random.Random("SearchQA-v0 questions").shuffle(facts)
    kinds = [iter([f for f in facts if f.kind == kind and _is_of(split, f)]) for kind in KINDS]
    return TaskSet(_task(f"{split}-{i}", next(kinds[i % len(KINDS)])) for i in range(SIZES[split]))


def _is_of(split: str, fact: Fact) -> bool:
    return held_out(fact.question, HOLDOUT) == (split == "test")


def _task(id: str, fact: Fact) -> Task:
    return Task(id, fact.question, fact.answer, fact.kind, {"hops": fact.hops, "supporting": fact.hops})
