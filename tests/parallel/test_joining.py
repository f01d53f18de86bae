"""How a process learns that there are others."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from typing import ClassVar

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from tests import ports
from tests import source
from vlguard_jax import errors
from vlguard_jax.parallel import coordinator
from vlguard_jax.parallel import joining

PLAIN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, joining.Start("one", 1)),
        (PLAIN, joining.Start("plain", 4, 3, "10.0.0.1:1234")),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "0"}, joining.Start("tpu", 4)),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, joining.Start("tpu", 4)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, joining.Start("one", 1)),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}, joining.Start("slurm", 8)),
        ({"SLURM_NTASKS": "8"}, joining.Start("one", 1)),  # inside sbatch, not started by srun
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, joining.Start("one", 1)),
    ],
)
def test_detected(environment, expected):
    assert joining.detect({"TPU_SKIP_MDS_QUERY": "1"} | environment) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES set, but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 must be from 0 to JAX_NUM_PROCESSES - 1 = 3"),
        ({"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES='four' must be a whole number"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID='-1' must be a whole number"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES='0' must be a whole number, at least 1"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(errors.UserError, match=message):
        joining.detect(PLAIN | change)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "two"}, "MEGASCALE_NUM_SLICES='two'"),
        ({"SLURM_NTASKS": "8(x2)", "SLURM_STEP_NODELIST": "n[1-2]"}, r"SLURM_NTASKS='8\(x2\)'"),
        (PLAIN | {"VLGUARD_START_TIMEOUT": "1m"}, "VLGUARD_START_TIMEOUT='1m'"),
        (PLAIN | {"VLGUARD_START_TIMEOUT": "0"}, "VLGUARD_START_TIMEOUT='0'"),
    ],
)
def test_a_bad_number_is_named(environment, name):
    with pytest.raises(errors.UserError, match=f"^{name} must be a whole number, at least 1$"):
        joining.start(environment)


SLURM = {
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_JOB_ID": "7",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        *[
            (PLAIN | {"JAX_COORDINATOR_ADDRESS": address}, "JAX_COORDINATOR_ADDRESS")
            for address in (
                "host",
                "host:",
                ":1234",
                "host:port",
                "host:0",
                "host:65536",
                "::1:1234",
                "[::1]",
                "http://host:1234",
                "a b:1",
                "h:" + "9" * 5000,
            )
        ],
        (
            PLAIN | {"JAX_PROCESS_ID": "0", "JAX_COORDINATOR_BIND_ADDRESS": "host"},
            "JAX_COORDINATOR_BIND_ADDRESS='host' must be HOST:PORT",
        ),
        (PLAIN | {"JAX_LOCAL_DEVICE_IDS": "0,a"}, "JAX_LOCAL_DEVICE_IDS='0,a' must be whole numbers"),
        (PLAIN | {"JAX_PARTITION_INDEX": "a"}, "JAX_PARTITION_INDEX='a' must be a whole number"),
        (PLAIN | {"JAX_NUM_PROCESSES": "9" * 5000}, "JAX_NUM_PROCESSES='9999"),
        (SLURM | {"SLURM_PROCID": "8"}, "SLURM_PROCID=8 must be from 0 to SLURM_NTASKS - 1 = 7"),
        (SLURM | {"SLURM_JOB_ID": "7_1"}, "SLURM_JOB_ID='7_1' must be a whole number"),
        (SLURM | {"SLURM_LOCALID": ""}, "SLURM_LOCALID not set, though SLURM_NTASKS=8"),
        (SLURM | {"JAX_COORDINATOR_PORT": "port"}, "JAX_COORDINATOR_PORT: the port port must be"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "x"}, "TPU_WORKER_ID='x' must be a whole number"),
    ],
)
def test_odd_variables_are_named(environment, message):
    with pytest.raises(errors.UserError) as caught:
        joining.start({"TPU_SKIP_MDS_QUERY": "1"} | environment)
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "host-1.example:65535", "[fd00::1]:1234", "localhost:8080"])
def test_addresses(address):
    assert coordinator.port_of(address, "X") == int(address.rpartition(":")[2])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.from_regex(r"[\[\]a-f:.%0-9]*:[0-9]{0,7}")))
def test_any_address_is_taken_or_named(address):
    """It has a port, or it is a user's mistake in one line."""
    try:
        assert 0 < coordinator.port_of(address, "X") < 65536
    except errors.UserError as e:
        assert str(e).startswith("X") and "\n" not in str(e) and len(str(e)) < 400


@pytest.mark.parametrize("kind", ["plain", "slurm", "tpu"])
def test_a_port_in_use_is_named(kind):
    """By the process that is to listen there, and no other."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        first = {
            "plain": PLAIN | {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_PROCESS_ID": "0"},
            "slurm": SLURM | {"SLURM_PROCID": "0", "JAX_COORDINATOR_PORT": str(port)},
            "tpu": {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0", "JAX_COORDINATOR_PORT": str(port)},
        }[kind]
        with pytest.raises(
            errors.UserError, match=f"^port {port}, at which this process is to wait for the others, is in use"
        ):
            joining.start({"TPU_SKIP_MDS_QUERY": "1"} | first)
    coordinator.check_free(port)


class _Metadata(http.server.BaseHTTPRequestHandler):
    """Compute Engine's metadata server, as on the machines of a TPU slice."""

    attributes: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        value = self.attributes.get(self.path.removeprefix("/computeMetadata/v1/instance/attributes/"))
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(404 if value is None else 200)
        self.end_headers()
        self.wfile.write((value or "").encode())

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def metadata_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"GCE_METADATA_IP": f"127.0.0.1:{server.server_address[1]}"}
        server.shutdown()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, joining.Start("one", 1)),  # a machine without a TPU
        ({"worker-network-endpoints": "unknown:unknown:10.0.0.2"}, joining.Start("one", 1)),
        ({"worker-network-endpoints": "a:1:10.0.0.2,b:2:10.0.0.3", "tpu-env": "ZONE: 'z'\n"}, joining.Start("tpu", 2)),
        (
            {"worker-network-endpoints": "h0,h1", "tpu-env": "ZONE: 'z'\nMEGASCALE_NUM_SLICES: '2'\n"},
            joining.Start("tpu", 4),
        ),
    ],
)
def test_a_slice_of_compute_engine_is_noticed(monkeypatch, metadata_server, attributes, expected):
    monkeypatch.setattr(_Metadata, "attributes", attributes)
    assert joining.detect(metadata_server) == expected
    assert joining.detect(metadata_server | {"TPU_SKIP_MDS_QUERY": "1"}) == joining.Start("one", 1)


def test_no_metadata_server_is_one_process():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        assert joining.detect({"GCE_METADATA_IP": f"127.0.0.1:{silent.getsockname()[1]}"}) == joining.Start("one", 1)


def test_one_host_of_a_slice_is_told_so():
    """A host of a slice, alone: its neighbour is only named. JAX itself would wait for ever."""
    slice_of_two = {"TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.2", "TPU_WORKER_ID": "0", "VLGUARD_START_TIMEOUT": "3"}
    port = {"JAX_COORDINATOR_PORT": str(ports.free())}
    megascale = {"MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1", "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"}
    environment = os.environ | slice_of_two | port | megascale
    code = "from vlguard_jax import cli; from vlguard_jax.parallel import joining; cli.run(lambda _: joining.start())"
    # As on a TPU machine, which this is not.
    code = f"from jax._src.clusters import cloud_tpu_cluster as c; c.running_in_cloud_tpu_vm = True; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=source.PATIENCE
    )
    assert done.returncode == 2, done.stderr
    said = (
        "error: not all of 2 processes came within 3 s; this is one host of a slice of 2; start the same command"
        " on every host"
    )
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1, done.stderr
