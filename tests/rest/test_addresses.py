"""How a REST endpoint is given, and which parts of it must never be shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
import swapstore.aio
from swapstore import InvalidInput, Store
from swapstore.drivers.rest import address
from tests.rest.support import TOKEN

URL = "https://name.test"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SWAPSTORE_URL", "UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("swapstore.protocol.scriptless.probe.Undecided.ask_at_connect", _ask_nothing)


def _ask_nothing(*_: object) -> Iterator[None]:
    """None of the endpoints of these tests exists."""
    yield from ()


def test_a_store_says_where_it_is_and_nothing_else() -> None:
    """The repr of a store, as it appears in logs, shows the token."""
    with swapstore.connect(f"{URL}/base/", token=f" {TOKEN}\n") as store:
        assert store.where == URL
        for shown in (repr(store), str(store), repr(store._driver), repr(vars(store._driver))):
            assert TOKEN not in shown
    assert TOKEN not in repr(address.parse(URL, TOKEN, allow_http=False))


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables that the vendor's integrations set are not enough to connect."""
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", URL)
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    for connect in (swapstore.connect, swapstore.aio.connect):
        assert connect().where == URL
    assert address.parse(URL, None, allow_http=False).token == TOKEN
    assert address.parse(URL, f"{TOKEN}2", allow_http=False).token == f"{TOKEN}2"
    monkeypatch.setenv("SWAPSTORE_URL", "https://first.test")
    assert swapstore.connect().where == "https://first.test"


def test_without_any_variable_it_is_still_the_file() -> None:
    """A program on the embedded store is asked for a token."""
    with swapstore.connect() as store:
        assert store.where.startswith("sqlite")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@name.upstash.io",
        "https://hunter2@name.upstash.io",
        "https://:hunter2@name.upstash.io",
        "https://name.upstash.io?_token=hunter2",
        "https://name.upstash.io/?_token=hunter2",
        "https://name.upstash.io/#hunter2",
        "https://name.upstash.io:hunter2",
        "https://name.upstash.io/ hunter2",
        "https:///hunter2",
        "https://[hunter2",
        "https://hunter2\u00e9.test",
        "http://10.0.0.1/hunter2",
        "http://example.test/hunter2",
        "HTTP://example.test/hunter2",
        "http://127.0.0.1.example.test/hunter2",
    ],
)
@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_a_bad_url_is_refused_and_not_quoted(connect: type[Store], url: str) -> None:
    """The secret in a mistyped URL appears in the traceback."""
    with pytest.raises(InvalidInput) as caught:
        connect(url, token=TOKEN)  # type: ignore[call-arg,arg-type]
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        assert TOKEN not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("token", ["", "  ", "two words", "new\nline", "t\u00f6ken", 5])
def test_a_bad_token_is_refused_and_not_quoted(token: object) -> None:
    """A token with a line break adds a header to the request."""
    with pytest.raises(InvalidInput, match="token") as caught:
        swapstore.connect(URL, token=token)  # type: ignore[arg-type]
    assert not str(token).strip() or str(token) not in str(caught.value)


def test_a_missing_token_is_explained() -> None:
    """The message does not say where a token comes from."""
    with pytest.raises(InvalidInput, match="UPSTASH_REDIS_REST_TOKEN"):
        swapstore.connect(URL)


@pytest.mark.parametrize("target", ["redis://localhost:1/0", "sqlite:///a.db", None, object()])
def test_a_token_for_another_store_is_a_mistake(target: object) -> None:
    """A program with a REST token runs on another store than its author believes."""
    with pytest.raises(InvalidInput, match="token") as caught:
        swapstore.connect(target, token=TOKEN)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8079", "http://127.9.9.9", "http://localhost:80/x", "http://[::1]:8079"]
)
def test_plain_http_is_for_this_machine(url: str) -> None:
    """A local endpoint without a certificate cannot be used for development."""
    assert swapstore.connect(url, token=TOKEN).where.startswith("http://")


def test_plain_http_to_another_host_needs_consent() -> None:
    """A token is sent unencrypted to another host, without the caller's consent."""
    assert swapstore.connect("http://srh:80", token=TOKEN, allow_http=True).where == "http://srh"


def test_without_the_extra_the_message_says_what_to_install() -> None:
    """A user gets an ImportError that does not say which extra is missing."""
    program = (
        "import sys\n"
        "sys.modules['httpcore2'] = None\n"
        "import swapstore, swapstore.aio\n"
        "for connect in (swapstore.connect, swapstore.aio.connect):\n"
        "    try:\n"
        f"        connect({URL!r}, token='t')\n"
        "    except swapstore.InvalidInput as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'swapstore[upstash]'") == 2


def test_other_stores_do_not_load_the_http_client() -> None:
    """Every program loads an HTTP client that it may not have."""
    program = (
        "import sys, swapstore\n"
        "store = swapstore.connect('sqlite:///never-made.db')\n"
        "print(sorted({'httpcore2', 'httpx2', 'h11', 'anyio', 'ssl'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_over_rest_reads_are_more_patient() -> None:
    """A replica that is a second behind looks like damage, or a batch is too large for the endpoint."""
    policy = swapstore.connect(URL, token=TOKEN, max_request=1_000_000)._context.policy
    assert (policy.read_attempts, policy.first_wait_s, policy.longest_wait_s) == (8, 0.02, 0.5)
    assert policy.text_only
    assert policy.max_batch_bytes == 500_000
    assert not swapstore.connect("redis://localhost:1")._context.policy.text_only


def test_a_proxy_is_used_where_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reached from behind a company's proxy, or local endpoints are asked through it."""
    from swapstore.drivers.rest import transport  # noqa: PLC0415 - an extra

    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.test:3128")
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "inside.test")

    def proxy(url: str) -> object:
        return transport.pool_options(address.parse(url, TOKEN, allow_http=True))["proxy"]

    through = proxy(URL)
    assert through is not None
    assert "hunter2" not in repr(through)
    assert proxy("http://outside.test") is not None
    assert proxy("https://inside.test") is None
    assert proxy("http://127.0.0.1:1") is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://hunter2@proxy.test")
    with pytest.raises(InvalidInput, match="HTTPS_PROXY") as caught:
        proxy(URL)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_what_is_sent_together_fits_into_a_request(connect: Callable[..., Any]) -> None:
    """`publish_many` sends more at once than the endpoint takes, and every dataset is refused."""
    store = connect(URL, token=TOKEN, max_request=1000)
    assert store._context.policy.max_batch_bytes == 500
