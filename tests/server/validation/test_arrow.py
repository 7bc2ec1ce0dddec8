"""Arrow streams as request bodies: answered like JSON, and refused within limits of memory if they are hostile."""

import json
import re
import struct
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from server.core.errors import RequestError
from server.validation.arrow import column_values, load_pyarrow, parse_arrow
from tests.support.server import Server
from tests.support.tables import rentals_frame

ARROW = "application/vnd.apache.arrow.stream"
MAX_ROWS = 10_000  # of the server
MAX_GROWTH_MB = 150  # of a worker's memory: pyarrow itself takes a third of it
ROUTES = pytest.mark.parametrize("route", ["/predict", "/invocations"])
FLATS = pa.table(
    {
        "area": [50.5, 60.0, 99.9],
        "rooms": pa.array([2, 3, 4], pa.int8()),
        "furnished": [True, False, True],
        "quarter": ["old town", "harbour", "hills"],
        "built": pa.array([1950, None, 2001], pa.int64()),
    }
)


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    """Return a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def with_column(name: str, values: Any) -> bytes:
    """Return the flats with another column, or with another one in its place."""
    kept = FLATS.drop_columns([name]) if name in FLATS.column_names else FLATS
    return stream(kept.append_column(name, values))


def number(value: int) -> bytes:
    """Return a number as a stream has it."""
    return struct.pack("<q", value)


def batches() -> bytes:
    """Return a stream of many batches without rows."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, FLATS.schema) as writer:
        for _ in range(1001):
            writer.write_batch(pa.RecordBatch.from_pylist([], FLATS.schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def overlapping() -> bytes:
    """Return a stream of two texts, of which the second one claims the bytes of the first one, too."""
    body = bytearray(stream(pa.table({"first": ["x" * 1000], "second": ["y" * 9]})))
    position = body.index(number(9))  # the length of a buffer follows its start
    body[position - 8 : position + 8] = number(8) + number(1024)
    return bytes(body)


def big_endian(body: bytes) -> bytes:
    """Return a stream whose schema says that its numbers are big-endian: the field that is absent, as it has its default."""
    schema = bytearray(body)
    message = 8 + struct.unpack_from("<I", schema, 8)[0]
    offsets = message - struct.unpack_from("<i", schema, message)[0]
    header = message + struct.unpack_from("<H", schema, offsets + 8)[0]
    table = header + struct.unpack_from("<I", schema, header)[0]
    offsets = table - struct.unpack_from("<i", schema, table)[0]
    struct.pack_into("<H", schema, offsets + 4, 4)  # the endianness is where the position of the fields is, which is not 0
    return bytes(schema)


def without_kind(body: bytes) -> bytes:
    """Return a stream whose first message is of no kind that pyarrow knows, so that it does not check where its header is."""
    message = bytearray(body)
    table = 8 + struct.unpack_from("<I", message, 8)[0]
    offsets = table - struct.unpack_from("<i", message, table)[0]
    message[table + struct.unpack_from("<H", message, offsets + 6)[0]] = 0
    return bytes(message)


ATTACKS = {
    "no bytes": (b"", 400, "no schema"),
    "an unknown message": (without_kind(stream(FLATS)), 400, "no schema"),
    "JSON": (b"{}", 400, "not a valid Arrow IPC stream"),
    "a cut message": (stream(FLATS)[:-40], 400, "not a valid Arrow IPC stream"),
    "no end": (stream(FLATS)[:-8], 400, "the mark of its end"),
    "data after its end": (stream(FLATS) * 2, 400, "the mark of its end"),
    "the file format": (b"ARROW1\0\0" + stream(FLATS), 400, "not a valid Arrow IPC stream"),
    "a claimed buffer": (stream(FLATS).replace(number(24), number(2**40)), 400, "not a valid Arrow IPC stream"),
    "a claimed length": (stream(FLATS).replace(number(3), number(2**40)), 400, "not a valid Arrow IPC stream"),
    "nulls without bytes": (
        stream(pa.table({"built": pa.nulls(12_345)})).replace(number(12_345), number(2**40)),
        413,
        "10000 rows",
    ),
    "buffers that overlap": (overlapping(), 400, "overlap"),
    "too many batches": (batches(), 400, "more than 1000 batches"),
    "too many rows": (stream(pa.concat_tables([FLATS] * 4000).combine_chunks()), 413, "at most 10000 rows"),
    "compressed buffers": (stream(pa.concat_tables([FLATS] * 100), "zstd"), 422, "no compressed buffers"),
    "a dictionary": (with_column("quarter", FLATS["quarter"].dictionary_encode()), 422, r"quarter.*dictionary"),
    "nested values": (with_column("nested", pa.array([[[1]], [], None])), 422, r"nested.*list"),
    "views of texts": (with_column("quarter", FLATS["quarter"].cast(pa.string_view())), 422, r"quarter.*string_view"),
    "big-endian numbers": (big_endian(stream(FLATS)), 400, "little-endian"),
    "a column twice": (stream(FLATS.append_column("area", FLATS["area"])), 422, "the same name"),
    "no rows": (stream(FLATS.slice(0, 0)), 422, "at least one row"),
    "texts that are not UTF-8": (stream(FLATS).replace(b"harbour", b"harb\xffur"), 400, "UTF8"),
    "a name that is not UTF-8": (stream(FLATS).replace(b"built", b"bu\xfflt"), 400, "utf-8"),
}


@ROUTES
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_hostile_stream_is_refused(rentals_server: Server, route: str, attack: str) -> None:
    body, status, detail = ATTACKS[attack]
    answer = rentals_server.ask(route, body, Content_Type=ARROW)
    assert answer.status == status, answer
    assert re.search(detail, answer.json["detail"]), answer


def test_many_columns_without_bytes_take_no_memory(rentals_server: Server) -> None:
    body = stream(pa.table({f"column_{index}": pa.nulls(MAX_ROWS) for index in range(10_000)}))
    rentals_server.ask("/predict", stream(FLATS), Content_Type=ARROW)
    before = peak_memory_mb(rentals_server)
    answer = rentals_server.ask("/predict", body, Content_Type=ARROW)
    assert (answer.status, len(answer.json["errors"])) == (422, 100)
    assert rentals_server.ask("/invocations", body, Content_Type=ARROW).status == 422
    assert peak_memory_mb(rentals_server) - before < MAX_GROWTH_MB


def peak_memory_mb(server: Server) -> float:
    """Return the largest memory that a worker ever had."""
    status = [Path(f"/proc/{pid}/status").read_text(encoding="utf-8") for pid in server.workers()]
    return max(int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1000 for text in status)


def test_no_changed_byte_fails_or_takes_memory() -> None:
    body, outcomes, before = stream(FLATS), set(), pa.default_memory_pool().max_memory()
    for position in range(0, len(body) - 8, 4):
        for value in (0, 1, 3, -1, 2**31 - 1, 2**40, 2**62):
            changed = bytearray(body)
            changed[position : position + 8] = number(value)
            try:
                table = parse_arrow(bytes(changed), MAX_ROWS)
                column_values(table, table.column_names)
                outcomes.add(200)
            except RequestError as error:
                outcomes.add(int(error.status))
    assert {200, 400} <= outcomes <= {200, 400, 413, 422}
    assert pa.default_memory_pool().max_memory() - before < 100_000


@ROUTES
def test_a_stream_is_answered_and_checked_like_json(rentals_server: Server, route: str) -> None:
    table = pa.Table.from_pandas(rentals_frame(50).drop(columns="rent"), preserve_index=False)
    columns, lists = table.column_names, [list(row.values()) for row in table.to_pylist()]

    def ask(lists: list[list[Any]]) -> tuple[Any, Any]:
        split = {"dataframe_split": {"columns": columns, "data": lists}}
        body = {"columns": columns, "rows": lists} if route == "/predict" else split
        texts = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in lists])
        answers = (
            rentals_server.ask(f"{route}?interval=0.9", json.dumps(body).encode()),
            rentals_server.ask(f"{route}?interval=0.9", stream(texts), Content_Type=ARROW),
        )
        plain, arrow = ({**answer.json, "request_id": "", "status": answer.status} for answer in answers)
        return plain, arrow

    plain, arrow = ask(lists)
    assert plain["status"] == 200
    assert arrow == plain
    lists[3][0], lists[7][3], lists[9][4] = -1.0, "nowhere", 1.5
    plain, arrow = ask(lists)
    assert (plain["status"], len(plain["errors"])) == (422, 3)
    assert arrow == plain


def test_other_columns_are_refused_or_ignored_as_in_json(rentals_server: Server) -> None:
    body = with_column("other", pa.nulls(3))
    refused = rentals_server.ask("/predict", body, Content_Type=ARROW)
    assert refused.status == 422
    assert refused.json["errors"] == [{"row": None, "field": "other", "reason": "Not a column of this model."}]
    answers = [rentals_server.ask("/invocations", sent, Content_Type=ARROW) for sent in (body, stream(FLATS))]
    assert answers[0].json == answers[1].json


def test_parquet_is_refused_with_the_form_that_is_taken(rentals_server: Server) -> None:
    answer = rentals_server.ask("/predict", b"PAR1", Content_Type="application/vnd.apache.parquet")
    assert answer.status == 415
    assert f"Send an Arrow stream: {ARROW}" in answer.json["detail"]


def test_without_pyarrow_the_answer_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RequestError, match=r"pip install 'housing\[arrow\]'") as refused:
        load_pyarrow(ARROW)
    assert refused.value.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def test_several_batches_and_sizes_of_numbers_are_one_table() -> None:
    types = [pa.float16(), pa.float32(), pa.float64(), pa.uint8(), pa.int64()]
    table = pa.table({str(type_): pa.array(np.arange(6), type_) for type_ in types})
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    values = column_values(parse_arrow(sink.getvalue().to_pybytes(), MAX_ROWS), table.column_names)
    assert {name: list(column) for name, column in values.items()} == {str(type_): [*range(6)] for type_ in types}
