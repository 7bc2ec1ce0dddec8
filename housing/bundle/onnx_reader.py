"""ONNX reader without the package `onnx`, which workers do not have."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from housing.core.errors import BundleError

TREE_OPERATOR = "TreeEnsembleRegressor"
ML_DOMAIN = "ai.onnx.ml"  # of that operator
# The subset of onnx.proto that is read: message -> field -> (number, is repeated, type).
MESSAGES = {
    "Any": {},  # content that is not read; only its presence matters
    "Model": {"training": (20, True, "Any"), "functions": (25, True, "Any"), "graph": (7, False, "Graph")},
    "Graph": {
        "node": (1, True, "Node"),
        "initializer": (5, True, "Tensor"),
        "input": (11, True, "Value"),
        "output": (12, True, "Value"),
        "sparse": (15, True, "Any"),
    },
    "Node": {
        "input": (1, True, "string"),
        "output": (2, True, "string"),
        "op_type": (4, False, "string"),
        "domain": (7, False, "string"),
        "attribute": (5, True, "Attribute"),
    },
    "Attribute": {
        "name": (1, False, "string"),
        "i": (3, False, "int64"),
        "s": (4, False, "bytes"),
        "floats": (7, True, "float"),
        "ints": (8, True, "int64"),
        "strings": (9, True, "bytes"),
        "t": (5, False, "Tensor"),
        "tensors": (10, True, "Tensor"),
        "g": (6, False, "Any"),
        "graphs": (11, True, "Any"),
        "sparse": (22, False, "Any"),
        "sparses": (23, True, "Any"),
    },
    "Tensor": {"dims": (1, True, "int64"), "external_data": (13, True, "Any"), "data_location": (14, False, "int64")},
    "Value": {"name": (1, False, "string"), "type": (2, False, "Type")},
    "Type": {"tensor": (1, False, "TensorType")},
    "TensorType": {"elem_type": (1, False, "int64"), "shape": (2, False, "Shape")},
    "Shape": {"dim": (1, True, "Dimension")},
    "Dimension": {"value": (1, False, "int64")},
}
PACKAGE = "housing.bundle.onnx_reader"


def _make_model_class() -> Any:
    """Return the class of `Model` messages, which skips unknown fields."""
    # pylint: disable=no-member  # protobuf creates its classes at run time
    proto = descriptor_pb2.FieldDescriptorProto
    types = {"string": proto.TYPE_STRING, "bytes": proto.TYPE_BYTES, "int64": proto.TYPE_INT64, "float": proto.TYPE_FLOAT}
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto2")
    for message, fields in MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, is_repeated, kind) in fields.items():
            label = proto.LABEL_REPEATED if is_repeated else proto.LABEL_OPTIONAL
            scalar_type = types.get(kind)
            field = descriptor.field.add(name=name, number=number, label=label, type=scalar_type or proto.TYPE_MESSAGE)
            if scalar_type is None:
                field.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Model"))


MODEL = _make_model_class()


def read_model(graph: bytes) -> Any:
    """Parse a serialized model into a `Model` message. Raises BundleError if it is not an ONNX model."""
    try:
        return MODEL.FromString(graph)
    except DecodeError as error:
        raise BundleError(f"It is not an ONNX model: {error}") from error
