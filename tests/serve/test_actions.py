"""Pin, unpin, rollback and confirm from the page: what is shown, what is done, and when nothing is."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

import swapstore
from tests.serve.conftest import READ_TOKEN, TOKEN, served
from tests.support.html import checked
from tests.support.web import Answer, Site

FORM = "application/x-www-form-urlencoded"
PAGE = "/datasets/eu%2Fx"


@pytest.fixture
def session(site: Site) -> dict[str, str]:
    """What the browser of a person sends who is signed in to write."""
    body = urlencode({"token": TOKEN}).encode()
    answer = site.send("POST", "/login", body, Content_Type=FORM)
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], "Sec_Fetch_Site": "same-origin"}


@pytest.fixture
def versions(store: swapstore.Store) -> None:
    """Three versions: the labels of the first one are hostile."""
    store.publish("eu/x", "x" * 2000, id="one", labels={"run": "<script>alert(1)</script>"})
    store.publish("eu/x", "x" * 20, id="two")
    store.publish("eu/x", "x", id="three")


def submit(site: Site, path: str, etag: str, session: dict[str, str]) -> Answer:
    return site.send("POST", path, urlencode({"etag": etag}).encode(), Content_Type=FORM, **session)


def status(store: swapstore.Store) -> swapstore.Status:
    found = store.status("eu/x")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("action", "says", "served_and_latest"),
    [
        ("pin?version=1", b"until it is unpinned", ("one", "three")),
        ("rollback?version=1", b"becomes the latest", ("two", "one")),
        ("unpin", b"version 3 again", ("three", "three")),
        ("confirm", b"still current", ("two", "three")),
    ],
)
@pytest.mark.usefixtures("versions")
def test_it_is_shown_and_then_done(  # noqa: PLR0917
    site: Site,
    store: swapstore.Store,
    session: dict[str, str],
    action: str,
    says: bytes,
    served_and_latest: tuple[str, str],
) -> None:
    """A click changes what all readers get before the person has seen what it does, or does nothing."""
    store.pin("eu/x", version=2)
    before = status(store)
    page = site.get(f"{PAGE}/{action}", **session)
    assert page.status == 200
    assert says in page.body
    assert f'action="{PAGE}/{action}"'.encode() in page.body
    assert f'value="{before.etag}"'.encode() in page.body
    assert b"<script>alert" not in page.body
    assert status(store) == before

    done = submit(site, f"{PAGE}/{action}", before.etag, session)
    assert (done.status, done.headers["Location"]) == (303, f"{PAGE}?done={action.partition('?')[0]}")
    after = status(store)
    assert (after.serving.id, after.latest.id) == served_and_latest
    assert after.version == before.version + 1


@pytest.mark.usefixtures("versions")
def test_the_versions_are_shown(site: Site, session: dict[str, str]) -> None:
    """A person rolls back to a version without having seen how large it is, or what it is."""
    page = site.get(f"{PAGE}/rollback?version=1", **session).body.decode()
    for text in ("three", "one", "2.0 KB", "3 B", "run=&lt;script&gt;alert(1)&lt;/script&gt;"):
        assert text in page


@pytest.mark.parametrize("seen", ["", "other", "0.1.0"])
@pytest.mark.usefixtures("versions")
def test_what_has_moved_on_is_shown_anew(
    site: Site, store: swapstore.Store, session: dict[str, str], seen: str
) -> None:
    """A person rolls back what they have seen, and undoes what was published since."""
    shown = status(store).etag
    store.publish("eu/x", 4, id="four")
    before = status(store)
    answer = submit(site, f"{PAGE}/rollback?version=1", seen or shown, session)
    assert answer.status == 409
    assert b"Nothing was done" in answer.body
    assert b"four" in answer.body
    assert f'value="{before.etag}"'.encode() in answer.body
    assert status(store) == before


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("pin", 422),
        ("pin?version=x", 422),
        ("pin?version=9", 404),
        ("rollback?version=0", 404),
        ("reset", 404),
    ],
)
@pytest.mark.usefixtures("versions")
def test_a_version_that_is_not_there(
    site: Site, store: swapstore.Store, session: dict[str, str], action: str, expected: int
) -> None:
    """Another version is pinned than the one in the address."""
    before = status(store)
    assert site.get(f"{PAGE}/{action}", **session).status == expected
    assert submit(site, f"{PAGE}/{action}", before.etag, session).status == expected
    assert status(store) == before


@pytest.mark.usefixtures("versions")
def test_what_is_so_already(site: Site, session: dict[str, str]) -> None:
    """A person is asked to confirm what changes nothing."""
    for action in ("unpin", "rollback?version=3"):
        page = site.get(f"{PAGE}/{action}", **session)
        assert b"like that already" in page.body
        assert b'name="etag"' not in page.body


@pytest.mark.usefixtures("versions")
def test_who_may_not_write_is_not_asked(real_url: str, site: Site, store: swapstore.Store) -> None:
    """A person who only reads gets a button, and then an error."""
    path = f"{PAGE}/pin?version=1"
    login = f"/login?next={'%2Fdatasets%2Feu%252Fx%2Fpin%3Fversion%3D1'}"
    assert site.get(path).headers["Location"] == login
    answer = submit(site, path, status(store).etag, {})  # the session has expired
    assert (answer.status, answer.headers["Location"]) == (303, login)
    with served(real_url, read_token=READ_TOKEN) as reading:
        page = reading.get(path, Authorization=f"Bearer {READ_TOKEN}")
        assert page.status == 403
        assert b"--allow-writes" in page.body
    assert status(store).pinned is None


@pytest.mark.parametrize("what", ["pin", "unpin", "rollback", "confirm"])
@pytest.mark.usefixtures("versions")
def test_a_notice_after_it(site: Site, what: str) -> None:
    """A person does not see that it was done, or an address shows a text of somebody else."""
    assert b'role="status"' in site.get(f"/?done={what}").body
    assert b'role="status"' not in site.get("/?done=<b>your%20data%20is%20lost</b>").body


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("body", [b"", b"etag="])
def test_a_form_without_the_state_that_was_seen_does_nothing(
    site: Site, store: swapstore.Store, session: dict[str, str], body: bytes
) -> None:
    """A script, or half a page, changes what readers get, and nobody has seen what it changes."""
    before = status(store)
    answer = site.send("POST", f"{PAGE}/rollback?version=1", body, Content_Type=FORM, **session)
    assert answer.status == 409
    assert status(store) == before


@pytest.mark.usefixtures("versions")
def test_a_rollback_below_a_pin_says_that_readers_do_not_see_it(
    site: Site, store: swapstore.Store, session: dict[str, str]
) -> None:
    """An operator expects that readers get the old version now, and they go on getting what is pinned."""
    store.pin("eu/x", version=2)
    page = checked(site.get(f"{PAGE}/rollback?version=1", **session).body)
    assert [row[:2] for row in page.rows()] == [["now", "2"], ["then", "2"]]
    assert "Version 2 is pinned" in page.text
