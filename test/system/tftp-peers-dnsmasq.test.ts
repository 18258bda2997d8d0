/** Our client with the servers of dnsmasq and npm `tftp`. On loopback; only dnsmasq needs root, for it knows no port but 69. */
import assert from 'node:assert/strict';
import { mkdtempDisposableSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test as nodeTest } from 'node:test';

import { get, getToFile, put } from '../../tftp/client.ts';
import { makeFolders, SIZES, test } from './_tftp-peer.ts';
import { findFreePort, findProgram, gives, hashOf, startServer } from './_tftp-programs.ts';

const HOST = '127.0.0.1';

nodeTest(
  'our client gets from dnsmasq, over IPv4 and IPv6: every size, with and without options, text, and a missing file',
  {
    timeout: 60_000,
    skip:
      process.getuid?.() !== 0
        ? 'needs root for port 69'
        : findProgram('dnsmasq') === undefined
          ? 'needs dnsmasq'
          : false,
  },
  async () => {
    using dir = mkdtempDisposableSync('/tmp/tftp-dnsmasq-');
    const { root, work } = makeFolders(dir.path);
    // An address of its own keeps away from other servers on this host.
    const hosts = ['127.0.0.3', '::1'] as const;
    const argv = [
      'dnsmasq',
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--port=0',
      '--user=root',
      '--log-facility=-',
    ];
    const listen = [
      '--enable-tftp',
      `--tftp-root=${root}`,
      ...hosts.map((host) => `--listen-address=${host}`),
      '--bind-interfaces',
      '--pid-file=',
    ];
    await using _server = await startServer([...argv, ...listen], () => gives(hosts[0], 69, 'f1'));
    for (const host of hosts) {
      for (const options of [{}, { blksize: 512, windowsize: 1 }, { blksize: 65464 }] as const) {
        for (const size of SIZES) {
          const file = join(work, 'file');
          const report = await getToFile({ host, name: `f${size}`, file, ...options });
          assert.equal(hashOf(file), hashOf(join(root, `f${size}`)), JSON.stringify({ host, size, report }));
          assert.equal(report.granted.tsize, size);
        }
      }
      assert.ok((await get({ host, name: 'text', mode: 'netascii' })).length > 0);
      await assert.rejects(get({ host, name: 'nothing' }), { name: 'TransferError', code: 1 });
      await assert.rejects(put({ host, name: 'f1', content: 'x' }), { name: 'TransferError', from: 'peer' });
    }
  },
);

test(
  'our client gets from and puts to the server of npm tftp',
  [],
  async (dir) => {
    const { root, work } = makeFolders(dir);
    const port = await findFreePort();
    const script = `
    const server = require(process.argv[1]).createServer({ host: '${HOST}', port: ${port}, root: process.argv[2] });
    server.on('request', (request) => request.on('error', () => {}));
    server.listen();`;
    const argv = [process.execPath, '-e', script, join(import.meta.dirname, '../../node_modules/tftp'), root];
    await using _server = await startServer(argv, () => gives(HOST, port, 'f1'));
    for (const size of SIZES) {
      const file = join(work, 'file');
      await getToFile({ host: HOST, port, name: `f${size}`, file });
      assert.equal(hashOf(file), hashOf(join(root, `f${size}`)), String(size));
      await put({ host: HOST, port, name: `up${size}`, content: { file } });
      // It sends its last ACK before the file is complete.
      await sleep(50);
      assert.equal(hashOf(join(root, `up${size}`)), hashOf(file), String(size));
    }
    await assert.rejects(get({ host: HOST, port, name: 'nothing' }), { name: 'TransferError', from: 'peer' });
  },
  ['dgram'],
);
