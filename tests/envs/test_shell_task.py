"""ShellTask-v0: truths against the shell's own, work compared file by file, and rows of other projects."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym
from agentgym.envs.script import call, say
from agentgym.envs.shell_chores import FILES, KINDS, STATE_KINDS, draw, generate
from agentgym.envs.shell_rows import read_row, rows
from agentgym.envs.shell_task import ShellTaskEnv
from agentgym.errors import ConfigError, DataError, VerifierFault
from agentgym.tools.driving import drive

OWN = {
    "question": "Put the word red into a/b.txt and say ok.",
    "answer": "ok",
    "files": {"a/keep.txt": "1\n"},
    "top": "a",
    "expect": {"a/keep.txt": "1\n", "a/b.txt": "red\n"},
}
BENCH = {
    "description": "How many lines has the longest .txt file of the folder stuff?",
    "create": {"init": "mkdir stuff\nprintf '1\\n2\\n' > stuff/a.txt\nprintf '1\\n2\\n3\\n' > ~/stuff/b.txt"},
    "evaluation": {
        "check": [None, {"language": "python", "file": "check/integer-match.py"}],
        "example": "#!/bin/bash\ncd stuff; wc -l < b.txt; rm -r ../stuff",
    },
}
BASH = {"query": "Count the lines of a.txt", "gold": "wc -l < a.txt"}


def write(tmp_path: Path, *given: Any) -> str:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(given))
    return str(path)


def of(tmp_path: Path, *given: Any, **options: Any) -> ShellTaskEnv:
    return ShellTaskEnv(data=write(tmp_path, *given), **options)


def test_every_kind_has_its_files_and_one_outcome() -> None:
    for task in generate("train")[:28]:
        chore = task.metadata["chore"]
        job, again, other = (draw(chore, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert job == again
        assert job.files != other.files
        assert len(job.files) == FILES
        assert job.answer != other.answer
        assert (job.expected is not None) == (task.kind in STATE_KINDS)
        assert job.expected != job.files  # nothing done is never right
        assert chore.top in str(task.prompt)
    prompts = [task.prompt for split in ("train", "test") for task in generate(split)]
    assert len(set(prompts)) == len(prompts) == 560
    assert {task.kind for task in generate("test")} == set(KINDS)


def test_answers_are_too_many_to_guess() -> None:
    chores = [task.metadata["chore"] for task in generate("train")]
    answers = [draw(chore, np.random.default_rng(i)).answer for i, chore in enumerate(chores[:140])]
    assert max(answers.count(answer) for answer in answers) <= 3


def test_work_is_compared_file_by_file() -> None:
    env = ShellTaskEnv()
    task = next(task for task in env.tasks() if task.kind == "rename")
    gold = env.expert(task, 0)
    assert gold is not None
    for after, done in (
        ("true", 1.0),
        ("touch /tmp/x $HOME/notes.txt; mkdir {top}/empty", 1.0),  # outside, or no file
        ("echo >> $(find {top} -name '*.{year}' | head -1)", 0.0),
        ("rm $(find {top} -type f | head -1)", 0.0),
        ("touch {top}/more", 0.0),
        ("ln -s /etc/passwd {top}/link", 0.0),
        ("f=$(find {top} -type f | head -1); mv $f /tmp/f; ln -s /tmp/f $f", 0.0),
    ):
        start = drive(env.areset(seed=3, options={"task": task}))
        said = drive(env.astep(gold(start.messages))).messages[-1].text
        chore = task.metadata["chore"]
        drive(env.astep(call("shell", command=after.format(top=chore.top, year=chore.year))))
        step = drive(env.astep(say(said)))
        assert (step.components["done"], step.components["answered"]) == (done, 1.0), after
        assert step.reward == done


def test_an_answer_without_the_work_pays_nothing() -> None:
    env = ShellTaskEnv()
    task = next(task for task in env.tasks() if task.kind == "delete")
    drive(env.areset(seed=0, options={"task": task}))
    assert env.episode is not None
    step = drive(env.astep(say(env.episode.state["job"].answer)))
    assert (step.reward, step.components) == (0.0, {"reward": 0.0, "answered": 1.0, "done": 0.0})


def test_what_the_agent_does_to_its_shell_decides_nothing() -> None:
    """Aliases, functions, PATH, start-up files and a false python beside: the files are still read as they are."""
    env = ShellTaskEnv()
    task = next(task for task in env.tasks() if task.kind == "move")
    drive(env.areset(seed=0, options={"task": task}))
    assert env.episode is not None
    answer = env.episode.state["job"].answer
    tamper = (
        "alias find=true; tar() { :; }; python3() { :; }; export -f python3 2>/dev/null; mkdir bin\n"
        "printf '#!/bin/sh\\nexit 0\\n' > bin/python3; chmod +x bin/python3\n"
        "export PATH=$PWD/bin:$PATH BASH_ENV=$PWD/rc\n"
        "echo 'exit 0' > rc; cp rc .bashrc; cp rc .profile; echo 'raise SystemExit' > tarfile.py"
    )
    drive(env.astep(call("shell", command=tamper)))
    step = drive(env.astep(say(answer)))
    assert (step.components["answered"], step.components["done"]) == (1.0, 0.0)


def test_an_archive_that_cannot_be_had_is_not_the_work_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentgym.envs import shell_task

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("./a/b"))

    class Box:
        def __init__(self, data: bytes):
            self.data = data

        async def snapshot(self) -> bytes:
            return self.data

    class Episode:
        def __init__(self, data: bytes):
            self.box = Box(data)

        async def sandbox(self) -> Box:
            return self.box

    found = shell_task._files_below
    assert drive(found("a", Episode(packed.getvalue()))) == {"a/b": b""}  # type: ignore[arg-type]
    assert drive(found("a", Episode(b"no archive"))) is None  # type: ignore[arg-type]


def test_rows_of_our_own(tmp_path: Path) -> None:
    env = of(tmp_path, OWN)
    for command, reward in (("echo red > a/b.txt", 1.0), ("echo blue > a/b.txt", 0.0)):
        drive(env.areset(seed=0))
        drive(env.astep(call("shell", command=command)))
        assert drive(env.astep(say("ok"))).reward == reward
    assert env.expert(env.tasks()[0], 0) is None  # it does not say how


def test_agentbench_rows_find_their_answer_on_an_untouched_copy(tmp_path: Path, play: Callable[..., Any]) -> None:
    env = of(tmp_path, BENCH)
    assert play(env, "gold")[1].reward == 1.0
    for answer, reward in (("3", 1.0), ("03.", 1.0), ("2", 0.0), ("3 lines", 0.0), ("9" * 3000, 0.0)):
        drive(env.areset(seed=0))
        drive(env.astep(call("shell", command="echo > stuff/b.txt; rm stuff/a.txt")))  # the agent's files are its own
        assert drive(env.astep(say(answer))).reward == reward, answer


def test_a_row_whose_own_command_fails_is_unscored(tmp_path: Path) -> None:
    broken = {**BENCH, "evaluation": {**BENCH["evaluation"], "example": "no_such_command"}}  # type: ignore[dict-item]
    env = of(tmp_path, broken)
    drive(env.areset(seed=0))
    with pytest.raises(VerifierFault, match=r"gives no answer here \(exit code 127\)"):
        drive(env.astep(say("3")))


@pytest.mark.parametrize(
    ("row", "needs"),
    [
        ({"create": {"init": "useradd -m bob"}}, "root ('useradd')"),
        ({"create": {"init": {"code": "echo 1 > /home/x"}}}, "a file system of its own ('/home'"),
        ({"create": {"init": {"file": "init/a.sh"}}}, "the script init/a.sh, which the row does not hold"),
        ({"start": "python3 -c 'loop' &"}, "processes of its machine"),
        ({"create": {"init": "(sleep 60) &"}}, "processes of its machine ('&')"),
        ({"evaluation": {"check": {"file": "check/0.sh"}}}, "the script check/0.sh, which the row does not hold"),
        ({"evaluation": {"check": [None, {"file": "check/integer-match.py"}]}}, "the answer: it has no command"),
        ({"evaluation": {"check": [None, {"file": "integer-match.py"}], "example": "date +%s"}}, "luck"),
    ],
)
def test_rows_that_need_what_is_not_here_are_refused_or_left_out(tmp_path: Path, row: Any, needs: str) -> None:
    path = write(tmp_path, {**BENCH, **row}, BENCH)
    with pytest.raises(DataError) as raised:
        ShellTaskEnv(data=path).tasks()
    assert f"{path}, row 1: needs {needs}" in str(raised.value)
    assert "env.args.unrunnable=skip" in str(raised.value)
    assert [task.id for task in ShellTaskEnv(data=path, unrunnable="skip").tasks()] == ["1"]
    assert len(ShellTaskEnv(data=path, unrunnable="keep").tasks()) == 2


def test_nl2bash_rows_want_a_file_system(tmp_path: Path, play: Callable[..., Any]) -> None:
    path = write(tmp_path, BASH)
    with pytest.raises(DataError, match=r"row 1: needs the file system .*\(sandbox.image"):
        ShellTaskEnv(data=path).tasks()
    env = ShellTaskEnv(data=path, sandbox={"setup": "printf '1\\n2\\n' > a.txt"})
    assert play(env, "gold")[1].reward == 1.0
    drive(env.areset(seed=0))
    drive(env.astep(call("shell", command="rm a.txt")))
    assert drive(env.astep(say("2"))).reward == 1.0
    drive(env.areset(seed=0))
    assert drive(env.astep(say("0"))).reward == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"x": 1}, "expected 'question'"),
        ({"question": "q"}, "no 'answer', and no 'expect'"),
        ({"question": "q", "expect": {}}, "'expect' wants 'top'"),
        ({"question": "q", "top": "a", "expect": {"b/c": ""}}, "'b/c' is not under 'a'"),
        ({"question": "q", "answer": "1", "files": ["a"]}, "'files': expected an object of texts"),
        ({"query": "q", "gold": ""}, "'gold': expected text"),
        ({"description": "d", "evaluation": 3}, "'evaluation': expected an object"),
        ({"description": "d", "evaluation": {"match": " "}}, "'evaluation': its 'match' is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path, OWN, row)
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        ShellTaskEnv(data=path).tasks()


def test_files_that_hold_no_rows(tmp_path: Path) -> None:
    for text, message in (("[1]", "row 1: expected an object"), ("{", "not valid JSON"), ("3", "expected a list")):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(DataError, match=message):
            list(rows(str(tmp_path / "rows.json")))
    with pytest.raises(DataError, match="cannot be read"):
        list(rows(str(tmp_path / "none.json")))
    with pytest.raises(ConfigError, match="unrunnable = 'maybe'"):
        ShellTaskEnv(unrunnable="maybe")


def _data() -> Path:
    return Path(os.environ.get("AGENTGYM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "agent"


@pytest.mark.parametrize(("name", "least"), [("agentbench_7_bootstrap.json", 0.7), ("agentbench_dev.json", 0.15)])
def test_most_rows_of_agentbench_can_be_played(name: str, least: float, play: Callable[..., Any]) -> None:
    path = _data() / name
    if not path.exists():
        pytest.skip("needs agent/ of the data folder (AGENTGYM_DATA)")
    every = [read_row(row, where) for where, row in rows(str(path))]
    env = agentgym.make_env("agentgym/ShellTask-v0", data=str(path), args={"unrunnable": "skip", "holdout": 0.0})
    assert len(env.tasks()) / len(every) >= least
    for index in range(3):
        assert play(env, "gold", index=index)[1].reward == 1.0


def test_all_rows_of_nl2bash_are_read() -> None:
    paths = sorted(_data().glob("intercode_nl2bash_fs_*.json"))
    if not paths:
        pytest.skip("needs agent/ of the data folder (AGENTGYM_DATA)")
    tasks = [read_row(row, where) for path in paths for where, row in rows(str(path))]
    assert len(tasks) == 200
    assert all("file system" in task.metadata["needs"] for task in tasks)
