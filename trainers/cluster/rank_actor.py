"""A rank of the learner as a Ray actor: it takes orders from rank 0, and talks to the others by torch.distributed."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.loading import load_object, module_name
from agentgym.trainers.cluster.ray_cluster import load_ray
from agentgym.trainers.ranks.followers import Answer, Duty, Order, Serve
from agentgym.trainers.ranks.network import talk_from
from agentgym.trainers.ranks.team import Rendezvous

SAVED = Path("saved")
"""What belongs into a checkpoint is written there, below the actor's own folder, until rank 0 has it."""
EXIT_SECONDS = 3.0
"""That the answer of a rank that failed has to reach rank 0, before the others are to see it gone."""


@dataclass(frozen=True, slots=True)
class Luggage:
    """Python files of the user that orders name functions of. `modules`: by `path.py:name` below the folder where they
    are unpacked, what the module is called where rank 0 is."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def unpack(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for reference, known_as in self.modules.items():
            load_object(str(folder / reference))
            # an order names a function by its module, whose name is made of where its file is: there, not here
            sys.modules[known_as] = sys.modules[module_name(folder / reference.rpartition(":")[0])]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Of a rank: what a message says of it, and Ray's id of its machine."""

    name: str
    node: str


class RankActor:
    """Made by Ray where there is room, and never made again: a rank that is lost takes its shards with it.

    What goes in and out is pickled here, as between processes: Ray's own arrays cannot be written to.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="agentgym-rank-"))
        self._duty: Duty | None = None

    def arrive(self, luggage: Luggage, distant: bool) -> Whereabouts:
        """Set up what it needs, and say where it is. distant: whether ranks are on several machines."""
        os.chdir(self._folder)
        luggage.unpack(self._folder)
        ray = load_ray()
        address = ray.util.get_node_ip_address()
        if distant:
            talk_from(address)
        gpus = "".join(f", GPU {gpu}" for gpu in ray.get_gpu_ids())
        name = f"{socket.gethostname()} ({address}), process {os.getpid()}{gpus}"
        return Whereabouts(name, ray.get_runtime_context().get_node_id())

    def join(self, serve: bytes, rank: int, rendezvous: Rendezvous) -> bytes:
        """Become part of the learner: returns when all ranks have met."""

        def become(rank: int, rendezvous: Rendezvous) -> Callable[[Order], Any]:
            made: Serve = pickle.loads(serve)
            return made(rank, rendezvous)

        self._duty = Duty(become, rank, rendezvous)
        return self._told(self._duty.join(), self._duty)

    def obey(self, order: bytes) -> bytes:
        assert self._duty is not None, "join() comes first"
        return self._told(self._duty(lambda: pickle.loads(order)), self._duty)

    def _told(self, answer: Answer, duty: Duty) -> bytes:
        if duty.failed:
            leave = threading.Timer(EXIT_SECONDS, self._leave)
            leave.daemon = True
            leave.start()
        return pickle.dumps(answer)

    def _leave(self) -> None:
        self.close()
        os._exit(1)

    def saved(self) -> dict[str, int]:
        """Files that belong into a checkpoint, and their sizes."""
        found = (path for path in SAVED.rglob("*") if path.is_file())
        return {str(path.relative_to(SAVED)): path.stat().st_size for path in found}

    def piece(self, name: str, at: int, size: int) -> bytes:
        """Of such a file."""
        with (SAVED / name).open("rb") as file:
            file.seek(at)
            return file.read(size)

    def forget(self) -> None:
        """Those files are where they belong."""
        shutil.rmtree(SAVED, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
