"""Asks a prediction API with KServe's own client, in that package's environment, and writes what came back as JSON."""

import asyncio
import json
import logging
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import InferResponse, RequestedOutput

logging.disable(logging.ERROR)


def shown(answer: InferResponse) -> dict[str, Any]:
    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    return {"model": answer.model_name, "id": answer.id, "outputs": outputs}


async def main(url: str, asked: list[dict[str, Any]]) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "answers": [],
    }
    for item in asked:
        name = item["model"]
        inputs = []
        for tensor in item["inputs"]:
            array = np.array(tensor["data"], dtype=tensor["dtype"])
            one = InferInput(tensor["name"], list(array.shape), tensor["datatype"])
            one.set_data_from_numpy(array, binary_data=item["binary"])
            inputs.append(one)
        outputs = [RequestedOutput(name) for name in item.get("outputs", [])]
        request = InferRequest(
            name, inputs, request_id="k-1", request_outputs=outputs, parameters=item.get("parameters")
        )
        try:
            answer = shown(await client.infer(url, request, model_name=name))
        except httpx.HTTPStatusError as error:
            answer = {"status": error.response.status_code, "message": str(error)}
        found["answers"].append({**answer, "ready": await client.is_model_ready(url, name)})
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(main(sys.argv[1], json.load(sys.stdin))), sys.stdout)
