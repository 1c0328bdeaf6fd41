"""`agentgym new-env`: one file with an environment, and one with its test, to begin from."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from agentgym.errors import ConfigError

ENV = '''"""@CLASS@: say here what the agent is to do. Train it: agentgym train --env @MODULE@.py:@MODULE@"""

import agentgym as ag

STOCK = {"bolts": 712, "nuts": 958, "screws": 431, "washers": 1204}


@ag.tool
def stock(item: str) -> int:
    """How many of an item are in stock.

    Args:
        item: the item, such as bolts
    """
    if item not in STOCK:
        raise ValueError(f"there is no {item!r}; there are: {', '.join(STOCK)}")  # the model reads it and goes on
    return STOCK[item]


def task(item: str, sold: int) -> ag.Task:
    left = str(STOCK[item] - sold)
    demo = [ag.call("stock", item=item), ag.say(left)]  # gold: how it is done rightly
    return ag.Task(f"{item}-{sold}", f"{sold} {item} are sold. How many are left? Just the number.", left, demo=demo)


TASKS = [task(item, sold) for item in STOCK for sold in range(11, 99, 7)]


@ag.register("@CLASS@-v0", tools=[stock], tasks=TASKS, max_turns=6)
def @MODULE@(task: ag.Task, answer: str, episode: ag.Episode) -> float:
    """1 where the agent's own last message is exactly the number, else 0."""
    return float(answer.strip() == task.answer)
'''
TEST = '''"""Run it with pytest."""

from pathlib import Path

import agentgym as ag

ENV = f"{Path(__file__).with_name('@MODULE@.py')}:@MODULE@"


def test_the_demo_of_each_task_earns_the_reward():
    env = ag.make(ENV)
    for task in env.tasks():
        env.reset(seed=0, options={"task_id": task.id})
        for message in task.demo:
            _, reward, done, *_ = env.step(message)
        assert (reward, done) == (1.0, True), task.id


def test_its_reward_can_be_trusted():
    report = ag.validate(ENV)
    assert report.ok, report.told()
'''


def new_env(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `NAME.py` and `test_NAME.py` into the folder, which is made; raises `ConfigError` for a name that cannot
    be one, and where either file is there already."""
    module, class_name = names(name)
    files = folder / f"{module}.py", folder / f"test_{module}.py"
    for file in files:
        if file.exists() or file.is_symlink():
            raise ConfigError(f"{file} is there already: choose another name or --dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, (ENV, TEST), strict=True):
            with open(file, "x") as out:
                out.write(text.replace("@MODULE@", module).replace("@CLASS@", class_name))
    except OSError as e:
        raise ConfigError(f"{folder}: cannot be written: {e.strerror or e}") from None
    return files


def names(name: str) -> tuple[str, str]:
    """`my-shop`, `MyShop`, `my_shop` -> ("my_shop", "MyShop"): the file's and function's name, and the id's."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ConfigError(f"new-env {name!r}: a name begins with a letter and has letters, digits, '-' and '_' only")
    words = [word for part in re.split(r"[-_]+", name) for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", part)]
    module = "_".join(word.lower() for word in words)
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise ConfigError(f"new-env {name!r}: {module!r} is a word of Python's; choose another name")
    if module in sys.stdlib_module_names or module in ("agentgym", "gymnasium", "pytest", "conftest", "stock", "task"):
        raise ConfigError(f"new-env {name!r}: {module}.py would hide a module of that name; choose another name")
    return module, "".join(word[:1].upper() + word[1:] for word in words)
