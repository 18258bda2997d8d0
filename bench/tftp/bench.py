#!/usr/bin/env python3
"""bench.py - throughput, concurrency, loss and memory of TFTP servers, side by side in one run.

Every server is a black box: a host, a port and (for CPU and memory) a process id.
Known daemons are started by name (tftpd-hpa, atftpd, dnsmasq); any other server is
given as  NAME=HOST:PORT[@PID]  (already running, serving the same root) or as
NAME=HOST:PORT!COMMAND  (started and stopped here; {root} in COMMAND is the served folder).

  bench.py throughput  --root DIR --servers tftpd-hpa,dnsmasq,atftpd,own=127.0.0.1:7069@4242
  bench.py concurrency --root DIR --servers ... --clients 1,16,256
  bench.py hold        --root DIR --servers ... --count 2000   (memory per open, idle transfer; RRQ/s)
  bench.py churn       --root DIR --servers ... --count 100000 (memory before and after so many small reads)
  bench.py upload      --root DIR --servers ... (servers that accept WRQ)
  bench.py loss        --root DIR --servers ... --loss 0,1,5 --delay 10   (needs root: netns + TUN)
  bench.py flood       --root DIR --servers ... --rate 20000   (needs root: veth, raw socket)

Rounds are interleaved (server A, B, C, A, B, C ...) so that a drifting machine hits all
alike; medians are printed, and the ratio against --base.
"""
import argparse, concurrent.futures, json, os, shlex, signal, statistics, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")


def compiled(name, build_dir):
    exe = os.path.join(build_dir, name)
    src = os.path.join(HERE, name + ".c")
    if not os.path.exists(exe) or os.path.getmtime(exe) < os.path.getmtime(src):
        os.makedirs(build_dir, exist_ok=True)
        subprocess.check_call([os.environ.get("CC", "cc"), "-O2", "-o", exe, src])
    return exe


# ---------------------------------------------------------------- processes
def tree(pid):
    kids, out, todo = {}, [], [pid]
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                s = open(f"/proc/{d}/stat").read()
                kids.setdefault(int(s[s.rindex(")") + 2:].split()[1]), []).append(int(d))
            except OSError:
                pass
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def cpu(pid):
    """CPU seconds of the process, its live children and its reaped children."""
    t = 0
    for p in tree(pid):
        try:
            s = open(f"/proc/{p}/stat").read()
            f = s[s.rindex(")") + 2:].split()
            t += sum(int(x) for x in f[11:15])
        except OSError:
            pass
    return t / TICK


def memory(pid):
    """(PSS, RSS) in MB of the process and its children.  PSS divides shared pages among all who map them, also
    among servers of the same program; RSS counts them fully, which is right for one process and too much for forks."""
    n = {"Pss:": 0, "Rss:": 0}
    for p in tree(pid):
        try:
            for line in open(f"/proc/{p}/smaps_rollup"):
                if line[:4] in n:
                    n[line[:4]] += int(line.split()[1])
        except OSError:
            pass
    return n["Pss:"] / 1024, n["Rss:"] / 1024


class Cg:
    """A control group around a server we start: exact CPU even of children that are never reaped
    (tftpd-hpa forks one per request and ignores SIGCHLD).  cgroup v2 or v1 cpuacct; None elsewhere."""

    @staticmethod
    def make(name):
        tag = os.environ.get("TFTPBENCH_TAG") or os.getpid()
        for base, f in (("/sys/fs/cgroup", "cpu.stat"), ("/sys/fs/cgroup/unified", "cpu.stat"), ("/sys/fs/cgroup/cpuacct", "cpuacct.usage")):
            if not os.path.exists(os.path.join(base, "cgroup.procs")):
                continue
            d = os.path.join(base, f"tftpbench-{tag}-{name}")
            try:
                os.makedirs(d, exist_ok=True)
                if os.path.exists(os.path.join(d, f)) and os.access(os.path.join(d, "cgroup.procs"), os.W_OK):
                    c = Cg()
                    c.dir, c.file = d, os.path.join(d, f)
                    return c
                os.rmdir(d)
            except OSError:
                pass
        return None

    def enter(self, cmd):
        """The command that runs `cmd` in this group from its first instruction on."""
        return ["sh", "-c", 'echo 0 > "$0/cgroup.procs"; exec "$@"', self.dir, *cmd]

    def cpu(self):
        t = open(self.file).read()
        return int(t.split()[1]) / 1e6 if "usage_usec" in t else int(t) / 1e9

    def close(self):
        for _ in range(20):
            try:
                os.rmdir(self.dir)
                return
            except OSError:
                time.sleep(0.1)


class MemSampler(threading.Thread):
    def __init__(self, pid, every=0.2):
        super().__init__(daemon=True)
        self.pid, self.every, self.pss, self.rss, self.done = pid, every, 0.0, 0.0, threading.Event()

    def run(self):
        ended = False
        while not ended:
            ended = self.done.wait(self.every)   # and once at the end: a run may be shorter than the pause
            p, r = memory(self.pid)
            self.pss, self.rss = max(self.pss, p), max(self.rss, r)


# ---------------------------------------------------------------- servers
class Server:
    def __init__(self, name, host, port, pid=None, cmd=None, put=True):
        self.name, self.host, self.port, self.pid, self.cmd = name, host, int(port), pid, cmd
        self.put, self.proc, self.cg, self.wins = put, None, None, True

    def cpu(self):
        return self.cg.cpu() if self.cg else cpu(self.pid) if self.pid else 0

    def start(self, pre=(), tag=""):
        if not self.cmd:
            return
        self.cg = Cg.make(self.name + tag)
        cmd = list(pre) + self.cmd
        self.proc = subprocess.Popen(self.cg.enter(cmd) if self.cg else cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE, start_new_session=True)
        self.pid = self.proc.pid
        end = time.monotonic() + 15
        while not self.listens():
            if self.proc.poll() is not None or time.monotonic() > end:
                said = b"" if self.proc.poll() is None else self.proc.stderr.read()[-500:]
                self.stop()
                raise SystemExit(f"{self.name} did not start: {' '.join(cmd)}\n{said.decode(errors='replace')}")
            time.sleep(0.02)
        threading.Thread(target=lambda f: [0 for _ in f], args=(self.proc.stderr,), daemon=True).start()

    def listens(self):
        """Whether its UDP port is bound in its network namespace."""
        for f in ("udp", "udp6"):
            try:
                for line in open(f"/proc/{self.pid}/net/{f}").readlines()[1:]:
                    if int(line.split()[1].rsplit(":", 1)[1], 16) == self.port:
                        return True
            except OSError:
                pass
        return False

    def probe(self, name):
        """Whether it grants a windowsize (RFC 7440): asked, not assumed."""
        from tftplib import RRQ, OACK, Peer, error, req
        with Peer(self.host, self.port) as p:
            for _ in range(3):
                p.first(req(RRQ, name, opts={"blksize": 1468, "windowsize": 64}))
                k = p.recv(1)
                if k is not None:
                    p.send(error(0, "only asked"))
                    self.wins = k.op == OACK and "windowsize" in k.opts
                    return

    def settle(self, sig):
        """Lets a server that we started and that knows the signal collect its garbage."""
        if sig and self.proc:
            os.kill(self.pid, getattr(signal, "SIG" + sig))
        time.sleep(0.5)

    def stop(self):
        if self.proc:
            try:
                os.killpg(self.proc.pid, signal.SIGTERM)
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                pass
            except ProcessLookupError:
                pass
            try:
                os.killpg(self.proc.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.proc.wait()
            self.proc = None
        if self.cg:
            self.cg.close()
            self.cg = None


KNOWN = {
    "tftpd-hpa": lambda root, h: Server("tftpd-hpa", h or "127.0.0.1", 6901, cmd=[
        os.environ.get("TFTPD_HPA", "in.tftpd"), "-L", "-4", "-u", "root", "-a", f"{h or '127.0.0.1'}:6901", "-c", "-s", root]),
    "atftpd": lambda root, h: Server("atftpd", h or "127.0.0.1", 6902, cmd=[
        os.environ.get("ATFTPD", "atftpd"), "--daemon", "--no-fork", "--port", "6902", "--bind-address", h or "127.0.0.1", "--maxthread", "2000",
        "--user", "root.root", "--logfile", "/dev/null", "--verbose=0", root]),
    # dnsmasq can only listen on port 69, so it gets an address of its own.
    "dnsmasq": lambda root, h: Server("dnsmasq", h or "127.0.0.3", 69, put=False, cmd=[
        os.environ.get("DNSMASQ", "dnsmasq"), "-k", "--conf-file=/dev/null", "--port=0", "--enable-tftp", f"--tftp-root={root}",
        f"--listen-address={h or '127.0.0.3'}", "--bind-interfaces", "--tftp-max=2000", "--user=root", "--pid-file=",
        "--log-facility=/dev/null"]),
}


def parse_servers(a, host=None):
    """Fresh servers; where `host` is given (an address in a namespace), it is that of all."""
    out = []
    for s in [x for x in a.servers.split(",") if x] + a.server:
        if s in KNOWN:
            out.append(KNOWN[s](a.root, host))
            continue
        name, rest = s.split("=", 1)
        cmd = pid = None
        if "!" in rest:
            rest, cmd = rest.split("!", 1)
        elif "@" in rest:
            rest, pid = rest.split("@")
            pid = int(pid)
        h, p = rest.rsplit(":", 1)
        if cmd:
            cmd = [w.replace("{root}", a.root).replace("{host}", host or h).replace("{port}", p) for w in shlex.split(cmd)]
        out.append(Server(name, host or h, p, pid=pid, cmd=cmd))
    return out


def run(exe, srv, pre=(), timeout=400, **kw):
    args = [exe, "-h", srv.host, "-p", str(srv.port)]
    for k, v in kw.items():
        if v is True:
            args += ["-" + k]
        elif v is not None and v is not False:
            args += ["-" + k, str(v)]
    return measured(srv, list(pre) + args, timeout)


def measured(srv, args, timeout=400):
    """Runs a client that prints a JSON line, and adds what the server spent meanwhile."""
    c0 = srv.cpu()
    ms = MemSampler(srv.pid) if srv.pid else None
    if ms:
        ms.start()
    r = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    out = json.loads(r.stdout.strip().splitlines()[-1]) if r.stdout.strip() else {"MBps": 0, "failed": 1, "last_error": r.stderr[-200:]}
    if ms:
        spent = srv.cpu() - c0
        ms.done.set()
        ms.join()
        out["server_cpu_s"] = round(spent, 4)
        out["server_pss_MB"], out["server_rss_MB"] = round(ms.pss, 1), round(ms.rss, 1)
        if out.get("bytes"):
            out["server_cpu_s_per_GB"] = round(out["server_cpu_s"] / out["bytes"] * 1e9, 3)
    return out


def fmt(rows, cols):
    cols = [c for c in cols if any(r.get(c, "") != "" for r in rows)]
    w = [max(len(str(r.get(c, ""))) for r in rows + [{c: c}]) for c in cols]
    for r in [{c: c for c in cols}, {c: "-" * x for c, x in zip(cols, w)}] + rows:
        print("| " + " | ".join(str(r.get(c, "")).ljust(x) for c, x in zip(cols, w)) + " |")


MEDIANS = ("MBps", "seconds", "p50_ms", "p99_ms", "max_ms", "server_cpu_s", "server_cpu_s_per_GB", "server_pss_MB", "server_rss_MB",
           "dups", "gaps", "timeouts", "failed", "extra_data", "quiet_p50_ms", "flood_rate")


def summarize(rows, keys, base):
    groups = {}
    for r in rows:
        groups.setdefault(tuple(r[k] for k in ("server",) + keys), []).append(r)
    med = {}
    for g, rs in groups.items():
        med[g] = dict(zip(("server",) + keys, g))
        for f in MEDIANS:
            v = [r[f] for r in rs if f in r]
            if v:
                med[g][f] = round(statistics.median(v), 2)
        if "blk" in rs[0]:
            med[g]["neg"] = f"{rs[0].get('blk')}x{rs[0].get('win')}"
        errs = [r["last_error"] for r in rs if r.get("last_error")]
        if errs:
            med[g]["error"] = errs[0][:40]
        if any(r.get("verify_errors") for r in rs):
            med[g]["error"] = "DATA CORRUPT"
    for g, m in med.items():
        b = med.get((base,) + g[1:])
        if b and b.get("MBps") and "MBps" in m:
            m["ratio"] = round(m["MBps"] / b["MBps"], 2)
    return list(med.values())


class Bench:
    """The arguments, the compiled clients, and the rows so far (told on stderr as they come)."""

    def __init__(self, a):
        from mkpattern import make
        self.a, self.exe, self.rows, self.lock = a, compiled("loadgen", a.build), [], threading.Lock()
        self.file = lambda name, size: make(os.path.join(a.root, name), size)
        self.t0 = time.monotonic()

    def note(self, r, **k):
        r.update(k)
        with self.lock:
            self.rows.append(r)
            print(json.dumps(r), file=sys.stderr, flush=True)

    def late(self):
        """Whether --limit is over: a round that has begun is finished, and the rows there are count."""
        return self.a.limit and self.rows and time.monotonic() - self.t0 > self.a.limit

    def grid(self, servers, clients=(None,)):
        """(round, clients, blksize, windowsize, server): servers innermost, so that they are measured one after the other."""
        a = self.a
        for rnd in range(a.rounds):
            if self.late():
                return
            for c in clients:
                for b in ints(a.blk):
                    wins = ints(a.win)
                    for w in wins:
                        for s in servers:
                            if not a.allwin and w > 1 and not s.wins:
                                continue
                            if a.best and s.wins and w != max(wins):
                                continue
                            yield rnd, c, b, w, s

    def started(self, file):
        servers = parse_servers(self.a)
        try:
            for s in servers:
                s.start()
                s.probe(file)
        except BaseException:
            stop_all(servers)
            raise
        return servers

    # ------------------------------------------------------------ what can be measured
    def throughput(self):
        self.file("big.bin", self.a.size)
        servers = self.started("big.bin")
        try:
            for rnd, _, b, w, s in self.grid(servers):
                self.note(run(self.exe, s, f="big.bin", b=b, w=w, c=1, n=1, t=self.a.tmo, T=self.a.deadline, V=True), server=s.name, round=rnd, b=b, w=w)
        finally:
            stop_all(servers)
        return ("b", "w")

    def concurrency(self):
        a = self.a
        self.file("one.bin", a.each)
        servers = self.started("one.bin")
        try:
            for rnd, c, b, w, s in self.grid(servers, ints(a.clients)):
                n = a.transfers or max(64, 4 * c)
                self.note(run(self.exe, s, f="one.bin", b=b, w=w, c=c, n=n, t=a.tmo, T=a.deadline, V=True, A=a.spread),
                          server=s.name, round=rnd, clients=c, b=b, w=w)
        finally:
            stop_all(servers)
        return ("clients", "b", "w")

    def upload(self):
        a = self.a
        self.file("one.bin", 65536)
        servers = self.started("one.bin")
        try:
            for rnd, c, b, w, s in self.grid([s for s in servers if s.put], ints(a.clients)):
                r = run(self.exe, s, f=f"up{s.name}{rnd}", b=b, w=w, c=c, n=c, S=a.each, u=True, t=a.tmo, T=a.deadline, V=True)
                for i in range(c):
                    p = os.path.join(a.root, f"up{s.name}{rnd}.{i}")
                    if not os.path.exists(p) or os.path.getsize(p) != a.each:
                        r["failed"] += 1
                    if os.path.exists(p):
                        os.unlink(p)
                self.note(r, server=s.name, round=rnd, clients=c, b=b, w=w)
        finally:
            stop_all(servers)
        return ("clients", "b", "w")

    def churn(self):
        """Small reads, one after the other and 64 at once: what stays behind in the server's memory."""
        a = self.a
        self.file("small.bin", 64)
        servers = self.started("small.bin")
        try:
            for s in servers:
                kw = dict(f="small.bin", c=64, t=a.tmo, T=a.deadline, N=True)
                # A heap grows to its working size during the first ten thousand or so.
                run(self.exe, s, n=max(30000, a.count // 5), **kw)
                s.settle(a.settle_signal)
                m0 = memory(s.pid)[1]
                r = run(self.exe, s, n=a.count, **kw)
                s.settle(a.settle_signal)
                m1 = memory(s.pid)[1]
                self.note(r, server=s.name, round=0, transfers=a.count, rss_before_MB=round(m0, 2), rss_after_MB=round(m1, 2))
        finally:
            stop_all(servers)
        return ("transfers",)

    def hold(self):
        """Opens --count reads, answers the OACK of none, and sees what each costs the server."""
        import resource
        from tftplib import RRQ, OACK, Peer, error, req
        a = self.a
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.file("one.bin", a.each)
        for rnd in range(a.rounds):
            for s in parse_servers(a):
                peers = []
                try:
                    s.start()
                    s.settle(a.settle_signal)
                    m0, ok, t = memory(s.pid)[0], 0, time.monotonic()
                    for _ in range(a.count):
                        p = Peer(s.host, s.port, rcvbuf=8192)
                        peers.append(p)
                        p.first(req(RRQ, "one.bin", opts={"blksize": 1468, "windowsize": 16, "tsize": 0}))
                        k = p.recv(1)
                        ok += k is not None and k.op == OACK
                        if time.monotonic() - t > 15:
                            break
                    t = time.monotonic() - t
                    m1 = memory(s.pid)[0]
                    self.note({"server": s.name, "round": rnd, "asked": a.count, "open": ok, "rrq_per_s": round(len(peers) / t), "pss_before_MB": round(m0, 1),
                               "pss_after_MB": round(m1, 1), "KB_each": round((m1 - m0) * 1024 / max(ok, 1), 1)})
                    for p in peers:
                        p.send(error(0))
                finally:
                    for p in peers:
                        p.s.close()
                    s.stop()
        return None

    def loss(self):
        """A link between two namespaces for each measurement: neither shares its luck or its queue with another."""
        a = self.a
        self.file("one.bin", a.each)
        jobs = [(rnd, loss, b, w, i) for rnd in range(a.rounds) for loss in [float(x) for x in a.loss.split(",")]
                for b in ints(a.blk) for w in ints(a.win) for i in range(len(parse_servers(a)))]
        with concurrent.futures.ThreadPoolExecutor(a.parallel) as pool:
            try:
                for f in concurrent.futures.as_completed([pool.submit(self.one_loss, n, *j) for n, j in enumerate(jobs)]):
                    f.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self.rows.sort(key=lambda r: (r["loss"], r["b"], r["w"], r["round"]))
        return ("loss", "b", "w")

    def one_loss(self, n, rnd, loss, b, w, i):
        a = self.a
        if self.late() and rnd > 0:
            return
        s = parse_servers(a, "10.77.0.1")[i]
        emu, ps, pc = netlab(a, loss, a.seed + rnd, n)
        r = None
        try:
            s.start(ps, f"-{n}")
            if a.client:
                words = {"{host}": s.host, "{port}": str(s.port), "{file}": "one.bin", "{blk}": str(b), "{win}": str(w)}
                cmd = [words.get(x, x) for x in shlex.split(a.client)]
                r = measured(s, pc + cmd)
            else:
                r = run(self.exe, s, pc, f="one.bin", b=b, w=w, c=1, n=1, t=a.tmo, T=a.deadline, r=20, V=True)
        finally:
            s.stop()
            emu.terminate()
            link = json.loads((emu.communicate()[0].strip() or "null").splitlines()[-1])
        if link:
            r["data_packets"], r["data_bytes"] = link[0]["data"], link[0]["data_bytes"]
            r["extra_data"] = link[0]["data"] - (a.each // b + 1)
        self.note(r, server=s.name, round=rnd, loss=loss, b=b, w=w)

    def flood(self):
        """An honest client reads while a flooder asks with forged addresses that lead nowhere."""
        a, ns = self.a, f"tf{os.getpid()}"
        flooder = compiled("flood", a.build)
        self.file("one.bin", a.each)
        pre = ["ip", "netns", "exec", ns]
        sh = lambda *c: subprocess.check_call(["ip", *c])
        sh("netns", "add", ns)
        try:
            n = ("-n", ns)
            sh(*n, "link", "set", "lo", "up")
            sh(*n, "addr", "add", "10.77.0.1/32", "dev", "lo")
            sh(*n, "link", "add", "nowhere", "arp", "off", "type", "veth", "peer", "name", "end")
            sh(*n, "link", "set", "nowhere", "arp", "off", "up")
            sh(*n, "link", "set", "end", "up")
            sh(*n, "route", "add", "10.99.0.0/16", "dev", "nowhere", "src", "10.77.0.1")
            for rnd in range(a.rounds):
                for s in parse_servers(a, "10.77.0.1"):
                    if self.late():
                        break
                    try:
                        s.start(pre)
                        b, w = ints(a.blk)[0], ints(a.win)[0]
                        kw = dict(f="one.bin", b=b, w=w, c=1, n=a.transfers or 10, t=a.tmo, T=a.deadline, r=20, V=True)
                        run(self.exe, s, pre, **kw)
                        quiet = run(self.exe, s, pre, **kw)
                        p = subprocess.Popen(pre + [flooder, "-h", s.host, "-p", str(s.port), "-f", a.ask, "-R", str(a.rate), "-T", str(a.deadline),
                                                    "-s", str(a.seed + rnd)], stdout=subprocess.PIPE, text=True)
                        try:
                            time.sleep(1)
                            r = run(self.exe, s, pre, **kw)
                        finally:
                            p.terminate()
                            said = p.communicate()[0]
                        f = json.loads(said) if said.strip() else {"rate": 0, "sent": 0}
                        self.note(r, server=s.name, round=rnd, b=b, w=w, quiet_p50_ms=quiet["p50_ms"], quiet_max_ms=quiet["max_ms"], flood_rate=f["rate"], flood_sent=f["sent"])
                    finally:
                        s.stop()
        finally:
            subprocess.call(["ip", "netns", "del", ns])
        return ("b", "w")


def stop_all(servers):
    for s in servers:
        s.stop()


def netlab(a, loss, seed, n):
    """Two namespaces joined by a seeded TUN link emulator; returns (proc, pre_server, pre_client). The server's is 10.77.0.1."""
    tag = f"{os.getpid()}-{n}"
    p = subprocess.Popen([sys.executable, os.path.join(HERE, "linkemu.py"), "--ns", f"ts{tag}", f"tc{tag}", "--loss", str(loss), "--delay", str(a.delay),
                          "--dup", str(a.dup), "--reorder", str(a.reorder), "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
    line = p.stdout.readline()
    if not line.startswith("ready"):
        raise SystemExit("link emulator failed: " + line)
    return p, ["ip", "netns", "exec", f"ts{tag}"], ["ip", "netns", "exec", f"tc{tag}"]


def ints(text):
    return [int(x) for x in text.split(",")]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["throughput", "concurrency", "upload", "loss", "hold", "churn", "flood"])
    ap.add_argument("--root", required=True, help="folder the servers serve (a tmpfs is best); test files are made in it")
    ap.add_argument("--servers", default="tftpd-hpa,dnsmasq,atftpd", help="separated by commas; may be empty")
    ap.add_argument("--server", action="append", default=[], help="one more; may hold commas")
    ap.add_argument("--blk", default="512,1468,8192,65464")
    ap.add_argument("--win", default="1,16,64")
    ap.add_argument("--best", action="store_true", help="ask each server only for the largest window, those without RFC 7440 for 1")
    ap.add_argument("--allwin", action="store_true", help="ask every server for every window, even those that grant none")
    ap.add_argument("--size", type=int, default=256 << 20)
    ap.add_argument("--clients", default="1,16,256")
    ap.add_argument("--spread", action="store_true", help="concurrency: each client from a loopback address of its own")
    ap.add_argument("--each", type=int, default=1 << 20, help="bytes per file in concurrency/upload/loss/hold/flood")
    ap.add_argument("--transfers", type=int, default=0, help="transfers per concurrency point (default 4 x clients, at least 64)")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--count", type=int, default=2000)
    ap.add_argument("--settle-signal", help="USR2, say: sent to servers started here before their memory is read, to collect garbage")
    ap.add_argument("--loss", default="0,1,5")
    ap.add_argument("--delay", type=float, default=10.0, help="one-way delay in ms, each direction")
    ap.add_argument("--dup", type=float, default=0, help="percent of packets doubled")
    ap.add_argument("--reorder", type=float, default=0, help="percent of packets that overtake")
    ap.add_argument("--parallel", type=int, default=1, help="loss: measurements at once, each on a link of its own")
    ap.add_argument("--client", help="loss: instead of loadgen, a command with {host} {port} {file} {blk} {win} that prints a JSON line")
    ap.add_argument("--ask", default="one.bin", help="flood: the name that is asked for; one that is not there is refused")
    ap.add_argument("--rate", type=int, default=20000, help="flood: forged requests a second")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--tmo", type=int, default=1000, help="client retransmit timeout ms")
    ap.add_argument("--deadline", type=float, default=120)
    ap.add_argument("--limit", type=float, default=0, help="seconds after which no further round begins")
    ap.add_argument("--base", default="tftpd-hpa")
    ap.add_argument("--build", default="/tmp/tftp-bench-build")
    ap.add_argument("--json")
    a = ap.parse_args()
    a.root = os.path.abspath(a.root)
    # Ends by way of every `finally`: servers, namespaces, control groups.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.path.insert(0, HERE)
    b = Bench(a)
    keys = getattr(b, a.what)()
    s = summarize(b.rows, keys, a.base) if keys else b.rows
    fmt(s, ["server", *(keys or ()), "neg", *MEDIANS, "ratio", "asked", "open", "rrq_per_s", "pss_before_MB", "pss_after_MB", "KB_each", "error"])
    if a.json:
        json.dump({"args": vars(a), "rows": b.rows, "summary": s}, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
