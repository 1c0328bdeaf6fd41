"""An evaluation is a folder, written so that it can be killed at any moment and gone on with.

eval.toml             what is played, first of all
episodes.jsonl        a row an episode, as each ends     trajectories/NAME.jsonl   all that was said in it
report.json  report.md
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agentgym.errors import DataError, RunError
from agentgym.evals.plan import Evaluation, dump_plan, load_plan
from agentgym.evals.rows import EvalRow, Key, row_from_json
from agentgym.rollout.record import to_line, to_row
from agentgym.run_folder import RunFolder
from agentgym.types import Trajectory

PLAN, EPISODES = "eval.toml", "episodes.jsonl"


class EvalFolder:
    """The files of one evaluation; make one with `create` or `open`. Writing raises `RunError`."""

    def __init__(self, path: Path, plan: Evaluation):
        self.path = path
        self.plan = plan
        self._files = RunFolder(path)
        self._names = dict(zip([env.name for env in plan.envs], file_names([e.name for e in plan.envs]), strict=True))

    @classmethod
    def create(cls, path: str | Path, plan: Evaluation) -> EvalFolder:
        """A new folder; `RunError` where something is there already, or nothing can be written."""
        folder = cls(Path(path).expanduser(), plan)
        try:
            if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
                raise RunError(
                    f"{folder.path} is there already and not empty: give another --out, or go on with it by --resume"
                )
            (folder.path / "trajectories").mkdir(parents=True)
        except OSError as e:
            raise RunError(f"{folder.path}: cannot make the folder: {e.strerror or e}") from None
        folder._files.write_file(PLAN, lambda file: _write(file, dump_plan(plan)))
        return folder

    @classmethod
    def open(cls, path: str | Path) -> EvalFolder:
        """An evaluation that was begun earlier; `RunError` where the folder holds none."""
        where = Path(path).expanduser()
        if not (where / PLAN).is_file():
            raise RunError(f"{where}: there is no evaluation in it (no {PLAN})")
        return cls(where, load_plan(where / PLAN))

    def mend(self, *, retry_unscored: bool = False) -> None:
        """Take away lines that a kill cut short, and trajectories without a row; `retry_unscored`: unscored ones too,
        which are then missing and played again."""
        rows = self.rows()
        if retry_unscored:
            rows = {key: row for key, row in rows.items() if row.scored}
        lines = b"".join(to_line(row.to_json()) for row in rows.values())
        self._files.write_file(EPISODES, lambda file: _write(file, lines))
        played = {(row.env, row.task_id, row.sample) for row in rows.values()}
        for name, file_name in self._names.items():
            self._mend_trajectories(f"trajectories/{file_name}.jsonl", name, played)

    def add(self, row: EvalRow, trajectory: Trajectory) -> None:
        """Record an episode that has ended: the trajectory first, for the row says that all of it is there."""
        self._files.append(f"trajectories/{self._names[row.env]}.jsonl", to_row(trajectory))
        self._files.append(EPISODES, row.to_json())

    def rows(self) -> dict[Key, EvalRow]:
        """The episodes recorded so far; raises `DataError` naming the line that is none."""
        path, rows = self.path / EPISODES, {}
        content = path.read_bytes() if path.exists() else b""
        whole = content.split(b"\n")[:-1]  # what follows the last end of line is a line that a kill cut short
        for number, line in enumerate(whole, 1):
            try:
                made = row_from_json(json.loads(line))
            except (ValueError, TypeError) as e:
                raise DataError(f"{path}:{number}: {e}") from None
            rows[made.key] = made
        wanted = set(self.plan.keys)
        return {key: row for key, row in rows.items() if key in wanted}

    def write_report(self, report: Mapping[str, Any], markdown: str) -> None:
        self._files.write_file("report.json", lambda file: _write(file, json.dumps(report, indent=2) + "\n"))
        self._files.write_file("report.md", lambda file: _write(file, markdown))

    def _mend_trajectories(self, file_name: str, env: str, played: Iterable[tuple[str, str, int]]) -> None:
        path, kept = self.path / file_name, []
        if not path.exists():
            return
        with open(path, "rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    stands = line.endswith(b"\n") and (env, row["task_id"], row["episode"]) in played
                except (ValueError, KeyError, TypeError):
                    stands = False
                if stands:
                    kept.append(line)
        self._files.write_file(file_name, lambda file: _write(file, b"".join(kept)))


def default_out(names: Iterable[str], root: str = "runs") -> str:
    """runs/eval-store-v0-20260801-120000, or with a number after it where that is taken."""
    short = re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(name.rpartition("/")[2] for name in names))[:60].strip("-")
    base = f"{root}/eval-{short.lower() or 'env'}-{time.strftime('%Y%m%d-%H%M%S')}"
    found, number = base, 1
    while Path(found).exists():
        number += 1
        found = f"{base}-{number}"
    return found


def file_names(names: Iterable[str]) -> list[str]:
    """Names of files for names of environments: plain, and no two alike."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name.rpartition("/")[2]).strip("-.")[:80] or "env"
        made.append(plain if plain not in made else f"{plain}-{len(made)}")
    return made


def _write(file: Path, content: str | bytes) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
