"""The supervisor: which addresses a server can listen on."""

import socket
from dataclasses import replace

import pytest

from housing.core.errors import ConfigError
from housing.serving.supervisor import require_free_ports, server_environment
from server.core.settings import Settings
from tests.support.server import free_port
from tests.support.tables import config


def test_each_port_must_be_free_and_another_one() -> None:
    settings = Settings.from_environment(server_environment(config("serve").serve))
    settings = replace(settings, port=free_port(), metrics_port=0, webhook_port=0)
    require_free_ports(settings)
    with pytest.raises(ConfigError, match=r"serve\.webhook_port must be another port than serve\.port"):
        require_free_ports(replace(settings, webhook_port=settings.port))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port}: Address already in use\. Choose another with serve\.metrics_port="):
            require_free_ports(replace(settings, metrics_port=port))
