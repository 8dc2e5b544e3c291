"""What a package index shows of the README: links into the repository lead nowhere there, so their words stand without them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)[^)]+\)")


class PackagePage(MetadataHookInterface):
    """Gives the build the README without such links."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the project's readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(r"\1", text)}
