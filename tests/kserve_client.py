"""KServe's own client against a server, in an environment of its own; prints the answers.

    python tests/kserve_client.py http://127.0.0.1:8080

KServe needs older versions of pandas and protobuf than this project, so it cannot be installed
beside it: `python3 -m venv .venv-kserve && .venv-kserve/bin/pip install kserve`.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
TEXT = "The acting is wonderful and I loved every minute of it."


def ask_for_rows(binary: bool) -> InferRequest:
    rows = InferInput("rows", [2, 5], "FP64")
    rows.set_data_from_numpy(np.array([list(ROW.values())] * 2), binary_data=binary)
    return InferRequest("regression", [rows], request_id="7")


async def ask(address: str) -> dict[str, object]:
    reported: dict[str, object] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        reported["v1 live"] = await client.is_server_live(address)
        reported["v1 ready"] = await client.is_model_ready(address, "regression")
        for name, data in {
            "by name": {"instances": [ROW, ROW]},
            "by list": {"instances": [list(ROW.values())] * 2},
            "by column": {"inputs": {key: [value] * 2 for key, value in ROW.items()}},
        }.items():
            answer = await client.infer(address, data, model_name="regression")
            reported[f"v1 {name}"] = [row["prediction"] for row in answer["predictions"]]
            answer = await client.explain(address, "regression", data)
            reported[f"v1 explained {name}"] = [sum(row.values()) for row in answer["explanations"]]
        answer = await client.infer(address, {"instances": [TEXT]}, model_name="sentiment")
        reported["v1 label"] = answer["predictions"][0]["label"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        reported["v2 live"] = await client.is_server_live(address)
        reported["v2 ready"] = await client.is_server_ready(address)
        reported["v2 model ready"] = await client.is_model_ready(address, "regression")
        for binary in (False, True):
            request = ask_for_rows(binary)
            answer = await client.infer(address, request, model_name="regression")
            reported[f"v2 binary {binary}"] = (
                answer.get_output_by_name("prediction").as_numpy().tolist()
            )
            reported[f"v2 id {binary}"] = answer.id
        texts = InferInput("text", [1], "BYTES", [TEXT])
        request = InferRequest("sentiment", [texts])
        answer = await client.infer(address, request, model_name="sentiment")
        reported["v2 label"] = answer.get_output_by_name("label").data[0]
    return reported


print(json.dumps(asyncio.run(ask(sys.argv[1]))))
