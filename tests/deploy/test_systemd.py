# SPDX-License-Identifier: Apache-2.0
"""deploy/systemd under systemd's own checks."""
import glob, os, re, shutil, subprocess
import pytest

DIR = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "systemd"))
UNITS = sorted(glob.glob(f"{DIR}/*.service") + glob.glob(f"{DIR}/*.socket"))
needs = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analyze(*argv):
    r = subprocess.run(["systemd-analyze", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout + r.stderr


@needs
@pytest.mark.parametrize("name, most", [("x0", 2.9), ("x0-issuer", 2.9), ("x0-broker", 4.0)])
def test_exposure(name, most):
    _, out = analyze("security", "--offline=true", "--no-pager", f"{DIR}/{name}.service")
    m = re.search(r"Overall exposure level for \S+: ([0-9.]+)", out)
    assert m and float(m[1]) <= most, out


@needs
def test_units_verify_clean(tmp_path):
    assert len(UNITS) == 5
    for u in UNITS:
        with open(u) as f:
            # The programs are not installed where this runs.
            text = re.sub(r"^(ExecStart=)\S+", rf"\1{shutil.which('true')}", f.read(), flags=re.M)
        copy = tmp_path / os.path.basename(u)
        copy.write_text(text)
        copy.chmod(0o644)  # whatever the umask
    rc, out = analyze("verify", "--man=no", *(str(tmp_path / os.path.basename(u)) for u in UNITS))
    assert rc == 0
    assert not [x for x in out.splitlines() if "x0" in x], out


def test_only_the_broker_has_a_capability():
    for u in UNITS:
        with open(u) as f:
            keys = dict(x.split("=", 1) for x in f.read().splitlines() if "Capabilit" in x and "=" in x and x[0] != "#")
        if u.endswith("x0-broker.service"):
            assert keys == {"CapabilityBoundingSet": "CAP_NET_ADMIN CAP_CHOWN CAP_SETPCAP"}
        elif u.endswith(".service"):
            assert keys == {"CapabilityBoundingSet": "", "AmbientCapabilities": ""}
