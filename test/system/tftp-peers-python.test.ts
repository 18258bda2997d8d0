/** Our server with a client in Python, of Debian's package python3-scapy. Each driver. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { DRIVERS } from '../../tftp/drivers.ts';
import { succeed } from './_tftp-programs.ts';
import { HOST, REPLACE, Served, pattern } from './_tftp-server.ts';

const SIZES = [0, 1, 511, 512, 513, 1024, 20_000] as const;
const isRoot = process.getuid?.() === 0;

/** Its packets leave through a raw socket; the bound one keeps the kernel from refusing the answers. */
const SCAPY = `
import socket, sys
from scapy.all import conf, L3RawSocket
from scapy.layers.tftp import TFTP_read, TFTP_write
conf.verb = 0
lo = dict(ll=lambda **_: L3RawSocket(iface="lo"), recvsock=lambda **_: L3RawSocket(iface="lo"))
server, port, sizes = sys.argv[1], int(sys.argv[2]), [int(size) for size in sys.argv[3:]]
for size in sizes:
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", 0))
    got = TFTP_read("f%d" % size, server, sport=held.getsockname()[1], port=port, **lo).run()
    assert isinstance(got, bytes) and len(got) == size, (size, got)
    open("got%d" % size, "wb").write(got)
    held.close()
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", 0))
    TFTP_write("up%d" % size, got, server, sport=held.getsockname()[1], port=port, **lo).run()
    held.close()
`;

for (const driver of DRIVERS) {
  const start = async (): Promise<Served> => {
    const names = SIZES.map((size) => [`up${size}`, REPLACE] as const);
    const served = await Served.start(driver, {}, Object.fromEntries(names), {
      peer: '127.0.0.1',
    });
    for (const size of SIZES) writeFileSync(served.path(`f${size}`), pattern(size));
    return served;
  };
  const check = (served: Served): void => {
    for (const size of SIZES) assert.ok(readFileSync(served.path(`up${size}`)).equals(pattern(size)), `${size} bytes`);
  };

  describe(`Python (${driver})`, { timeout: 60_000 }, () => {
    test(
      'scapy gets and puts every size',
      { timeout: 40_000, skip: isRoot ? false : 'needs root for raw sockets' },
      async () => {
        await using served = await start();
        const sizes = SIZES.map(String);
        const work = `${served.folder}/..`;
        await succeed(work, ['/usr/bin/python3', '-c', SCAPY, HOST, String(served.server.port), ...sizes]);
        await served.event(2 * SIZES.length);
        check(served);
      },
    );
  });
}
