"""A cluster that cannot be joined is told at once, without Ray: a head that is not there, and one that refuses this process.

`tests/jobs/test_on_nodes.py` joins a real cluster, with its token and without.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from gristmill.errors import UserError
from pipeline.engines.on_ray.join import ASK, _check_token, join


class Heads(grpc.GenericRpcHandler):
    """Answers what a head is asked: with the status set, or with nothing."""

    status: grpc.StatusCode | None = None

    def service(self, asked: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        assert asked.method == ASK
        assert "authorization" not in dict(asked.invocation_metadata or ())

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if self.status is not None:
                context.abort(self.status, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def head() -> Iterator[tuple[Heads, str]]:
    heads, server = Heads(), grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((heads,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield heads, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(
            UserError, match=rf"no Ray cluster answers at '{address}': .*refused.*; give run.address .* host:port"
        ):
            join(address, None)


def test_a_head_that_wants_a_token_is_told_with_where_it_lies(head: tuple[Heads, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    heads, address = head
    heads.status = grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(UserError, match=rf"cluster at '{address}' refuses .* `disabled` here; give .* ~/.ray/auth_token"):
        _check_token(address)


@pytest.mark.parametrize("status", [None, grpc.StatusCode.UNIMPLEMENTED])
def test_whatever_else_a_head_answers_is_for_ray_to_judge(
    status: grpc.StatusCode | None, head: tuple[Heads, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    heads, address = head
    heads.status = status
    _check_token(address)
