# SPDX-License-Identifier: Apache-2.0
"""The dissector on what real hosts send: from the knock to data, every frame of it."""
import collections, os, shutil, sys
import pytest
import lab as L

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "deploy"))
from test_dissector import tshark  # noqa: E402


@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")
def test_a_new_session_is_read_frame_by_frame(pair):
    a, b = pair
    c = L.Capture(a, "u0")
    b.down()
    b.up()
    L.wait_for("b linked again", lambda: b.linked(a), 60)
    assert b.ping(a.overlay(), 5) > 0
    frames = [f for f in c.stop() if f[12:14] == b"\x08\x00" and f[23] == 17]
    rows = tshark(frames, ["x0.type", "x0.malformed", "x0.dst", "quic.version"])
    n = collections.Counter(r["x0.type"] for r in rows)
    assert all(n[t] > 0 for t in ("0x01", "0x02", "0x03", "0x10", "0x11")), n
    assert not any(r["x0.malformed"] for r in rows)
    assert any(r["x0.type"] == "0x03" and r["quic.version"].startswith("0x00000001") for r in rows)
