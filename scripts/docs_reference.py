"""Pages that come out of the code: conflicts, commands, public names. `--check` changes nothing and fails on a difference."""

from __future__ import annotations

import ast
import difflib
import enum
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

import perdure
import perdure.sync
from perdure.backends.conformance import CASES
from perdure.codec import upcast
from perdure.model import policy
from perdure.model.combine import RELATIONS, describe
from perdure.model.ops import KINDS

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
START, END = "<!-- generated: {} -->", "<!-- end -->"

GROUPS = {
    "Opening": ["open", "Opening", "Settings", "Capabilities", "Upcaster"],
    "A store": ["Store"],
    "A draft": ["Edit", "Draft", "OnConflict"],
    "A lease": ["Leasing", "Lease", "LeaseEnd"],
    "What calls answer": [
        "Receipt",
        "Queued",
        "Spooled",
        "View",
        "Info",
        "Policy",
        "LeaseInfo",
        "Verified",
        "Archived",
        "Sizes",
        "Part",
        "CacheInfo",
        "SharedCacheInfo",
        "Commit",
        "Change",
        "Clash",
    ],
    "Events and operations": ["Event", "Op", "op"],
    "Words": ["Durability", "Kind", "Status"],
}
"""The order of the reference. Errors come last, as a table; a public name that stands in no group fails the run."""

ALIASES: dict[str, Any] = {"OnConflict": policy, "Upcaster": upcast}
"""Names of types, and the module that says what each means."""

SHELL = """\
Tables on a terminal; elsewhere, and with `--json`, JSON lines of the same rows. Errors are one sentence on standard error that
begins with the error's code, and an exit code of the list below.
"""
NOTE = "*Generated from the code by `python3 dev.py docs`; do not edit.*\n"


def reference() -> str:
    """docs/reference.md: each public name with its signature and docstring."""
    errors = [name for name in perdure.__all__ if _is_error(getattr(perdure, name))]
    missing = {*perdure.__all__} - {name for names in GROUPS.values() for name in names} - {*errors, "sync"}
    if missing:
        sys.exit(f"docs_reference: {sorted(missing)} stand in no group of the reference.")
    parts = [
        "# Reference\n",
        NOTE,
        "Every public name of `perdure`. [Limits, defaults and units](operations.md) are on a page of their own.\n",
    ]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += _entry(name, getattr(perdure, name))
    parts += [
        "The root is `Error`. " + _doc(perdure.Error) + "\n",
    ]
    for name in errors:
        error = getattr(perdure, name)
        if error is not perdure.Error:
            again = "may succeed when it is sent again" if error.retryable else "is not to be sent again unchanged"
            parts += [f"### `{name}`\n", _doc(error) + "\n", f"Code `{error.code}`, HTTP status {error.http_status}; the call {again}.\n"]
    parts += ["\n## `perdure.sync`\n", _doc(perdure.sync).split("\n\n")[0] + "\n", _differences()]
    return _joined(parts)


def _entry(name: str, thing: Any) -> Iterator[str]:
    if inspect.ismodule(thing):
        yield f"### `{name}`\n\n{_doc(thing)}\n"
        for function in _public(thing):
            yield _code(f"perdure.{name}.{function.__name__}", function)
            yield _doc(function) + "\n"
    elif name in ALIASES:
        yield f"### `{name}`\n\n{_attribute_docs(ALIASES[name])[name]}\n"
    elif not inspect.isclass(thing):
        yield f"### `{name}`\n\n{_code(f'perdure.{name}', thing)}\n{_doc(thing)}\n"
    elif issubclass(thing, enum.Enum):
        docs = _attribute_docs(thing)
        yield f"### `{name}`\n\n{_doc(thing)}\n"
        yield "\n".join(f"- `{member.name}` ({member.value}){_after(docs.get(member.name))}" for member in thing) + "\n"
    else:
        yield f"### `{name}`\n\n{_doc(thing)}\n"
        if issubclass(thing, msgspec.Struct):
            docs = _attribute_docs(thing)
            yield "\n".join(_field(thing, field, docs) for field in msgspec.structs.fields(thing)) + "\n"
        for attribute, member in _members(thing):
            if attribute.startswith("_"):
                continue
            if inspect.isfunction(member):
                yield f"#### `{name}.{attribute}`\n\n{_code(attribute, member, bound=True)}\n{_doc(member)}\n"
            elif isinstance(member, (property, cached_property)):
                yield f"#### `{name}.{attribute}`\n\n{_doc(member)}\n"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class defines, then what the parts do that it is put together from: its bases in modules below its own."""
    for part in kind.__mro__:
        if part is kind or part.__module__.startswith(kind.__module__ + "."):
            yield from vars(part).items()


def _field(struct: Any, field: Any, docs: dict[str, str]) -> str:
    written = (inspect.get_annotations(base).get(field.name) for base in struct.__mro__)
    annotation = next(text for text in written if text is not None)
    default = "" if field.default is msgspec.NODEFAULT else f" = {_value(field.default)}"
    return f"- `{field.name}: {annotation}{default}`{_after(docs.get(field.name))}"


def _after(text: str | None) -> str:
    return f": {text}" if text else ""


def _public(module: Any) -> list[Any]:
    functions = [thing for thing in vars(module).values() if inspect.isfunction(thing) and thing.__module__ == module.__name__]
    return [function for function in functions if function.__annotations__.get("return") == "Op" and not function.__name__.startswith("_")]


def _code(name: str, function: Callable[..., Any], *, bound: bool = False) -> str:
    """A signature as code, folded to one parameter a line where it is long."""
    signature = inspect.signature(function)
    parameters, star = [], False
    for parameter in list(signature.parameters.values())[bound:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            parameters.append("*")
            star = True
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        default = "" if parameter.default is parameter.empty else f" = {_value(parameter.default)}"
        parameters.append(prefix + parameter.name + annotation + default)
    waits = "async " if inspect.iscoroutinefunction(function) else ""
    answer = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    line = f"{waits}{name}({', '.join(parameters)}){answer}"
    if len(line) > WIDTH:
        line = f"{waits}{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){answer}"
    return f"```py\n{line}\n```\n"


def _value(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else repr(value)


def _doc(thing: Any) -> str:
    doc = inspect.getdoc(thing)
    if not doc:
        sys.exit(f"docs_reference: {thing!r} has no docstring.")
    return doc


def _flat(thing: Any) -> str:
    return " ".join(_doc(thing).split()).replace("|", "\\|")


def _attribute_docs(kind: Any) -> dict[str, str]:
    """The strings that stand under a class's, or a module's, attributes in its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body if inspect.ismodule(kind) else tree.body[0].body  # type: ignore[attr-defined]
    docs = {}
    for before, after in pairwise(body):
        target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0] if isinstance(before, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[target.id] = " ".join(str(after.value.value).split())
    return docs


def _is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, perdure.Error)


def _differences() -> str:
    """Which names the blocking API has more or fewer."""
    here, there = ({name for name in dir(store) if not name.startswith("_")} for store in (perdure.Store, perdure.sync.Store))
    lines = ["The same names, parameters, answers and errors as above, without `await`; `with` for `async with`, `for` for `async for`.\n"]
    lines += [f"- `{name}` only here: {_flat(getattr(perdure.sync.Store, name))}" for name in sorted(there - here)]
    lines += [f"- `{name}` only in the asynchronous API." for name in sorted(here - there)]
    return "\n".join(lines) + "\n"


def conflicts() -> str:
    """docs/conflicts.md: written by hand, but for the table between the marks."""
    table = ["| mine | theirs | how the targets lie | answer | why |", "|---|---|---|---|---|"]
    for row in describe():
        mine, theirs, relation = map(_words, (row.mine, row.theirs, row.relation))
        table.append(f"| {mine} | {theirs} | {relation} | **{row.answer}** | {row.reason} |")
    relations = [f"- `{name}`: {meaning}" for name, meaning in RELATIONS.items()]
    page = (ROOT / "docs" / "conflicts.md").read_text()
    return _between(_between(page, "table", table), "relations", relations)


def cases() -> str:
    """docs/engines/own.md: written by hand, but for the list of the kit's cases."""
    lines = ["| case | claim |", "|---|---|"]
    lines += [f"| `{case.name}`{' (two handles)' if case.needs_another else ''} | {' '.join(case.claim.split())} |" for case in CASES]
    return _between((ROOT / "docs" / "engines" / "own.md").read_text(), "cases", lines)


def _words(cell: str) -> str:
    kinds = {*KINDS} - {"merge"}
    words = cell.split(" / ")
    if {*words} in (kinds, kinds - {"test"}):
        return "any" if "test" in words else "any but `test`"
    return "any" if {*words} == {*RELATIONS} - {"disjoint"} else " ".join(f"`{word}`" for word in words)


def _between(page: str, mark: str, lines: list[str]) -> str:
    start = START.format(mark)
    if page.count(start) != 1:
        sys.exit(f"docs_reference: a page needs the mark {start} once.")
    before, rest = page.split(start)
    return "\n".join([before + start, "", *lines, "", END]) + rest.split(END, 1)[1]


def commands() -> str:
    """docs/cli.md: what `--help` says, for the program and for each command."""
    (program,) = _helps([])
    names = re.findall(r"^│ ([a-z]+) ", program, re.MULTILINE)
    helps = zip(names, _helps(*([name] for name in names)), strict=True)
    return _joined(["# Commands\n", NOTE, SHELL, program, *(f"## `perdure {name}`\n\n{text}" for name, text in helps)])


ASK = """
import sys
from perdure.cli import main
for words in sys.argv.pop().split(","):
    sys.argv[1:] = [*words.split(), "--help"]
    try:
        main()
    except SystemExit:
        print(end="\\f")
"""


def _helps(*commands: list[str]) -> list[str]:
    """The help of each as a pipe gets it, in lines of WIDTH. One process says all."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PERDURE_URL", None)
    asked = ",".join(" ".join(command) for command in commands)
    said = subprocess.check_output([sys.executable, "-c", ASK, asked], text=True, env=environment)
    lines = [[line.rstrip() for line in text.strip().splitlines()] for text in said.split("\f")[:-1]]
    return ["````text\n" + "\n".join(help) + "\n````\n" for help in lines]


MAKERS: dict[str, Callable[[], str]] = {
    "docs/conflicts.md": conflicts,
    "docs/engines/own.md": cases,
    "docs/cli.md": commands,
    "docs/reference.md": reference,
}
PAGES = tuple(MAKERS)


def _joined(parts: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def render(page: str) -> str:
    """The page as the code gives it now."""
    return MAKERS[page]().rstrip() + "\n"


def main(*, check: bool) -> int:
    """Write the pages that differ; or show the differences, change nothing, and answer 1 if there is one."""
    differ = 0
    for page in MAKERS:
        path, new = ROOT / page, render(page)
        old = path.read_text() if path.exists() else ""
        if old == new:
            continue
        differ = 1
        if check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), page, "from the code"))
        else:
            path.write_text(new)
            print(f"wrote {page}")
    if differ and check:
        print("\nThese pages are old: run python3 dev.py docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
