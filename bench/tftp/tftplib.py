"""tftplib.py - a small, deliberately misbehaving-capable TFTP client (standard library only)."""
import random, select, socket, struct, time

RRQ, WRQ, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6


def req(op, name, mode="octet", opts=()):
    b = struct.pack("!H", op) + (name if isinstance(name, bytes) else name.encode("utf-8")) + b"\0" + mode.encode() + b"\0"
    for k, v in (opts.items() if isinstance(opts, dict) else opts):
        b += str(k).encode() + b"\0" + str(v).encode() + b"\0"
    return b


def ack(n):
    return struct.pack("!HH", ACK, n & 0xFFFF)


def data(n, d):
    return struct.pack("!HH", DATA, n & 0xFFFF) + d


def error(code, msg=""):
    return struct.pack("!HH", ERROR, code) + msg.encode() + b"\0"


class Pkt:
    def __init__(self, raw, addr):
        self.raw, self.addr, self.t = raw, addr, time.monotonic()
        self.op = struct.unpack("!H", raw[:2])[0] if len(raw) >= 2 else None
        self.n = struct.unpack("!H", raw[2:4])[0] if len(raw) >= 4 else None
        self.data = raw[4:]
        self.opts = {}
        if self.op == OACK:
            f = raw[2:].split(b"\0")
            if f and f[-1] == b"":
                f.pop()
            self.opts = {f[i].decode("latin1").lower(): f[i + 1].decode("latin1") for i in range(0, len(f) - 1, 2)}
        self.msg = raw[4:].split(b"\0")[0].decode("latin1") if self.op == ERROR else ""

    def __repr__(self):
        k = {1: "RRQ", 2: "WRQ", 3: "DATA", 4: "ACK", 5: "ERROR", 6: "OACK"}.get(self.op, str(self.op))
        return f"{k}({self.opts if self.op == OACK else self.n}{'' if self.op != DATA else ',%d' % len(self.data)}{' ' + self.msg if self.msg else ''})"


class Peer:
    """One client socket towards a server; `tid` is the server's address once it has answered."""

    def __init__(self, host, port, sport=0, rcvbuf=4 << 20):
        ai = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self.s = socket.socket(ai[0], socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.srv, self.tid = ai[4], None
        if sport:
            self.s.bind(("", sport))

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.s.close()

    def first(self, raw):
        self.s.sendto(raw, self.srv)

    def send(self, raw, addr=None):
        self.s.sendto(raw, addr or self.tid or self.srv)

    def recv(self, tmo=2.0):
        q = select.poll()
        q.register(self.s, select.POLLIN)
        if not q.poll(tmo * 1000):
            return None
        try:
            raw, addr = self.s.recvfrom(70000)
        except OSError:
            return None
        if self.tid is None:
            self.tid = addr
        return Pkt(raw, addr)

    def drain(self, quiet=0.25, limit=5.0):
        out, end = [], time.monotonic() + limit
        while time.monotonic() < end:
            p = self.recv(quiet)
            if p is None:
                break
            out.append(p)
        return out


class Result:
    def __init__(self):
        self.data, self.oack, self.error, self.pkts, self.dups, self.timeouts, self.oacked = b"", None, None, 0, 0, 0, False
        self.blk, self.win, self.seconds, self.rolled = 512, 1, 0.0, None

    @property
    def ok(self):
        return self.error is None


def get(host, port, name, opts=(), mode="octet", tmo=1.0, tries=6, peer=None, drop_rx=0.0, drop_tx=0.0, dup_tx=0.0, rng=None, limit=120.0, maxbytes=None):
    """Read a file.  drop_rx / drop_tx / dup_tx: probability that a packet is lost or sent twice (seeded rng)."""
    r, rng, own = Result(), rng or random.Random(1), peer is None
    p = peer or Peer(host, port)
    t0 = time.monotonic()
    out = bytearray()

    def tx(raw):
        for _ in range(2 if rng.random() < dup_tx else 1):
            if rng.random() >= drop_tx:
                p.send(raw)
    try:
        last, started, nxt, inwin, gap, miss = req(RRQ, name, mode, opts), False, 1, 0, False, 0
        p.first(last)
        while time.monotonic() - t0 < limit:
            k = p.recv(tmo)
            if k is not None and rng.random() < drop_rx:
                continue
            if k is None:
                miss += 1
                r.timeouts += 1
                if miss > tries:
                    r.error = (-1, "timeout")
                    break
                if not started:
                    p.first(last)
                else:
                    inwin, gap = 0, False
                    tx(ack(nxt - 1))
                continue
            if k.addr != p.tid:
                p.send(error(5, "unknown TID"), k.addr)
                continue
            r.pkts += 1
            if k.op == ERROR:
                r.error = (k.n, k.msg)
                break
            if k.op == OACK:
                if not started or nxt == 1:
                    r.oack, started = k.opts, True
                    r.blk, r.win = int(k.opts.get("blksize", 512)), int(k.opts.get("windowsize", 1))
                    tx(ack(0))
                continue
            if k.op != DATA:
                continue
            started = True
            e = nxt & 0xFFFF
            if k.n == e or (e == 0 and k.n == 1 and r.rolled is None and nxt == 65536):
                if nxt == 65536:
                    r.rolled = k.n
                    if k.n == 1:
                        nxt += 1      # server rolls over to 1
                miss, gap = 0, False
                out += k.data
                nxt += 1
                inwin += 1
                if len(k.data) < r.blk:
                    tx(ack(nxt - 1))
                    break
                if inwin >= r.win:
                    inwin = 0
                    tx(ack(nxt - 1))
                if maxbytes and len(out) >= maxbytes:
                    p.send(error(0, "enough"))
                    break
            elif ((k.n - e) & 0xFFFF) < 0x8000:
                if not gap:
                    gap, inwin = True, 0
                    tx(ack(nxt - 1))
            else:
                r.dups += 1
                if k.n == (nxt - 1) & 0xFFFF:
                    inwin = 0
                    tx(ack(nxt - 1))
        else:
            r.error = (-1, "limit")
    finally:
        if own:
            p.s.close()
    r.data, r.seconds = bytes(out), time.monotonic() - t0
    return r


def put(host, port, name, payload, opts=(), mode="octet", tmo=1.0, tries=6, drop_rx=0.0, drop_tx=0.0, dup_tx=0.0, rng=None, limit=120.0):
    r, rng = Result(), rng or random.Random(1)
    p = Peer(host, port)
    t0 = time.monotonic()
    try:
        first = req(WRQ, name, mode, opts)
        p.first(first)
        base, started, miss, last = 1, False, 0, None

        def window():
            b = base
            while b < base + r.win and b <= last:
                if rng.random() >= drop_tx:
                    p.send(data(b, payload[(b - 1) * r.blk:b * r.blk]))
                if rng.random() < dup_tx:
                    p.send(data(b, payload[(b - 1) * r.blk:b * r.blk]))
                b += 1
            return b - 1
        hi = 0
        while time.monotonic() - t0 < limit:
            k = p.recv(tmo)
            if k is not None and rng.random() < drop_rx:
                continue
            if k is None:
                miss += 1
                r.timeouts += 1
                if miss > tries:
                    r.error = (-1, "timeout")
                    break
                if started:
                    hi = max(hi, window())
                else:
                    p.first(first)
                continue
            r.pkts += 1
            if k.op == ERROR:
                r.error = (k.n, k.msg)
                break
            if not started and (k.op == OACK or (k.op == ACK and k.n == 0)):
                if k.op == OACK:
                    r.oack = k.opts
                    r.blk, r.win = int(k.opts.get("blksize", 512)), int(k.opts.get("windowsize", 1))
                last, started = len(payload) // r.blk + 1, True
                hi = window()
                continue
            if k.op == ACK and started:
                d = (k.n - (base - 1)) & 0xFFFF
                got = base - 1 + d
                if got > hi:
                    continue
                if d == 0:
                    r.dups += 1
                    if r.win > 1:
                        hi = max(hi, window())
                    continue
                miss, base = 0, got + 1
                if got >= last:
                    break
                hi = max(hi, window())
        else:
            r.error = (-1, "limit")
    finally:
        p.s.close()
    r.seconds = time.monotonic() - t0
    return r
