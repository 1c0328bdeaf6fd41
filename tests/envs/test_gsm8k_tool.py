"""GSM8KTool-v0: the file format, the reward, the players."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.envs.gsm8k_tool import GSM8KToolEnv
from agentgym.envs.script import say
from agentgym.errors import DataError
from agentgym.tools.driving import drive
from agentgym.types import Outcome

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).parents[3] / "shared" / "data"))


def reward(env: GSM8KToolEnv, text: str) -> float:
    drive(env.areset(seed=0, options={"index": 0}))
    return drive(env.astep(say(text))).reward


def test_what_counts_as_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"question": "Q?", "answer": "<<6*200=1200>>1200\n#### 1,200"}))
    env = GSM8KToolEnv(data=str(path))
    for text in ("#### 1200", "So:\n#### $1,200.", "\\boxed{1200}", "It is\n1200.00", "#### 2400/2"):
        assert reward(env, text) == 1.0
    for text in ("#### 1201", "1200 or so", "#### 1200 #### 7", "\\boxed{1200} #### 5", ""):
        assert reward(env, text) == 0.0
    drive(env.areset(seed=0))
    end = drive(env.astep(say("no idea")))
    assert end.components == {"reward": 0.0, "answered": 0.0}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"question": "Q?", "answer": "42"}, "does not end in '#### number'"),
        ({"question": "Q?", "answer": "#### many"}, "does not end in '#### number'"),
        ({"question": "Q?"}, "no 'answer'"),
        ({"answer": "#### 1"}, "no 'question'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, str], text: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"question": "Q?", "answer": "#### 1"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"bad.jsonl:2: .*{text}"):
        agentgym.make_env("agentgym/GSM8KTool-v0", data=str(path)).tasks()


def test_demonstrations_use_the_calculator_or_jump(play: Callable[..., Any]) -> None:
    env = GSM8KToolEnv(demo_mistakes=0.5)
    jumped = 0
    for seed in range(100):
        _, step, messages = play(env, "demo", seed=seed)
        assert (len(messages) == 3) == (step.outcome is Outcome.incorrect)
        jumped += len(messages) == 3
    assert 35 <= jumped <= 65


def test_real_data(tmp_path: Path, play: Callable[..., Any]) -> None:
    packed = DATA / "math" / "gsm8k_train.jsonl.gz"
    if not packed.exists():
        pytest.skip(f"no {packed}: set AGENTGYM_DATA to the folder of benchmark data")
    path = tmp_path / "train.jsonl"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    env = GSM8KToolEnv(data=str(path), holdout=0.1)
    assert len(env.tasks("train")) + len(env.tasks("test")) == len(path.read_text().splitlines())
    assert all(play(env, "gold", index=i)[1].reward == 1.0 for i in range(300))
