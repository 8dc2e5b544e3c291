"""No message, repr, traceback, warning, span or log shows what may be a secret in a URL, no matter who wrote it."""

from __future__ import annotations

import gc
import logging
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import perdure
from perdure import Event
from perdure.backends.registry import schemes
from perdure.redaction import Secrets, option_named, shown_url
from tests.servers.fixture import Servers
from tests.servers.process import HOST as LOOPBACK
from tests.servers.process import Server
from tests.servers.proxy import Proxy
from tests.support.backends.engines import ENGINES, Engine

MARK = "hunter2mark"
HOST = "127.0.0.1:1"
"""Nobody listens there."""
QUICK = "connect_timeout=0.3&timeout=0.3"
LOCAL = ("memory", "sqlite", "file")
LOGINS = [
    "{s}://u:{m}@{h}/x", "{s}://{m}@{h}/x", "{s}://:{m}@{h}/x", "{s}://{m}:{m}@{h}/x",
    "{s}://u:a/{m}@{h}/x", "{s}://u:{m}/b@{h}/x", "{s}://u:1/{m}@{h}/x", "{s}://u:a?{m}@{h}/x", "{s}://u:{m}?b@{h}/x", "{s}://u:a?b={m}@{h}/x",
    "{s}://u:1?password={m}@{h}/x", "{s}://u:a#{m}@{h}/x", "{s}://u:{m}#b@{h}/x", "{s}://u:1#{m}@{h}/x", "{s}://u:a@{m}@{h}/x",
    "{s}://u:{m}@b@{h}/x", "{s}://u:a:{m}@{h}/x", "{s}://u:[{m}@{h}/x", "{s}://u:{m}]@{h}/x", "{s}://u:a%2F{m}@{h}/x", "{s}://u:%{m}@{h}/x",
    "{s}://u:{m}%zz@{h}/x", "{s}://u:a&{m}@{h}/x", "{s}://u:a\\{m}@{h}/x", "{s}://u:a {m}@{h}/x", "{s}://u:a\n{m}@{h}/x", "{s}://u:\u2100{m}@{h}/x",
    "{s}:/:{m}@{h}", "{s}:{m}@{h}", "{s}:u:{m}@{h}/x", "{s}:/u:{m}@{h}/x", "{s}:///u:{m}@{h}/x", "{s}:////u:{m}@{h}/x", "{s}:///:{m}@{h}",
    "{s}:\\\\u:{m}@{h}\\x", "{s}//u:{m}@{h}/x", "{s}/u:{m}@{h}/x", "{s}://u:{m}", "{s}://:{m}", "{s}://u:{m}@", "{s}://u:{m}@/x", "{s}://u:{m}/x",
    "{s}://u:{m}@{h}:no/x", "{s}://u:{m}@{h}:99999/x", "{s}://u:{m}@ho st/x", "{s}://{h}/:{m}", "{s}://{h}/u:{m}@x", "{s}://u%3A{m}%40{h}/x",
    "{s}://u%253A{m}%2540{h}/x", "{s}%3A%2F%2Fu%3A{m}%40{h}%2Fx", "{s}%3A//u:{m}@{h}/x", "no{s}://u:{m}@{h}/x", "no-such://u:{m}@{h}/x",
    "u:{m}@{h}/x", "{m}@{h}", "host=h password={m}", "host=h password=u:{m}", " {s}://u:{m}@{h}/x", "{s} ://u:{m}@{h}/x", "jdbc:{s}://u:{m}@{h}/x",
    "{m}:x@{h}/x", "{m}:x", "{m}:", "{m}:/x",
]  # fmt: skip
QUERIES = [
    "password={m}", "user={m}", "sslpassword={m}", "aws_secret_access_key={m}", "token={m}", "sig={m}", "sv=1&sig={m}", "{m}",
    "timeout=1&{m}",
    "password=a&{m}", "password=a&{m}=b", "password=a@{m}", "password={m}@b", "timeout={m}", "pool={m}", "namespace={m}!", "prepare={m}",
    "tls={m}", "endpoint={m}", "endpoint=http://u:{m}@127.0.0.1:1", "endpoint=http%3A%2F%2Fu%3A{m}%40127.0.0.1%3A1",
    "emulator=u:{m}@127.0.0.1:1",
    "credentials={m}", "cert_key={m}", "vfs={m}", "shards={m}", "replication={m}!", "serial={m}", "create={m}", "path={m}",
    "tlsCertificateKeyFilePassword={m}", "authMechanismProperties={m}", "tls=maybe{m}", "options={m}",
]  # fmt: skip


def everything(error: BaseException, seen: set[int] | None = None) -> str:
    """All that can be printed of an error: as a traceback prints it and as its fields show it, with all that came before it."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return ""
    seen.add(id(error))
    texts = [str(error), repr(error), repr(error.args), repr(vars(error)), *traceback.format_exception_only(error)]
    return "\n".join(texts + [everything(other, seen) for other in (error.__cause__, error.__context__) if other is not None])


def what_it_says(url: str) -> str:
    """All that can be printed of opening this URL, and of the store where it opens."""
    try:
        with perdure.sync.open(url, create=False) as store:
            return f"{store!r} {store._store._core.backend!r}"  # type: ignore[attr-defined]
    except perdure.Error as error:
        return everything(error)


# pymongo leaves some of the sockets that it was connecting when its client is closed.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("scheme", schemes())
def test_a_login_is_in_nothing_that_is_shown(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    """However a URL is malformed, what stands where a user or a password could be meant is in no error, its causes, or the URL as shown."""
    for login in LOGINS:
        url = login.format(s=scheme, m=MARK, h=HOST)
        if login.endswith("/x") and not {"?", "#"} & {*login} and scheme not in LOCAL:
            url += f"?{QUICK}"
        assert MARK not in shown_url(url), login
        assert MARK not in what_it_says(url), login
    assert MARK not in "".join(capfd.readouterr())
    gc.collect()  # Here, where the warning of pymongo's sockets is ignored, and not in a later test.


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("scheme", schemes())
def test_an_option_is_in_nothing_that_is_shown(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    """No value of an option, known or not, and no name that could be part of a secret is in an error, or in the URL as shown."""
    place = {"memory": "memory:", "sqlite": "sqlite:////nowhere/x.db", "file": "file:///nowhere/x"}.get(scheme, f"{scheme}://{HOST}/x")
    for option in QUERIES:
        url = f"{place}?{option.format(m=MARK)}"
        url += f"&{QUICK}" if scheme not in LOCAL else ""
        assert MARK not in shown_url(url), option
        assert MARK not in what_it_says(url), option
    assert MARK not in "".join(capfd.readouterr())
    gc.collect()


@given(
    scheme=st.sampled_from(sorted({*schemes()} - {*LOCAL})),
    before=st.text("aU1:/?#@&=%[]+\\ .-", max_size=6),
    after=st.text("aU1:/?#@&=%[]+\\ .-", max_size=6),
    frame=st.sampled_from(["{s}://u:{p}@h:1/x?a=b", "{s}://{p}@h", "{s}:/{p}@h/x", "{s}://:{p}@h,i:2/x", "{s}://u:{p}@h?password={p}"]),
)
def test_a_password_of_any_characters_is_not_shown(scheme: str, before: str, after: str, frame: str) -> None:
    """A password with any unquoted characters around it is neither shown with the URL nor left in a text that repeats the URL."""
    url = frame.format(s=scheme, p=f"{before}{MARK}{after}")
    assert MARK not in shown_url(url)
    secrets = Secrets(url)
    assert MARK not in secrets.clean(f"could not parse {url!r}, or {url.rpartition('@')[0]}")
    assert MARK not in everything(secrets.cleaned(ValueError(url)))


def test_errors_of_libraries_are_cleaned_with_all_that_came_before() -> None:
    """Ours keep their class, facts and traceback; foreign ones that hold the secret anywhere are replaced; groups and notes too."""

    class ForeignError(Exception):
        def __init__(self, request: str) -> None:
            super().__init__("it failed")
            self.request = request

    def library() -> None:
        try:
            raise ForeignError(f"GET /?sig={MARK}")
        except ForeignError as error:
            raise ExceptionGroup("two", [ValueError(f"bad {MARK}"), OSError(2, "gone", f"/{MARK}")]) from error

    def engine() -> None:
        try:
            library()
        except ExceptionGroup as error:
            error.add_note(f"see {MARK}")
            raise perdure.Unavailable(f"It said {MARK}.", missing="key") from error

    secrets = Secrets(f"redis://u:{MARK}@h")
    with pytest.raises(perdure.Unavailable) as caught:
        engine()
    cleaned = secrets.cleaned(caught.value)
    assert cleaned is caught.value
    assert MARK not in everything(cleaned)
    assert MARK not in "".join(traceback.format_exception(cleaned))
    assert (cleaned.detail, cleaned.missing) == ("It said ***.", "key")  # type: ignore[attr-defined]
    assert "library" in "".join(traceback.format_exception(cleaned))


def test_what_is_no_secret_stays() -> None:
    """Scheme, hosts, path, harmless options and unknown names are told; short words and the place itself are not torn out of a sentence."""
    secrets = Secrets("postgresql://postgres:postgres@db.example:5432/postgres?sslmode=require")
    said = 'PostgreSQL at postgresql://db.example:5432/postgres: sslmode "require" is refused for user "postgres".'
    assert secrets.clean(said) == said.replace('user "postgres"', 'user "***"')
    assert Secrets("redis://a:the@h").clean("the other, then the last") == "*** other, then *** last"
    assert (
        Secrets("redis:/:secret@db").clean("The word secret is taken out, the others stay.")
        == "The word *** is taken out, the others stay."
    )
    assert shown_url("redis+cluster://u:p@[::1]:6379,h2/0?timeout=1") == "redis+cluster://[::1]:6379,h2/0"
    assert option_named("x://h?colour=red", [("colour", "red")], 0) == "'colour'"


def test_a_store_that_was_not_closed_is_named_without_its_secrets() -> None:
    """The warning and `repr` show the path; nothing of a URL's options that could be a secret."""
    store: Any = perdure.sync.open("memory:")
    store._store._core.url = f"postgresql://u:{MARK}@db/agents?password={MARK}@x"
    assert MARK not in repr(store)
    assert MARK not in repr(store._store)
    with pytest.warns(ResourceWarning) as caught:  # noqa: PT031 - the last name goes, and what is left is collected
        del store
        gc.collect()
    assert all(MARK not in str(warning.message) for warning in caught)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_a_server_that_refuses_a_login_repeats_nothing_of_it(engine: Engine, servers: Servers[Server]) -> None:
    """With a user and a password that the server does not know, what it and its client library say holds no password."""
    url = engine.url(servers(engine.server))
    scheme, _, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    for login in (f"nobody:{MARK}", f"nobody:a%2F{MARK}%40b", f":{MARK}"):
        assert MARK not in what_it_says(f"{scheme}://{login}@{hosts.rpartition('@')[2]}{slash}{path}"), login
    if scheme == "postgresql":
        assert MARK not in what_it_says(f"{url}&password={MARK}&sslpassword={MARK}@x")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What an SDK of OpenTelemetry is given, for the length of a test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.one_address], ids=str)
async def test_spans_and_debug_logs_repeat_nothing_of_a_login(
    engine: Engine, servers: Servers[Server], spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Opened with a password, used, and cut off from its server: neither the attributes and events of the spans nor what the client
    library logs at DEBUG has the password, nor the data of a session in a span."""
    server = servers(engine.server)
    port = server.port(server.nodes[0])
    caplog.set_level(logging.DEBUG)
    async with Proxy(port) as proxy:
        scheme, _, rest = engine.url(server).replace(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{proxy.port}").partition("://")
        hosts, slash, path = rest.partition("/")
        user, at, address = hosts.rpartition("@")
        url = f"{scheme}://{user.partition(':')[0] or 'nobody'}:{MARK}@{address if at else hosts}{slash}{path}&timeout=2&connect_timeout=1"
        try:
            async with perdure.open(url) as store:
                await store.append("s", Event("said", {"text": "of-the-session"}), key="k")
                proxy.silent = True
                with pytest.raises(perdure.Error):
                    await store.append("s", Event("said", {"text": "of-the-session"}))
                proxy.silent = False
        except perdure.Error as refused:
            said = everything(refused)
        else:
            said = ""
            assert {span.name for span in spans.get_finished_spans()} >= {"perdure.append"}
    assert MARK not in said
    written = [span.to_json() for span in spans.get_finished_spans()]
    assert not [text for text in written if MARK in text or "of-the-session" in text]
    assert not [record.getMessage() for record in caplog.records if MARK in record.getMessage()]
    assert MARK not in caplog.text
