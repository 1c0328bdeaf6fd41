"""An environment of one's own. Train it: agentgym train --env examples/01_custom_tool_env.py:bookings --steps 20"""

import agentgym as ag

FREE = {"ICE7": 12, "RE5": 3}


@ag.tool
def seats(train: str) -> int:
    """Free seats on a train, such as ICE7."""
    return FREE[train]


@ag.tool
def book(train: str, count: int, episode: ag.Episode) -> str:
    """Book seats on a train and get a code."""
    if count > FREE[train]:
        raise ValueError("not enough free seats")
    episode.state["booked"] = [train, count]
    return f"code {train}-{count}"


def task(train: str, n: int, careful: bool) -> ag.Task:  # a tiny model begins with the demos; half forget to book
    demo = [*([ag.call("book", train=train, count=n)] if careful else []), ag.say(f"{train}-{n}")]
    return ag.Task(f"{train}/{n}/{careful}", f"Book {n} seats on {train}. Answer with the code.", [train, n], demo=demo)


TASKS = [task(train, n, careful) for train in FREE for n in (1, 2, 3) for careful in (True, False)]


@ag.register("Bookings-v0", tools=[seats, book], tasks=TASKS, max_turns=4, holdout=0, exempt={"gold": "half forget"})
def bookings(task: ag.Task, answer: str, episode: ag.Episode) -> float:
    booked = episode.state.get("booked") == task.answer
    return 0.5 * booked + 0.5 * (booked and answer.strip() == "{}-{}".format(*task.answer))


if __name__ == "__main__":
    env = ag.make("Bookings-v0")
    print(env.reset(seed=0, options={"index": 0})[0])
    print(env.step(ag.call("book", train="ICE7", count=1))[0], "-> reward:", env.step("ICE7-1")[1])
