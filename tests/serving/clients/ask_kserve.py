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


async def answered(client: InferenceRESTClient, item: dict[str, Any]) -> dict[str, Any]:
    url, name = item["url"], item["model"]
    inputs = []
    for tensor in item["inputs"]:
        array = np.array(tensor["data"], dtype=tensor["dtype"])
        one = InferInput(tensor["name"], list(array.shape), tensor["datatype"])
        one.set_data_from_numpy(array, binary_data=item["binary"])
        inputs.append(one)
    outputs = [RequestedOutput(output) for output in item.get("outputs", [])]
    request = InferRequest(name, inputs, request_id="k-1", request_outputs=outputs, parameters=item.get("parameters"))
    well = [await client.is_server_live(url), await client.is_server_ready(url), await client.is_model_ready(url, name)]
    try:
        return {"well": well, **shown(await client.infer(url, request, model_name=name))}
    except httpx.HTTPStatusError as error:
        return {"well": well, "status": error.response.status_code, "message": str(error)}


async def main(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    return [await answered(client, item) for item in asked]


if __name__ == "__main__":
    json.dump(asyncio.run(main(json.load(sys.stdin))), sys.stdout)
