"""Every verb of this repository, from a bare clone: `python3 dev.py test`. Standard library only; makes .venv when it is missing or old.

tour            set up, then the two-minute tour
test [ARGS]     set up, then every check, then the tests with coverage; ARGS go to pytest
test --quick    the same without servers, without coverage, and without what takes seconds: what to run first
test --slow     what takes too long for each change: pauses, partitions, clocks, long kill loops, servers built from source
check [STEP]    the checks alone, or some of: lint format types rooms sync docs site
oldest [ARGS]   the tests of adapters on the oldest versions that pyproject.toml allows, in .venv-oldest
docs            write again what is generated: the blocking API and pages of docs/
site            build the pages of docs/ as a site with search, in build/site
bench NAME      one benchmark of bench/, against its rivals; without a name, the list
fetch           download what tests need and no lock holds: servers that are no wheels, test suites of others
fetch --slow    also build Jaeger, Consul, CoreDNS and Kubernetes, for the slow tests: half an hour of processor time (needs Go)
lock            write requirements/*.lock again (needs uv)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST = ROOT / ".venv-oldest"
BIN, SUFFIX = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
NEEDED = (3, 11)
AGAIN = 3
"""Most failed tests that CI runs once more."""
TIERS = {
    "--quick": "not long and not slow and not server and not fetched",
    "--slow": "slow",
    "--bare": "not slow and (fetched or not server)",
    "--rest": "not slow and (server or fetched)",
}
"""Which tests an option of `test` runs, by the markers of tests/support/tiers.py. CI runs `--bare` before `fetch`, where what needs it must
skip and not fail, and `--rest` after it: together they are `test`."""
SET_UP = {"core": "about half a minute", "dev": "about two minutes", "oldest": "about two minutes"}
"""How long a lock takes to install where nothing is cached, on two cores."""
ADVICE = f"On Debian and Ubuntu: apt install python3.{sys.version_info[1]}-venv (or python3-venv)."

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "rooms": ["lint-imports"],
    "sync": ["python", "scripts/make_sync.py", "--check"],
    "docs": ["python", "scripts/docs_reference.py", "--check"],
    "site": ["sphinx-build", "--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "docs", "build/site"],
}


def main() -> int:
    """Run one verb; the exit code is that of the first command that fails, 2 for a verb that does not exist."""
    verb, arguments = (sys.argv[1:2] or ["help"])[0], sys.argv[2:]
    if verb not in VERBS:
        print(__doc__)
        return 0 if verb in ("help", "-h", "--help") else 2
    if sys.version_info < NEEDED:
        return newer_python()
    try:
        VERBS[verb](arguments)
    except subprocess.CalledProcessError as error:
        print(f"\ndev.py: failed ({error.returncode}): {shlex.join(map(str, error.cmd))}", file=sys.stderr)
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0


def newer_python() -> int:
    """Hand over to a newer Python of this machine. A name on PATH may be a shim of a version that is not active, so each is tried."""
    test = f"import sys; sys.exit(sys.version_info < {NEEDED})"
    for minor in range(20, NEEDED[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", test], check=False, capture_output=True).returncode == 0:
            return subprocess.run([found, *sys.argv], check=False).returncode
    here = ".".join(map(str, sys.version_info[:3]))
    print(
        f"dev.py: Perdure needs Python 3.11 or newer; this is {here} ({sys.executable}) and there is no newer one on PATH.", file=sys.stderr
    )
    return 2


def set_up(lock: str = "dev", venv: Path = VENV) -> None:
    """Make a venv hold what the lock names, hash-checked, and this package editable; nothing is done while neither has changed."""
    wanted = hashlib.sha256()
    for path in (ROOT / "requirements" / f"{lock}.lock", ROOT / "pyproject.toml"):
        wanted.update(path.read_bytes())
    stamp, state = venv / f"{lock}.stamp", f"{wanted.hexdigest()} {sys.version_info[:2]}"
    if python_of(venv).exists() and stamp.exists() and stamp.read_text() == state:
        return
    print(f"Setting up {venv.name} from the lock file ({SET_UP[lock]}, once) …", flush=True)
    pip = make_venv(venv)
    quiet = ["--quiet", "--disable-pip-version-check"]
    run([*pip, "install", *quiet, "--no-deps", "--require-hashes", "-r", f"requirements/{lock}.lock"])
    run([*pip, "install", *quiet, "--no-deps", "--no-build-isolation", "-e", "."])
    stamp.write_text(state)


def python_of(venv: Path) -> Path:
    """The interpreter of a venv."""
    return venv / BIN / f"python{SUFFIX}"


def make_venv(venv: Path) -> list[str]:
    """A fresh or still good venv, and the command that is its pip. Debian splits both venv and pip off: what is there is used."""
    right = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    python = python_of(venv)
    if not (python.exists() and subprocess.run([python, "-c", right], check=False).returncode == 0):
        shutil.rmtree(venv, ignore_errors=True)
        if subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=False).returncode:
            sys.exit(f"dev.py: this Python cannot make a virtual environment. {ADVICE}")
    own, lent = [str(python), "-m", "pip"], [sys.executable, "-m", "pip", "--python", str(python)]
    for attempt in ([*own, "--version"], [str(python), "-m", "ensurepip", "--default-pip"]):
        if subprocess.run(attempt, check=False, capture_output=True).returncode == 0:
            return own
    if subprocess.run([*lent, "--version"], check=False, capture_output=True).returncode == 0:
        return lent
    sys.exit(f"dev.py: this Python has neither ensurepip nor pip. {ADVICE}")


def run(command: list[object]) -> None:
    """Run a command in the repository's folder; a failure raises."""
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def run_tool(name: str, *arguments: str, venv: Path = VENV, **environment: str) -> None:
    """Run a program of a venv, which comes first on PATH for what it starts in turn."""
    path = os.pathsep.join([str(venv / BIN), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(venv), **environment}
    subprocess.run([str(venv / BIN / name), *arguments], check=True, cwd=ROOT, env=environment)


def check(arguments: list[str]) -> None:
    """Run the checks named, or all, in the order of CHECKS; stop at the first that fails."""
    set_up()
    for step in arguments or CHECKS:
        if step not in CHECKS:
            sys.exit(f"dev.py: there is no check {step!r}; there are {', '.join(CHECKS)}.")
        print(f"── {step}: {shlex.join(CHECKS[step])}", flush=True)
        run_tool(*CHECKS[step])


def test(arguments: list[str]) -> None:
    """All checks, then the tests of one tier; coverage is printed to be read, and fails nothing."""
    tier = arguments[0] if arguments and arguments[0] in TIERS else None
    check([])
    command = ["-n", "2", "--dist", "loadgroup", "-m", TIERS.get(tier, "not slow"), *arguments[tier is not None :]]
    if tier not in ("--quick", "--slow"):
        command += ["--cov", "--cov-report=term", *(["--cov-append"] if tier == "--rest" else [])]
    print(f"── tests: pytest {shlex.join(command)}", flush=True)
    run_tests(command)


def run_tests(arguments: list[str], venv: Path = VENV, **environment: str) -> None:
    """Pytest. In CI a few failed tests are run once more, alone: real servers are killed and paused there on a machine that may stall.
    Both outcomes are printed, and what failed once is a bug to be found; what fails again, or more than a few, fails the run."""
    cache = ROOT / ".pytest_cache" / venv.name
    place = ["-o", f"cache_dir={cache}"]
    try:
        run_tool("pytest", *place, *arguments, venv=venv, **environment)
    except subprocess.CalledProcessError as error:
        failed = cache / "v" / "cache" / "lastfailed"
        names = json.loads(failed.read_text()) if error.returncode == 1 and os.environ.get("CI") and failed.exists() else []
        names = [re.sub(r"@\w+$", "", name) for name in names]  # The worker that a test shares with others is written after its name.
        if not 0 < len(names) <= AGAIN or not all("::" in name for name in names):  # A worker that failed to collect is no test.
            raise
        print(f"── once more, alone: {', '.join(names)}", flush=True)
        run_tool("pytest", *place, *names, "-n", "0", "--no-cov", venv=venv, **environment)
        print(f"── FLAKY, see their first failure above: {', '.join(names)}", flush=True)


def oldest(arguments: list[str]) -> None:
    """The other end of the supported versions. Old packages warn of what is new, and the suites that were fetched are of the newest."""
    set_up("oldest", OLDEST)
    folders = ["tests/adapters", "tests/backends/http", "tests/service", "tests/wire"]
    run_tests([*folders, "-n", "2", "-m", "not slow", "-o", "filterwarnings=", *arguments], OLDEST, PERDURE_REQUIRE_SERVERS="0")


def docs(_: list[str]) -> None:
    """Write the files that come out of the code; `check sync docs` says whether they are up to date."""
    set_up()
    run_tool("python", "scripts/make_sync.py")
    run_tool("python", "scripts/docs_reference.py")


def site(_: list[str]) -> None:
    """The site; a link that leads nowhere fails it."""
    check(["site"])
    print(f"open {ROOT / 'build' / 'site' / 'index.html'}")


def tour(arguments: list[str]) -> None:
    """The tour, in a temporary folder that it removes."""
    set_up("core")
    run_tool("perdure", "tour", *arguments)


def bench(arguments: list[str]) -> None:
    """One benchmark."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("[!_]*.py"))
    if not arguments or arguments[0] not in names:
        sys.exit(f"dev.py: name a benchmark: {', '.join(names)}.")
    set_up()
    run_tool("python", f"bench/{arguments[0]}.py", *arguments[1:])


def fetch(arguments: list[str]) -> None:
    """What the tests skip where it is missing, saying so; what is there already is left alone."""
    set_up()
    run_tool("python", "scripts/fetch_servers.py", *arguments)
    run_tool("python", "scripts/fetch_suites.py")


def lock(_: list[str]) -> None:
    """Resolve for all platforms and Pythons from 3.11; the locks name the same versions."""
    compile_ = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes", "--no-header"]
    compile_ += ["--no-emit-index-url", "--annotation-style=line", "--upgrade", "pyproject.toml"]
    most = ["--all-extras", "--group=dev", "--group=suites"]
    run([*compile_, *most, "--group=docs", "--group=servers", "-o", "requirements/dev.lock"])
    run([*compile_, *most, "--resolution=lowest-direct", "-o", "requirements/oldest.lock"])
    run([*compile_, "--group=build", "-c", "requirements/dev.lock", "-o", "requirements/core.lock"])


VERBS = {
    "tour": tour,
    "test": test,
    "check": check,
    "oldest": oldest,
    "docs": docs,
    "site": site,
    "bench": bench,
    "fetch": fetch,
    "lock": lock,
}

if __name__ == "__main__":
    sys.exit(main())
