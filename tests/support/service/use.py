"""What a process has, as Linux says it."""

from __future__ import annotations

from pathlib import Path


def memory_bytes(pid: int) -> int:
    """Its own memory: what it does not share with files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))) * 1024


def files_open(pid: int) -> tuple[int, int]:
    """How many files it has open, sockets among them, and how many sockets."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except OSError:  # It was closed meanwhile.
            continue
    return len(links), sum(link.startswith("socket:") for link in links)
