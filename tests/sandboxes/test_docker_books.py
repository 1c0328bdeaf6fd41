"""What the docker backend keeps account of, on an engine whose images and containers are lists here."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import SandboxLimits
from agentgym.sandboxes.docker import owners
from agentgym.sandboxes.docker.containers import Plan
from agentgym.sandboxes.docker.engine import Engine
from agentgym.sandboxes.docker.images import REPOSITORY, Images
from agentgym.sandboxes.docker.owners import BUILT
from agentgym.sandboxes.docker.warm import PLANS, Warm


class Listed:
    """The SDK's client, as far as it is used: images by tag, with their size and last use; containers by id."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.registry: set[str] = set()
        self.builds: list[str] = []
        self.log: list[dict[str, str]] = [{"stream": "Step 1\n"}]
        self.clock = 0

    def inspect_image(self, name: str) -> dict[str, Any]:
        for tag, image in self.images.items():
            if name in (tag, image["Id"]):
                return {"Metadata": {"LastTagTime": f"{image['used']:03}"}}
        raise ImageNotFound("no such image")

    def pull(self, repository: str, tag: str | None) -> None:
        if f"{repository}:{tag}" not in self.registry:
            raise APIError("pull access denied", explanation="pull access denied")
        self.add(repository)

    def add(self, tag: str, size: int = 10, **more: Any) -> None:
        self.clock += 1
        image = {"Id": f"sha256:{tag}", "Size": size, "Labels": {BUILT: "1"}, "RepoTags": [tag], "used": self.clock}
        self.images[tag] = {**image, **more}

    def build(self, tag: str, **_: Any) -> Iterator[dict[str, str]]:
        self.builds.append(tag)
        yield from self.log
        self.add(tag)

    def tag(self, image: str, repository: str, tag: str) -> None:
        self.clock += 1
        self.images[image]["used"] = self.clock
        self.images.setdefault(f"{repository}:{tag}", self.images[image])

    def df(self) -> dict[str, Any]:
        return {"Images": list({image["Id"]: image for image in self.images.values()}.values())}

    def remove_image(self, tag: str) -> None:
        if self.images[tag].get("busy"):
            raise DockerException("it is used")
        del self.images[tag]

    def containers(self, all: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        return [{"Id": name, **told} for name, told in self.found.items()]

    def remove_container(self, name: str, force: bool, v: bool) -> None:
        if name not in self.found:
            raise NotFound("no such container")
        if self.found[name].get("stuck"):
            raise APIError(self.found[name]["stuck"])
        del self.found[name]

    def close(self) -> None: ...


@pytest.fixture
def client() -> Listed:
    return Listed()


@pytest.fixture
def engine(client: Listed) -> Engine:
    made = Engine()
    made._client = client
    return made


def folder(path: Path, text: str) -> str:
    path.mkdir(exist_ok=True)
    (path / "Dockerfile").write_text(text)
    return str(path)


def test_an_image_is_taken_or_pulled_or_told_of(engine: Engine, client: Listed) -> None:
    client.add("here")
    client.registry = {"there:latest"}
    images = Images(engine)
    assert (images.ready("here", ""), images.ready("there", "")) == ("here", "there")
    with pytest.raises(
        SandboxUnavailable, match=r"'nowhere:1' is not on the .* pull access denied; `docker pull nowhere:1`"
    ):
        images.ready("nowhere:1", "")
    client.images.clear()
    with pytest.raises(SandboxUnavailable, match="pull is off"):
        Images(engine, pull=False).ready("there", "")
    assert not client.images


def test_the_same_content_is_built_once(engine: Engine, client: Listed, tmp_path: Path) -> None:
    images, one = Images(engine), folder(tmp_path / "one", "FROM a")
    first = images.ready("", one)
    assert first.startswith(f"{REPOSITORY}:")
    assert images.build(one, "mine:3") == "mine:3"
    assert images.ready("", folder(tmp_path / "two", "FROM a")) == first
    assert images.ready("", folder(tmp_path / "two", "FROM b")) != first
    assert len(client.builds) == 2
    assert client.images["mine:3"] is client.images[first]


def test_a_build_that_fails_shows_its_log(engine: Engine, client: Listed, tmp_path: Path) -> None:
    client.log += [{"stream": "Step 2\n"}, {"error": "returned a non-zero code: 3"}]
    with pytest.raises(SandboxUnavailable, match=r"Dockerfile could not be built: returned .* 3\nStep 1\nStep 2$"):
        Images(engine).build(folder(tmp_path, "FROM a"))
    assert not client.images


def test_what_was_built_makes_room_by_its_last_use(engine: Engine, client: Listed, tmp_path: Path) -> None:
    images = Images(engine, max_bytes=35)
    first, second, third = (images.build(folder(tmp_path / name, f"FROM {name}")) for name in "abc")
    images.build(str(tmp_path / "a"))  # used again
    client.add("others", 1000, Labels=None)
    fourth = images.build(folder(tmp_path / "d", "FROM d"))
    assert set(client.images) == {first, third, fourth, "others"}
    client.images[third]["busy"] = True
    client.images[first]["RepoTags"] = [first, "named:1"]
    fifth = images.build(folder(tmp_path / "e", "FROM e"))
    assert second not in client.images
    assert set(client.images) == {first, third, fifth, "others"}  # neither what is in use nor what has a name


def test_what_was_just_built_stays_however_little_room_there_is(engine: Engine, client: Listed, tmp_path: Path) -> None:
    images = Images(engine, max_bytes=5)
    images.build(folder(tmp_path / "a", "FROM a"))
    last = images.build(folder(tmp_path / "b", "FROM b"))
    assert set(client.images) == {last}


def test_what_dead_owners_left_is_removed(engine: Engine, client: Listed) -> None:
    mine = owners.labels()
    dead = {**mine, f"{owners.LABEL}.started": "1"}
    client.found = {
        "mine": {"Labels": mine},
        "dead": {"Labels": dead},
        "stuck": {"Labels": dead, "stuck": "removal is already in progress"},
    }
    assert owners.reap(engine) == ["dead", "stuck"]
    assert set(client.found) == {"mine", "stuck"}
    assert owners.remove(engine, "stuck") == ""  # somebody else is at it
    assert owners.remove(engine, "never there") == ""
    client.found["mine"]["stuck"] = "disk full"
    assert "disk full" in owners.remove(engine, "mine")


# -- containers that were started ahead -------------------------------------------------------------------------------


class Ready:
    def __init__(self, alive: bool = True):
        self.alive, self.abandoned = alive, 0

    def abandon(self) -> None:
        self.abandoned += 1


def plan(image: str) -> Plan:
    return Plan(image, SandboxLimits(), "65534:65534")


@pytest.fixture
def begun() -> list[Future[Any]]:
    return []


@pytest.fixture
def warm(begun: list[Future[Any]]) -> Warm:
    def begin(_: Plan) -> Future[Any]:
        begun.append(Future())
        return begun[-1]

    return Warm(begin, 2)


def test_as_many_are_begun_as_there_shall_be(warm: Warm, begun: list[Future[Any]]) -> None:
    assert warm.take(plan("a")) is None
    for _ in range(2):
        warm.fill(plan("a"))
    assert len(begun) == 2
    assert warm.take(plan("b")) is None
    assert warm.take(plan("a")) is begun[0]
    warm.fill(plan("a"))
    assert len(begun) == 3


def test_one_that_died_or_failed_is_passed_over(warm: Warm, begun: list[Future[Any]]) -> None:
    warm.fill(plan("a"))
    dead = Ready(alive=False)
    begun[0].set_result(dead)
    begun[1].set_exception(SandboxFault("no"))
    assert warm.take(plan("a")) is None
    assert dead.abandoned == 1


def test_those_that_nobody_wants_are_removed_also_when_they_come_late(warm: Warm, begun: list[Future[Any]]) -> None:
    for number in range(PLANS + 1):
        warm.fill(plan(str(number)))
    assert [coming.cancelled() for coming in begun] == [True] * 2 + [False] * 2 * PLANS
    begun[2].set_running_or_notify_cancel()  # it cannot be called off any more
    there = Ready()
    begun[3].set_result(there)
    warm.empty()
    assert there.abandoned == 1
    late = Ready()
    begun[2].set_result(late)
    assert late.abandoned == 1
    assert all(coming.done() for coming in begun)
