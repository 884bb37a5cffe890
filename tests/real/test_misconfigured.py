"""What waiting does not cure: no outage, no retries, an exit code of its own. On real servers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import swapstore
from swapstore import errors
from swapstore.errors import AccessDenied, Misconfigured, SwapstoreError, Unavailable
from tests.cli.conftest import Swapstore
from tests.support.valkey import Server

PASSWORD = "right"  # noqa: S105 - of a server of this test
KINDS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, SwapstoreError)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server", "--requirepass", PASSWORD) as server:
        yield server


def test_a_wrong_password_is_not_try_again_later(server: Server, tmp_path: Path) -> None:
    """A cron job retries for hours with a password that has been changed."""
    url = f"redis://:wrong@127.0.0.1:{server.port}/0"
    with swapstore.connect(url) as store:
        with pytest.raises(Misconfigured) as caught:
            store.publish("mena", 1)
        assert not isinstance(caught.value, Unavailable)
        assert caught.value.published is False
        assert str(caught.value).endswith("Nothing was published.")
    done = Swapstore(tmp_path)("publish", "mena", stdin=b"1", env={"SWAPSTORE_URL": url})
    assert done.code == 8
    assert "Nothing was published." in done.err
    assert "wrong@" not in done.err


def test_a_missing_password_shows_the_form_of_the_url(server: Server, tmp_path: Path) -> None:
    """A newcomer tries the forms in which a password may be written in a URL."""
    done = Swapstore(tmp_path)("latest", "mena", "--url", server.url)
    assert done.code == 8
    assert f"write redis://:PASSWORD@127.0.0.1:{server.port}/0" in done.err
    with server.client() as client, pytest.raises(AccessDenied, match="pass password= to the client"):
        swapstore.connect(client).read_latest("mena")


def test_a_redis_server_behind_http_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer looks for a fault in the network, and the URL has another scheme."""
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", "any")
    with pytest.raises(Unavailable, match="Is it a Redis server. Then the URL is redis://"):
        swapstore.connect(f"http://127.0.0.1:{server.port}").read_latest("mena")


def test_a_follower_ends_when_its_password_is_changed(server: Server) -> None:
    """A follower waits for ever, silently, for a server that refuses it."""
    with swapstore.connect(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0") as store:
        store.publish("mena", 1)
        follower = store.follow("mena", after=0, poll=0.05)
        assert next(follower).version == 1  # type: ignore[union-attr]
        with server.client(password=PASSWORD) as admin:
            admin.config_set("requirepass", "changed")
            for client in admin.client_list():
                if client["id"] != str(admin.client_id()):
                    admin.client_kill_filter(_id=client["id"])
        with pytest.raises(AccessDenied, match="refused the credentials"):
            next(follower)


@pytest.mark.parametrize(("name", "value"), [("me na", 1), ("mena", {1})])
def test_a_publish_of_bad_input_says_that_nothing_was_published(
    tmp_path: Path, name: str, value: object
) -> None:
    """A producer that reads the error asks itself what readers see now."""
    with swapstore.connect(f"sqlite:///{tmp_path}/s.db") as store:
        with pytest.raises(errors.InvalidInput) as caught:
            store.publish(name, value)
        assert caught.value.published is False
        assert str(caught.value).endswith("Nothing was published.")
        (failure,) = store.publish_many({name: value}).failures.values()
        assert failure.published is False
        with pytest.raises(errors.InvalidInput) as reading:
            store.read_latest("me na")
        assert "published." not in str(reading.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_says_whether_anything_was_published(kind: type[SwapstoreError]) -> None:
    """Somebody looks an error up and does not learn what readers see now."""
    texts = " ".join(each.__doc__ or "" for each in kind.__mro__ if each in KINDS[1:])
    words = ("published", "committed", "Nothing was written", "Nothing was changed", "commits is lost")
    assert kind is SwapstoreError or any(word in texts for word in words)
