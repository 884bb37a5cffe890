"""The page of one snapshot."""

from __future__ import annotations

import json
from urllib.parse import quote

import msgspec
import pytest

import swapstore
from swapstore.errors import Corrupt, InvalidInput
from swapstore.serve.page import nodes
from tests.serve.conftest import TOKEN, served
from tests.support.damage import Damage
from tests.support.html import Page, checked
from tests.support.web import Site

ONE = "/datasets/mena/versions/1"


def values(page: Page) -> list[str]:
    return [each.text for each in page.all("code") if each.attributes.get("class", "").startswith("value")]


def keys(page: Page) -> list[str]:
    return [each.text for each in page.all("span", class_="key")]


def test_numbers_and_strings_are_shown_as_they_are_stored(store: swapstore.Store, site: Site) -> None:
    """The page rounds a number that the payload has in full."""
    text = '[1.0, 1, 1E5, -0, 12345678901234567890123, 0.1000, 1e-7, "\\u0041\\n\\"", "\\u0000", true, null]'
    store.publish("mena", msgspec.Raw(text.encode()))
    shown = values(checked(site.get(ONE).body))
    assert shown == text[1:-1].split(", ")


def test_a_node_opens_in_place_or_as_a_page(store: swapstore.Store, site: Site) -> None:
    """What is inside cannot be seen without JavaScript, or the part that is loaded is a whole page."""
    store.publish("mena", {"a/b": {"c~d": [1, {"e": 2}]}, "": {"x": 1}, "empty": []})
    page = checked(site.get(ONE).body)
    assert keys(page) == ["a/b", "", "empty"]
    assert "object, 1 key" in page.text
    assert "array, 0 items" in page.text

    link = page.link("Open")
    assert link == f"{ONE}/tree?pointer=%2Fa~1b"
    assert page.all("details", hx_get=link, hx_trigger="toggle once")
    inside, alone = Page(site.get(link, HX_Request="true").body), checked(site.get(link).body)
    assert not inside.all("main")
    assert keys(inside) == keys(alone) == ["c~d"]
    assert inside.link("Open") == f"{ONE}/tree?pointer=%2Fa~1b%2Fc~0d"
    assert alone.link("a/b") == link
    deepest = checked(site.get(f"{ONE}/tree?pointer=%2Fa~1b%2Fc~0d%2F1%2Fe").body)
    assert values(deepest) == ["2"]
    assert keys(Page(site.get(f"{ONE}/tree?pointer=%2F", HX_Request="1").body)) == ["x"]


def test_many_children_are_paged(store: swapstore.Store, site: Site) -> None:
    """A long array freezes the browser, or its end cannot be reached."""
    store.publish("mena", list(range(1000, 1250)))
    seen: list[str] = []
    page = checked(site.get(ONE).body)
    while True:
        seen += values(page)
        more = [each for each in page.all("a") if each.text.endswith(" more")]
        if not more:
            break
        page = checked(site.get(more[0].attributes["href"]).body)
    assert seen == [str(n) for n in range(1000, 1250)]
    assert page.link("From the first") == f"{ONE}/tree?pointer="


def test_a_long_string_is_cut_and_can_be_seen(store: swapstore.Store, site: Site) -> None:
    """A megabyte of text is in the page, or its end is nowhere."""
    long = "é" * 500_000 + "<end>"
    store.publish("mena", {"x": long})
    answer = site.get(ONE)
    assert len(answer.body) < 10_000
    page = checked(answer.body)
    assert values(page)[0].startswith('"éé')
    assert "\ufffd" not in answer.body.decode()
    whole = site.get(page.link("all 1.0 MB"))
    assert whole.headers["Content-Type"] == "application/json"
    assert whole.json == long


def test_keys_and_values_are_text(store: swapstore.Store, site: Site) -> None:
    """A payload runs as a script in the browser, or turns the text around it."""
    hostile = "</code><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    store.publish("mena", {hostile: hostile, "rtl\u202e": "a\u202eb", "n": {hostile: {"x": "\x00"}}})
    for path in (
        ONE,
        f"{ONE}?search=script",
        f"{ONE}/tree?pointer=/n",
        f"{ONE}?pointer={quote('/' + hostile)}",
    ):
        answer = site.get(path)
        assert b"<script>alert" not in answer.body
        assert b"<img" not in answer.body
        assert "\u202e" not in "".join(each.text for each in checked(answer.body).elements)
    copied = {
        each.attributes["data-copy"]
        for each in checked(site.get(ONE).body).all("button")
        if "data-copy" in each.attributes
    }
    assert json.dumps("a\u202eb", ensure_ascii=False) in copied


def test_search_finds_keys_and_values_and_leads_to_them(store: swapstore.Store, site: Site) -> None:
    """A value that is there is not found, or the link leads to a page of the tree that does not show it."""
    store.publish("mena", {"a": [{"n": n, "Größe": "x"} for n in range(250)] + ['Straße\n"q"']})
    page = checked(site.get(f"{ONE}?search=249").body)
    assert "1 found." in page.text
    link = page.link("/a/249/n")
    assert checked(site.get(link.partition("#")[0]).body).all("li", id="found", aria_current="true")
    assert link.endswith("#found")

    assert "200 found so far; there may be more." in checked(site.get(f"{ONE}?search=GR%C3%96SSE").body).text
    quoted = checked(site.get(f"{ONE}?search={quote(chr(10) + chr(34) + 'Q')}").body)
    above = site.get(quoted.link("/a/250").partition("#")[0])
    assert "found" in checked(above.body).all("li", id="found")[0].attributes["class"]
    assert "Nothing found." in checked(site.get(f"{ONE}?search=nowhere").body).text


def test_search_finds_what_is_stored_as_an_escape() -> None:
    """A text that another producer wrote with escapes is skipped."""
    raw = b'{"a": {"b": "\\u0053tra\\u00dfe"}, "\\u0061c": 1, "d": [1.50]}'
    found, is_whole = nodes.search(raw, "STRASSE", 10, patience_s=60)
    assert [each.pointer for each in found] == ["/a/b"]
    assert is_whole
    assert [each.pointer for each in nodes.search(raw, "ac", 10, patience_s=60)[0]] == ["/ac"]
    assert [each.pointer for each in nodes.search(raw, "1.50", 10, patience_s=60)[0]] == ["/d/0"]


def test_a_search_that_takes_too_long_says_so(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search occupies a thread for minutes, or is cut short and says that there is nothing."""
    monkeypatch.setattr("swapstore.serve.page.snapshot.PATIENCE_S", -1)
    store.publish("mena", ["needle"])
    assert "0 found so far; there may be more." in checked(site.get(f"{ONE}?search=needle").body).text


def test_deep_nesting_does_not_fill_the_stack(store: swapstore.Store, site: Site) -> None:
    """A document that is nested as deeply as it may be cannot be shown; one nested deeper ends the server."""
    deep = 199
    store.publish("mena", msgspec.Raw(b'{"a":' * deep + b'"needle"' + b"}" * deep))
    page = checked(site.get(f"{ONE}/tree?pointer={'/a' * deep}").body)
    assert values(page) == ['"needle"']
    assert "more …" in page.text
    assert checked(site.get(f"{ONE}?search=needle").body).link("/a" * deep)
    for levels in (800, 100_000):
        raw = b"[" * levels + b"]" * levels
        try:
            assert nodes.at(raw, "/0") is not None
        except InvalidInput as error:
            assert "nested too deeply" in str(error)  # noqa: PT017


def test_what_is_no_pointer_or_leads_nowhere_is_told(store: swapstore.Store, site: Site) -> None:
    """A mistyped pointer ends in a traceback."""
    store.publish("mena", {"a": [1], "b": None})
    for pointer, status in {
        "a": 422,
        "/a~2": 422,
        "/a~": 422,
        "/x": 404,
        "/a/1": 404,
        "/a/01": 404,
        "/a/-": 404,
        "/a/-1": 404,
        "/a/٣": 404,
        "/a/9999999999999999999999": 404,
        "/a/0/0": 404,
        "/b": 200,
        "": 200,
    }.items():
        answer = site.get(f"{ONE}?pointer={quote(pointer)}")
        assert answer.status == status, pointer
        assert "Traceback" not in checked(answer.body).text


def test_a_version_that_is_gone_names_its_neighbours(store: swapstore.Store, site: Site) -> None:
    """A link to a version that was removed leads nowhere."""
    for n in range(3):
        store.publish("mena", n, id=f"run-{n}")
    store.erase("mena", id="run-1")
    answer = site.get("/datasets/mena/versions/2")
    assert answer.status == 404
    gone = checked(answer.body)
    assert (gone.link("Older: 1"), gone.link("Newer: 3")) == (ONE, "/datasets/mena/versions/3")
    assert site.get(gone.link("Timeline")).status == 200
    assert site.get("/datasets/nothing/versions/1").status == 404
    assert site.get("/datasets/mena/versions/x").status == 404
    assert site.get("/datasets/mena/versions/99999999999999999999").status == 404
    page = checked(site.get("/datasets/mena/versions/3").body)
    assert page.link("Older: 1") == ONE
    assert checked(site.get(ONE).body).link("Newer: 3") == "/datasets/mena/versions/3"


def test_binary_payloads_are_shown_as_bytes(store: swapstore.Store, site: Site) -> None:
    """The page tries to decode what is not JSON."""
    store.publish("mena", b"<b>\x00\xff" + bytes(300), codec="bytes")
    page = checked(site.get(ONE).body)
    assert page.rows()[0][:2] == ["0000", "3c 62 3e 00 ff" + " 00" * 11]
    assert len(page.rows()) == 16
    assert "the first 256 of 305 bytes" in page.text
    assert site.get(page.link("Download")).body[:5] == b"<b>\x00\xff"
    assert site.get(f"{ONE}/tree?pointer=", HX_Request="true").status == 404
    assert site.get(f"{ONE}/json?pointer=").status == 404
    store.publish("mena", b"", codec="bytes")
    assert "It is empty." in checked(site.get("/datasets/mena/versions/2").body).text


def test_a_damaged_payload_has_facts_and_advice(real_url: str, store: swapstore.Store) -> None:
    """The page that should say what is damaged fails, or tells strangers where the store is."""
    store.publish("mena", {"a": 1}, id="one", labels={"run": "1"})
    Damage(store).delete("swapstore:id:{mena}:one")
    with served(real_url, allow_writes=True, token=TOKEN) as site:
        reader, writer = (site.get(ONE, **headers) for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}))
    assert (reader.status, writer.status) == (500, 500)
    for answer in (reader, writer):
        page = checked(answer.body)
        assert "run=1" in page.text
        assert "swapstore verify mena" in page.text
        assert "PayloadMissing" in page.text or answer is writer
    assert b"swapstore:id:{mena}:one" in writer.body
    assert b"swapstore:id:{mena}:one" not in reader.body


def test_members_of_a_group_are_chosen_and_shown(store: swapstore.Store, site: Site) -> None:
    """The tree of a group is that of its table, or the links of a member lose it."""
    store.publish_group("mena", {"EG": {"a": {"b": 1}}, "IL/north": [1]})
    page = checked(site.get(ONE).body)
    assert not values(page)
    one = checked(site.get(page.link("EG")).body)
    assert one.all("a", aria_current="page")[0].text == "EG"
    inside = checked(site.get(one.link("Open")).body)
    assert keys(inside) == ["b"]
    assert site.get(inside.link("JSON")).json == {"b": 1}
    assert site.get(inside.link("Download")).json == {"a": {"b": 1}}
    assert values(checked(site.get(inside.link("Over time")).body))
    assert "1 found." in checked(site.get(f"{ONE}?member=EG&search=b").body).text
    assert site.get(f"{ONE}?member=XX").status == 404
    assert site.get(f"{ONE}?member=%00%3Cscript%3E").status == 404


@pytest.mark.parametrize("raw", [b"", b" ", b'{"a": "\\ud800"}', b"[1", b"{\xff", b"\xff", b"[NaN]"])
def test_what_is_not_json_is_damage(raw: bytes) -> None:
    """A payload that another program wrote ends in a traceback."""
    with pytest.raises(Corrupt, match="JSON"):
        nodes.at(raw, "/a")


def test_a_document_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of 30 million numbers takes gigabytes of memory to show a hundred of them."""
    monkeypatch.setattr(nodes, "MOST_PARTS", 3)
    assert nodes.at(b"[1,2,3,4]", "/3") is not None
    with pytest.raises(InvalidInput, match="download it"):
        nodes.at(b"[1,2,3,4,5]", "/3")


def test_neighbours_are_the_next_ones(store: swapstore.Store, site: Site) -> None:
    """Somebody who goes through the versions one by one skips some."""
    for n in range(5):
        store.publish("mena", n)
    page = checked(site.get("/datasets/mena/versions/2").body)
    assert page.link("Older: 1") == ONE
    assert page.link("Newer: 3") == "/datasets/mena/versions/3"


def test_the_json_of_a_member_is_that_of_this_member(store: swapstore.Store, site: Site) -> None:
    """The text of another member is downloaded, or taken over."""
    store.publish_group("mena", {"EG": [1], "IL/north": [2]})
    page = checked(site.get(f"{ONE}?member=IL%2Fnorth").body)
    assert site.get(page.link("JSON")).json == [2]
    assert site.get(page.link("Download")).json == [2]


def test_keys_that_look_like_escapes_of_pointers() -> None:
    """The pointer of a key leads to another key."""
    raw = b'{"~1": "tilde one", "/": "slash", "~01": "tilde zero one", "~0": "tilde zero", "~": "tilde"}'
    for node in nodes.children(nodes.root(raw)):
        assert nodes.at(raw, node.pointer) == node
