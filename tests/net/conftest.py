# SPDX-License-Identifier: Apache-2.0
import fcntl, json, os, sys
import pytest

sys.path.insert(0, os.path.dirname(__file__))
import lab as L  # noqa: E402


def pytest_collection_modifyitems(items):
    here = os.path.dirname(__file__)
    why = None
    if os.geteuid():
        why = "needs root"
    elif not os.path.exists("/dev/net/tun"):
        why = "needs /dev/net/tun"
    elif not os.path.exists(L.X0):
        why = f"{L.X0} is not built"
    for i in items:
        if why and str(i.fspath).startswith(here):
            i.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session", autouse=True)
def alone():
    """The namespaces' names belong to one run at a time on a machine."""
    with open("/run/lock/x0t", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@pytest.fixture
def make_lab(alone):
    L.cleanup()
    labs = []

    def make(*names):
        labs.append(L.Lab(names))
        return labs[-1]
    try:
        yield make
    finally:
        for x in labs:
            x.close()


@pytest.fixture
def x0_lab(alone):
    """make(LINKS or FILE): hosts of `x0 lab up` by name, every link's ends linked with each other."""
    def make(links):
        L.run(L.X0, "lab", "up", links)
        hosts = {h: L.LabHost(h) for h in json.loads(L.run(L.X0, "lab", "list", "--json").stdout)["hosts"]}
        for x in L.lab_links():
            a, b = hosts[x["from"]], hosts[x["to"]]
            L.wait_for(f"{a.name} linked with {b.name}", lambda a=a, b=b: a.linked(b), 20)
        return hosts
    try:
        yield make
    finally:
        L.run(L.X0, "lab", "down")


@pytest.fixture(scope="module")
def pair(alone):
    """Two linked hosts that a module's tests share; they leave it as they found it."""
    L.cleanup()
    x = L.Lab(["node-a", "node-b"])
    try:
        L.mesh(x)
        yield x.hosts
    finally:
        x.close()
