"""The meters of the attacks measure what they say."""

from collections.abc import Callable

from attacking import Target, metered, tree


def test_the_meter_sees_the_work_of_the_gateways_processes(target: Callable[..., Target]) -> None:
    running = target()
    assert len(tree(running.pid)) >= 2  # the edge and the writer of the ledger
    body = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hi"}]}
    with metered(running.pid) as meter:
        for _ in range(100):
            assert running.gateway.post("/v1/chat/completions", body).status_code == 200
    assert 0 < meter.cpu_s < 5
    assert meter.peak_mb < 50


def test_a_configuration_of_its_own_reaches_the_gateway(target: Callable[..., Target]) -> None:
    running = target(config="body_bytes = 2048\n")
    long = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "x" * 4096}]}
    assert running.gateway.post("/v1/chat/completions", long).status_code == 413
    limited = running.create_key("limited", "--rpm", "1")
    running.gateway.key = limited
    short = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hi"}]}
    answers = [running.gateway.post("/v1/chat/completions", short).status_code for _ in range(2)]
    assert answers == [200, 429]
