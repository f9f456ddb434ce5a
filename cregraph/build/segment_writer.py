"""Writer of one segment from its input: the entries that its kind makes of an artifact or of a task's result."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.image.model import segment as segments_of
from cregraph.image.model.segment import SegmentRecord
from cregraph.kinds import KINDS
from cregraph.plan.parts import Segment
from cregraph.store import Store

__all__ = ["write_segment"]


def write_segment(segment: Segment, file: Path | None, store: Store, assembly: int) -> SegmentRecord:
    """Write `segment` and its record. `file` is the verified input, None for a segment that needs none.

    Raises:
        CregraphError: The input cannot be read, or the store is full. The message names the segment.
    """
    with contextlib.ExitStack() as scratch_files:
        source = _Input(file=file, store=store, scratch_files=scratch_files)
        try:
            return segments_of.write(KINDS[segment.kind].entries(segment, source), store, segment.key, assembly)
        except CregraphError as error:
            with store.explained():  # a disk that is full while an archive is read is not the archive's fault
                for cause in _causes(error):
                    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise cause from None
            if segment.name in error.message:
                raise
            raise CregraphError(f"{segment.name}: {error.message}", error.hint) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """The `Input` of a kind. Scratch files live until the segment is written."""

    file: Path | None
    store: Store
    scratch_files: contextlib.ExitStack

    def path(self) -> Path:
        assert self.file is not None, "this segment has no input"
        return self.file

    def scratch(self) -> IO[bytes]:
        file = self.store.scratch_file()
        self.scratch_files.callback(_close, file)
        return file


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk refuses the last bytes, which nobody needs; it must not hide an error
        file.close()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that led to `error`, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
