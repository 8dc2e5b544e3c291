"""The TypeScript client where things go wrong: answers that are cut off or not a node's, nodes that die, values that JavaScript changes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from perdure.service import refusals
from perdure.wire.paths import segment
from perdure.wire.problem import KINDS
from tests.servers.node import Nodes
from tests.servers.proxy import Proxy, answered
from tests.support.service.programs import CLIENT, Programs

ADD = '{ ops: [{ op: "add", path: "/count", value: 1 }] }'
LOGIN = answered("200 OK", b"<html>Sign in</html>")
BAD_GATEWAY = answered("502 Bad Gateway", b"<html>nginx</html>")
FOREIGN_PROBLEM = answered("503 Service Unavailable", b'{"type": "urn:perdure:error:Unavailable", "detail": "no", "code": "unavailable"}')


async def through(programs: Programs, source: str, *arguments: str) -> str:
    """What the program prints, while this loop serves its proxy."""
    return await asyncio.to_thread(programs.run, source, *arguments)


@pytest.mark.parametrize("instead", [b"", b"HTTP/1.1 201 Created\r\nContent-Le", LOGIN, BAD_GATEWAY, FOREIGN_PROBLEM])
async def test_a_write_whose_answer_is_lost_is_applied_once(programs: Programs, nodes: Nodes, instead: bytes) -> None:
    """The node has stored it, and something else comes back: the client sends it again with its key, and gets the first receipt."""
    async with Proxy(nodes.port("node0")) as proxy:
        proxy.cut(2, instead)
        source = f"""
        const store = new perdure.Store(args[0]);
        const first = await store.append("s", {ADD});
        const second = await store.patch("s", [{{ op: "test", path: "/count", value: 1 }}, {{ op: "replace", path: "/count", value: 5 }}]);
        console.log(JSON.stringify([first.version, first.duplicate, second.version]));
        """
        assert json.loads(await through(programs, source, f"http://127.0.0.1:{proxy.port}")) == [1, True, 2]
        assert proxy.cuts == 2
    async with perdure.open(nodes.url) as store:
        assert [commit.version async for commit in store.history("s")] == [1, 2]
        assert (await store.read("s")).state == {"count": 5}


async def test_every_write_is_done_once(programs: Programs, nodes: Nodes) -> None:
    """The first answer to each is lost. What is sent again gets the first one's fork, receipt and release, also where the same call a
    second time would be another one, or an error."""
    source = f"""
    const store = new perdure.Store(args[0]);
    await store.append("s", {ADD});
    const fork = await store.fork("s");
    const lease = await store.lease("s", {{ owner: "w" }});
    const tags = await store.configure("s", {{ tags: {{ a: "1" }} }}, {{ lease }});
    await lease.release();
    const ended = await store.delete("s");
    console.log(JSON.stringify([fork, tags.duplicate, ended.duplicate]));
    """
    seen: set[bytes] = set()

    def first_is_cut(data: bytes) -> None:
        line = data.partition(b"\r\n")[0]
        if line not in seen:
            seen.add(line)
            proxy.cut()

    async with Proxy(nodes.port("node0")) as proxy:
        proxy.reply = first_is_cut
        fork, *duplicates = json.loads(await through(programs, source, f"http://127.0.0.1:{proxy.port}"))
        assert duplicates == [True, True] and proxy.cuts == len(seen) == 6
    async with perdure.open(nodes.url) as store:
        assert [info.session async for info in store.list()] == [fork]
        kinds = [commit.kind.name async for commit in store.history("s", include_deleted=True, control=True)]
        assert kinds == ["data", "pin", "lease", "configure", "lease", "tombstone"]


async def test_a_write_that_stays_open_is_unknown_and_its_key_finds_out(programs: Programs, nodes: Nodes) -> None:
    """At the deadline the error has the key; the same call with it, at the node itself, gets the first receipt. A read is `Unavailable`."""
    async with Proxy(nodes.port("node0")) as proxy:
        proxy.cut(1_000)
        source = f"""
        const store = new perdure.Store(args[0], {{ timeout: 0.7 }});
        const error = await store.append("s", {ADD}).catch((error) => error);
        const read = await store.read("s").catch((error) => error);
        const direct = new perdure.Store(args[1]);
        const receipt = await direct.append("s", {ADD}, {{ key: error.facts.key }});
        const is = error instanceof perdure.Unknown;
        console.log(JSON.stringify([error.name, is, error.retryable, read.name, receipt.version, receipt.duplicate]));
        """
        found = json.loads(await through(programs, source, f"http://127.0.0.1:{proxy.port}", nodes.url))
        assert found == ["Unknown", True, True, "Unavailable", 1, True]


async def test_an_answer_of_another_store_is_refused(programs: Programs, nodes: Nodes, tmp_path: Path) -> None:
    """A client that has heard one store does not take another one's states for its own; neither does one that was given the id."""
    others = Nodes(tmp_path / "others")
    try:
        others.start()
        source = f"""
        const direct = new perdure.Store(args[1]);
        await direct.append("s", {ADD});
        const strict = new perdure.Store(args[0], {{ storeId: direct.storeId, timeout: 0.3 }});
        const write = await strict.append("s", {ADD}).catch((error) => error);
        const read = await strict.read("s").catch((error) => error);
        console.log(JSON.stringify([write.name, read.name]));
        """
        assert json.loads(programs.run(source, nodes.url, others.url)) == ["Unknown", "Unavailable"]
    finally:
        others.stop()


async def test_a_node_that_nobody_reaches_is_unavailable_and_the_next_one_is_asked(programs: Programs, nodes: Nodes) -> None:
    """Where no connection was made, nothing was written; of several nodes another one answers."""
    nowhere = f"127.0.0.1:{nodes.port('nowhere')}"
    source = f"""
    const nowhere = await new perdure.Store(`http://${{args[1]}}`, {{ timeout: 0.3 }}).append("s", {ADD}).catch((error) => error);
    const receipt = await new perdure.Store(args[0].replace("//", `//${{args[1]}},`)).append("s", {ADD});
    console.log(JSON.stringify([nowhere.name, receipt.version, receipt.duplicate]));
    """
    assert json.loads(programs.run(source, nodes.url, nowhere)) == ["Unavailable", 1, False]


@pytest.mark.parametrize("stream", ["watch", "changes"])
async def test_a_stream_goes_on_when_the_node_is_started_again(programs: Programs, nodes: Nodes, stream: str) -> None:
    """After kill -9 and a restart the commits that follow come, in order; of one session each once."""
    source = f"""
    const store = new perdure.Store(args[0]);
    const found = "{stream}" === "watch" ? store.watch("s") : store.changes();
    for await (const commit of found) {{
      console.log(commit.version);
      if (commit.version === 6) break;
    }}
    """
    async with perdure.open(nodes.url) as store:
        for number in range(3):
            await store.append("s", perdure.Event("note", number))
    process = await asyncio.create_subprocess_exec(
        *programs.command(source, nodes.url), cwd=programs.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    versions = [int(await process.stdout.readline()) for _ in range(3)]
    nodes.kill()
    await asyncio.to_thread(nodes.start)
    async with perdure.open(nodes.url) as store:
        for number in range(3):
            await store.append("s", perdure.Event("note", number))
    rest, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    versions += [int(line) for line in rest.split()]
    assert (versions if stream == "watch" else sorted(set(versions))) == [1, 2, 3, 4, 5, 6]


async def test_a_stream_ends_when_its_signal_says_so(programs: Programs, nodes: Nodes) -> None:
    """An AbortSignal ends the wait with its reason, and the program ends; after a deletion a watch ends by itself."""
    source = f"""
    const store = new perdure.Store(args[0]);
    await store.append("s", {ADD});
    const controller = new AbortController();
    const seen = [];
    try {{
      for await (const commit of store.watch("s", {{ signal: controller.signal }})) {{
        seen.push(commit.version);
        setTimeout(() => controller.abort(new Error("enough")), 10);
      }}
    }} catch (error) {{
      seen.push(error.message);
    }}
    setTimeout(() => store.delete("s"), 10);
    for await (const commit of store.watch("s")) seen.push(commit.kind);
    const late = await store.read("s").catch((error) => error);
    console.log(JSON.stringify([...seen, late instanceof perdure.Deleted]));
    """
    assert json.loads(programs.run(source, nodes.url)) == [1, "enough", "data", "tombstone", True]


async def test_a_state_that_has_not_changed_is_not_sent_again(programs: Programs, nodes: Nodes) -> None:
    """The second read is answered 304, and gives a state of its own; a write makes the next one 200."""
    source = f"""
    const statuses = [];
    const counting = async (request) => {{
      const answer = await fetch(request);
      if (request.method === "GET") statuses.push(answer.status);
      return answer;
    }};
    const store = new perdure.Store(args[0], {{ fetch: counting }});
    await store.append("s", {ADD});
    (await store.read("s")).state.count = 99;
    const again = (await store.read("s")).state.count;
    await store.append("s", {ADD});
    console.log(JSON.stringify([again, (await store.read("s")).state.count, statuses]));
    """
    assert json.loads(programs.run(source, nodes.url)) == [1, 2, [200, 304, 200]]


async def test_a_key_takes_one_lease(programs: Programs, nodes: Nodes) -> None:
    """The same call with the key gets the lease again; another owner or ttl with it is `KeyReused`, and the lease stays held."""
    source = """
    const store = new perdure.Store(args[0]);
    const failed = (promise) => promise.then(() => "done", (error) => `${error.name} ${error instanceof perdure.KeyReused}`);
    const first = await store.lease("s", { owner: "me", key: "k" });
    const again = await store.lease("s", { owner: "me", key: "k" });
    const owner = await failed(store.lease("s", { owner: "you", key: "k" }));
    const ttl = await failed(store.lease("s", { owner: "me", ttl: 60, key: "k" }));
    await first.confirm();
    console.log(JSON.stringify([first.token === again.token, owner, ttl]));
    """
    assert json.loads(programs.run(source, nodes.url)) == [True, "KeyReused true", "KeyReused true"]


async def test_an_error_says_what_the_node_said(programs: Programs, nodes: Nodes) -> None:
    """The detail, and the advice where there is some."""
    source = """
    const store = new perdure.Store(args[0]);
    const malformed = await store.read("s", { at: "x" }).catch((error) => error);
    const missing = await store.read("s").catch((error) => error);
    const whole = missing.message === `${missing.detail} ${missing.advice}`;
    console.log(JSON.stringify([malformed.message === malformed.detail, malformed.advice, whole]));
    console.log(missing.message);
    """
    first, second = programs.run(source, nodes.url).splitlines()
    assert json.loads(first) == [True, "", True]
    async with perdure.open(nodes.url) as store:
        with pytest.raises(perdure.NotFound) as raised:
            await store.read("s")
    assert second == str(raised.value)


async def test_conditions_hold(programs: Programs, nodes: Nodes) -> None:
    """`ifMatch` takes a state, `ifNoneMatch` a session that is not there; a patch by index asks for a version."""
    source = f"""
    const store = new perdure.Store(args[0]);
    const failed = (promise) => promise.then(() => "done", (error) => error.name);
    await store.append("s", {{ ops: [{{ op: "set", path: "/list", value: [1] }}] }}, {{ ifNoneMatch: "*" }});
    const view = await store.read("s");
    const step = [{{ op: "replace", path: "/list/0", value: 2 }}];
    console.log(JSON.stringify([
      await failed(store.append("s", {ADD}, {{ ifNoneMatch: "*" }})),
      await failed(store.patch("s", step)),
      await failed(store.patch("s", step, {{ ifMatch: view }})),
      await failed(store.patch("s", step, {{ ifMatch: view }})),
      await failed(store.mergePatch("s", {{ none: null }})),
      await failed(store.append("s", {ADD}, {{ ifMatch: view, base: 1 }})),
      await failed(store.append("s", {ADD}, {{ expect: 1 }})),
    ]));
    """
    assert json.loads(programs.run(source, nodes.url)) == [
        "PreconditionFailed", "PreconditionRequired", "done", "PreconditionFailed", "done", "Invalid", "Invalid",
    ]  # fmt: skip


async def test_values_that_javascript_would_change_are_refused(programs: Programs, nodes: Nodes) -> None:
    """An integer above 2^53, NaN, a BigInt and half a surrogate pair are errors, and never other values."""
    async with perdure.open(nodes.url) as store:
        await store.append("big", perdure.Event("set", None, (perdure.Op("set", "/n", 2**53 + 1),)))
        await store.append("text", perdure.Event("set", None, (perdure.Op("set", "/n", '9007199254740993 "9007199254740993" \\'),)))
    source = """
    const store = new perdure.Store(args[0]);
    const failed = (promise) => promise.then(() => "done", (error) => error.name);
    const set = (value) => failed(store.append("s", { ops: [{ op: "set", path: "/n", value }] }));
    console.log(JSON.stringify([
      await failed(store.read("big")), await failed(store.read("text")), await set(NaN), await set(1n),
      await failed(store.read("\\ud83d")), await failed(store.read("")), await set(2 ** 53 - 1),
    ]));
    """
    found = json.loads(programs.run(source, nodes.url))
    assert found == ["Unsupported", "done", "Invalid", "Invalid", "Invalid", "Invalid", "done"]


async def test_a_lease_whose_answer_is_lost_is_taken_once(programs: Programs, nodes: Nodes) -> None:
    """The request that is sent again finds its lease, and not a holder; a second owner is refused until it is released."""
    async with Proxy(nodes.port("node0")) as proxy:
        proxy.cut()
        source = """
        const store = new perdure.Store(args[0]);
        const lease = await store.lease("s", { owner: "a", ttl: 60 });
        const held = await store.lease("s", { owner: "b" }).catch((error) => error);
        await lease.confirm();
        await lease.release();
        const next = await store.lease("s", { owner: "b" });
        const fenced = await lease.confirm().catch((error) => error);
        console.log(JSON.stringify([lease.owner, held.name, held.facts.owner, next.token > lease.token, fenced.name]));
        """
        assert json.loads(await through(programs, source, f"http://127.0.0.1:{proxy.port}")) == ["a", "Held", "a", True, "Fenced"]
        assert proxy.cuts == 1


def test_the_other_calls_work(programs: Programs, nodes: Nodes) -> None:
    """A session that is due is claimed once; one is verified, deleted and purged; a fork without a name gets one; limits and pages."""
    source = f"""
    const store = new perdure.Store(args[0]);
    for (const id of ["job/1", "job/2", "job/3"]) await store.append(id, {ADD});
    await store.configure("job/1", {{ wakeAt: new Date(0), wake: "claim", tags: {{ kind: "job" }} }});
    const claims = await store.claim({{ owner: "w", prefix: "job/", limit: 5 }});
    const again = await store.claim({{ owner: "v", prefix: "job/", limit: 5 }});
    await claims[0].release();
    const proof = await store.verify("job/2");
    const fork = await store.fork("job/2");
    const first = [];
    for await (const info of store.list({{ prefix: "job/", limit: 2 }})) first.push(info.session);
    const page = await store.listPage({{ prefix: "job/", limit: 2 }});
    const rest = await store.listPage({{ next: page.next }});
    await store.delete("job/3", {{ actor: "me" }});
    await store.purge("job/3");
    console.log(JSON.stringify([
      claims.map((lease) => lease.session), again.length, proof.commits, (await store.read(fork)).state, first,
      page.sessions.length, rest.sessions.map((info) => info.session), rest.next, typeof page.sessions[0].createdAt,
    ]));
    """
    assert json.loads(programs.run(source, nodes.url)) == [
        ["job/1"], 0, 1, {"count": 1}, ["job/1", "job/2"], 2, ["job/3"], None, "string",
    ]  # fmt: skip


def test_a_token_goes_along(programs: Programs, nodes: Nodes) -> None:
    """As a text, from a function, or from the environment; without one it is `Unauthorized`, without the scope `Forbidden`."""
    tokens = [made(nodes.stores[0], scope) for scope in ("read,append", "read")]
    nodes.kill()
    nodes.start()
    source = f"""
    const failed = (promise) => promise.then(() => "done", (error) => error.name);
    const [url, writer, reader] = args;
    const found = [
      await failed(new perdure.Store(url).append("s", {ADD})),
      await failed(new perdure.Store(url, {{ token: writer }}).append("s", {ADD})),
      await failed(new perdure.Store(url, {{ token: async () => reader }}).read("s")),
      await failed(new perdure.Store(url, {{ token: reader }}).append("s", {ADD})),
    ];
    process.env.PERDURE_TOKEN = reader;
    found.push(await failed(new perdure.Store(url).read("s")));
    found.push(await failed((async () => new perdure.Store(url.replace("//", "//user:secret@")))()));
    console.log(JSON.stringify(found));
    """
    expected = ["Unauthorized", "done", "done", "Forbidden", "done", "Invalid"]
    assert json.loads(programs.run(source, nodes.url, *tokens)) == expected


def made(store: str, scopes: str) -> str:
    """A token for these scopes."""
    command = [sys.executable, "-m", "perdure", "tokens", "create", store, "--tenant", "default", "--scope", scopes, "--json"]
    return str(json.loads(subprocess.check_output(command, text=True))["token"])


def test_ids_stand_in_paths_as_the_node_reads_them(programs: Programs) -> None:
    """The client's rule and the library's are one, for ids of all kinds."""
    ids = ["a", "A-z_0.9~:@", ".", "..", "...", "=", "=a", "a=", "%", "%2e", "a/b", "a b", "?#&", "é", "😀", "a+b", "ÿÿÿ", "~~?", "x" * 255]
    source = """
    const { segment } = await import(args[1]);
    console.log(JSON.stringify(JSON.parse(args[0]).map(segment)));
    """
    paths = json.loads(programs.run(source, json.dumps(ids), str(CLIENT / "src" / "values.js")))
    assert paths == [segment(each) for each in ids]


def test_each_kind_of_error_is_a_class(programs: Programs) -> None:
    """The classes have the names, codes, statuses and answers to "may it be sent again" that the library's have."""
    kinds = {**KINDS, **{kind.__name__: kind for kind in vars(refusals).values() if isinstance(kind, type)}}
    expected = {name: [kind.code, kind.retryable, kind.http_status] for name, kind in kinds.items() if name != "Error"}
    source = """
    const kinds = Object.entries(perdure).filter(([name, kind]) => kind.prototype instanceof perdure.PerdureError);
    console.log(JSON.stringify(Object.fromEntries(kinds.map(([name, kind]) => [name, [kind.code, kind.retryable, kind.status]]))));
    """
    assert json.loads(programs.run(source)) == expected
    declared = set(re.findall(r"^export class (\w+) extends", (CLIENT / "index.d.ts").read_text(), re.MULTILINE))
    assert declared - {"PerdureError"} == set(expected)


def test_the_declared_methods_are_there(programs: Programs) -> None:
    """`index.d.ts` and the classes have the same methods."""
    text = (CLIENT / "index.d.ts").read_text()
    for kind in ("Store", "Lease"):
        body = re.search(rf"^export class {kind} {{\n(.*?)^}}", text, re.MULTILINE | re.DOTALL)
        assert body is not None
        declared = set(re.findall(r"^  (\w+)(?:<[^(]*>)?\(", body[1], re.MULTILINE)) | {"constructor"}
        found = json.loads(programs.run(f"console.log(JSON.stringify(Object.getOwnPropertyNames(perdure.{kind}.prototype)));"))
        assert declared == set(found) - {"storeId"}


def test_the_package_has_nothing_to_install(programs: Programs) -> None:
    """No dependency, the library's version and licence, and each file that it names is there."""
    package = json.loads((CLIENT / "package.json").read_text())
    assert not {name for name in package if name.endswith("ependencies")}
    assert (package["name"], package["version"], package["license"], package["private"]) == ("perdure", "0.1.0", "Apache-2.0", False)
    entry = package["exports"]["."]
    assert all((CLIENT / file).exists() for file in [*package["files"], entry["types"], entry["default"]])


def test_the_types_hold(programs: Programs) -> None:
    """`index.d.ts`, the sources and a program pass the strict compiler, and the program that uses what is not there does not."""
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("tsc is not installed: npm install --global typescript")
    good = """
    import { Conflict, Lease, Store, type Operation, type Receipt } from "perdure";
    const store = new Store(["http://a", "http://b"], { token: async () => "t", timeout: 5 });
    const view = await store.read<{ count: number }>("s", { at: new Date(), atLeast: "token" });
    const count: number = view.state.count;
    const lease: Lease = await store.lease("s", { owner: "w" });
    const ops: Operation[] = [{ op: "set", path: "/n", value: count }];
    const receipt: Receipt = await store.append("s", { ops }, { ifMatch: view, lease, key: "k" });
    const same: Receipt = await store.mergePatch("s", { n: null }, { base: receipt });
    for await (const commit of store.watch("s", { after: same, signal: AbortSignal.timeout(5) })) commit.events[0]?.type.length;
    for await (const change of store.changes({ tags: { a: "b" } })) change.cursor.length;
    try { await lease.release(); } catch (error) { if (error instanceof Conflict) error.facts["paths"]; }
    """
    bad = good.replace('{ ifMatch: view, lease, key: "k" }', "{ expect: 1 }")
    (programs.folder / "good.mts").write_text(good)
    (programs.folder / "bad.mts").write_text(bad)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable,dom.asynciterable"]
    checked = [
        subprocess.run([tsc, *options, file], capture_output=True, text=True, cwd=programs.folder, check=False, timeout=120)
        for file in ("good.mts", "bad.mts")
    ]
    assert checked[0].returncode == 0, checked[0].stdout
    entry = str(CLIENT / "src" / "index.js")
    inside = subprocess.run([tsc, *options, "--allowJs", "--checkJs", entry], capture_output=True, text=True, check=False, timeout=120)
    assert inside.returncode == 0, inside.stdout
    assert checked[1].returncode != 0 and "expect" in checked[1].stdout
