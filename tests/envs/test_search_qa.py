"""SearchQA-v0: its world, its reward and metrics, its players, and the files that it reads."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.envs.script import call, say
from agentgym.envs.search_qa import HOLDOUT, KINDS, WRONG, SearchQAEnv, generate
from agentgym.envs.search_world import world, world_corpus
from agentgym.envs.tasks import held_out
from agentgym.errors import ConfigError, DataError
from agentgym.tools.driving import drive
from agentgym.types import Outcome

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CORPUS = [
    {"id": "1", "title": "Aar", "text": "The Aar flows through Bern."},
    {"id": "2", "title": "Bern", "text": "Bern is the seat of the government."},
]


def written(path: Path, rows: list[Any], as_list: bool = False) -> str:
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)))
    return str(path)


def test_tasks() -> None:
    seen: set[object] = set()
    for split, size in (("train", 2_400), ("test", 480)):
        tasks = generate(split)
        assert len(tasks) == size
        assert [task.kind for task in tasks] == [KINDS[i % 2] for i in range(size)]
        assert all(held_out(str(task.prompt), HOLDOUT) == (split == "test") for task in tasks)
        assert all(len(task.metadata["hops"]) == 1 + (task.kind == "two_hops") for task in tasks)
        seen |= {task.prompt for task in tasks}
    assert len(seen) == 2_880


def test_every_answer_is_in_the_last_document_needed_and_in_no_question() -> None:
    corpus = world_corpus()
    for task in [*generate("train")[:400], *generate("test")]:
        *before, last = [corpus.get(name) for name in task.metadata["hops"]]
        assert last is not None
        assert task.answer in last.text
        assert str(task.answer) not in str(task.prompt)
        assert all(document is not None and task.metadata["hops"][1] in document.text for document in before)
        assert before == [] or task.metadata["hops"][1] not in str(task.prompt)


def test_answers_are_too_many_to_guess() -> None:
    answers = Counter(task.answer for task in generate("test"))
    assert answers.most_common(1)[0][1] / 480 < 0.05


def test_a_name_finds_its_own_document_first() -> None:
    corpus = world_corpus()
    assert all(corpus.search(document.id, 1)[0].document == document for document in list(corpus)[::7])
    assert len(corpus) == len(world().people) + 48


@pytest.mark.parametrize(
    ("text", "reward", "f1"),
    [
        ("Answer: {}", 1.0, 1.0),
        ("{}", 1.0, 1.0),
        ("I searched twice.\n**Answer:** the {}.", 1.0, 1.0),
        ("<think>Answer: no</think>Answer: {}", 1.0, 1.0),
        ("Answer: {} or Bern", 0.0, 0.5),
        ("It is {}.", 0.0, 0.5),
        ("Answer: {}\nAnswer: Bern", 0.0, 0.0),
        ("<think>Answer: {}", 0.0, 0.0),
        ("Answer: unknown", 0.0, 0.0),
    ],
)
def test_what_pays(text: str, reward: float, f1: float) -> None:
    env = SearchQAEnv()
    task = drive(env.areset(seed=0, options={"index": 0})).task
    end = drive(env.astep(say(text.format(task.answer))))
    assert end.reward == reward
    assert end.components == {
        "reward": reward,
        "f1": pytest.approx(f1),
        "answered": float("<think>A" not in text or bool(reward)),
    }
    assert end.outcome is (Outcome.correct if reward else Outcome.incorrect)


def test_metrics_say_what_was_seen() -> None:
    env = SearchQAEnv()
    for steps, seen in ((0, 0.0), (1, 0.5), (2, 1.0)):
        task = drive(env.areset(seed=0, options={"index": 1})).task
        for name in task.metadata["hops"][:steps]:
            drive(env.astep(call("search", query=name)))
        drive(env.astep(call("search", query=" ")))
        end = drive(env.astep(say("")))
        assert end.metrics["searches"] == steps + 1
        assert end.metrics["gold_seen"] == seen
        assert end.metrics["tool_errors"] == 1
        assert end.components == {"reward": 0.0, "f1": 0.0, "answered": 0.0}


def test_demonstrations_are_imperfect_as_asked(play: Callable[..., Any]) -> None:
    env = SearchQAEnv(demo_mistakes=0.5, demo_two_hops=0.1)
    tasks = env.demo_tasks(1000, seed=3)
    assert sum(task.kind == "two_hops" for task in tasks) / 1000 == pytest.approx(0.1, abs=0.03)
    ends: Counter[tuple[int, bool]] = Counter()
    for seed, task in enumerate(tasks):
        _, step, messages = play(env, "demo", seed=seed, task=task)
        assert step.reward == 1.0 or messages[-1].text == WRONG
        ends[len(task.metadata["hops"]), step.reward == 1.0] += 1
    assert ends[1, True] / (ends[1, True] + ends[1, False]) == pytest.approx(0.5, abs=0.05)
    assert ends[2, True] / (ends[2, True] + ends[2, False]) == pytest.approx(0.25, abs=0.15)
    never = SearchQAEnv(demo_mistakes=0.0, demo_two_hops=1.0)
    assert {task.kind for task in never.demo_tasks(20)} == {"two_hops"}
    assert all(play(never, "demo", seed=i, index=i)[1].reward == 1 for i in range(20))


def test_the_index_is_shared() -> None:
    assert SearchQAEnv().corpus is SearchQAEnv(results=2).corpus
    assert SearchQAEnv().fresh().corpus is world_corpus()


def test_files_of_ones_own(tmp_path: Path, play: Callable[..., Any]) -> None:
    corpus = written(tmp_path / "corpus.json", CORPUS, as_list=True)
    rows = [
        {"question": "Where does the Aar flow?", "answer": "Bern", "type": "bridge", "split": "train"},
        {"_id": "n", "question": "How many?", "answer": [2, "two"], "answer_aliases": ["a pair"], "split": "test"},
        {"id": 9, "question": "Is it?", "answer": True, "split": "train"},
        {"prompt": [{"role": "user", "content": "r1?"}], "reward_model": {"ground_truth": {"target": ["x", "y"]}}},
        {"question": "g?", "golden_answers": ["z"], "split": "train"},
    ]
    env = agentgym.make_env("agentgym/SearchQA-v0", data=written(tmp_path / "q.jsonl", rows), args={"corpus": corpus})
    train, test = env.tasks("train"), env.tasks("test")
    assert [task.answer for task in test if task.id == "n"] == [("2", "two", "a pair")]
    assert {task.id: task.answer for task in train}["9"] == ("yes",)
    assert {task.kind for task in train} == {"bridge", ""}
    assert env.toolset.names == ("search", "read_document")  # type: ignore[attr-defined]
    for split in ("train", "test"):
        for index in range(len(env.tasks(split))):
            _, step, _ = play(env, "gold", index=index, split=split)
            assert step.outcome is Outcome.correct
    start = drive(env.areset(options={"task_id": "0"}))
    [shown] = drive(env.astep(call("search", query="Aar flow"))).messages
    assert (start.messages[-1].text, shown.text) == (rows[0]["question"], "[1] Aar: The Aar flows through Bern.")
    end = drive(env.astep(say("Answer: bern")))
    assert (end.reward, end.metrics["gold_seen"]) == (1.0, 1.0)  # by the answer, for the row names no document


@pytest.mark.parametrize(
    "row",
    [
        {
            "paragraphs": [
                {"title": "Aar", "text": "It flows through Bern.", "is_supporting": True},
                {"title": "", "text": "No."},
            ]
        },
        {"context": [["Aar", ["It flows", " through Bern."]], ["", ["No."]]], "supporting_facts": [["Aar", 0]]},
        {
            "context": {"title": ["Aar", ""], "sentences": [["It flows", " through Bern."], ["No."]]},
            "supporting_facts": {"title": ["Aar"], "sent_id": [0]},
        },
    ],
)
def test_rows_that_bring_their_passages(tmp_path: Path, row: dict[str, Any], play: Callable[..., Any]) -> None:
    rows = [{"question": f"Where {i}?", "answer": "Bern", **row} for i in range(3)]
    env = SearchQAEnv(data=written(tmp_path / "q.json", rows, as_list=True), holdout=0)
    assert [(document.id, document.text) for document in env.corpus] == [
        ("Aar", "It flows through Bern."),
        ("(1)", "No."),
    ]
    assert SearchQAEnv(data=str(tmp_path / "q.json")).corpus is env.corpus
    drive(env.areset(seed=0))
    drive(env.astep(call("search", query="flows")))
    assert drive(env.astep(say("?"))).metrics["gold_seen"] == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "x"}, "q.jsonl:2: no 'question' or 'prompt'"),
        ({"question": 3, "answer": "x"}, "q.jsonl:2: 'question': expected text, got int"),
        ({"question": "q"}, "q.jsonl:2: no 'answer', 'answers' or 'golden_answers'"),
        ({"question": "q", "answer": []}, "q.jsonl:2: 'answer' is empty"),
        ({"question": "q", "answer": " "}, "q.jsonl:2: 'answer': expected texts that are not empty"),
        ({"question": "q", "golden_answers": [{}]}, "q.jsonl:2: 'golden_answers': expected texts"),
        ({"question": "q", "answer": "x", "paragraphs": ["p"]}, r"q.jsonl:2: 'paragraphs'\[0\]: expected an object"),
        ({"question": "q", "answer": "x", "context": [["t"]]}, "q.jsonl:2: 'context' and 'supporting_facts'"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    data = written(tmp_path / "q.jsonl", [{"question": "q?", "answer": "a"}, row])
    corpus = written(tmp_path / "c.jsonl", CORPUS)
    with pytest.raises(DataError, match=message):
        SearchQAEnv(data=data, corpus=corpus).tasks("train")


def test_a_corpus_that_is_missing(tmp_path: Path) -> None:
    data = written(tmp_path / "q.jsonl", [{"question": "q?", "answer": "a"}])
    with pytest.raises(ConfigError, match="the rows of data= bring no passages: give corpus="):
        SearchQAEnv(data=data)
    with pytest.raises(ConfigError, match="tasks of one's own need a corpus"):
        SearchQAEnv(tasks=[("q?", "a")])
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot read the corpus: No such file"):
        SearchQAEnv(data=data, corpus=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(DataError, match=r"data/corpus.json: cannot read the corpus: No such file"):
        SearchQAEnv(data=data, corpus="data/corpus.json")  # a path, however much it looks like a data set's name
    with pytest.raises(DataError, match=r"q.jsonl:1: no 'text' or 'contents'"):
        SearchQAEnv(data=data, corpus=data)


def test_public_files(tmp_path: Path, play: Callable[..., Any]) -> None:
    if not (DATA / "search").exists():
        pytest.skip(f"no {DATA / 'search'}: set AGENTGYM_DATA to the folder of benchmark data")
    sample = SearchQAEnv(
        data=str(DATA / "search/hipporag_sample.json"), corpus=str(DATA / "search/hipporag_sample_corpus.json")
    )
    _, step, messages = play(sample, "gold", index=0)
    assert (step.reward, step.metrics["gold_seen"]) == (1.0, 1.0), messages
    hotpot = json.loads(gzip.decompress((DATA / "search/hotpot_dev_simplified.json.gz").read_bytes()))[:200]
    env = SearchQAEnv(
        data=written(tmp_path / "h.json", hotpot, as_list=True),
        corpus=str(DATA / "search/search_r1_corpus_sample.jsonl"),
    )
    assert {task.kind for task in env.tasks()} == {"bridge", "comparison"}
    assert all(play(env, "gold", index=index)[1].reward == 1.0 for index in range(50))
