"""What a local Hub knows of its folders: commits, listings, digests, in the shapes of the real hub's answers."""

import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LARGE = 10_000_000


class Repos:
    """`root/owner/name` is a repository's main branch, `root/owner/name@v1` its revision "v1"."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self._blobs: dict[tuple[str, int], dict[str, Any]] = {}
        self._commits: dict[tuple[str, str], Path] = {}

    def exists(self, repo: str) -> bool:
        """Whether there is such a repository."""
        return not repo.startswith(".") and "/." not in repo and (self.root / repo).is_dir()

    def open(self, repo: str, revision: str) -> tuple[Path, str] | None:
        """The folder and the commit of a branch, tag or commit."""
        if folder := self._commits.get((repo, revision)):
            return folder, revision
        main = self.root / repo
        for folder in [main, *main.parent.glob(f"{main.name}@*")]:
            commit = self.commit(folder)
            self._commits[repo, commit] = folder
            if revision in (folder.name.partition("@")[2] or "main", commit):
                return folder, commit
        return None

    def commit(self, folder: Path) -> str:
        """40 hex digits that change with the content."""
        return hashlib.sha1(json.dumps([folder.name, self.tree(folder)]).encode()).hexdigest()

    def tree(self, folder: Path) -> list[dict[str, Any]]:
        """The files of a revision."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return [{"type": "file", "path": str(p.relative_to(folder)), **self.blob(p)} for p in paths]

    def info(self, repo: str, folder: Path) -> dict[str, Any]:
        """What the hub tells of a model."""
        config, card = folder / "config.json", folder / "README.md"
        licence = re.search(r"^license: *(\S+)$", card.read_text() if card.exists() else "", re.MULTILINE)
        parameters = sum(map(_parameters, folder.glob("*.safetensors")))
        return {
            "id": repo,
            "sha": self.commit(folder),
            "private": repo in self.private,
            "gated": "manual" if repo in self.gated else False,
            "tags": [f"license:{licence[1]}"] if licence else [],
            "config": json.loads(config.read_bytes()) if config.exists() else {},
            "safetensors": {"parameters": {"F16": parameters}, "total": parameters} if parameters else None,
            "siblings": [
                {"rfilename": f["path"], "size": f["size"], "blobId": f["oid"], "lfs": f.get("lfs")}
                for f in self.tree(folder)
            ],
        }

    def search(self, address: str) -> list[dict[str, Any]]:
        """The repositories whose names hold `?search=`; the longer a name, the more downloads."""
        query = parse_qs(urlsplit(address).query)
        text, most = query.get("search", [""])[0].lower(), int(query.get("limit", ["100"])[0])
        names = {str(path.relative_to(self.root)).partition("@")[0] for path in self.root.glob("[!.]*/[!.]*")}
        found = sorted((name for name in names if text in name.lower()), key=len, reverse=True)
        return [{"id": name, "downloads": len(name), "gated": name in self.gated} for name in found[:most]]

    def blob(self, path: Path) -> dict[str, Any]:
        """Size and digests, computed once. A sparse file is there to be planned, not read: its digest is zeros."""
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns)
        if key in self._blobs:
            return self._blobs[key]
        blob: dict[str, Any] = {"size": stat.st_size}
        if stat.st_size >= LARGE or path.suffix in (".safetensors", ".bin"):
            sparse = stat.st_blocks * 512 < stat.st_size // 2
            sha256 = "0" * 64 if sparse else _sha256(path)
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {stat.st_size}\n"
            blob["oid"] = _git_sha1(pointer.encode())
            blob["lfs"] = {"oid": sha256, "sha256": sha256, "size": stat.st_size, "pointerSize": len(pointer)}
        else:
            blob["oid"] = _git_sha1(path.read_bytes())
        return self._blobs.setdefault(key, blob)


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        header = file.read(length) if 0 < length < path.stat().st_size else b"{}"
    try:
        entries = json.loads(header)
    except ValueError:
        return 0  # not really safetensors; the real hub shows no parameters either
    return sum(math.prod(entry["shape"]) for name, entry in entries.items() if name != "__metadata__")
