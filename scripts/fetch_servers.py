"""Fetch the servers that the tests need and that come neither as wheels nor on PATH: `python3 scripts/fetch_servers.py etcd`.

They are unpacked, not installed, under PERDURE_TEST_SERVERS or ~/.cache/perdure-test-servers; one that is there is left as it is.
Standard library only. Without a name: all but those that take long to build; `--slow`: those too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

COPIES = "3.8.1"
"""The version of the Maven plugin that copies jars."""
HOME = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")


def main(names: list[str]) -> int:
    """Fetch what is named; the exit code is 1 when one could not be fetched."""
    failed = 0
    for name in _wanted(names):
        if name not in SERVERS:
            print(f"fetch_servers: there is no {name!r}; there are {', '.join(SERVERS)}.", file=sys.stderr)
            return 2
        place = HOME / name
        if place.exists():
            print(f"{name}: there")
            continue
        if name in NEEDS and shutil.which(NEEDS[name]) is None:
            print(f"{name}: left out, for there is no {NEEDS[name]} here")
            continue
        try:
            with tempfile.TemporaryDirectory(dir=_made(HOME)) as folder:
                SERVERS[name](Path(folder) / "work", Path(folder) / name)
                (Path(folder) / name).rename(place)
            print(f"{name}: fetched")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"fetch_servers: {name}: {error}", file=sys.stderr)
            failed = 1
    return failed


def _wanted(words: list[str]) -> list[str]:
    if words == ["--slow"]:
        return list(SERVERS)
    return words or [name for name in SERVERS if name not in SLOW]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian(*packages: str, libraries: bool = False) -> Callable[[Path, Path], None]:
    """Unpack packages of this machine's Debian or Ubuntu, and on request the libraries that they name as needs, but for the C library.
    Nothing is installed and no root is needed, but for the package lists."""

    def fetch(work: Path, place: Path) -> None:
        _made(work)
        if subprocess.run(["apt-get", "download", "-qq", *packages], cwd=work, check=False, capture_output=True).returncode:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "download", "-qq", *packages], cwd=work, check=True)
        if libraries:
            listed = subprocess.run(["apt-cache", "depends", *packages], check=True, capture_output=True, text=True).stdout
            needs = {words[1] for line in listed.splitlines() if (words := line.split())[0] == "Depends:"}
            needs = {name for name in needs if name.startswith("lib") and name != "libc6"}
            subprocess.run(["apt-get", "download", "-qq", *sorted(needs)], cwd=work, check=True)
        for archive in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(place)], check=True)

    return fetch


def go(
    module: str, version: str, program: str, package: str = "", *, plugins: Sequence[str] = (), sums: Sequence[str] = ()
) -> Callable[[Path, Path], None]:
    """Build a program of a Go module, its root package or the one below it that `package` names, with the machine's own Go. `go install`
    refuses modules that replace others, as servers' do; here a module that only requires it stands around it, and what it needs is checked
    against its own list of sums, and `sums` for what that list lacks. With `plugins`, which are CoreDNS's, the program has those alone."""

    def fetch(work: Path, place: Path) -> None:
        run, _ = go_module(work, f"{module}@{version}", sums=sums)
        if plugins:
            imports = "\n".join([f'import _ "{module}/plugin/{name}"' for name in plugins])
            (work / "main.go").write_text(f'package main\n{imports}\nimport "{module}/coremain"\nfunc main() {{ coremain.Run() }}\n')
        built = "." if plugins else f"{module}/{package}".rstrip("/")
        run("build", "-trimpath", "-ldflags=-s -w", "-o", str(_made(place) / program), built)

    return fetch


def go_module(work: Path, *modules: str, sums: Sequence[str] = ()) -> tuple[Callable[..., str], list[Path]]:
    """A module in the folder `work` that requires these, each `name@version`, and their lists of sums with it; `go` in that folder, and the
    folders of the modules' sources."""
    settings = {"GOFLAGS": "-mod=mod -buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}

    def run(*words: str) -> str:
        return subprocess.run(
            ["go", *words], cwd=_made(work), env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    run("mod", "init", "tests.invalid/server")
    folders = [Path(json.loads(run("mod", "download", "-json", module))["Dir"]) for module in modules]
    known = [(folder / "go.sum").read_text() for folder in folders]
    (work / "go.sum").write_text("".join([*known, *[f"{line}\n" for line in sums]]))
    run("mod", "edit", *[f"-require={module}" for module in modules])
    return run, folders


def kubernetes(version: str, coredns: str) -> Callable[[Path, Path], None]:
    """Build Kubernetes' control plane and CoreDNS with the plugin that reads it, as one program: its first word says which part it is. They
    share most of their code, so one is linked sooner than four and takes a third of the space."""

    def fetch(work: Path, place: Path) -> None:
        run, (source, _) = go_module(work, f"k8s.io/kubernetes@v{version}", f"github.com/coredns/coredns@v{coredns}")
        replaced = json.loads(run("mod", "edit", "-json", str(source / "go.mod")))["Replace"]
        parts = [each["Old"]["Path"] for each in replaced if each["New"]["Path"].startswith("./staging/")]
        run("mod", "edit", *[f"-replace={part}={part}@v0.{version.partition('.')[2]}" for part in parts])
        (work / "main.go").write_text(CONTROL_PLANE)
        major, minor, _ = version.split(".")
        said = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
        flags = " ".join(["-s -w", *[f"-X k8s.io/component-base/version.{name}={value}" for name, value in said.items()]])
        run("build", "-trimpath", f"-ldflags={flags}", "-o", str(_made(place) / "kubernetes"), ".")

    return fetch


def maven(coordinates: str) -> Callable[[Path, Path], None]:
    """An artifact `group:name:version` with all it needs at run time, as jars in one folder; the machine's own mvn and Java."""
    group, name, version = coordinates.split(":")
    pom = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>perdure.tests</groupId> <artifactId>servers</artifactId> <version>1</version> <packaging>pom</packaging>
  <dependencies>
    <dependency> <groupId>{group}</groupId> <artifactId>{name}</artifactId> <version>{version}</version> </dependency>
  </dependencies>
</project>
"""

    def fetch(work: Path, place: Path) -> None:
        (_made(work) / "pom.xml").write_text(pom)
        command = ["mvn", "--batch-mode", "--quiet", f"org.apache.maven.plugins:maven-dependency-plugin:{COPIES}:copy-dependencies"]
        subprocess.run([*command, "-DincludeScope=runtime", f"-DoutputDirectory={place}"], cwd=work, check=True)
        if not list(place.glob(f"{name}-*.jar")):
            raise OSError(f"mvn fetched no {name}.")

    return fetch


def python(requirement: str) -> Callable[[Path, Path], None]:
    """Install a package of PyPI, with all it needs, in a virtual environment of its own. It is moved: only its `bin/python -m` works."""

    def fetch(_: Path, place: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement], check=True)

    return fetch


def npm(package: str) -> Callable[[Path, Path], None]:
    """A package of npm, with all it needs, in a folder's `node_modules`; the machine's own npm. No script of a package is run."""

    def fetch(_: Path, place: Path) -> None:
        quiet = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(["npm", "install", *quiet, "--prefix", str(_made(place)), package], check=True)

    return fetch


CONSUL_SUMS = [
    "github.com/hashicorp/consul/envoyextensions v0.4.1 h1:7s3IXE+qmwjPbZPva+8BjHLrpkFrFkNE+z/6X/O6PQc=",
    "github.com/hashicorp/consul/envoyextensions v0.4.1/go.mod h1:PkLAV99qviACPT7v8Pn7d/vacZixC8/4fuZpR7Rf7vA=",
]
"""Of a module that Consul's list leaves out, and the checksum database too."""

CONTROL_PLANE = """package main

import (
	"fmt"
	"os"

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": manager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	part := ""
	if len(os.Args) > 1 {
		part, os.Args = os.Args[1], os.Args[1:]
	}
	if part == "coredns" {
		coremain.Run()
	} else if command := parts[part]; command != nil {
		os.Exit(cli.Run(command()))
	} else {
		fmt.Fprintf(os.Stderr, "There is no part %q.\\n", part)
		os.Exit(2)
	}
}
"""
"""The program that `kubernetes` builds."""

SERVERS: dict[str, Callable[[Path, Path], None]] = {
    "azurite": npm("azurite@3.35.0"),
    "cassandra": maven("org.apache.cassandra:cassandra-all:5.0.6"),
    "consul": go("github.com/hashicorp/consul", "v1.16.3", "consul", sums=CONSUL_SUMS),
    "coredns": go("github.com/coredns/coredns", "v1.14.7", "coredns", plugins=["bind", "errors", "file"]),
    "etcd": debian("etcd-server"),
    "etcd-3.6": go("go.etcd.io/etcd/server/v3", "v3.6.16", "etcd"),
    "haproxy": debian("haproxy", "libopentracing1", libraries=True),
    "jaeger": go("github.com/jaegertracing/jaeger", "v1.76.0", "jaeger", "cmd/jaeger"),
    "kubernetes": kubernetes("1.37.2", coredns="1.14.7"),
    "libfaketime": debian("libfaketime"),
    "memcached": debian("memcached", libraries=True),
    "ministack": python("ministack==1.5.33"),
    "nginx": debian("nginx", libraries=True),
    "pgbouncer": debian("pgbouncer", libraries=True),
    "prometheus": debian("prometheus"),
    "redis": debian("redis-server", "redis-tools", libraries=True),
}
"""What can be fetched: a function of a folder to work in and the place to fill."""

SLOW = {"consul": "go", "coredns": "go", "jaeger": "go", "kubernetes": "go"}
"""Servers of the slow tests that take minutes to build, and the tool that builds them. `--slow` or their name asks for them."""

NEEDS = {"etcd-3.6": "go", **SLOW}
"""A tool that not every machine has, for a version of a server beside the main one: without it the tests on that version are skipped."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
