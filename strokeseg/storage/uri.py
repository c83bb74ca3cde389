"""A storage: what a URI such as `s3://bucket/prefix` names, over pyarrow's file systems.

A *key* is a file's path below the URI. Objects of an object store are whole or not there; elsewhere
a file is written under a temporary name beside its own, and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
from pyarrow import fs

from strokeseg.errors import UserError

_OBJECT_STORES = {"s3", "gcs", "abfs"}
_CONNECT_SECONDS, _REQUEST_SECONDS, _ATTEMPTS = 3, 30, 3
PROBE = ".writable"


@dataclass(frozen=True)
class Found:
    """A file on a storage.

    Attributes:
        size: Its bytes.
        changed_ns: When it was written, by the storage's clock, since 1970.
    """

    size: int
    changed_ns: int


@contextmanager
def open_storage(uri: str) -> Iterator[Storage]:
    """Connect to a storage; what it or its file system raises meanwhile becomes one line.

    Raises:
        UserError: When it does not answer, or refuses an operation.
    """
    try:
        files, root = _connect(uri)
        yield Storage(files, root.rstrip("/"))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{uri}: the storage cannot be used ({reason}); check that the bucket or folder is "
            "there, the credentials, and AWS_ENDPOINT_URL and the region where they are needed"
        ) from None


class Storage:
    """A storage that is connected; get one from `open_storage`."""

    def __init__(self, files: fs.FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self._is_object_store = files.type_name in _OBJECT_STORES

    def check(self, *, writes: bool) -> None:
        """Make sure that it is there, and can be written to if that is wanted.

        Raises:
            OSError: When it is not, or cannot.
        """
        place = self._root.partition("/")[0] if self._is_object_store else self._root
        found = self._files.get_file_info(place).type is not fs.FileType.NotFound
        if not found and (self._is_object_store or not writes):
            raise FileNotFoundError(f"there is no {place}")
        if writes:
            self.write(PROBE, b"")
            self.delete(PROBE)

    def find(self, key: str) -> Found | None:
        """Return what is known of a file, or None where it is none."""
        info = self._files.get_file_info(self._place(key))
        return _found(info) if info.type is fs.FileType.File else None

    def listed(self, key: str) -> dict[str, Found]:
        """Return the files below a folder, or the file itself, by key."""
        if itself := self.find(key):
            return {key: itself}
        place = self._place(key)
        if self._files.get_file_info(place).type is fs.FileType.NotFound:
            return {}
        found = self._files.get_file_info(fs.FileSelector(place, recursive=True))
        return {
            info.path.removeprefix(f"{self._root}/"): _found(info)
            for info in sorted(found, key=lambda info: str(info.path))
            if info.type is fs.FileType.File
        }

    def open(self, key: str) -> IO[bytes]:
        """Open a file to read it from its start."""
        stream: IO[bytes] = self._files.open_input_stream(self._place(key))
        return stream

    def write(self, key: str, content: bytes) -> None:
        """Write a file that appears complete or not at all."""
        place = self._place(key)
        if self._is_object_store:
            with self._files.open_output_stream(place) as target:
                target.write(content)
            return
        folder, _, name = place.rpartition("/")
        self._files.create_dir(folder, recursive=True)
        partial = f"{folder}/.partial-{os.getpid()}-{name}"
        with self._files.open_output_stream(partial) as target:
            target.write(content)
        self._files.move(partial, place)

    def delete(self, key: str) -> None:
        """Remove a file if it is there."""
        if self.find(key):
            self._files.delete_file(self._place(key))

    def _place(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")


def _found(info: fs.FileInfo) -> Found:
    return Found(size=info.size, changed_ns=info.mtime_ns)


def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    if uri.startswith("s3://"):
        return _s3(uri)
    if uri.startswith(("gs://", "gcs://")) and "?" not in uri:
        # By itself it tries again for a quarter of an hour.
        uri = f"{uri}?retry_limit_seconds={_REQUEST_SECONDS}"
    files, root = fs.FileSystem.from_uri(uri)
    return files, root


def _s3(uri: str) -> tuple[fs.FileSystem, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    root, _, query = uri.removeprefix("s3://").partition("?")
    if query:
        files, path = fs.FileSystem.from_uri(uri)
        return files, path
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not endpoint:
        region = fs.resolve_s3_region(root.partition("/")[0])
    files = fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or "us-east-1",
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    return files, root
