"""Rows of question answering files as tasks: HotpotQA, 2Wiki, MuSiQue and HippoRAG, Search-R1, and one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from agentgym.envs.tasks import Row, TaskSet, task_from_row
from agentgym.errors import ConfigError
from agentgym.tools.corpus import Corpus, Document
from agentgym.types import Task

_ANSWERS = ("answer", "answers", "golden_answers")
_ALIASES = ("answer_aliases", "aliases")


def read_qa_row(row: Row, default_id: str) -> Task:
    """A row with a question and its answer or answers -> a task; raises `ValueError` naming the field.

    `question`, or `prompt` (text or messages); `answer`, `answers` or `golden_answers` (a text or a list of which any
    is right), or Search-R1's `reward_model`; optional `id` (`_id`), `type` or `kind`, `answer_aliases`, and the row's
    passages: `paragraphs` with `is_supporting`, or `context` with `supporting_facts`.
    """
    named = row.get("id", row.get("_id"))
    task = task_from_row({**_asked(row), "answer": _golds(row)}, str(named) if named is not None else default_id)
    passages, supporting = _passages(row)
    metadata = {"supporting": supporting, "passages": passages}
    kind = str(row.get("kind") or row.get("type") or "")
    kept = {key: value for key, value in metadata.items() if value}
    if row.get("split"):
        kept["split"] = row["split"]
    return Task(task.id, task.prompt, task.answer, kind, kept)


def _asked(row: Row) -> dict[str, Any]:
    name = next((name for name in ("question", "prompt", "messages") if row.get(name)), None)
    if name is None:
        raise ValueError("no 'question' or 'prompt'")
    if name == "question" and not isinstance(row[name], str):
        raise ValueError(f"'question': expected text, got {type(row[name]).__name__}")
    return {name: row[name]}


def _golds(row: Row) -> tuple[str, ...]:
    name = next((name for name in _ANSWERS if row.get(name) is not None), None)
    found = row[name] if name else _search_r1(row)
    if found is None:
        raise ValueError("no 'answer', 'answers' or 'golden_answers'")
    name = name or "reward_model.ground_truth.target"
    several = list(found) if isinstance(found, list | tuple) else [found]
    for alias in _ALIASES:
        several += row[alias] if isinstance(row.get(alias), list) else []
    golds = []
    for gold in several:
        if isinstance(gold, bool):
            gold = "yes" if gold else "no"
        if not isinstance(gold, str | int | float) or not str(gold).strip():
            raise ValueError(f"{name!r}: expected texts that are not empty, got {gold!r}")
        golds.append(str(gold).strip())
    if not golds:
        raise ValueError(f"{name!r} is empty")
    return tuple(dict.fromkeys(golds))


def _search_r1(row: Row) -> Any:
    model = row.get("reward_model")
    truth = model.get("ground_truth") if isinstance(model, Mapping) else None
    return truth.get("target") if isinstance(truth, Mapping) else truth


def _passages(row: Row) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """((title, text) of the row's passages, titles of those that support its answer)."""
    if isinstance(paragraphs := row.get("paragraphs"), list):
        return _paragraphs(paragraphs)
    if (context := row.get("context")) is None:
        return (), ()
    try:
        pairs = zip(context["title"], context["sentences"], strict=True) if isinstance(context, Mapping) else context
        passages = tuple([(str(title), "".join(sentences)) for title, sentences in pairs])
        facts = row.get("supporting_facts") or ()
        titles = facts["title"] if isinstance(facts, Mapping) else [fact[0] for fact in facts]
    except (TypeError, ValueError, KeyError, IndexError):
        raise ValueError("'context' and 'supporting_facts': expected HotpotQA's lists of [title, sentences]") from None
    return passages, tuple(dict.fromkeys(map(str, titles)))


def _paragraphs(paragraphs: Iterable[Any]) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    passages: list[tuple[str, str]] = []
    supporting: list[str] = []
    for i, paragraph in enumerate(paragraphs):
        text = paragraph.get("text", paragraph.get("paragraph_text")) if isinstance(paragraph, Mapping) else None
        if not isinstance(text, str):
            raise ValueError(f"'paragraphs'[{i}]: expected an object with 'title' and 'text'")
        title = str(paragraph.get("title") or "")
        passages.append((title, text))
        if paragraph.get("is_supporting"):
            supporting.append(title)
    return tuple(passages), tuple(dict.fromkeys(supporting))


@lru_cache(maxsize=4)
def corpus_of(tasks: TaskSet) -> Corpus:
    """The corpus that the rows themselves bring: every passage once. Raises `ConfigError` where they bring none."""
    passages = dict.fromkeys(passage for task in tasks for passage in task.metadata.get("passages", ()))
    if not passages:
        raise ConfigError("the rows of data= bring no passages: give corpus=, a file of documents to search")
    return Corpus(_numbered(passages))


def _numbered(passages: Iterable[tuple[str, str]]) -> Iterator[Document]:
    used: set[str] = set()
    for number, (title, text) in enumerate(passages):
        id = title if title and title not in used else f"{title} ({number})".strip()
        used.add(id)
        yield Document(id, title, text)
