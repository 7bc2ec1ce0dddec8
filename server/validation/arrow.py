"""Arrow IPC streams as request bodies, read by pyarrow: the extra `arrow`, which is imported when the first one arrives.

A stream may claim buffers of any size, which pyarrow would allocate. So each message is checked before it is read: without
compressed buffers and dictionaries, every buffer is a slice of the body. Parquet has no such bound, so it is refused.
"""

import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from server.core.errors import RequestError, raise_unprocessable
from server.validation.request_body import ARROW
from server.validation.rows import Values, require_row_limit

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
MAX_BATCHES = 1000
HEADER = 2  # the index of a field of the flatbuffer table `Message`
ENDIANNESS = 0  # of `Schema`
COMPRESSION = 3  # of `RecordBatch`
NUMBERS = {"halffloat", "float", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
TYPES = {*NUMBERS, "bool", "string", "large_string", "null"}  # others are nested, or may contain one large value many times


def load_pyarrow(purpose: str) -> Any:
    """Return pyarrow. Raises RequestError (415) if it is not installed."""
    try:
        import pyarrow.ipc  # pylint: disable=import-outside-toplevel  # an extra
    except ImportError as error:
        detail = f"{purpose} needs pyarrow on the server. Install it there with: pip install 'housing[arrow]'"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail) from error
    return pyarrow


def parse_arrow(body: bytes, max_rows: int) -> Any:
    """Return the table of a stream. Its columns are numbers, booleans, texts or null. Raises RequestError."""
    arrow = load_pyarrow(ARROW)
    try:
        return _read_table(arrow, body, max_rows)
    except StopIteration:
        raise _invalid("it has no schema") from None
    except (arrow.ArrowException, OSError, ValueError, struct.error) as error:
        raise _invalid(f"{error!s:.200}".rstrip(".")) from error


def column_values(table: Any, names: Iterable[str]) -> dict[str, Values]:
    """Return the values of columns: numbers as an array, where NaN is a missing value, and others as a list."""
    columns = {name: table.column(name) for name in names}
    return {name: column.to_numpy() if str(column.type) in NUMBERS else column.to_pylist() for name, column in columns.items()}


def _read_table(arrow: Any, body: bytes, max_rows: int) -> Any:
    source, n_rows = arrow.BufferReader(body), 0
    batches: list[Any] = []
    messages = arrow.ipc.MessageReader.open_stream(source)
    schema = _read_schema(arrow, messages.read_next_message())
    for message in messages:
        if message.type != "record batch" or _header_field(message.metadata, COMPRESSION):
            raise_unprocessable("The Arrow stream must have no dictionaries and no compressed buffers. Compress the body.")
        batch = arrow.ipc.read_record_batch(message, schema)
        n_rows += batch.num_rows
        require_row_limit(n_rows, max_rows)
        batch.validate(full=True)
        claimed = sum(buffer.size for column in batch.columns for buffer in column.buffers() if buffer is not None)
        if claimed > len(message.body) or len(batches) >= MAX_BATCHES:
            raise _invalid("its buffers overlap" if claimed > len(message.body) else f"more than {MAX_BATCHES} batches")
        batches.append(batch)
    if source.tell() < len(body) or not body.endswith(END_OF_STREAM):
        raise _invalid("it does not end with the mark of its end")
    if not n_rows:
        raise_unprocessable("The Arrow stream must have at least one row.")
    return arrow.Table.from_batches(batches)


def _read_schema(arrow: Any, message: Any) -> Any:
    if message.type != "schema":  # pyarrow checks where the header is only of kinds that it knows
        raise _invalid("it has no schema")
    schema = arrow.ipc.read_schema(message)
    endianness = _header_field(message.metadata, ENDIANNESS)
    if endianness and message.metadata[endianness]:
        raise _invalid("its numbers must be little-endian")
    if len(set(schema.names)) < len(schema.names):
        raise_unprocessable("Two columns of the Arrow stream have the same name.")
    for field in schema:
        if str(field.type) not in TYPES:
            raise_unprocessable(
                f"The column {field.name!r:.80} must have a type of integers, floats, bool, string, large_string or null, and "
                f"dates are texts (got {field.type!s:.80})."
            )
    return schema


def _header_field(metadata: Any, index: int) -> int:
    """Return the position of a field of a message's header, or 0 if it has its default value."""
    message = struct.unpack_from("<I", metadata)[0]
    header = _field(metadata, message, HEADER)
    return _field(metadata, header + struct.unpack_from("<I", metadata, header)[0], index)


def _field(data: Any, table: int, index: int) -> int:
    """Return the position of a field of a flatbuffer table, or 0 if it has its default value."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * index
    if slot >= struct.unpack_from("<H", data, offsets)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, offsets + slot)[0]
    return table + offset if offset else 0


def _invalid(reason: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, f"Request body is not a valid Arrow IPC stream: {reason}.")
