"""Fetch test suites that others publish, into .cache/suites/, and nowhere else: our tests run them unchanged.

Most are tests that frameworks ship in source distributions only; one is a public suite on npm, fetched with npm.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "suites"


class Suite(NamedTuple):
    """Tests in a source distribution of PyPI: the package, its version, and the files wanted of it; a name that ends in / is a whole
    folder. With `integrity`, as npm writes it, the package is one of npm, and its archive has this hash."""

    package: str
    version: str
    files: tuple[str, ...]
    integrity: str = ""

    @property
    def folder(self) -> Path:
        """Where the files are put."""
        return CACHE / f"{self.package}-{self.version}"


SUITES = (
    Suite(
        "claude-agent-sdk",
        "0.2.187",
        (
            "tests/conftest.py",
            "tests/test_session_helpers_store.py",
            "tests/test_session_import.py",
            "tests/test_session_resume.py",
            "tests/test_session_store_conformance.py",
            "tests/test_session_summary.py",
            "tests/test_transcript_mirror.py",
        ),
    ),
    Suite(
        "json-patch-test-suite",
        "1.1.0",
        ("spec_tests.json", "tests.json"),
        "sha512-+TRsrZxFjmC35L84kMm5NY+FkJi3NKdimyGP5OwRy1BpKQ0yIo2ikge/oS3wZJ5RpKgkh3SAJmr0mz4q3hxgdg==",
    ),
    Suite("langchain", "1.5.2", ("tests/__init__.py", "tests/unit_tests/__init__.py", "tests/unit_tests/agents/")),
    Suite("langgraph", "1.2.22", ("tests/",)),
    Suite(
        "langgraph-checkpoint-sqlite",
        "3.1.2",
        (
            "tests/__init__.py",
            "tests/test_store.py",
            "tests/test_async_store.py",
            "tests/test_conformance_delta.py",
            "tests/test_delta_channel_migration.py",
            "tests/test_delta_parent_walk.py",
            "tests/test_get_delta_channel_history.py",
        ),
    ),
    Suite("langgraph-prebuilt", "1.1.2", ("tests/",)),
    Suite(
        "openai-agents",
        "0.24.0",
        (
            "tests/__init__.py",
            "tests/_fake_workspace_paths.py",
            "tests/conftest.py",
            "tests/deferred_session_writes/__init__.py",
            "tests/deferred_session_writes/helpers.py",
            "tests/deferred_session_writes/test_compaction.py",
            "tests/deferred_session_writes/test_filters.py",
            "tests/deferred_session_writes/test_max_turns.py",
            "tests/deferred_session_writes/test_pending_write.py",
            "tests/deferred_session_writes/test_recovery.py",
            "tests/deferred_session_writes/test_resume.py",
            "tests/extensions/memory/test_encrypt_session.py",
            "tests/memory/test_compaction_model_visibility.py",
            "tests/memory/test_compaction_suffix.py",
            "tests/memory/test_openai_responses_compaction_session.py",
            "tests/memory/test_session.py",
            "tests/memory/test_session_limit.py",
            "tests/model_test_helpers.py",
            "tests/test_responses.py",
            "tests/testing_processor.py",
            "tests/utils/factories.py",
            "tests/utils/hitl.py",
            "tests/utils/simple_session.py",
        ),
    ),
    Suite(
        "strands-agents",
        "1.62.0",
        (
            "tests/__init__.py",
            "tests/fixtures/mock_session_repository.py",
            "tests/fixtures/mocked_model_provider.py",
            "tests/strands/session/test_repository_session_manager.py",
            "tests/strands/session/test_snapshot_session_manager.py",
            "tests/strands/storage/test_in_memory_storage.py",
        ),
    ),
)


def pip() -> list[str]:
    """This environment's pip, or the one of the machine."""
    for python in (sys.executable, "python3"):
        command = [python, "-m", "pip"]
        if subprocess.run([*command, "--version"], check=False, capture_output=True).returncode == 0:
            return command
    sys.exit("fetch_suites: there is no pip here.")


def download(suite: Suite, place: str) -> Path:
    """Its archive, downloaded into a folder by the registry that pip or npm is set up for."""
    if suite.integrity:
        subprocess.run(["npm", "pack", "--silent", f"{suite.package}@{suite.version}"], cwd=place, check=True, stdout=subprocess.DEVNULL)
    else:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--dest", place]
        subprocess.run([*pip(), "download", *options, f"{suite.package}=={suite.version}"], check=True)
    (archive,) = Path(place).iterdir()
    if suite.integrity:
        found = f"sha512-{base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()}"
        if found != suite.integrity:
            sys.exit(f"fetch_suites: {archive.name} has the hash {found}, and not {suite.integrity}: it was not taken.")
    return archive


def fetch(suite: Suite) -> None:
    """Download one archive, and keep the files wanted."""
    with tempfile.TemporaryDirectory() as place:
        archive = download(suite, place)
        made = Path(tempfile.mkdtemp(dir=CACHE))  # It gets its name when it is whole.
        with tarfile.open(archive) as opened:
            top = "package/" if suite.integrity else f"{archive.name.removesuffix('.tar.gz')}/"
            names = [member.name.removeprefix(top) for member in opened if member.isfile()]
            for file in suite.files:
                found = [name for name in names if name == file or (file.endswith("/") and name.startswith(file))]
                assert found, f"{archive.name} has no {file}"
                for name in found:
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    (made / name).write_bytes(opened.extractfile(top + name).read())  # type: ignore[union-attr]
        shutil.rmtree(suite.folder, ignore_errors=True)
        made.rename(suite.folder)


def main() -> None:
    """Fetch what is not there yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for suite in SUITES:
        if all((suite.folder / file).exists() for file in suite.files):
            print(f"{suite.package} {suite.version} is there")
        else:
            fetch(suite)
            print(f"fetched {suite.package} {suite.version}")


if __name__ == "__main__":
    main()
