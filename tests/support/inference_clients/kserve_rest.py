"""KServe's InferenceRESTClient: JSON and binary tensors, health, and an error."""

# pylint: disable=import-error  # this program runs in an environment of its own

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def _request(model: str, columns: dict[str, list[Any]], binary: bool, **parameters: Any) -> InferRequest:
    inputs = []
    for name, values in columns.items():
        array = np.array(values, dtype=object if isinstance(values[0], str) else None)
        datatype = {"O": "BYTES", "b": "BOOL", "i": "INT64", "f": "FP64"}[array.dtype.kind]
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model, inputs, parameters=parameters)


async def _ask(task: dict[str, Any]) -> dict[str, Any]:
    url, model = task["url"], task["model"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url) and await client.is_model_ready(url, model),
        }
        for is_binary in (False, True):
            result = await client.infer(url, _request(model, task["columns"], is_binary, interval=0.9), model_name=model)
            answers["name"] = result.model_name
            answers[f"bounds, binary {is_binary}"] = [
                result.get_output_by_name(name).data for name in ("predictions", "lower", "upper")
            ]
        levels = _request(model, task["columns"], False, quantiles=[0.05, 0.95])
        answers["quantiles"] = (await client.infer(url, levels, model_name=model)).get_output_by_name("quantiles").data
        try:
            await client.infer(url, _request(model, {"area": [1.0]}, False), model_name=model)
        except httpx.HTTPStatusError as error:
            answers["error"] = str(error)
    return answers


def main() -> None:
    """Send the rows in each form."""
    print(json.dumps(asyncio.run(_ask(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
