"""gRPC's side of `scripts/bench grpc`, in the environment of MLServer, whose stubs of the protocol it uses.

grpc_echo.py serve PORT             read a tensor, answer with its first column: the protocol's work without a model
grpc_echo.py load PORT ROWS COUNT   send COUNT requests of ROWS rows over 8 connections, and check the answers
"""

# pylint: disable=import-error  # the libraries are installed in their own environment only

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
from mlserver.grpc import dataplane_pb2 as messages
from mlserver.grpc import dataplane_pb2_grpc as stubs

N_CONNECTIONS, N_COLUMNS = 8, 8


class Echo(stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]  # the stubs have no types
    """Answers each request with the first column of its tensor."""

    async def ModelInfer(self, request: Any, _context: Any) -> Any:  # pylint: disable=invalid-name
        """Answer a request."""
        matrix = np.frombuffer(request.raw_input_contents[0], "<f8").reshape(request.inputs[0].shape)
        output = messages.ModelInferResponse.InferOutputTensor(name="predictions", datatype="FP64", shape=[len(matrix)])
        raw = matrix[:, 0].tobytes()
        return messages.ModelInferResponse(model_name=request.model_name, outputs=[output], raw_output_contents=[raw])


async def serve(port: str) -> None:
    """Serve until the process ends."""
    server = grpc.aio.server()
    stubs.add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def load(port: str, n_rows: int, count: int) -> None:
    """Send requests over all connections at once."""
    await asyncio.gather(*(_send(port, n_rows, count // N_CONNECTIONS, number) for number in range(N_CONNECTIONS)))


async def _send(port: str, n_rows: int, count: int, number: int) -> None:
    matrix = np.random.default_rng(number).normal(size=(n_rows, N_COLUMNS))
    tensor = messages.ModelInferRequest.InferInputTensor(name="rows", datatype="FP64", shape=matrix.shape)
    request = messages.ModelInferRequest(model_name="echo", inputs=[tensor], raw_input_contents=[matrix.tobytes()])
    options = [("grpc.use_local_subchannel_pool", 1)]  # channels to one address would share a connection
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        stub = stubs.GRPCInferenceServiceStub(channel)
        for _ in range(count):
            answer = await stub.ModelInfer(request)
            if answer.raw_output_contents[0] != matrix[:, 0].tobytes():
                sys.exit("error: the answer is not the first column")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        asyncio.run(serve(arguments[0]))
    else:
        asyncio.run(load(arguments[0], int(arguments[1]), int(arguments[2])))
