/** What must never happen to our TFTP server: a byte from outside, a broken file, a leak, a standstill. Each driver. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempDisposableSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { DriverName } from '../../tftp/driver.ts';
import { DRIVERS } from '../../tftp/drivers.ts';
import { serveMachine } from '../../tftp/instance.ts';
import { Peer, ack, data, describe as say, read, request, write } from './_tftp-misbehave.ts';
import { HOST, REPLACE, Served, pattern } from './_tftp-server.ts';

/** After so many ACKs; `last`: with the last DATA on its way. */
const KILL_AT = [0, 1, 2, 3, 4, 5, 'last', 'last', 'last'] as const;

const isRoot = process.getuid?.() === 0;

for (const driver of DRIVERS) {
  describe(`safety (${driver})`, { timeout: 120_000 }, () => {
    test(
      'symlinks swapped in under load: never a byte from outside, never one to the outside',
      { timeout: 30_000 },
      async () => {
        await using served = await Served.start(driver, {}, { 'sub/up': REPLACE, up: REPLACE });
        const outside = join(served.folder, '..', 'outside');
        mkdirSync(outside);
        mkdirSync(served.path('real'));
        for (const name of ['file', 'up']) writeFileSync(join(outside, name), 'outside');
        writeFileSync(served.path('real/file'), 'inside');
        const swap = `
        const { renameSync, symlinkSync, unlinkSync, writeFileSync } = require('node:fs');
        process.chdir(process.argv[1]);
        for (;;) {
          renameSync('real', 'sub'); renameSync('sub', 'real'); symlinkSync('../outside', 'sub'); unlinkSync('sub');
          writeFileSync('name', 'inside'); unlinkSync('name'); symlinkSync('../outside/file', 'name'); unlinkSync('name');
        }`;
        const child = spawn(process.execPath, ['-e', swap, served.folder], { stdio: ['ignore', 'ignore', 'inherit'] });
        const answers = new Map<string, number>();
        try {
          const startMs = performance.now();
          const times = (answer: string): number => answers.get(answer) ?? 0;
          // Until both have been met some times, however slow the machine is.
          const goesOn = (): boolean => {
            const sinceMs = performance.now() - startMs;
            return sinceMs < 1500 || (sinceMs < 20_000 && (times('inside') <= 5 || times('refused') <= 5));
          };
          const load = async (name: string): Promise<void> => {
            using peer = served.peer();
            while (goesOn()) {
              const got = await read(peer, { name, patienceMs: 500 });
              const answer = got.error === undefined ? got.bytes.toString() : 'refused';
              answers.set(answer, (answers.get(answer) ?? 0) + 1);
            }
          };
          const loadUp = async (name: string): Promise<void> => {
            using peer = served.peer();
            while (goesOn()) await write(peer, { name, content: Buffer.from('mine'), patienceMs: 500 });
          };
          await Promise.all(
            ['sub/file', 'sub/file', 'name', 'name', 'real/file'].map(load).concat(loadUp('sub/up'), loadUp('up')),
          );
        } finally {
          await kill(child);
        }
        assert.deepEqual(
          [...answers.keys()].filter((answer) => answer !== 'inside' && answer !== 'refused' && answer !== ''),
          [],
        );
        assert.ok((answers.get('inside') ?? 0) > 5 && (answers.get('refused') ?? 0) > 5, JSON.stringify([...answers]));
        assert.deepEqual(readdirSync(outside).sort(), ['file', 'up']);
        for (const name of ['file', 'up']) assert.equal(readFileSync(join(outside, name), 'utf8'), 'outside');
      },
    );

    test('quota to the byte, with and without options, announced or not', { timeout: 20_000 }, async () => {
      await using served = await Served.start(driver, { up: 'old' }, { up: { maxBytes: 5000, rule: 'replace' } });
      using peer = served.peer();
      for (const options of [
        [],
        [['blksize', 1000]],
        [
          ['blksize', 8],
          ['windowsize', 16],
        ],
      ] as const) {
        for (const [size, fits] of [
          [4999, true],
          [5000, true],
          [5001, false],
          [50_000, false],
        ] as const) {
          writeFileSync(served.path('up'), 'old');
          for (const announced of [[], [['tsize', size] as const]]) {
            const content = pattern(size);
            const put = await write(peer, { name: 'up', content, options: [...options, ...announced] });
            assert.equal(put.error?.[0], fits ? undefined : 3, `${size} bytes`);
            const file = readFileSync(served.path('up'));
            assert.ok(file.equals(fits ? content : Buffer.from('old')));
          }
        }
      }
      assert.deepEqual(readdirSync(served.folder), ['up']);
    });

    test(
      'disk full in the middle: ERROR 3, the old file intact, nothing left',
      { timeout: 20_000, skip: isRoot ? false : 'needs root to mount' },
      async () => {
        for (const rule of ['replace', 'append'] as const) {
          const maxBytes = 10_000_000;
          await using served = await Served.start(driver, {}, { up: { maxBytes, rule }, other: { maxBytes, rule } });
          execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tftp-full', served.folder]);
          try {
            writeFileSync(served.path('up'), Buffer.alloc(100_000, 'o'));
            using peer = served.peer();
            for (const name of ['up', 'other']) {
              const options = [
                ['blksize', 1468],
                ['windowsize', 8],
              ] as const;
              // 120 kB fit beside the old 100 kB, but not copied behind it.
              const sizes = rule === 'append' && name === 'up' ? [1_000_000, 120_000] : [1_000_000];
              for (const size of sizes) {
                const offset = rule === 'append' ? [['offset', name === 'up' ? 100_000 : 0] as const] : [];
                const put = await write(peer, { name, content: pattern(size), options: [...options, ...offset] });
                assert.equal(put.error?.[0], 3, `${rule} ${name} ${size}`);
              }
            }
            assert.deepEqual(readdirSync(served.folder), ['up']);
            assert.ok(readFileSync(served.path('up')).equals(Buffer.alloc(100_000, 'o')));
            const content = pattern(50_000);
            const options = rule === 'append' ? [['offset', 0] as const] : [];
            assert.equal(
              (await write(peer, { name: 'other', content, options })).error,
              undefined,
              'there is room for this',
            );
            assert.ok(readFileSync(served.path('other')).equals(content));
          } finally {
            execFileSync('umount', [served.folder]);
          }
        }
      },
    );

    for (const rule of ['replace', 'once', 'append'] as const) {
      test(
        `kill -9 at each block of an upload: the old file, or all of it once the last ACK was sent (${rule})`,
        { timeout: 40_000 },
        async () => {
          using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-kill-'));
          const content = pattern(4 * 512 + 100);
          const before = rule === 'replace' ? 'old' : undefined;
          const blocks = 5;
          for (const killAt of rule === 'replace' ? KILL_AT : ([2, 5, 'last'] as const)) {
            rmSync(dir.path, { recursive: true });
            mkdirSync(dir.path);
            if (before !== undefined) writeFileSync(join(dir.path, 'up'), before);
            const { child, port } = await startChild(dir.path, driver, rule);
            using peer = new Peer({ host: HOST, port, from: HOST });
            let isAcked = false;
            try {
              peer.ask(request(2, 'up', rule === 'append' ? [['offset', 0]] : []));
              await peer.receive();
              const sent = killAt === 'last' ? blocks : killAt;
              for (let block = 1; block <= sent; block += 1) {
                peer.send(data(block, content.subarray((block - 1) * 512, block * 512)));
                if (killAt === 'last' && block === blocks) await sleep(Math.random() * 2);
                else await peer.expect('ACK', block);
              }
              isAcked = killAt === blocks;
            } finally {
              await kill(child);
            }
            isAcked ||= (await peer.listen(20)).some((got) => got.kind === 'ACK' && got.number === blocks);
            const names = readdirSync(dir.path);
            const what = `killed at ${killAt}: ${names.join()}`;
            assert.ok(
              names.every((name) => name === 'up' || /^\.up\.[0-9a-f]+\.part$/.test(name)),
              what,
            );
            const found = names.includes('up') ? readFileSync(join(dir.path, 'up')) : undefined;
            const isWhole = found?.equals(content) === true;
            assert.ok(isWhole || (!isAcked && found?.toString() === before), what);
            // The next one clears away what this one left, and takes the upload.
            const next = await startChild(dir.path, driver, rule);
            try {
              assert.deepEqual(readdirSync(dir.path), found === undefined ? [] : ['up'], what);
              if (rule !== 'once' || !isWhole) {
                using again = new Peer({ host: HOST, port: next.port, from: HOST });
                const put = await write(again, {
                  name: 'up',
                  content,
                  options: rule === 'append' ? [['offset', 0]] : [],
                });
                assert.equal(put.error, undefined, what);
                assert.ok(readFileSync(join(dir.path, 'up')).equals(content));
              }
            } finally {
              await kill(next.child);
            }
          }
        },
      );
    }

    test(
      'stopping in the middle of transfers: ERROR 0 to each peer, sockets closed, nothing left',
      { timeout: 20_000 },
      async () => {
        const fds = countDescriptors();
        const served = await Served.start(driver, { f: pattern(100_000) }, { a: REPLACE, b: REPLACE });
        using held = new DisposableStack();
        const peers = Array.from({ length: 6 }, () => held.use(served.peer()));
        for (const [index, peer] of peers.entries()) {
          peer.ask(index < 4 ? request(1, 'f', [['windowsize', 4]]) : request(2, index === 4 ? 'a' : 'b'));
          await peer.receive();
          if (index > 0) peer.send(index < 4 ? ack(0) : data(1, pattern(512)));
          await peer.drain(30);
        }
        assert.equal(served.server.transfers, 6);
        await served.server.close();
        for (const peer of peers) {
          const last = (await peer.drain(60)).filter((got) => got.kind === 'ERROR');
          assert.deepEqual(
            last.map((got) => got.number),
            [0],
            last.map(say).join(),
          );
          peer.ask(request(1, 'f'));
          assert.equal(await peer.receive(50), undefined, 'nobody is there');
        }
        held.dispose();
        assert.equal(served.server.transfers, 0);
        assert.deepEqual(readdirSync(served.folder), ['f']);
        assert.equal(served.events.filter((event) => event.result === 'failed' && event.errorCode === 0).length, 6);
        await served[Symbol.asyncDispose]();
        await sleep(50);
        assert.ok(countDescriptors() <= fds, `${countDescriptors()} descriptors, ${fds} before`);
      },
    );

    test(
      '3000 instances opened, used and closed: no descriptor and little memory stays',
      { timeout: 60_000 },
      async () => {
        using dir = mkdtempDisposableSync(join(tmpdir(), 'tftp-many-'));
        writeFileSync(join(dir.path, 'task'), pattern(3000));
        const use = async (count: number): Promise<void> => {
          for (let index = 0; index < count; index += 1) {
            const options = { folder: dir.path, address: HOST, peer: HOST, driver, writable: { up: REPLACE } } as const;
            await using server = await serveMachine(options);
            using peer = new Peer({ host: HOST, port: server.port, from: HOST });
            assert.equal((await read(peer, { name: 'task', options: [['blksize', 1468]] })).bytes.length, 3000);
            // Some are closed with a transfer that dallies, some with one that runs.
            if (index % 3 === 0) await write(peer, { name: 'up', content: Buffer.alloc(100) });
            if (index % 5 === 0) peer.ask(request(1, 'task'));
          }
          await sleep(100);
        };
        // As many before: a heap finds its size in the first thousand or so.
        await use(1500);
        const fds = countDescriptors();
        const before = await memory();
        await use(1500);
        const after = await memory();
        assert.ok(countDescriptors() <= fds + 2, `${countDescriptors()} descriptors, ${fds} before`);
        assert.ok(after.heap - before.heap < 2_000_000, `heap ${before.heap} → ${after.heap}`);
        assert.ok(after.rss - before.rss < 30_000_000, `RSS ${before.rss} → ${after.rss}`);
        assert.deepEqual(readdirSync(dir.path).sort(), ['task', 'up']);
      },
    );

    test(
      'a flood of requests that nobody follows up: an honest read goes on, and a new one gets in',
      { timeout: 30_000 },
      async () => {
        const content = pattern(300_000);
        await using served = await Served.start(driver, { f: content }, undefined, { transfersMax: 64 });
        using held = new DisposableStack();
        const liars = Array.from({ length: 300 }, (_, index) =>
          held.use(served.peer(`127.1.${index >> 4}.${(index & 15) + 1}`)),
        );
        using honest = served.peer();
        const begun = Promise.withResolvers<void>();
        const running = read(honest, {
          name: 'f',
          options: [
            ['blksize', 1468],
            ['windowsize', 4],
          ],
          times(_, block) {
            if (block >= 8) begun.resolve();
            return 1;
          },
          patienceMs: 1000,
        });
        // It has answered, so no other request takes its place.
        await begun.promise;
        for (let round = 0; round < 10; round += 1) {
          for (const liar of liars)
            liar.ask(
              request(1, 'f', [
                ['blksize', 65464],
                ['windowsize', 64],
              ]),
            );
          await sleep(5);
        }
        const first = await running;
        assert.equal(first.error, undefined);
        assert.ok(first.bytes.equals(content));
        using late = served.peer();
        const startMs = performance.now();
        const got = await read(late, {
          name: 'f',
          options: [
            ['blksize', 1468],
            ['windowsize', 16],
          ],
          patienceMs: 300,
        });
        assert.ok(got.bytes.equals(content));
        assert.ok(performance.now() - startMs < 10_000);
        assert.ok(served.server.transfers <= 64);
        let most = 0;
        for (const liar of liars) {
          const came = await liar.listen(0);
          most = Math.max(
            most,
            came.reduce((sum, each) => sum + each.raw.length, 0),
          );
        }
        assert.ok(most < 5000, `${most} bytes to an address that never answered`);
      },
    );

    test(
      'half-open uploads without end: bounded files, the honest upload gets through',
      { timeout: 30_000 },
      async () => {
        await using served = await Served.start(driver, {}, { up: REPLACE, other: REPLACE });
        using held = new DisposableStack();
        const slow = Array.from({ length: 200 }, () => held.use(served.peer()));
        for (const [index, peer] of slow.entries()) {
          peer.ask(request(2, index % 2 === 0 ? 'up' : 'other'));
          if (index % 4 === 0) {
            await peer.receive(200);
            peer.send(data(1, pattern(512)));
          }
        }
        await sleep(100);
        assert.ok(readdirSync(served.folder).length <= 2, 'one temporary file a name');
        assert.ok(served.server.transfers <= 64);
        using honest = served.peer();
        const content = pattern(100_000);
        const put = await write(honest, { name: 'up', content, patienceMs: 500 });
        assert.equal(put.error, undefined);
        assert.ok(readFileSync(served.path('up')).equals(content));
      },
    );

    test('more requests than the socket’s buffer holds: some are lost, none hurts', { timeout: 30_000 }, async () => {
      const content = pattern(5000);
      await using served = await Served.start(driver, { f: content });
      using peer = served.peer();
      const long = request(1, `${'x'.repeat(200)}/`.repeat(5), [['blksize', 1468]]);
      // The server, in this process, has no turn before all are sent.
      for (let count = 0; count < 5000; count += 1) peer.send(long, served.server.port);
      const blockedUntilMs = performance.now() + 300;
      await sleep(0);
      while (performance.now() < blockedUntilMs);
      await sleep(500);
      using after = served.peer();
      assert.ok((await read(after, { name: 'f', patienceMs: 500 })).bytes.equals(content));
    });

    test('the folder is deleted under the server, and comes back', { timeout: 20_000 }, async () => {
      await using served = await Served.start(driver, { f: pattern(100_000) }, { up: REPLACE });
      using reader = served.peer();
      using writer = served.peer();
      reader.ask(request(1, 'f'));
      await reader.expect('DATA', 1);
      writer.ask(request(2, 'up'));
      await writer.expect('ACK', 0);
      rmSync(served.folder, { recursive: true });
      reader.send(ack(1));
      await reader.expect('DATA', 2);
      writer.send(data(1, Buffer.from('content')));
      assert.equal((await writer.receive())?.kind, 'ERROR', 'there is no place for it');
      using late = served.peer();
      for (const opcode of [1, 2] as const) {
        late.ask(request(opcode, opcode === 1 ? 'f' : 'up'));
        assert.equal((await late.receive())?.kind, 'ERROR');
      }
      mkdirSync(served.folder);
      writeFileSync(served.path('f'), 'again');
      assert.equal((await read(late, { name: 'f' })).bytes.toString(), 'again');
      assert.equal((await write(late, { name: 'up', content: Buffer.from('again') })).error, undefined);
      assert.equal(readFileSync(served.path('up'), 'utf8'), 'again');
    });
  });
}

async function startChild(
  folder: string,
  driver: DriverName,
  rule: string,
): Promise<{ child: ChildProcess; port: number }> {
  const argv = [join(import.meta.dirname, '_tftp-child.ts'), folder, driver, HOST, rule];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout.once('data', (chunk: unknown) => resolve(String(chunk)));
    child.once('exit', () => reject(new Error('the server ended before it listened')));
  });
  return { child, port: Number(line) };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGKILL');
  await exited;
}

const countDescriptors = (): number => readdirSync('/proc/self/fd').length;

/** What is used once all garbage is gone. */
async function memory(): Promise<{ readonly heap: number; readonly rss: number }> {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  for (let round = 0; round < 3; round += 1) {
    if (typeof collect === 'function') collect();
    await sleep(20);
  }
  const { heapUsed, rss } = process.memoryUsage();
  return { heap: heapUsed, rss };
}
