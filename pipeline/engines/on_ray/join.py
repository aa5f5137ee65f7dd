"""Join a Ray cluster, or start one on this machine; what stands in the way is reported at once.

Ray tries for twenty seconds to reach a cluster that refuses it, and then says that there is none. Clusters with token
authentication (Ray turns it on where it finds a token, such as in `~/.ray/auth_token`) are asked first.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import grpc  # comes with ray[default]
import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from gristmill.errors import UserError

CONNECT_S = 10.0
ASK = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # of a head, answered without arguments
REMEDY = (
    "give this process the cluster's token: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or a file that RAY_AUTH_TOKEN_PATH names "
    "(on the head it is ~/.ray/auth_token; a cluster of KubeRay has it in the secret of its name, key auth_token)"
)


def join(address: str | None, workers: int | None) -> None:
    """Connect to the cluster at `address`, or start one on this machine.

    Raises:
        UserError: nothing answers there, or it wants another token.
    """
    local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    where = f"no Ray cluster answers at {address!r}" if address else "Ray does not start on this machine"
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            # Ray itself tries for two minutes and then ends the process.
            socket.create_connection((host, int(port)), CONNECT_S).close()
            if not (address or "").startswith("ray://"):
                _check_token(f"{host}:{port}")
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    except AuthenticationError as error:
        raise UserError(
            f"{where}: {str(error).splitlines()[0]}; {REMEDY}, or RAY_AUTH_MODE=disabled where it has none"
        ) from error
    except OSError as error:
        advice = "give run.address (or RAY_ADDRESS) as host:port of its head, or neither to start one here"
        raise UserError(f"{where}: {error}; {advice}; where it uses token authentication, {REMEDY}") from error


def _check_token(address: str) -> None:
    """Raise UserError when the head at `address` refuses our token, or wants one that we do not have."""
    token = _token()
    sent = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(ASK)(b"", timeout=CONNECT_S, metadata=sent)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                return  # not for us to judge: Ray says what it is
            found = "the token found here is not its own" if token else "no token was found here"
            if not token and _mode() == "disabled":
                found = "RAY_AUTH_MODE is `disabled` here"
            raise UserError(
                f"the Ray cluster at {address!r} refuses this process: it uses token authentication, and {found}; {REMEDY}"
            ) from error


def _mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "").lower()


def _token() -> str:
    """Return the token that Ray would send from here; empty when there is none. Raises AuthenticationError."""
    if _mode() not in ("", "token"):
        return ""
    loader = AuthenticationTokenLoader.instance()
    # Where no mode is set Ray takes a token that is there.
    return loader.get_raw_token(ignore_auth_mode=True) if loader.has_token(ignore_auth_mode=True) else ""
