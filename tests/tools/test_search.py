"""The search tools and the corpora that they read."""

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import DataError
from agentgym.tools.corpus import Corpus, Document, load_corpus, words
from agentgym.tools.driving import drive
from agentgym.tools.search import MAX_RESULTS, search_tools, shows
from agentgym.tools.snippet import snippet_of
from agentgym.tools.toolset import ToolSet
from agentgym.types import ToolCall

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
RIVERS = [
    {"id": "r1", "title": "Aar", "text": "The Aar flows through Bern."},
    {"id": "r2", "title": "Rhine", "text": "The Rhine takes the Aar up, and flows on to Basel."},
    {"id": "r3", "title": "Limmat", "text": "The Limmat leaves the lake at Z\u00fcrich."},
]


def ask(tools: Any, name: str, **arguments: Any) -> tuple[str, bool]:
    result = drive(ToolSet(tools).run([ToolCall("c", name, arguments)]))[0]
    return result.text, result.error


def test_a_search_shows_the_best_documents_a_line_each() -> None:
    tools = search_tools(RIVERS)
    assert ask(tools, "search", query="Aar") == (
        "[r1] Aar: The Aar flows through Bern.\n[r2] Rhine: The Rhine takes the Aar up, and flows on to Basel.",
        False,
    )
    assert ask(tools, "search", query="aar", k=1)[0] == "[r1] Aar: The Aar flows through Bern."
    assert ask(tools, "search", query="where is ZURICH?")[0].startswith("[r3] Limmat: ")
    assert ask(tools, "read_document", id="r2") == (
        "[r2] Rhine\nThe Rhine takes the Aar up, and flows on to Basel.",
        False,
    )
    assert shows("[r1] Aar: x", Document("r1", "", ""))
    assert not shows("Aar [r1]", Document("r1", "", ""))


def test_what_a_model_may_get_wrong_is_told_it() -> None:
    tools = search_tools(RIVERS)
    assert ask(tools, "search", query=" \n") == ("error: the query is empty: say which words to look for", True)
    assert ask(tools, "search", query="?!") == ("No document has a word of '?!': try others.", False)
    assert ask(tools, "search", query="volcano")[0] == "No document has a word of 'volcano': try others."
    for k in (0, -1, MAX_RESULTS + 1):
        assert ask(tools, "search", query="Aar", k=k) == (f"error: k must be 1 to 20, got {k}", True)
    assert ask(tools, "read_document", id="r9") == ("error: there is no document 'r9': search for one", True)
    assert ask(tools, "read_document", id="")[1]
    assert ask(tools, "read_document", id="lake Limmat")[0].endswith("near it: [r3]")
    assert ask(tools, "read_document", id="r1", start=99)[0].startswith("error: start must be 0 to 27")
    text, error = ask(tools, "search", query="x" * 1_000_000)
    assert len(text) < 200
    assert not error


def test_a_document_is_found_by_id_in_brackets_and_by_title() -> None:
    tools = search_tools(RIVERS)
    assert ask(tools, "read_document", id="[r1]")[0] == ask(tools, "read_document", id="aar")[0]


def test_long_documents_come_in_pages_and_pieces() -> None:
    text = "Nothing of note here. " * 100 + "The treasure lies under the old oak. " + "More of the same. " * 100
    tools = search_tools([{"id": "d", "text": text}], snippet=120, page=1000)
    found = ask(tools, "search", query="treasure oak")[0]
    assert "The treasure lies under the old oak." in found
    assert found.startswith("[d] ... ")
    assert found.endswith(" ...")
    assert len(found) < 140
    shown, start = "", 0
    while True:
        page = ask(tools, "read_document", id="d", start=start)[0].removeprefix("[d]\n")
        body, more, rest = page.partition("\n[")
        shown += body
        if not more:
            break
        start = int(rest.rpartition("=")[2].rstrip("]"))
        assert rest.startswith(f"{len(text.strip()) - start:,} more characters")
    assert shown == text.strip()


@given(st.text(max_size=400), st.text(max_size=30), st.integers(1, 80))
def test_a_snippet_is_a_piece_of_the_text(text: str, query: str, size: int) -> None:
    found = snippet_of(text, query, size)
    assert len(found) <= size + 8
    assert found.removeprefix("... ").removesuffix(" ...").strip() in " ".join(text.split())


def test_ties_keep_the_order_of_the_corpus_whatever_the_words_order() -> None:
    corpus = Corpus.of([f"number {i} red blue" for i in range(50)])
    for query in ("red blue", "blue red", "red red blue"):
        assert [hit.document.id for hit in corpus.search(query, 7)] == list(map(str, range(7)))
    scores = [hit.score for hit in corpus.search("red blue 31", 50)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 50
    assert corpus.search("red blue 31", 50)[0].document.id == "31"


def test_words_of_many_scripts() -> None:
    assert words("Z\u00fcrich's CAF\u00c9-bar, 3.5\u00b2") == ["zurich", "s", "cafe", "bar", "3", "52"]
    assert words("\u5317\u4eac\u5e02") == ["\u5317", "\u4eac", "\u5e02"]
    assert words("\uc11c\uc6b8 \u041c\u043e\u0441\u043a\u0432\u0430") == [
        "\uc11c\uc6b8",
        "\u043c\u043e\u0441\u043a\u0432\u0430",
    ]
    corpus = Corpus.of(["\u5317\u4eac\u662f\u9996\u90fd", "\u4e0a\u6d77", "..."])
    assert corpus.search("\u9996\u90fd")[0].document.id == "0"
    assert Corpus.of(["...", "?"]).search("x") == []


def test_a_title_counts_more_than_a_mention() -> None:
    corpus = Corpus.of(
        [{"title": "Bern", "text": "A town on the river Aar."}, {"title": "Aar", "text": "A river of Bern, it is."}]
    )
    assert corpus.search("Aar", 1)[0].document.title == "Aar"
    assert corpus.search("Bern", 1)[0].document.title == "Bern"


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_corpora_of_json_lines(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "contents": '"Evan Morris"\nEvan was a lobbyist.'},
        {"_id": "x", "title": "T", "contents": "no title\nin here"},
        {"contents": "Neither title\nnor id"},
        {"title": "Same", "text": "one"},
        {"title": "Same", "text": ["two", " sentences"]},
    ]
    corpus = load_corpus(write(tmp_path / name, "\n\n".join(map(json.dumps, rows))))
    assert list(corpus) == [
        Document("7", "Evan Morris", "Evan was a lobbyist."),
        Document("x", "T", "no title\nin here"),
        Document("2", "", "Neither title\nnor id"),
        Document("Same", "Same", "one"),
        Document("Same (2)", "Same", "two sentences"),
    ]
    assert len(corpus.titled("same")) == 2
    text, error = ask(search_tools(corpus), "read_document", id="SAME")
    assert error
    assert text.endswith("near it: [Same], [Same (2)]")


@pytest.mark.parametrize("name", ["c.json", "c.json.gz"])
def test_corpora_that_are_one_list(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, json.dumps(RIVERS, indent=2))
    assert [document.id for document in load_corpus(path)] == ["r1", "r2", "r3"]


def test_a_file_is_read_and_indexed_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '{"text": "one"}')
    first = load_corpus(path)
    assert load_corpus(str(path)) is first
    write(path, '{"text": "one"}\n{"text": "two"}')
    assert len(load_corpus(path)) == 2


def test_threads_share_one_index() -> None:
    corpus = Corpus.of(RIVERS)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(corpus.search("Aar"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [corpus.search("Aar")] * 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no documents in it"),
        ("[]", "no documents in it"),
        ('{"text": "a"}\n{"title": "b"}', r"c.jsonl:2: no 'text' or 'contents' \(it has: title\)"),
        ('{"text": "a"}\nnonsense', "c.jsonl:2: not valid JSON"),
        ('{"text": "a"}\n["b"]', "c.jsonl:2: expected a JSON object, got list"),
        ('\n{"text": 3}', "c.jsonl:2: 'text': expected text, got int"),
        ('{"text": " ", "title": ""}', "c.jsonl:1: 'text' is empty"),
        ('{"text": "a", "title": 3}', "c.jsonl:1: 'title': expected text, got int"),
        ('{"text": "a", "id": [1]}', r"c.jsonl:1: 'id': expected text or a whole number, got \[1\]"),
        ('{"id": "x", "text": "a"}\n\n{"id": "x", "text": "b"}', "c.jsonl:3: the id 'x' is also that of .*c.jsonl:1"),
        ('[\n{"text": "a"},\n\n{"title": "b"}]', "c.jsonl:4: no 'text' or 'contents'"),
        ('[\n{"text": "a"}\n{"text": "b"}]', "c.jsonl:3: not valid JSON: expected ',' or ']'"),
        ('[{"text": "a"},\n 3]', "c.jsonl:2: expected a JSON object, got int"),
        ('[{"text": "a"},\n{"text": ]', "c.jsonl:2: not valid JSON"),
        ('[{"text": "a"}', "c.jsonl:1: not valid JSON"),
        ('[{"text": "a"}]\nmore', "c.jsonl:1: there is more after the end of the list"),
        ("[" * 100_000, "c.jsonl:1: not valid JSON"),
        ('[{"text": "\xff"}]', "not valid UTF-8"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load_corpus(path)


def test_a_corpus_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: cannot read the corpus: No such file"):
        search_tools(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="it is a folder; give a file"):
        search_tools(tmp_path)
    (tmp_path / "c.parquet").touch()
    with pytest.raises(DataError, match="Parquet is not read here"):
        load_corpus(tmp_path / "c.parquet")
    broken = tmp_path / "c.json.gz"
    broken.write_bytes(gzip.compress(b"[{}]" * 50)[:-20])
    with pytest.raises(DataError, match=r"c.json.gz: cannot be read"):
        load_corpus(broken)


@pytest.mark.parametrize("make", [lambda: Corpus.of([]), lambda: Corpus([]), lambda: load_corpus()])
def test_a_corpus_of_nothing(make: Callable[[], Corpus]) -> None:
    with pytest.raises(DataError, match="no "):
        make()


def test_documents_that_are_wrong_are_named() -> None:
    with pytest.raises(DataError, match=r"documents\[1\]: expected a text or an object with 'text', got int"):
        search_tools(["a", 3])
    with pytest.raises(DataError, match="two documents of the corpus have the id 'x'"):
        Corpus([Document("x", "", "a"), Document("x", "", "b")])
    with pytest.raises(ValueError, match="results must be 1 to 20"):
        search_tools(["a"], results=0)


@pytest.mark.parametrize(
    ("name", "size", "query", "found"),
    [
        ("2wiki_corpus.json.gz", 6119, "Teutberga queen of Lotharingia", "Teutberga"),
        ("search_r1_corpus_sample.jsonl", 10, "Evan Morris lobbyist", "0"),
        ("hipporag_sample_corpus.json", 3, "professor synaptic transmission Stanford", "Thomas C. Sudhof"),
    ],
)
def test_public_corpora(name: str, size: int, query: str, found: str) -> None:
    path = DATA / "search" / name
    if not path.exists():
        pytest.skip(f"no {path}: set AGENTGYM_DATA to the folder of benchmark data")
    corpus = load_corpus(path)
    assert len(corpus) == size
    assert corpus.search(query, 1)[0].document.id == found
