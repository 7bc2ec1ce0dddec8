"""Tritonclient's HTTP client: JSON and binary tensors, one per column and one matrix, and the metadata calls."""

# pylint: disable=import-error  # this program runs in an environment of its own

import json
import sys
from typing import Any

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def _inputs(columns: dict[str, list[Any]], binary: bool) -> list[Any]:
    tensors = []
    for name, values in columns.items():
        array = np.array(values, dtype=object if isinstance(values[0], str) else None).reshape(-1, 1)
        tensor = http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
    return tensors


def main() -> None:
    """Send the rows in each form."""
    task = json.load(sys.stdin)
    client, model, columns = http.InferenceServerClient(task["url"].removeprefix("http://")), task["model"], task["columns"]
    answers: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready(model) and client.is_model_ready(model, task["version"]),
        "name": client.get_server_metadata()["name"],
        "inputs": client.get_model_metadata(model)["inputs"],
    }
    for is_binary in (False, True):
        result = client.infer(model, _inputs(columns, is_binary))  # without outputs, answers are binary
        answers[f"columns, binary {is_binary}"] = result.as_numpy("predictions").tolist()
        outputs = [http.InferRequestedOutput(name, binary_data=is_binary) for name in ("predictions", "lower", "upper")]
        parameters = {"interval": 0.9}
        result = client.infer(
            model,
            _inputs(columns, is_binary),
            task["version"],
            outputs,
            request_id="mine",
            parameters=parameters,
            request_compression_algorithm="gzip",
        )
        answers[f"bounds, binary {is_binary}"] = [result.as_numpy(name).tolist() for name in ("predictions", "lower", "upper")]
        outputs = [http.InferRequestedOutput("quantiles", binary_data=is_binary)]
        levels = {"quantiles": [0.05, 0.95]}
        result = client.infer(model, _inputs(columns, is_binary), task["version"], outputs, request_id="mine", parameters=levels)
        answers[f"quantiles, binary {is_binary}"] = result.as_numpy("quantiles").T.tolist()
        answers["id"] = result.get_response()["id"]
    try:
        client.infer(model, _inputs({**columns, "area": [-1.0] * len(columns["area"])}, True))
    except InferenceServerException as error:
        answers["error"] = str(error)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
