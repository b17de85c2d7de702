"""The example of a deployment runs, answers, asks, and refuses what it doesn't take."""

import json
from pathlib import Path

from tests.support.deployments import deployed

FILE = Path(__file__).resolve().parents[2] / "examples" / "agentic_workflow" / "deployment.yml"
SERVICE = "agentic_workflow"
ANSWER = {
    "__is_pydantic": True,
    "qualified_name": "workflows.events.HumanResponseEvent",
    "value": {"_data": {"response": "a b"}},
}


def test_it_does_what_its_documentation_says(tmp_path: Path) -> None:
    with deployed(FILE, tmp_path) as deployment:
        assert deployment.run(SERVICE, user_msg="Hello from my shell!") == "'Hello from my shell!' has 4 words"
        session = deployment.post("/sessions/create").json()
        deployment.begin(session, "asks", SERVICE, user_msg="")
        path = f"/sessions/{session}/tasks/asks"
        answer = {"event_obj_str": json.dumps(ANSWER), "service_id": SERVICE}
        assert deployment.post(f"{path}/send_event", answer).status == 200
        assert deployment.get(f"{path}/result?wait=20").json()["result"] == "'a b' has 2 words"
        stream = deployment.get(f"{path}/result_stream").body.decode()
        assert "What is your question?" in stream
        assert "thank you; counting words" in stream
        wrong = {"input": json.dumps({"resume": "x"}), "service_id": SERVICE}
        refused = deployment.post(f"/sessions/{session}/tasks", wrong)
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_ARGUMENTS")
    assert refused.json()["detail"] == (
        "unknown argument 'resume'; this service takes: user_msg (required, str). Did you mean 'user_msg'?"
    )
