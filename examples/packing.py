"""Packing files into an archive with a manifest, and verifying one: nothing but file work.

It is done in steps of one file, so that the caller can report progress.
"""

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """One more file is done; `done` is the part of all the work that is done, from 0 to 1."""

    file: str
    done: float


class ArchiveDamaged(Exception):
    """The archive is not what was packed; the message says why."""


def find_files(root: Path, sources: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Find the files in the sources, and what of them is missing.

    A source is a file or a folder in `root`; what is around `root` counts as missing, also where
    a link leads there, and so does what is no file, such as a pipe.
    """
    root = root.resolve()
    files: list[Path] = []
    missing: list[str] = []
    for source in sources:
        place = (root / source).resolve()
        if not place.is_relative_to(root):
            missing.append(source)
            continue
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in found:
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            inside = path.resolve().is_relative_to(root)
            if inside and path.is_file() and os.access(path, os.R_OK):
                files.append(path)
            else:
                missing.append(path.relative_to(root).as_posix())
    return files, missing


def pack(root: Path, files: Iterable[Path], archive: Path, manifest: Path) -> Iterator[Step]:
    """Pack files, and write a manifest that `sha256sum --check` takes where they are unpacked.

    A link is packed as the file that it leads to.
    """
    root = root.resolve()
    sizes = {file: file.stat().st_size for file in files}
    total = sum(sizes.values()) or 1
    done = 0
    with tarfile.open(archive, "w:gz", dereference=True) as tar, manifest.open("w") as lines:
        for file, size in sizes.items():
            name = file.relative_to(root).as_posix()
            # Read once: what is hashed is what is packed, even if the file changes between the two.
            content = file.read_bytes()
            entry = tar.gettarinfo(file, name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            lines.write(f"{sha256(content)}  {name}\n")
            done += size
            yield Step(name, done / total)


def verify(archive: Path, manifest: Path) -> Iterator[Step]:
    """Read an archive to its end and compare each file with the manifest. Raises ArchiveDamaged."""
    hashes = read_manifest(manifest)
    left = dict(hashes)
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or left.pop(entry.name, None) != sha256(content.read()):
                    raise ArchiveDamaged(f"{entry.name} is not what was packed")
                yield Step(entry.name, 1 - len(left) / len(hashes))
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ArchiveDamaged(str(error)) from error
    if left:
        raise ArchiveDamaged(f"{len(left)} files are not in it")


def read_manifest(manifest: Path) -> dict[str, str]:
    """Give the SHA-256 of each file that the manifest names."""
    lines = (line.split("  ", 1) for line in manifest.read_text().splitlines())
    return {name: digest for digest, name in lines}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
