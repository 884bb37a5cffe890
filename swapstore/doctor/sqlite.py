"""The diagnosis of a SQLite store: of its file, and of the database in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask, Members
from swapstore.doctor import times
from swapstore.doctor.check import Check, Verdict
from swapstore.errors import AccessDenied, Corrupt, SwapstoreError
from swapstore.protocol.load import ask, ask_all, value_of

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

MB = 1_000_000
ROOMY = 10  # how many of the largest payloads should have room

LARGE_LOG = 16 * MB  # SQLite empties its log at 4 MB, unless a reader is in the way

# On these, SQLite's locks do not work between machines, nor does the shared memory of write-ahead logging.
_NETWORK = """
nfs nfs4 cifs smb2 smb3 smbfs ncpfs afs kafs coda 9p virtiofs vboxsf vmhgfs prl_fs davfs drvfs osxfs grpcfuse
ceph glusterfs gpfs lustre beegfs orangefs pvfs2 gfs gfs2 ocfs2 panfs wekafs daos juicefs moosefs lizardfs mfs
sshfs s3fs goofys gcsfuse mount-s3 mountpoint-s3 blobfuse blobfuse2 rclone seaweedfs curlftpfs ceph-fuse
vmhgfs-fuse hdfs cvmfs2
"""
NETWORK = frozenset(_NETWORK.split())


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Check the file from outside first: this works when the database in it cannot be opened."""
    facts = yield from ask(ctx, Ask(("file",)))
    around = [_directory(facts), _disk(ctx, facts), _file_system(facts)]
    if not facts["exists"]:
        return [
            Check("file", Verdict.OK, f"{facts['path']} is not there yet: the first publish creates it"),
            *around,
        ]
    opening = yield from _opening(ctx, facts)
    if opening.verdict is not Verdict.OK:
        return [opening, *around]
    writing = yield from _writing(ctx, facts)
    inside = yield from _inside(ctx, facts)
    log = yield from _log(ctx, facts)
    return [opening, writing, *inside, log, *around, *(yield from times.diagnose(ctx))]


def _opening(ctx: Context, facts: dict[str, Any]) -> Operation[Check]:
    """Check whether the file opens as it does for every operation."""
    try:
        yield from ask(ctx, Members(ctx.keys.datasets()))
        version = yield from ask(ctx, Ask(("version",)))
    except SwapstoreError as error:
        found, advice = str(error), "Give your user read permission on the file, and on its -wal and -shm."
        if isinstance(error, Corrupt):
            advice = (
                "Is the path right? If it is, move the file away with its -wal and -shm; `swapstore restore`."
            )
        elif facts["blocked"]:
            found, advice = facts["blocked"]
            advice = f"{advice[0].upper()}{advice[1:]}."
        return Check("file", Verdict.PROBLEM, found, advice)
    return Check("file", Verdict.OK, f"{facts['path']}, {_size(facts['size'])}, SQLite {version}")


def _writing(ctx: Context, facts: dict[str, Any]) -> Operation[Check]:
    """Check whether the write lock can be taken, which a publish does first. It is released at once."""
    try:
        yield from ask(ctx, Ask(("write lock",)))
    except AccessDenied:
        return Check(
            "writing",
            Verdict.PROBLEM,
            f"reads work, and publishes are refused: {facts['unwritable']}",
            "Nothing to do for a reader. A publish needs write permission on the file and on its directory.",
        )
    except SwapstoreError as error:
        return Check(
            "writing",
            Verdict.WARNING,
            str(error),
            "Look for a process that is stuck in a transaction (fuser FILE names those that have it open).",
        )
    return Check("writing", Verdict.OK, "the write lock could be taken")


def _inside(ctx: Context, facts: dict[str, Any]) -> Operation[list[Check]]:
    try:
        replies = yield from ask_all(ctx, [Ask(("journal mode",)), Ask(("quick check",))])
        mode, health = (value_of(reply) for reply in replies)
    except SwapstoreError as error:
        return [_damaged(str(error))]
    journal = Check("journal", Verdict.OK, "write-ahead log")
    if facts["without_log"]:  # SQLite then calls the mode by another name
        journal = Check("journal", Verdict.OK, "this user reads the file without a log, and leaves none")
    elif mode != "wal":
        journal = Check(
            "journal",
            Verdict.WARNING,
            f"journal mode {mode}, not wal: readers wait for publishes",
            "A backup has none, and another program may change it. PRAGMA journal_mode = WAL restores it.",
        )
    return [
        journal,
        Check("integrity", Verdict.OK, "every page is intact") if health == "ok" else _damaged(health),
    ]


def _log(ctx: Context, facts: dict[str, Any]) -> Operation[Check]:
    """Check how much is in the log alone: what a copy of the main file lacks."""
    waiting = yield from ask(ctx, Ask(("log",)))
    where, size = facts["wal"], facts["wal_size"]
    if waiting is None:
        return Check("log", Verdict.OK, _size(size) if size else "there is none")
    found = f"{_size(size)}, of which {_size(waiting)} are not in the file yet"
    if waiting < LARGE_LOG:
        return Check("log", Verdict.OK, f"{found}; `swapstore backup` copies both, cp does not")
    return Check(
        "log",
        Verdict.WARNING,
        f"{found}: a process has been reading for a long time, and {where} grows until it ends",
        "Look for a program that has a transaction open (fuser FILE names those that have it open), and end "
        "it. swapstore itself reads for moments only.",
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MB:,.1f} MB" if size_bytes >= MB else f"{size_bytes / 1000:,.1f} KB"


def _damaged(found: str) -> Check:
    return Check(
        "integrity",
        Verdict.PROBLEM,
        found,
        "Stop the programs that use the file, copy it, and restore a backup; sqlite3 FILE .recover saves "
        "what it can.",
    )


def _directory(facts: dict[str, Any]) -> Check:
    where = facts["directory"]
    if not facts["directory_exists"]:
        return Check(
            "directory", Verdict.PROBLEM, f"{where} is not there", "Create it, or correct the address."
        )
    if not facts["directory_writable"]:
        return Check(
            "directory",
            Verdict.PROBLEM,
            f"SQLite keeps its log beside the file, so no publish is possible: {facts['directory_why']}",
            "Nothing to do for a reader. To publish, give your user write permission on the directory.",
        )
    return Check("directory", Verdict.OK, f"{where} can be written")


def _disk(ctx: Context, facts: dict[str, Any]) -> Check:
    free, largest = facts["free"], ctx.policy.max_payload_bytes
    if free is None:
        return Check("disk", Verdict.UNKNOWN, "the free space is unknown", "Check it yourself (df).")
    found = f"{free / MB:,.0f} MB free"
    if free >= ROOMY * largest:
        return Check("disk", Verdict.OK, found)
    return Check(
        "disk",
        Verdict.PROBLEM if free < largest else Verdict.WARNING,
        f"{found}; a payload may have up to {largest / MB:,.0f} MB",
        "Free disk space. On a full disk publishes are refused (StoreFull); committed data stays.",
    )


def _file_system(facts: dict[str, Any]) -> Check:
    kind = facts["file_system"]
    if kind is None:
        return Check("file system", Verdict.UNKNOWN, "its type is unknown", "Keep the file on a local disk.")
    if kind.removeprefix("fuse.") in NETWORK:
        return Check(
            "file system",
            Verdict.PROBLEM,
            f"{kind}: a network file system, on which two machines can destroy the file",
            "Keep the file on a local disk, and use a server to share it between machines.",
        )
    if kind.startswith("fuse"):
        return Check(
            "file system",
            Verdict.UNKNOWN,
            f"{kind}: a file system in user space, whose locks swapstore does not know",
            "Keep the file on a local disk, unless you know that its locks and shared memory work.",
        )
    return Check("file system", Verdict.OK, kind)
