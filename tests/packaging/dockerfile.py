"""The Dockerfile as a program: which instructions it has, and a build without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.pages import ROOT


@dataclass(frozen=True)
class Instruction:
    """One line of a stage, for instance `COPY` with `server ./server`."""

    stage: int
    name: str
    rest: str

    def words(self) -> list[str]:
        """Return the arguments of an instruction in its JSON form."""
        words: list[str] = json.loads(self.rest)
        return words


def instructions() -> list[Instruction]:
    """Read the Dockerfile, stages counted from 1."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stage, found = 0, []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, rest = line.split(maxsplit=1)
        stage += name == "FROM"
        found.append(Instruction(stage, name, " ".join(rest.split())))
    return found


class BuildError(Exception):
    """A RUN line has failed; the message has the line and what it wrote."""


def build(root: Path) -> None:
    """Do what the first stage does, with `root` for its file system's root.

    A fresh virtual environment stands for the image's Python. pip keeps its own
    configuration and cache, so that a second build costs little.
    """
    python = root / "python"
    subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
    path = os.pathsep.join([str(python / "bin"), os.environ["PATH"]])
    here = root
    for instruction in instructions():
        if instruction.stage != 1:
            continue
        rest = re.sub(r"(?<![^\s])/", f"{root}/", instruction.rest)
        match instruction.name:
            case "WORKDIR":
                here = Path(rest)
                here.mkdir(parents=True)
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    _copy(ROOT / source, here / target)
            case "RUN":
                run = subprocess.run(
                    ["/bin/sh", "-c", rest],
                    cwd=here,
                    env={**os.environ, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if run.returncode:
                    raise BuildError(f"RUN {rest}\n{run.stdout}{run.stderr}")
            case "FROM" | "ARG" | "ENV":
                pass
            case other:
                raise BuildError(f"{other} in the first stage is new to this test")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
