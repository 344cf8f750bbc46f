# SPDX-License-Identifier: Apache-2.0
"""What deploy/systemd does, done by hand: ready notifications, passed sockets, a main process that starts without any
right, a broker that outlives it."""
import contextlib, os, signal, socket, subprocess
import lab as L

BROKER = os.path.join(os.path.dirname(L.X0), "x0-broker")


class Manager:
    """Starts one host's processes as systemd would; `ready` waits for READY=1."""

    def __init__(self, host):
        self.host, self.all = host, []
        os.makedirs(host.run_dir, exist_ok=True)
        self.notify = os.path.join(host.dir, "notify")
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.bind(self.notify)
        os.chmod(self.notify, 0o777)

    def listen(self, name, uid, mode):
        path = os.path.join(self.host.run_dir, name)
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.bind(path)
        os.chown(path, uid, uid)
        os.chmod(path, mode)
        s.listen(64)
        return s

    def start(self, name, argv, user=0, pass_socket=None):
        if user:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all",
                    "--no-new-privs", "--", "sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *argv]
        env = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self.notify}
        if pass_socket:
            env["LISTEN_FDS"] = "1"
        with open(os.path.join(self.host.dir, f"{name}.out"), "ab") as out:
            p = subprocess.Popen(["ip", "netns", "exec", self.host.ns, *argv], env=env, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, pass_fds=(3,) if pass_socket else (),
                                 preexec_fn=(lambda: os.dup2(pass_socket.fileno(), 3)) if pass_socket else None)
        self.all.append(p)
        self.s.settimeout(60)
        assert self.s.recv(100) == b"READY=1"
        return p

    def out(self, name):
        with open(os.path.join(self.host.dir, f"{name}.out")) as f:
            return f.read()

    def close(self):
        for p in reversed(self.all):
            p.kill()
            p.wait(30)
        self.s.close()


def test_a_main_process_without_rights_between_a_broker_and_an_issuer(make_lab):
    a, b = make_lab("node-a", "node-b").hosts
    a.config("", [b])
    b.config("", [a])
    a.x0("ca", "init")
    m = Manager(a)
    with contextlib.closing(m):
        api, issuer = m.listen("api.sock", L.USER, 0o660), m.listen("issuer.sock", L.USER, 0o600)
        broker = m.start("broker", [BROKER, "--socket", f"{a.run_dir}/broker.sock", "--user", str(L.USER)])
        m.start("issuer", [L.X0, "--config", a.conf, "issuer"], L.USER + 1, issuer)
        main = m.start("main", [L.X0, "--config", a.conf, "daemon"], L.USER, api)
        # Ready means ready: the issuer answers, b joins and they reach each other.
        b.x0("join", a.x0("ca", "token", "node-b", "--addr", f"{a.addr}:7430").stdout.strip())
        b.up()
        L.wait_for("linked", lambda: a.linked(b), 60)
        assert a.ping(b.overlay(), 3) > 0
        with open(f"/proc/{main.pid}/status") as f:
            status = dict(x.split(":\t", 1) for x in f.read().splitlines() if ":\t" in x)
        assert all(int(status[k], 16) == 0 for k in ("CapPrm", "CapEff", "CapBnd", "CapAmb"))
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"

        for verb, todo in (("up", "systemctl start x0"), ("down", "systemctl stop x0")):
            r = a.x0(verb, check=False)
            assert r.returncode != 0 and todo in r.stderr
        assert a.json("status")["address"]  # the refused commands took nothing away

        main.send_signal(signal.SIGKILL)
        main.wait(30)
        m.start("main", [L.X0, "--config", a.conf, "daemon"], L.USER, api)
        assert broker.poll() is None
        assert "adopted=true" in m.out("main")
        L.wait_for("linked again", lambda: a.linked(b), 60)
        L.wait_for("traffic again", lambda: a.ping(b.overlay(), 3), 60)
