"""What a store knows of the locks it was used with."""

from __future__ import annotations

from pathlib import Path

from cregraph.store import Store
from cregraph.store.known import Built, known, known_of, remember


def test_a_lock_that_was_built_stays_known_with_what_was_built(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    lock = tmp_path / "locks" / "a.lock.json"
    built = Built(text="1" * 64, key="2" * 64, digest="sha256:" + "3" * 64)
    remember(store, lock)
    assert known_of(store, lock) is not None
    remember(store, lock, built=built)
    remember(store, lock)  # locking again forgets no build
    (one,) = known(store)
    assert (one.lock, one.built) == (lock, built)


def test_a_record_that_somebody_damaged_is_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put_record("projects", "0" * 64, {"lock": 3})
    store.put_record("projects", "1" * 64, {"lock": "/x", "built": {"text": "../../etc/passwd", "key": "2" * 64}})
    assert [(one.lock, one.built) for one in known(store)] == [(Path("/x"), None)]
