"""The servers of other revisions: their trees, each with an interpreter that imports its code.

A tree is exported from git into `.venv/revisions/`, once for each commit, and stays there. Where
it locks the same dependencies as this tree, its environment is a second one on top of this
tree's packages, which takes a second; else `make setup` makes one, which takes a minute.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError

CACHE = ROOT / ".venv/revisions"

WORKING_TREE = "."

LOCKS = ("uv.lock", "requirements.lock")
"""Files that say which packages are installed; a tree has one of them."""

SOURCES = ("generated", "client", "server")

LAUNCHER = """\
#!{python}
from jobledger_server.__main__ import main

main()
"""


@dataclass(frozen=True)
class Revision:
    """A revision that can be served: its name as it was given, its commit, its programs."""

    name: str
    commit: str
    programs: Path

    @property
    def server(self) -> Path:
        return self.programs / "jobledger-server"


def check_out(name: str) -> Revision:
    """Have a revision with an environment of its own. Raises BenchmarkError.

    Args:
        name: anything that git takes for a commit, or `.`, the working tree as it is.
    """
    if name == WORKING_TREE:
        commit = f"{_git('rev-parse', '--short', 'HEAD')} and what was changed since"
        return Revision(name, commit, _layered(ROOT, CACHE / "working-tree"))
    commit = _git("rev-parse", "--short", f"{name}^{{commit}}")
    folder = CACHE / commit
    tree = folder / "tree"
    if not tree.exists():
        _export(commit, tree)
    if _locks(tree) == _locks(ROOT):
        return Revision(name, commit, _layered(tree, folder / "environment"))
    if not (tree / ".venv/bin/jobledger-server").exists():
        print(f"compare: {name} has other dependencies: make setup", file=sys.stderr, flush=True)
        _run("make", "--directory", str(tree), "setup")
    return Revision(name, commit, tree / ".venv/bin")


def _layered(tree: Path, environment: Path) -> Path:
    """Make an environment of a tree's code and the packages of this one; return its programs."""
    programs = environment / "bin"
    server = programs / "jobledger-server"
    if not server.exists():
        venv.create(environment, symlinks=True)
        paths = [str(tree / source) for source in SOURCES] + [sysconfig.get_path("purelib")]
        packages = Path(_run(str(programs / "python"), "-c", _PACKAGES))
        # Paths that are added so bring no .pth files of their own: this tree's code stays out.
        (packages / "revision.pth").write_text("\n".join(paths) + "\n")
        server.write_text(LAUNCHER.format(python=programs / "python"))
        server.chmod(0o755)
    return programs


_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


def _export(commit: str, tree: Path) -> None:
    partial = tree.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    archive = partial.with_suffix(".tar")
    _git("archive", "--output", str(archive), commit)
    with tarfile.open(archive) as file:
        file.extractall(partial, filter="data")
    archive.unlink()
    partial.rename(tree)


def _locks(tree: Path) -> dict[str, str]:
    return {name: (tree / name).read_text() for name in LOCKS if (tree / name).exists()}


def _git(*arguments: str) -> str:
    return _run("git", "-C", str(ROOT), *arguments)


def _run(*command: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise BenchmarkError(f"`{' '.join(command)}` failed:\n{done.stderr}")
    return done.stdout.strip()
