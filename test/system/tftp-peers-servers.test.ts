/** Our client with the servers tftpd-hpa and atftpd, over IPv4 and IPv6: options, sizes, text, windows, uploads. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type ClientOptions, get, getToFile, put } from '../../tftp/client.ts';
import { unpackPackage } from './_tftp-debian.ts';
import { findFreePort, gives, hashOf, startServer } from './_tftp-programs.ts';

const HOSTS = ['127.0.0.1', '::1'] as const;
type Host = (typeof HOSTS)[number];
const SIZES = [0, 1, 511, 512, 513, 1428, 2936, 1_500_001] as const;
const TEXT = 'one\ntwo\rthree\r\n'.repeat(300);
const skip = process.getuid?.() === 0 ? false : 'needs root: these servers change their root folder';

interface ForeignServer {
  readonly name: string;
  readonly argv: (root: string, host: Host, port: number) => readonly string[];
  /** what it grants of windowsize 16; nothing: it does not know the option */
  readonly windowsize: number | undefined;
  /** it ends a text wrongly in which a CR stands alone */
  readonly losesCr: boolean;
}

const SERVERS: readonly ForeignServer[] = [
  {
    name: 'tftpd-hpa',
    argv: (root, host, port) => {
      const program = join(unpackPackage('tftpd-hpa'), 'usr/sbin/in.tftpd');
      const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
      return [program, '--foreground', '--create', '--secure', '--user', 'root', '--address', address, root];
    },
    windowsize: undefined,
    losesCr: false,
  },
  {
    name: 'atftpd',
    argv: (root, host, port) => {
      const program = join(unpackPackage('atftpd'), 'usr/sbin/atftpd');
      const options = ['--logfile', '-', '--user', 'root', '--group', 'root'];
      // By itself it listens to IPv4 only; a socket of IPv6 it takes from inetd.
      return host === '::1'
        ? ['systemd-socket-activate', '--datagram', '--inetd', '-l', `[::1]:${port}`, program, ...options, root]
        : [program, '--daemon', '--no-fork', ...options, '--bind-address', host, '--port', String(port), root];
    },
    windowsize: 16,
    losesCr: true,
  },
];

const WAYS: readonly Partial<ClientOptions>[] = [
  {},
  { blksize: 512, windowsize: 1 },
  { blksize: 1428, windowsize: 16 },
  { blksize: 8192, windowsize: 2 },
];

for (const [server, host] of SERVERS.flatMap((each) => HOSTS.map((host) => [each, host] as const))) {
  describe(`our client and ${server.name} at ${host}`, { skip, timeout: 60_000 }, () => {
    test('gets and puts every size, with windows where it knows them', { timeout: 60_000 }, async () => {
      using dir = mkdtempDisposableSync('/tmp/tftp-foreign-');
      const root = await fill(dir.path);
      const port = await findFreePort();
      await using _server = await startServer(server.argv(root, host, port), () => gives(host, port, 'f1'));
      const file = join(dir.path, 'file');
      for (const way of WAYS) {
        const at = { host, port, ...way };
        for (const size of SIZES) {
          const what = `${size} bytes, ${JSON.stringify(way)}`;
          const got = await getToFile({ ...at, name: `f${size}`, file });
          assert.equal(hashOf(file), hashOf(join(root, `f${size}`)), what);
          assert.equal(got.granted.tsize, size, what);
          if (way.windowsize === 16) assert.equal(got.granted.windowsize, server.windowsize, what);
          await put({ ...at, name: `up${size}`, content: { file } });
          await settles(() => hashOf(join(root, `up${size}`)) === hashOf(file));
          assert.equal(hashOf(join(root, `up${size}`)), hashOf(file), what);
        }
      }
    });

    test('text as netascii, both ways', { timeout: 30_000 }, async () => {
      using dir = mkdtempDisposableSync('/tmp/tftp-foreign-');
      const root = await fill(dir.path);
      const port = await findFreePort();
      await using _server = await startServer(server.argv(root, host, port), () => gives(host, port, 'f1'));
      for (const way of [{}, { blksize: 512, windowsize: 1 }]) {
        const at = { host, port, mode: 'netascii', ...way } as const;
        assert.equal(Buffer.from(await get({ ...at, name: 'text' })).toString(), TEXT);
        const text = server.losesCr ? TEXT.replaceAll('\r', '') : TEXT;
        await put({ ...at, name: 'text-up', content: text });
        await settles(() => readFileSync(join(root, 'text-up'), 'utf8') === text);
        assert.equal(readFileSync(join(root, 'text-up'), 'utf8'), text);
      }
    });

    test('says what the server refuses', { timeout: 30_000 }, async () => {
      using dir = mkdtempDisposableSync('/tmp/tftp-foreign-');
      const root = await fill(dir.path);
      const port = await findFreePort();
      await using _server = await startServer(server.argv(root, host, port), () => gives(host, port, 'f1'));
      const at = { host, port };
      await assert.rejects(get({ ...at, name: 'nothing' }), { name: 'TransferError', from: 'peer', code: 1 });
      await assert.rejects(put({ ...at, name: 'no/folder/f', content: 'x' }), { name: 'TransferError', from: 'peer' });
    });
  });
}

/** atftpd sends its last ACK before the file is complete. */
async function settles(isSo: () => boolean): Promise<void> {
  for (let tries = 0; tries < 100 && !isSo(); tries += 1) await sleep(10);
}

async function fill(dir: string): Promise<string> {
  const root = join(dir, 'root');
  mkdirSync(root);
  chmodSync(dir, 0o755);
  chmodSync(root, 0o777);
  for (const size of SIZES) writeFileSync(join(root, `f${size}`), randomBytes(size));
  writeFileSync(join(root, 'text'), TEXT);
  return root;
}
