# SPDX-License-Identifier: Apache-2.0
"""New keys and new identities under traffic: nothing is lost by them."""
import time
import pytest
import lab as L

REKEYS = "x0_session_rekeys_total"


def rekeys_lose_nothing(x0_lab, count, loss, rate=500):
    hosts = x0_lab("a-b")
    a, b = hosts["a"], hosts["b"]
    for h in (a, b):
        h.reconfigure("session: {rekey_after: 1s}\n")
    L.wait_for("both linked", lambda: a.linked(b) and b.linked(a), 20)
    L.lab_links("a-b", "--loss", f"{loss}%")
    # The link may have lost what the first packet waits for; from here on it must not matter.
    L.wait_for("traffic", lambda: a.ping(b.overlay(), 1, 1), 20)

    def lost_on_the_wire():
        return [x["lost"] for x in L.lab_links("a-b") if x["from"] == "a"][0]
    first, wire = a.metric(REKEYS), lost_on_the_wire()
    f = L.Flow(a, b, b.overlay(), rate)
    try:
        L.wait_for(f"{count} re-keys", lambda: a.metric(REKEYS) - first >= count, count * 3 + 30, 0.2)
    finally:
        sent, lost, twice = f.stop()
    wire = lost_on_the_wire() - wire
    assert sent >= rate * count / 3 and twice == 0
    # The wire also lost frames of the handshakes themselves. A packet lost by a re-key would be one more.
    assert len(lost) <= wire, f"{len(lost)} of {sent} lost, the wire lost {wire}: {lost}"
    assert wire > 0 or loss == 0
    assert a.linked(b)


def test_rekeys_lose_nothing(x0_lab):
    rekeys_lose_nothing(x0_lab, 5, 0)


def test_rekeys_under_loss_lose_no_packet_more(x0_lab):
    rekeys_lose_nothing(x0_lab, 20, 2)


@pytest.mark.soak
def test_a_day_of_rekeys_under_loss(x0_lab):
    """One every 120 s: 720 a day."""
    rekeys_lose_nothing(x0_lab, 720, 2)


@pytest.mark.soak
def test_renewals_lose_nothing_at_10000_packets_a_second(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"), "identity: {ttl: 20s}\n")
    f = L.Flow(a, b, b.overlay(), 10000)
    keys = [set(), set()]
    t0 = time.monotonic()
    try:
        while time.monotonic() - t0 < 120:
            for k, h in zip(keys, (a, b)):
                k.add(h.json("identity", "show")["link"]["key_sha256"])
            time.sleep(1)
    finally:
        sent, lost, twice = f.stop()
    assert all(len(k) >= 5 for k in keys)
    assert sent >= 10000 * 100
    assert not lost and not twice
