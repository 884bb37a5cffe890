"""What is compared: each publishes a version of one document, reads the latest, and lists all versions.

Each is used as its own documentation shows for "replace the contents, keep the versions". Imports are in the
constructors, because an environment has only some of them. Only the subject of swapstore needs swapstore.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

URL_VARIABLE = "SWAPSTORE_BENCH_URL"  # a URL may hold a password, and everybody can see arguments
ON_SERVER = "namespace:"  # on the server of that URL, in the namespace that follows


class Subject(Protocol):
    """A place for versions of one document. A document begins with its id and a newline."""

    def create(self) -> None:
        """Create it empty; what exists already stays."""

    def publish(self, document: bytes) -> None:
        """Make the document the latest version; on return it is acknowledged."""

    def read(self) -> bytes:
        """Read the latest version, through a handle that is open and has read before."""

    def survivors(self) -> Iterable[bytes]:
        """Read every version that exists."""


class Swapstore:
    """swapstore, on a SQLite file or a server."""

    def __init__(self, where: str) -> None:
        swapstore: Any = import_module("swapstore")
        on_server = where.startswith(ON_SERVER)
        url = os.environ[URL_VARIABLE] if on_server else f"sqlite:///{Path(where).absolute()}/store.db"
        namespace = where.removeprefix(ON_SERVER) if on_server else "swapstore"
        self._producer, self._reader = (swapstore.connect(url, namespace=namespace) for _ in range(2))

    def create(self) -> None:
        """Nothing to do: it is created by the first publish."""
        self._producer.datasets()

    def publish(self, document: bytes) -> None:
        self._producer.publish("mena", document, codec="bytes")

    def read(self) -> bytes:
        found: bytes = self._reader.read_latest("mena").raw
        return found

    def survivors(self) -> Iterable[bytes]:
        for row in self._reader.history("mena", limit=None):
            yield self._reader.read("mena", version=row.version).raw


class Sqlite:
    """The sqlite3 of the standard library, with a table that a user would write."""

    def __init__(self, where: str) -> None:
        path = Path(where) / "plain.db"
        self._producer, self._reader = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
        for each in (self._producer, self._reader):
            each.execute("PRAGMA journal_mode = WAL")
            each.execute("PRAGMA synchronous = FULL")

    def create(self) -> None:
        self._producer.execute(
            "CREATE TABLE IF NOT EXISTS snapshots "
            "(version INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT, id TEXT UNIQUE, payload BLOB)"
        )
        self._producer.execute("CREATE INDEX IF NOT EXISTS latest ON snapshots (dataset, version)")

    def publish(self, document: bytes) -> None:
        name = document.partition(b"\n")[0].decode()
        self._producer.execute(
            "INSERT INTO snapshots (dataset, id, payload) VALUES ('mena', ?, ?)", (name, document)
        )

    def read(self) -> bytes:
        latest = "SELECT payload FROM snapshots WHERE dataset = 'mena' ORDER BY version DESC LIMIT 1"
        found: bytes = self._reader.execute(latest).fetchone()[0]
        return found

    def survivors(self) -> Iterable[bytes]:
        return (payload for (payload,) in self._reader.execute("SELECT payload FROM snapshots"))


class Diskcache:
    """diskcache: a key for each version and one that names the latest, in one transaction."""

    def __init__(self, where: str) -> None:
        diskcache: Any = import_module("diskcache")
        self._cache = diskcache.Cache(where, eviction_policy="none")

    def create(self) -> None:
        self._cache.add("latest", 0)

    def publish(self, document: bytes) -> None:
        with self._cache.transact():
            number = self._cache.incr("latest")
            self._cache.set(("mena", number), document)

    def read(self) -> bytes:
        found: bytes = self._cache.get(("mena", self._cache.get("latest")))
        return found

    def survivors(self) -> Iterable[bytes]:
        return (self._cache[key] for key in self._cache.iterkeys() if key != "latest")


class Icechunk:
    """Icechunk: an array of bytes in one chunk, one commit a version, rebased after a lost race."""

    def __init__(self, where: str) -> None:
        self._icechunk: Any = import_module("icechunk")
        self._zarr: Any = import_module("zarr")
        self._numpy: Any = import_module("numpy")
        self._icechunk.set_logs_filter("error")  # it warns of concurrent commits on local files
        storage = self._icechunk.local_filesystem_storage(f"{where}/icechunk")
        self._repository = self._icechunk.Repository.open_or_create(storage)

    def create(self) -> None:
        """Make an empty array."""

    def publish(self, document: bytes) -> None:
        session = self._repository.writable_session("main")
        array = self._opened(session, len(document))
        array[:] = self._numpy.frombuffer(document, dtype="u1")
        session.commit("publish", rebase_with=self._icechunk.BasicConflictSolver())

    def _opened(self, session: Any, size: int) -> Any:
        try:
            array = self._zarr.open_array(session.store, path="document", mode="r+")
        except FileNotFoundError:
            return self._zarr.create_array(
                session.store, name="document", shape=(size,), chunks=(size,), dtype="u1", compressors=None
            )
        if array.shape != (size,):
            array.resize((size,))
        return array

    def read(self) -> bytes:
        return self._document(self._repository.readonly_session("main"))

    def _document(self, session: Any) -> bytes:
        array = self._zarr.open_array(session.store, path="document", mode="r")
        found: bytes = array[:].tobytes()
        return found

    def survivors(self) -> Iterable[bytes]:
        commits = [each.id for each in self._repository.ancestry(branch="main")]
        for commit in commits[:-1]:  # the first one is empty
            yield self._document(self._repository.readonly_session(snapshot_id=commit))


class DeltaRs:
    """delta-rs: a table of one row, overwritten; its versions are those of the table."""

    def __init__(self, where: str) -> None:
        self._delta: Any = import_module("deltalake")
        self._arrow: Any = import_module("pyarrow")
        self._path = f"{where}/delta"
        self._producer: Any = None  # an open table takes half the time of a path
        self._reader: Any = None

    def create(self) -> None:
        """Nothing to do: it is created by the first publish."""

    def publish(self, document: bytes) -> None:
        table = self._arrow.table({"document": [document]})
        try:
            self._delta.write_deltalake(self._producer or self._path, table, mode="overwrite")
            self._producer = self._producer or self._delta.DeltaTable(self._path)
        except BaseException:
            self._producer = None  # it has lost a race: look at the table again
            raise

    def read(self) -> bytes:
        if self._reader is None:
            self._reader = self._delta.DeltaTable(self._path)
        self._reader.update_incremental()
        return self._document(self._reader)

    def _document(self, table: Any) -> bytes:
        found: bytes = table.to_pyarrow_table()["document"][0].as_py()
        return found

    def survivors(self) -> Iterable[bytes]:
        for version in range(self._delta.DeltaTable(self._path).version() + 1):
            yield self._document(self._delta.DeltaTable(self._path, version=version))


class ArcticDb:
    """ArcticDB on LMDB: an array of bytes, written anew each time; it keeps the versions."""

    def __init__(self, where: str) -> None:
        arctic: Any = import_module("arcticdb")
        self._numpy: Any = import_module("numpy")
        self._library = arctic.Arctic(f"lmdb://{where}/arctic").get_library("bench", create_if_missing=True)

    def create(self) -> None:
        """Nothing to do: the library exists."""

    def publish(self, document: bytes) -> None:
        self._library.write("mena", self._numpy.frombuffer(document, dtype="u1"))

    def read(self) -> bytes:
        found: bytes = self._library.read("mena").data.tobytes()
        return found

    def survivors(self) -> Iterable[bytes]:
        for symbol, version in self._library.list_versions("mena"):
            yield self._library.read(symbol, as_of=version).data.tobytes()


class PyIceberg:
    """PyIceberg: a row appended, the snapshot named after it; a SQL catalog on SQLite, and local files.

    It appends, because an overwrite takes longer with each one before it: ten times as long after a hundred.
    """

    def __init__(self, where: str) -> None:
        catalogs: Any = import_module("pyiceberg.catalog.sql")
        self._filters: Any = import_module("pyiceberg.expressions")
        self._arrow: Any = import_module("pyarrow")
        self._catalog = catalogs.SqlCatalog(
            "bench", uri=f"sqlite:///{where}/catalog.db", warehouse=f"file://{where}/warehouse"
        )
        self._producer: Any = None
        self._reader: Any = None

    def create(self) -> None:
        self._catalog.create_namespace_if_not_exists("bench")
        self._catalog.create_table_if_not_exists("bench.mena", schema=self._table("", b"").schema)

    def _table(self, name: str, document: bytes) -> Any:
        return self._arrow.table({"id": [name], "document": [document]})

    def publish(self, document: bytes) -> None:
        name = document.partition(b"\n")[0].decode()
        if self._producer is None:
            self._producer = self._catalog.load_table("bench.mena")
        try:
            self._producer.append(self._table(name, document), snapshot_properties={"bench.id": name})
        except BaseException:
            self._producer = None  # it has lost a race: look at the table again
            raise

    def read(self) -> bytes:
        if self._reader is None:
            self._reader = self._catalog.load_table("bench.mena")
        self._reader.refresh()
        name = self._reader.current_snapshot().summary["bench.id"]
        found = self._reader.scan(row_filter=self._filters.EqualTo("id", name)).to_arrow()
        document: bytes = found["document"][0].as_py()
        return document

    def survivors(self) -> Iterable[bytes]:
        rows: Iterable[bytes] = (
            self._catalog.load_table("bench.mena").scan().to_arrow()["document"].to_pylist()
        )
        return rows


SUBJECTS: dict[str, type[Any]] = {
    "swapstore": Swapstore,
    "plain sqlite3": Sqlite,
    "diskcache": Diskcache,
    "ArcticDB": ArcticDb,
    "Icechunk": Icechunk,
    "delta-rs": DeltaRs,
    "PyIceberg": PyIceberg,
}
