"""MLServer's codecs: a DataFrame as one tensor per column."""

# pylint: disable=import-error  # this program runs in an environment of its own

import json
import sys
import urllib.request

import pandas as pd
from mlserver.codecs import PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


def _post(url: str, request: InferenceRequest) -> InferenceResponse:
    body = request.model_dump_json(exclude_none=False).encode()
    posted = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(posted, timeout=30) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def main() -> None:
    """Send the rows as a DataFrame, with and without missing values."""
    task = json.load(sys.stdin)
    url = f"{task['url']}/v2/models/{task['model']}/infer"
    frame = pd.DataFrame(
        {
            name: pd.Series(values, dtype=object if isinstance(values[0], str) else None)
            for name, values in task["columns"].items()
        }
    )
    answers = {}
    for form, table in {
        "frame": frame,
        "missing": frame.assign(**{task["nullable"]: [float("nan"), *frame[task["nullable"]][1:]]}),
    }.items():
        response = _post(url, PandasCodec.encode_request(table, use_bytes=False))
        answers[form] = PandasCodec.decode_response(response)["predictions"].tolist()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
