"""What the drivers for a cluster know about it, and decide. No I/O.

A slot can move at any time. The node that is asked then refuses the command, having carried out nothing:

- `MOVED`: another node serves the slot from now on. It is learned at once, and the whole table is read again
  soon, because one slot seldom moves alone.
- `ASK`: the slot is on its way, and this one key is not here (any more). The next send of *this key* goes to
  the other node, each command after an `ASKING`. Never the whole slot: the other node would answer that a key
  which is still here does not exist.
- `TRYAGAIN`: the keys of one command are on both sides. It works when the migration of the slot is over.
- `CLUSTERDOWN`: a primary is gone, and no replica has taken over yet.

Each becomes `Failed` with `again`, and the engine sends again. So does the group of a node that cannot be
reached. A group whose replies are lost makes the batch `ReplyLost`, once the other groups have been read.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import redis

from swapstore.commands import Ask, AwaitReplicas, Command, Failed, ReadCommand, Register, Unregister
from swapstore.drivers.base import closed
from swapstore.drivers.redis import errors
from swapstore.drivers.redis.address import shown
from swapstore.drivers.redis.driver import answers, too_few_replicas
from swapstore.drivers.redis.elsewhere import final
from swapstore.drivers.redis.replicas import Doubts
from swapstore.drivers.redis.slots import (
    SLOTS,
    Address,
    Place,
    Redirection,
    Table,
    keys_of,
    ranges,
    slot_of,
)
from swapstore.drivers.redis.wire import bundled
from swapstore.errors import ReplyLost, StoreClosed, SwapstoreError, Unavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from swapstore.drivers.redis.address import ClusterAddress
    from swapstore.drivers.redis.driver import Request

REFRESH_EVERY_S = 0.1  # the table is read at most so often, however many commands ask for it
REREAD_S = 10.0  # to find new replicas; for them it is read at most once in a tenth of that
LASTING_S = 1.0  # a slot that answers TRYAGAIN for so long is asked where it is moving
FORGOTTEN_S = 10.0  # a TRYAGAIN after so long belongs to another migration
ASKED_S = 2.0  # an ASK after so long does too: what is sent again comes sooner


@attrs.define(eq=False)
class Group:
    """The commands of a batch for one node, and what became of them."""

    node: Address
    asking: bool
    places: list[int] = attrs.field(factory=list)  # in the batch
    commands: list[Command[Any]] = attrs.field(factory=list)
    units: list[Command[Any]] = attrs.field(factory=list)
    driver: Any = None
    request: Request | None = None  # sent, and not received
    replies: list[Any] | None = None
    failure: SwapstoreError | None = None
    moving: dict[int, str] = attrs.field(factory=dict)  # slots on their way, by what the node says

    @property
    def is_about_node(self) -> bool:
        """Whether the commands ask this node about itself, so that no other one can answer."""
        first = self.commands[0]
        return type(first) is Ask and bool(first.node)

    @property
    def is_harmless(self) -> bool:
        """Whether the commands can be sent twice: they only read, or change whether a name is in a set."""
        return all(isinstance(each, ReadCommand | Register | Unregister) for each in self.commands)


class Topology:
    """What both drivers know about a cluster, and decide. It does no I/O."""

    kind = "cluster"
    binary_safe = True

    def __init__(self, place: ClusterAddress) -> None:
        self.where = place.where
        self._place = place
        self._table: Table | None = None
        self._asks: dict[str, tuple[Address, float]] = {}  # where an ASK sends a key, for one send, and when
        self._unreached: set[Address] = set()  # nodes that could not be reached: asked last
        self._first: Address | None = None  # the node to ask first for the table
        self._turns = itertools.count(1)
        self._asked: dict[Address, int] = {}  # at which turn a node was last asked for the table
        self._stale = False
        self._refreshed_at = float("-inf")
        self._trying: dict[int, tuple[float, float]] = {}  # by slot: the first and the last TRYAGAIN
        self._closed = False
        self._doubts = Doubts()

    @property
    def reply_s(self) -> float | None:
        """How long it waits for a reply in silence, in seconds. None: it has no bound."""
        found: float | None = self._place.options.get("socket_timeout")
        return found

    # --- the table ---------------------------------------------------------------------------------

    def _is_outdated(self) -> bool:
        """Say whether to read the table now."""
        if self._closed:
            raise closed()
        if self._table is None:
            return True
        age_s = time.monotonic() - self._refreshed_at
        if self._place.to_replicas:
            return age_s >= (REREAD_S / 10 if self._stale else REREAD_S)
        return self._stale and age_s >= REFRESH_EVERY_S

    def _refreshing(self) -> Generator[Address, Any, None]:
        """Yield a node to ask for `CLUSTER SLOTS`, until one answers with a table. Send what it answers.

        Raises `Unavailable` if none does, `AccessDenied` if they refuse, `Unsupported` if it is no cluster.
        """
        self._stale, self._refreshed_at = False, time.monotonic()
        known = self._table.nodes if self._table else []
        candidates = dict.fromkeys([*([self._first] if self._first else []), *known, *self._place.seeds])
        problems: dict[Address, SwapstoreError] = {}
        for node in sorted(candidates, key=self._rank):
            self._asked[node] = next(self._turns)
            reply = yield node
            if isinstance(reply, StoreClosed):
                raise reply
            if isinstance(reply, SwapstoreError):
                if "cluster support disabled" in str(reply) and self._table is None:
                    raise Unsupported(
                        f"{shown(node)} is no node of a cluster: write redis://{shown(node)} (or rediss://)"
                    )
                self._unreached.add(node)
                problems[node] = reply
                continue
            table = Table.parse(reply, node)
            if self._place.remap is not None:
                table = table.mapped(self._place.remap)
            self._unreached.discard(node)
            if not table.replicas:
                problems[node] = Unavailable(f"{shown(node)} knows no slot that is served")
                continue
            self._table, self._first = table, node
            self._asks = {key: each for key, each in list(self._asks.items()) if _is_fresh(each)}
            return
        self._stale = True
        raise closed() if self._closed else self._without_table(problems)

    def _rank(self, node: Address) -> tuple[bool, int]:
        """Order the nodes to ask for the table: those that could be reached, and were not asked lately."""
        return node in self._unreached, 0 if node == self._first else self._asked.get(node, 0)

    def _doubt(self) -> None:
        """Read the table again, and from another node: the one that was asked may have been cut off."""
        self._stale, self._first = True, None

    def _without_table(self, problems: dict[Address, SwapstoreError]) -> SwapstoreError:
        for error in problems.values():
            if not isinstance(error, Unavailable):
                return error
        reasons = "; ".join(str(error.args[0]) for error in list(problems.values())[:3])
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""  # noqa: PLR2004
        return errors.passing(
            Unavailable(
                f"no node of {self.where} can say which node serves which slot: {reasons}{more}. Is the "
                "cluster running, with slots assigned, and the address right?"
            )
        )

    def _without_refresh(self, error: SwapstoreError) -> Failed | None:
        """Return the refusal of a batch when the table could not be read again. None: go on with the old one.

        Raises the error if there is no table, or the store is closed.
        """
        if self._table is None or isinstance(error, StoreClosed):
            raise error
        return Failed(error, again=True) if isinstance(error, Unavailable) else None

    def _known(self) -> set[Address]:
        return {*(self._table.nodes if self._table else []), *self._place.seeds}

    # --- groups ------------------------------------------------------------------------------------

    def _groups(self, commands: Sequence[Command[Any]]) -> tuple[list[Group], list[Any]]:
        """Divide a batch by nodes. Returns the groups, and a list with the refusal of what no node serves.

        The groups have one order for all batches: no two batches wait for a connection that the other has.
        """
        table = self._table
        assert table is not None  # noqa: S101 - the caller has read it
        found: list[Any] = [None] * len(commands)
        groups: dict[tuple[Address, bool], Group] = {}
        asked: set[str] = set()
        readers: dict[Address, Address | None] = {}
        for i, command in enumerate(commands):
            if type(command) is Ask and command.words == ("nodes",):
                found[i] = table.names()
                continue
            place = self._place_of(command, table, asked, readers)
            if isinstance(place, Failed):
                found[i] = place
                continue
            group = groups.get(place)
            if _is_parted(commands, i, group):
                found[i] = self._parted(slot_of(command) or 0)
                continue
            if group is None:
                group = groups[place] = Group(*place)
            group.places.append(i)
            group.commands.append(command)
        for key in asked:
            self._asks.pop(key, None)
        for group in groups.values():
            group.units = bundled(group.commands)
        return [groups[place] for place in sorted(groups)], found

    def _place_of(
        self, command: Command[Any], table: Table, asked: set[str], readers: dict[Address, Address | None]
    ) -> tuple[Address, bool] | Failed:
        """Return the node for a command, and whether to send ASKING before it; or a refusal: there is none.

        Notes in `asked` that an ASK was followed, and in `readers` which replica stands for a primary.
        """
        slot = slot_of(command)
        node = self._any(command, table) if slot is None else table.owners[slot]
        asking = False
        if self._asks and slot is not None:
            key = keys_of(command)[0]
            if (told := self._asks.get(key)) is not None:
                node, asking = told[0], True
                asked.add(key)
        if node is None:
            return self._unserved(slot) if slot is not None else self._unknown(command)
        if not self._place.to_replicas:
            return node, asking
        if node not in readers:
            readers[node] = self._doubts.choose(table.replicas.get(node, ()))
        reader = readers[node]
        return self._unread(node) if reader is None else (reader, asking)

    def _any(self, command: Command[Any], table: Table) -> Address | None:
        """Return the node for a command without a key: the one that it names, or one that serves slots."""
        if type(command) is Ask and command.node:
            return next((node for node in table.nodes if shown(node) == command.node), None)
        return min(table.primaries, key=lambda node: node in self._unreached)

    def _unknown(self, command: Any) -> Failed:
        return Failed(Unavailable(f"{command.node} is no node of {self.where}, or has just left it"))

    def _unserved(self, slot: int) -> Failed:
        self._stale = True
        return Failed(
            Unavailable(f"slot {slot} is served by no node of {self.where}{self._gaps()}"), again=True
        )

    def _unread(self, primary: Address) -> Failed:
        return Failed(
            Unavailable(f"{shown(primary)}, a primary of {self.where}, has no replica that can be reached")
        )

    def _parted(self, slot: int) -> Failed:
        """Return the refusal of a wait for replicas whose write goes to another node: it is about nothing."""
        return Failed(
            Unavailable(f"slot {slot} of {self.where} is moving, so no node can wait for its replicas"),
            again=True,
        )

    def _gaps(self) -> str:
        missing = self._table.unserved() if self._table else []
        if not missing:
            return ""
        return (
            f"; {len(missing):,} of {SLOTS:,} slots are not served ({ranges(missing)}). Bring their node "
            "back, or assign them to another one (valkey-cli --cluster fix host:port)"
        )

    # --- outcomes ----------------------------------------------------------------------------------

    def _outcome(self, groups: list[Group], found: list[Any]) -> list[Any]:
        """Fill in the answers of all groups. Raises `ReplyLost` if some of them may have been carried out."""
        lost: ReplyLost | None = None
        for group in groups:
            failure = group.failure
            if group.is_about_node and not isinstance(failure, StoreClosed):
                self._note_answers(group, found)
                continue
            if failure is None:
                self._learn(group)
                try:
                    replies = answers(
                        group.units,
                        group.replies or [],
                        group.driver.where,
                        partial(self._refused, group),
                    )
                except Unavailable as error:  # it is loading its data
                    failure = error
                else:
                    self._unreached.discard(group.node)
                    if too_few_replicas(group.commands, replies):  # an old primary that was cut off, perhaps
                        self._stale = True
                        self._doubts.add(group.node)
                    for i, reply in zip(group.places, replies, strict=True):
                        found[i] = reply
                    continue
            if isinstance(failure, StoreClosed):
                raise failure
            self._note_unreached(group.node)
            if isinstance(failure, ReplyLost) and not (group.is_harmless and len(groups) > 1):
                lost = lost or failure
            again = isinstance(failure, Unavailable) and (failure.again or isinstance(failure, ReplyLost))
            for i in group.places:
                found[i] = Failed(failure, again=again)
        if lost is not None:
            raise lost
        return found

    def _note_answers(self, group: Group, found: list[Any]) -> None:
        """Fill in what a node says of itself, or that it says nothing. That is final."""
        failure, replies = group.failure, group.replies or []
        if failure is None:
            try:
                replies = answers(group.units, replies, group.driver.where, partial(self._refused, group))
            except Unavailable as error:  # it is loading its data
                failure = error
        else:
            self._note_unreached(group.node)
        for i, place in enumerate(group.places):
            found[place] = final(replies[i]) if failure is None else Failed(failure)

    def _note_unreached(self, node: Address) -> None:
        """Note that a node could not be reached: it may be gone, and another one serve its slots."""
        self._unreached.add(node)
        self._doubts.add(node)
        self._doubt()

    def _learn(self, group: Group) -> None:
        """Learn from the errors that a node replied with."""
        for unit, reply in zip(group.units, group.replies or [], strict=True):
            if not isinstance(reply, redis.ResponseError):
                continue
            text = errors.text_of(reply)
            told = Redirection.parse(text, group.node)
            if told is not None:
                to = self._place.remap(told.to) if self._place.remap else told.to
                if told.once:
                    self._asks.update(dict.fromkeys(keys_of(unit), (to, time.monotonic())))
                else:
                    self._stale, self._first = True, to
                    self._unreached.discard(to)
                    if self._table is not None:
                        self._table.learn(told.slot, to)
            elif text.startswith(("CLUSTERDOWN", "READONLY", "MASTERDOWN")):
                self._doubt()

    def _left(self, node: Address, error: SwapstoreError) -> SwapstoreError:
        """Return the error of a node. Its driver is closed, too, when it has left the cluster."""
        if isinstance(error, StoreClosed) and not self._closed:
            return errors.passing(Unavailable(f"{shown(node)} has just left {self.where}"))
        return error

    def _lasting(self, group: Group) -> bool:
        """Note which slots of a group answer TRYAGAIN. Returns whether one has done so for some time."""
        lasting, now = False, time.monotonic()
        for unit, reply in zip(group.units, group.replies or [], strict=True):
            if isinstance(reply, redis.ResponseError) and errors.text_of(reply).startswith("TRYAGAIN"):
                slot = slot_of(unit) or 0
                first, last = self._trying.get(slot, (now, now))
                first = now if now - last > FORGOTTEN_S else first
                self._trying[slot] = first, now
                lasting = lasting or now - first >= LASTING_S
        return lasting

    def _refused(self, group: Group, error: redis.RedisError, where: str, command: Command[Any]) -> Failed:
        """Turn the error that a node replied with into the answer to a command."""
        text, slot = errors.text_of(error), slot_of(command) or 0
        told = Redirection.parse(text, group.node)
        if told is not None and not told.once:
            problem = f"slot {told.slot} is served by {shown(told.to)}, says {where}: it has just moved"
        elif told is not None or text.startswith("TRYAGAIN"):
            here = shown(group.node)
            way = f"from {here} to {shown(told.to)}" if told else group.moving.get(slot, f"from or to {here}")
            problem = (
                f"slot {slot} of {self.where} is moving {way}, and its keys are on both nodes. If this "
                "lasts, the migration is stuck: finish it (valkey-cli --cluster fix host:port), and try again"
            )
        elif text.startswith("CLUSTERDOWN"):
            problem = f"{where} cannot serve slot {slot} now ({text}){self._gaps()}"
        else:
            return errors.failed(error, where, command)
        return Failed(Unavailable(problem, key=getattr(command, "key", None)), again=True)

    # --- scans -------------------------------------------------------------------------------------

    def _state(self, moving: dict[int, str]) -> str:
        """Return a text that changes when a slot moves, and begins with `+` while one is on its way."""
        table = hash(tuple(self._table.owners)) if self._table else 0
        return f"{'+' if moving else ''}{table:x}.{hash(frozenset(moving.items())):x}"

    def _next_place(self, place: Place, cursor: str | None) -> Place | None:
        """Return where a scan goes on after a node's answer. None: this pass is over."""
        if cursor is not None:
            return attrs.evolve(place, cursor=cursor)
        primaries = self._table.primaries if self._table else []
        after = primaries[primaries.index(place.node) + 1 :] if place.node in primaries else primaries
        return attrs.evolve(place, node=after[0], cursor="0") if after else None

    def _begin(self, number: int, state: str) -> Place:
        assert self._table is not None  # noqa: S101 - it was just read
        return Place(number, state, self._table.primaries[0], "0")

    def _is_here(self, place: Place | None) -> bool:
        """Say whether the node of a scan is still a primary: another one's cursors are worth nothing."""
        return place is not None and self._table is not None and place.node in self._table.primaries

    # --- nodes -------------------------------------------------------------------------------------

    def _where_of(self, node: Address) -> str:
        return f"{shown(node)} (a node of {self.where})"

    def _options_of(self, node: Address) -> dict[str, Any]:
        return {**self._place.options, "host": node[0], "port": node[1]}

    def _subscribers(self, channels: Sequence[str]) -> Callable[[], Address]:
        """Return a function that names the node to subscribe on: another one at each call.

        A hint reaches every node. The first one named is that of the first dataset, which publishes it.
        """
        calls = itertools.count()
        slot = slot_of(Ask(("ZSCAN", channels[0]))) if channels else None

        def node() -> Address:
            table = self._table
            owner = table.owners[slot] if table and slot is not None else None
            nodes = [*([owner] if owner else []), *(table.nodes if table else []), *self._place.seeds]
            nodes = sorted(dict.fromkeys(nodes), key=lambda each: each in self._unreached)
            return nodes[next(calls) % len(nodes)]

        return node


def _is_parted(commands: Sequence[Command[Any]], i: int, group: Group | None) -> bool:
    """Say whether a command waits for replicas to have the write before it, and that goes to another node."""
    if i == 0 or type(commands[i]) is not AwaitReplicas:
        return False
    is_same = slot_of(commands[i - 1]) == slot_of(commands[i])
    return is_same and (group is None or group.places[-1] != i - 1)


def _is_fresh(told: tuple[Address, float]) -> bool:
    """Say whether an ASK still holds."""
    return time.monotonic() - told[1] < ASKED_S
