"""Words that a reader with little English stumbles over, and names that only this project would understand, do not come back.

Three lists: `INSTEAD` for sentences, on pages and in the package; `PARTS` and `NAMES` for what the package defines; `MODULES` for files.
What has to stay stands in `ALLOWED` with its reason.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.docs.pages import PAGES, ROOT, name

INSTEAD = {
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "fix",
    r"whoever|whosoever": "a subject and a verb",
    r"told|tells|tell": "notify, say, show",
    r"thereby|whereof|wherein": "a sentence of its own",
    r"not to be had|could not be had": "a subject and a verb",
    r"behind(?! (?:a |an |one |the |three |which |its |PgBouncer|Sentinels|a pooler|one no))": "after",
}
"""A word to look for, and what to write in its place. One may stand behind a proxy."""
HISTORY = ("docs/adr/", "CHANGELOG.md")
"""Pages that record what was said at their time."""

PARTS = {
    "anew": "again", "behind": "after", "blur": "unreliable", "mend": "fix", "news": "notifications", "tell": "notify, say, show",
    "telling": "notify", "teller": "announcer", "tells": "notify", "told": "notified", "whoever": "the caller",
}  # fmt: skip
"""Words of which no name may be made, in any of its parts."""
NAMES = {
    "Working": "CachedState", "Turnstile": "SessionQueue", "Noticing": "NotificationSource", "Lost": "HeadMismatch", "Later": "RetryLater",
    "Known": "KeyApplied", "Together": "StatementBatcher", "Ending": "Remover", "Statics": "BucketHeader", "Top": "SessionHeader",
    "Tops": "HeaderCache", "Past": "StoredCheckpoint", "GRACE": "LATE_WRITE_WINDOW", "doubtful": "unverified",
    "_ascertain": "_verify_heads", "_same_life": "require_same_incarnation", "_as_seen": "require_seen", "_asked": "_seen_once",
    "_enough": "_flush", "_took": "_last_latency", "together": "gather_all, adjacent", "ended": "cancel_and_wait",
    "standing": "current_checkpoint", "stretch": "fold_range",
}  # fmt: skip
"""Names that there were, and what they are called now."""
MODULES = {
    "turnstile": "session_queue", "intent": "options", "faces": "sync_async", "lives": "incarnation", "lookup": "id_index",
    "matching": "json_diff", "naming": "session_ids", "imports": "migration_sources", "spelling": "json_text_diff",
    "deciding": "transactions", "together": "statement_batcher", "gathering": "write_batching", "keeping": "thread_admin",
    "mover": "tail_archiver", "news": "notifications",
}  # fmt: skip
"""Files that there were, and what they are called now."""

ALLOWED = [
    ("mend", "src/perdure/backends/spi/capabilities.py", "a field of the engines' interface: other people's engines fill it in"),
    ("mend", "src/perdure/backends/*/checkup.py", "the argument that becomes the interface's field"),
    ("Known", "src/perdure/backends/spi/rows.py", "a public outcome of the engines' interface: other people's engines return it"),
    ("Lost", "src/perdure/adapters/langgraph/lost.py", "an object whose class is lost, which is no lost race"),
    ("behind", "src/perdure/backends/conformance/*", "a function of the kit that other people's tests import"),
]
"""A word, the files in which it may be a part of a name, and why."""
SOURCES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "dev.py", *sorted((ROOT / "scripts").glob("*.py"))]


@pytest.mark.parametrize("page", [page for page in PAGES if not name(page).startswith(HISTORY)], ids=name)
def test_a_page_is_plain_english(page: Path) -> None:
    """None of the words stands on the page outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    found = [f"write {better} in place of {words!r}" for words, better in unwanted(text)]
    assert not found, f"{name(page)}: {found}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_source_is_plain_english(path: Path) -> None:
    """None of the words stands in a comment, a docstring or a message."""
    source = path.read_text()
    found = [
        f"{name(path)}:{line}: write {better} in place of {words!r}"
        for line, text in sentences(source)
        for words, better in unwanted(re.sub(r"``[^`]*``|`[^`\n]*`", "", text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_name_is_the_usual_one(path: Path) -> None:
    """Neither the file nor anything that it defines is called by one of the old names."""
    assert path.stem not in MODULES, f"{name(path)}: call it {MODULES[path.stem]}"
    found = [f"{name(path)}:{line}: {word}: say {better}" for line, word, better in old_names(path.read_text(), name(path))]
    assert not found, "\n".join(found)


def test_the_checks_find_what_they_look_for() -> None:
    """A source that has one of each is found out, and what is allowed is not."""
    source = '"""Made anew."""\n# Whoever asks.\nclass Lost:\n    mend = f"{1} is told"\n\ndef tell(news_bytes): ...\n'
    assert [words for _, text in sentences(source) for words, _ in unwanted(text)] == ["Whoever asks.", "anew.", "told"]
    assert [word for _, word, _ in old_names(source, "src/perdure/engine/x.py")] == ["Lost", "mend", "tell", "news_bytes"]
    assert "mend" not in [word for _, word, _ in old_names(source, "src/perdure/backends/spi/capabilities.py")]


def test_what_is_allowed_is_needed() -> None:
    """No row of the list of exceptions has outlived its reason."""
    sources = {name(path): path.read_text() for path in (ROOT / "src").rglob("*.py")}
    for word, files, _ in ALLOWED:
        assert any(fnmatch(file, files) and re.search(rf"(?:\b|_){word}(?:\b|_)", source) for file, source in sources.items()), (
            word,
            files,
        )


def unwanted(text: str) -> Iterator[tuple[str, str]]:
    """Each of the unwanted words with what follows it, and what to write in its place."""
    for word, better in INSTEAD.items():
        for found in re.finditer(rf"\b(?:{word})\b.{{0,30}}", text, re.IGNORECASE):
            yield found[0], better


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of a source, with their lines. A string that is a name, as in `__all__`, is no sentence."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            yield node.lineno, node.value


def old_names(source: str, file: str) -> Iterator[tuple[int, str, str]]:
    """Each definition of a source that has an old name or an unwanted word in its name, and what would be better."""
    allowed = {word for word, files, _ in ALLOWED if fnmatch(file, files)}
    for line, word in definitions(source):
        parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)
        unwanted_parts = [part.lower() for part in parts if part.lower() in PARTS and part.lower() not in allowed]
        if word in allowed:
            continue
        if word in NAMES:
            yield line, word, NAMES[word]
        elif unwanted_parts:
            yield line, word, PARTS[unwanted_parts[0]]


def definitions(source: str) -> Iterator[tuple[int, str]]:
    """What a source gives a name to: classes, functions, arguments, variables, attributes."""
    nodes = [node for node in ast.walk(ast.parse(source)) if hasattr(node, "lineno")]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        match node:
            case ast.ClassDef(name=word) | ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.arg(arg=word):
                yield node.lineno, word
            case ast.Name(id=word, ctx=ast.Store()) | ast.Attribute(attr=word, ctx=ast.Store()):
                yield node.lineno, word
