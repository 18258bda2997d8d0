/** What practice, security and the product ask, beyond the letter of the RFCs, of the running server. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { clause } from './_tftp-duty.ts';
import { ack, data, describe as say, error, read, request, write } from './_tftp-misbehave.ts';
import { REPLACE, Served, pattern } from './_tftp-server.ts';

const MIB = 1024 * 1024;

clause('practice', (duty) => {
  duty('40 MiB without options: rollover 65535 → 0 in lock-step, past ACKs of the round before', async (driver) => {
    const content = pattern(40 * MIB);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    const times = (_: string, block: number): number => {
      if (block > 65_530 && block < 65_600) {
        for (const old of [block - 65_000, block - 1000, block - 2]) peer.send(ack(old & 0xffff));
      }
      return 1;
    };
    const got = await read(peer, { name: 'f', times, keep: false });
    assert.equal(got.blocks, 81_921);
    assert.ok(got.bytes.equals(content));
  });

  duty('rollover 65535 → 0 inside a window', async (driver) => {
    const content = pattern(8 * 66_000 + 3);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    // 7 does not divide 65536: the rollover falls into a window.
    const got = await read(peer, {
      name: 'f',
      options: [
        ['blksize', 8],
        ['windowsize', 7],
      ],
      keep: false,
    });
    assert.equal(got.blocks, 66_001);
    assert.ok(got.bytes.equals(content));
  });

  duty('rollover of an upload, in lock-step and inside a window', async (driver) => {
    const content = pattern(8 * 66_000 + 3);
    await using served = await Served.start(driver, {}, { f: REPLACE });
    for (const options of [
      [['blksize', 8]],
      [
        ['blksize', 8],
        ['windowsize', 7],
      ],
    ] as const) {
      using peer = served.peer();
      const put = await write(peer, { name: 'f', content, options, keep: false });
      assert.deepEqual([put.error, put.blocks], [undefined, 66_001]);
      assert.ok(readFileSync(served.path('f')).equals(content));
    }
  });

  duty('the quirks of UEFI, Intel PXE, iPXE, U-Boot, Raspberry Pi', async (driver) => {
    const content = pattern(5000);
    await using served = await Served.start(driver, { 'boot.efi': content });
    mkdirSync(served.path('Boot'));
    writeFileSync(served.path('Boot/boot.efi'), content);
    const cases = {
      EDK2: [
        'boot.efi',
        [
          ['tsize', 0],
          ['blksize', 1468],
          ['windowsize', 4],
        ],
      ],
      'Intel PXE': [
        'boot.efi',
        [
          ['tsize', 0],
          ['blksize', 1456],
        ],
      ],
      iPXE: [
        '/boot.efi',
        [
          ['blksize', 1432],
          ['tsize', 0],
        ],
      ],
      'U-Boot': [
        'boot.efi',
        [
          ['timeout', 5],
          ['tsize', 0],
          ['blksize', 1468],
          ['windowsize', 1],
        ],
      ],
      'Windows boot manager': [
        '\\Boot\\boot.efi',
        [
          ['tsize', 0],
          ['blksize', 1456],
          ['windowsize', 4],
        ],
      ],
      'Raspberry Pi': [
        'boot.efi',
        [
          ['tsize', 0],
          ['blksize', 1024],
        ],
      ],
      GRUB: [
        '//Boot//./boot.efi',
        [
          ['blksize', 1024],
          ['tsize', 0],
        ],
      ],
    } as const;
    for (const [who, [name, options]] of Object.entries(cases)) {
      using peer = served.peer();
      const got = await read(peer, { name, options });
      assert.equal(got.error, undefined, who);
      assert.ok(got.bytes.equals(content), who);
      assert.equal(got.oack?.['tsize'], '5000', who);
    }
    using peer = served.peer();
    // A name that ends with 0xFF, and zeros behind the packet: firmware that copies DHCP options.
    peer.ask(
      Buffer.concat([Buffer.from('\0\x01boot.efi'), Buffer.from([0xff]), Buffer.from('\0octet\0tsize\x000\0\0\0\0\0')]),
    );
    assert.equal(say(await peer.receive()), 'OACK tsize=5000');
    peer.send(error(0, 'TFTP Aborted'));
    // A Raspberry Pi asks for a dozen files that are not there, from ports in a row.
    for (let count = 0; count < 30; count += 1) {
      using pi = served.peer();
      pi.ask(
        request(1, `d4e5f6a7/file-${count}.elf`, [
          ['tsize', 0],
          ['blksize', 1024],
        ]),
      );
      await pi.expect('ERROR', 1);
    }
  });

  duty('a client that asks anew from the same port is not told that its former self has ended', async (driver) => {
    const content = pattern(3000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    peer.ask(request(1, 'f', [['tsize', 0]]));
    await peer.expect('OACK');
    // Its ERROR was lost. An ERROR from the old TID would be taken for the answer to this request.
    const got = await read(peer, { name: 'f', options: [['blksize', 1024]] });
    assert.equal(got.error, undefined);
    assert.ok(got.bytes.equals(content));
    // The very same request, after the ERROR of the size probe.
    peer.ask(request(1, 'f', [['tsize', 0]]));
    await peer.expect('OACK');
    peer.send(error(8));
    assert.ok((await read(peer, { name: 'f', options: [['tsize', 0]] })).bytes.equals(content));
  });
});

const WAYS_OUT = [
  '../secret',
  '/../secret',
  'sub/../../secret',
  'sub/../secret',
  '..\\secret',
  '\\..\\secret',
  'sub\\..\\..\\secret',
  '..',
  '../',
  './../secret',
  'sub//..//../secret',
  '%2e%2e/secret',
  '..%2fsecret',
  '..%5csecret',
  '%2e%2e%2fsecret',
  '..%c0%afsecret',
  '\u002e\u002e\u2215secret',
  '/etc/passwd',
  '//etc/passwd',
  'C:\\secret',
  'file:///etc/passwd',
  '~root/secret',
  '/proc/self/environ',
  'out',
  'out-dir/secret',
  'sub/out',
  '.hidden',
  'sub/.hidden',
  'sub\n../secret',
  `${'a/'.repeat(60)}f`,
  'a'.repeat(300),
];

clause('security', (duty) => {
  duty('no way out of the folder: names', async (driver) => {
    await using served = await Served.start(driver, { f: 'inside', '.hidden': 'hidden' }, { up: REPLACE });
    mkdirSync(served.path('sub'));
    writeFileSync(served.path('sub/.hidden'), 'hidden');
    writeFileSync(`${served.folder}/../secret`, 'secret');
    symlinkSync('../secret', served.path('out'));
    symlinkSync('..', served.path('out-dir'));
    symlinkSync('/etc/passwd', served.path('sub/out'));
    using peer = served.peer();
    for (const name of WAYS_OUT) {
      for (const opcode of [1, 2] as const) {
        peer.ask(request(opcode, name));
        const got = await peer.receive();
        assert.ok(got?.kind === 'ERROR' && got.number <= 4, `${JSON.stringify(name)}: ${say(got)}`);
        assert.ok(!got.message.includes(served.folder), 'no path of ours is told');
      }
    }
    assert.deepEqual(readdirSync(`${served.folder}/..`).sort(), ['root', 'secret']);
    assert.equal((await read(peer, { name: 'f' })).bytes.toString(), 'inside');
  });

  duty('folder, FIFO, device refused at once', async (driver) => {
    await using served = await Served.start(
      driver,
      { f: 'inside' },
      { fifo: REPLACE, folder: REPLACE, socket: REPLACE, link: REPLACE },
    );
    mkdirSync(served.path('folder'));
    execFileSync('mkfifo', [served.path('fifo')]);
    symlinkSync('f', served.path('link'));
    if (process.getuid?.() === 0) execFileSync('mknod', [served.path('device'), 'c', '1', '5']);
    const socket = createServer().listen(served.path('socket'));
    using peer = served.peer();
    const startMs = performance.now();
    for (const name of ['folder', 'folder/', 'fifo', 'device', 'socket', 'link']) {
      for (const opcode of [1, 2] as const) {
        peer.ask(request(opcode, name));
        assert.equal((await peer.receive())?.kind, 'ERROR', name);
      }
    }
    assert.ok(performance.now() - startMs < 2500, 'at once');
    assert.equal((await read(peer, { name: 'f' })).bytes.toString(), 'inside', 'nothing is blocked');
    await new Promise((resolve) => socket.close(resolve));
  });

  duty('a file that may not be read is refused, a hard link is a file', async (driver) => {
    await using served = await Served.start(driver, { f: 'inside' });
    linkSync(served.path('f'), served.path('second'));
    using peer = served.peer();
    assert.equal((await read(peer, { name: 'second' })).bytes.toString(), 'inside');
  });

  duty('a read-only server answers every WRQ with ERROR 2', async (driver) => {
    await using served = await Served.start(driver, { f: 'inside' });
    using peer = served.peer();
    for (const name of ['f', 'new', '../new', 'folder/new']) {
      peer.ask(request(2, name, [['tsize', 4]]));
      await peer.expect('ERROR', 2);
    }
    assert.deepEqual(readdirSync(served.folder), ['f']);
  });

  duty('only the one peer is answered', async (driver) => {
    await using served = await Served.start(driver, { f: 'inside' }, { up: REPLACE });
    using stranger = served.peer('127.0.0.10');
    for (const bytes of [request(1, 'f'), request(2, 'up'), Buffer.from('\0\x01f'), request(1, 'nothing')])
      stranger.ask(bytes);
    assert.deepEqual((await stranger.drain(200)).map(say), []);
    using peer = served.peer();
    assert.equal((await read(peer, { name: 'f' })).bytes.toString(), 'inside');
  });

  duty('every handler total over all byte strings: 10 000 at the port, 20 000 in transfers', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(5000) }, { up: REPLACE });
    using peer = served.peer();
    using noise = served.peer();
    peer.ask(request(1, 'f'));
    const { port: reading } = await peer.expect('DATA', 1);
    using writer = served.peer();
    writer.ask(request(2, 'up'));
    const { port: writing } = await writer.expect('ACK', 0);
    for (let count = 0; count < 10_000; count += 1) {
      const bytes = randomBytes(count % 40);
      // Most of them look a little like TFTP, none ends the transfers honestly.
      if (bytes.length >= 2 && count % 8 !== 0) bytes.writeUInt16BE(count % 8, 0);
      noise.send(bytes, served.server.port);
      if (bytes.length < 2 || bytes.readUInt16BE(0) !== 5) peer.send(bytes, reading);
      writer.send(bytes.length < 2 || bytes.readUInt16BE(0) === 3 ? Buffer.from([9]) : bytes, writing);
      if (count % 200 === 0) await sleep(1);
    }
    using after = served.peer();
    assert.ok((await read(after, { name: 'f' })).bytes.equals(pattern(5000)));
    assert.deepEqual(served.errors, []);
  });
});

clause('product', (duty) => {
  duty('an abandoned upload leaves the old file as it was', async (driver) => {
    await using served = await Served.start(driver, { up: 'old' }, { up: REPLACE });
    using peer = served.peer();
    peer.ask(request(2, 'up', [['blksize', 600]]));
    await peer.expect('OACK');
    for (let block = 1; block <= 5; block += 1) {
      peer.send(data(block, Buffer.alloc(600, 'n')));
      await peer.expect('ACK', block);
      assert.equal(readFileSync(served.path('up'), 'utf8'), 'old');
      using reader = served.peer();
      assert.equal((await read(reader, { name: 'up' })).bytes.toString(), 'old');
    }
    peer.send(error(0, 'never mind'));
    await served.event(6);
    assert.deepEqual(readdirSync(served.folder), ['up']);
    assert.equal(readFileSync(served.path('up'), 'utf8'), 'old');
    assert.deepEqual(served.written, []);
  });

  for (const rule of ['once', 'replace', 'append'] as const) {
    duty(`a finished upload is complete and in place before its last ACK is sent: ${rule}`, async (driver) => {
      await using served = await Served.start(driver, {}, { up: { maxBytes: MIB, rule } });
      using peer = served.peer();
      const content = pattern(100_000);
      for (const windowsize of rule === 'once' ? [8] : [1, 8]) {
        peer.ask(
          request(2, 'up', [
            ['windowsize', windowsize],
            ['blksize', 1000],
            ...(rule === 'append' ? [['offset', 0] as const] : []),
          ]),
        );
        await peer.expect('OACK');
        for (let block = 1; block <= 101; block += 1) {
          peer.send(data(block, content.subarray((block - 1) * 1000, block * 1000)));
          if (block % windowsize !== 0 && block !== 101) continue;
          // ACKs of a part of the window: this process may have been slow.
          for (let acked = -1; acked !== block;) acked = (await peer.expect('ACK')).number;
        }
        // Read without giving the server, in this same process, another turn.
        assert.ok(readFileSync(served.path('up')).equals(content));
        assert.deepEqual(readdirSync(served.folder), ['up']);
      }
    });
  }

  duty('size at open is what is served, while the file grows', async (driver) => {
    const content = pattern(50_000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    const times = (): number => {
      appendFileSync(served.path('f'), 'more');
      return 1;
    };
    const got = await read(peer, { name: 'f', options: [['tsize', 0]], times });
    assert.equal(got.oack?.['tsize'], '50000');
    assert.ok(got.bytes.equals(content));
  });

  duty('a file that is replaced meanwhile is served as it was', async (driver) => {
    const content = pattern(50_000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    const times = (_: string, block: number): number => {
      if (block === 10) {
        writeFileSync(served.path('g'), 'another');
        execFileSync('mv', [served.path('g'), served.path('f')]);
      }
      return 1;
    };
    assert.ok((await read(peer, { name: 'f', times })).bytes.equals(content));
  });

  for (const [mode, windowsize] of [
    ['octet', 1],
    ['octet', 16],
    ['netascii', 1],
  ] as const) {
    duty(
      `a file that shrinks gives ERROR, never a short success: ${mode}, windowsize ${windowsize}`,
      async (driver) => {
        await using served = await Served.start(driver, { f: Buffer.alloc(500_000, 'x') });
        for (const cut of [0, 10_240, 10_300]) {
          writeFileSync(served.path('f'), Buffer.alloc(500_000, 'x'));
          using peer = served.peer();
          const times = (_: string, block: number): number => {
            if (block === 20 || (windowsize > 1 && block === 16)) truncateSync(served.path('f'), cut);
            return 1;
          };
          const got = await read(peer, {
            name: 'f',
            mode,
            options: windowsize === 1 ? [] : [['windowsize', windowsize]],
            times,
          });
          assert.ok(
            got.error !== undefined && got.error[0] >= 0,
            `cut to ${cut}: ${got.bytes.length} bytes and no ERROR`,
          );
        }
        assert.ok(served.events.every((event) => event.result === 'failed'));
      },
    );
  }

  duty('rules and quota: once, append at its offset, more than allowed', async (driver) => {
    const rules = { once: { maxBytes: 10, rule: 'once' }, log: { maxBytes: 10, rule: 'append' } } as const;
    await using served = await Served.start(driver, {}, rules);
    using peer = served.peer();
    const put = async (name: string, text: string, offset?: number): Promise<number | undefined> => {
      const options = offset === undefined ? [] : [['offset', offset] as const];
      return (await write(peer, { name, content: Buffer.from(text), options })).error?.[0];
    };
    assert.equal(await put('once', '12345678901'), 3);
    assert.equal(await put('once', '1234567890'), undefined);
    assert.equal(await put('once', 'x'), 6);
    assert.equal(await put('log', '12345', 0), undefined);
    assert.equal(await put('log', 'x', 6), 0);
    assert.equal(await put('log', '678901', 5), 3);
    assert.equal(await put('log', '67890', 5), undefined);
    assert.equal(await put('log', 'x', 10), 3);
    assert.equal(await put('log', '4567890', 3), undefined);
    assert.equal(await put('other', 'x'), 2);
    assert.equal(readFileSync(served.path('log'), 'utf8'), '1234567890');
    assert.equal(readFileSync(served.path('once'), 'utf8'), '1234567890');
    assert.deepEqual(readdirSync(served.folder).sort(), ['log', 'once']);
  });
});
