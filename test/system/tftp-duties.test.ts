/**
 * What RFC 1350 and RFC 1123 ask, clause by clause, of the running server; by a client that misbehaves. Options are in
 * tftp-duties-options.test.ts, policy and practice in tftp-duties-practice.test.ts.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';
import { get } from '../../tftp/client.ts';
import { clause } from './_tftp-duty.ts';
import { type Received, Peer, ack, data, describe as say, error, read, request, write } from './_tftp-misbehave.ts';
import { HOST, REPLACE, Served, pattern } from './_tftp-server.ts';

/** Sizes around the first multiples of a blksize. */
const around = (blksize: number): number[] =>
  [
    ...new Set([0, 1, blksize - 1, blksize, blksize + 1, 2 * blksize - 1, 2 * blksize, 2 * blksize + 1, 5 * blksize]),
  ].sort((a, b) => a - b);

const BLKSIZES = [8, 512, 1468, 65464] as const;

clause('1350 §2 §6', (duty) => {
  for (const windowsize of [1, 4]) {
    duty(
      `every size is read, also multiples of blksize (empty last DATA), windowsize ${windowsize}`,
      async (driver) => {
        await using served = await Served.start(driver);
        // Open until the end: a closed one would fail a transfer whose last DATA is repeated meanwhile.
        using held = new DisposableStack();
        for (const blksize of BLKSIZES) {
          for (const size of around(blksize)) {
            const peer = held.use(served.peer());
            const content = pattern(size);
            writeFileSync(served.path('f'), content);
            const options = [
              ...(blksize === 512 ? [] : [['blksize', blksize] as const]),
              ...(windowsize === 1 ? [] : [['windowsize', windowsize] as const]),
            ];
            const got = await read(peer, { name: 'f', options });
            const what = `${size} bytes in blocks of ${blksize}`;
            assert.equal(got.error, undefined, what);
            assert.equal(got.bytes.length, size, what);
            assert.ok(got.bytes.equals(content), what);
            assert.equal(got.blocks, Math.floor(size / blksize) + 1, what);
            const last = got.came.at(-1);
            assert.equal(last?.data.length, size % blksize, what);
          }
        }
        await sleep(50);
        assert.deepEqual(
          served.events.filter((event) => event.result !== 'done'),
          [],
        );
      },
    );

    duty(`every size is written, also multiples of blksize, windowsize ${windowsize}`, async (driver) => {
      await using served = await Served.start(driver, {}, { f: REPLACE });
      using peer = served.peer();
      for (const blksize of BLKSIZES) {
        for (const size of around(blksize)) {
          const content = pattern(size);
          const options = [
            ...(blksize === 512 ? [] : [['blksize', blksize] as const]),
            ...(windowsize === 1 ? [] : [['windowsize', windowsize] as const]),
          ];
          const put = await write(peer, { name: 'f', content, options });
          const what = `${size} bytes in blocks of ${blksize}`;
          assert.equal(put.error, undefined, what);
          assert.ok(readFileSync(served.path('f')).equals(content), what);
        }
      }
    });
  }

  duty('an ACK of a block not yet sent never skips data', async (driver) => {
    const content = pattern(10 * 512);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    peer.ask(request(1, 'f'));
    const chunks: Buffer[] = [];
    for (let block = 1; block <= 11; block += 1) {
      const got = await peer.expect('DATA', block);
      chunks.push(got.data);
      for (const wrong of [block + 1, block + 2, block + 1000, 65535, 32768 + block]) peer.send(ack(wrong));
      peer.send(ack(block));
    }
    assert.ok(Buffer.concat(chunks).equals(content));
    assert.equal((await served.event()).result, 'done');
  });

  duty('an ACK behind the window never skips data, with windowsize 4', async (driver) => {
    const content = pattern(20 * 512);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    peer.ask(request(1, 'f', [['windowsize', 4]]));
    await peer.expect('OACK');
    for (const early of [1, 4, 5, 65535]) peer.send(ack(early));
    assert.deepEqual((await peer.drain(150)).map(say), [], 'no DATA before ACK 0');
    peer.send(ack(0));
    const chunks: Buffer[] = [];
    for (let block = 1; block <= 21; block += 1) {
      chunks.push((await peer.expect('DATA', block)).data);
      if (block % 4 !== 0 && block !== 21) continue;
      for (const wrong of [block + 1, block + 4, block + 5, 65535]) peer.send(ack(wrong));
      peer.send(ack(block));
    }
    assert.ok(Buffer.concat(chunks).equals(content));
  });

  duty('DATA ahead of its turn never reaches the file', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    const content = pattern(1000);
    peer.ask(request(2, 'f'));
    await peer.expect('ACK', 0);
    for (const wrong of [2, 3, 65535]) peer.send(data(wrong, Buffer.alloc(512, 'x')));
    peer.send(data(1, content.subarray(0, 512)));
    await peer.expect('ACK', 1);
    for (const wrong of [3, 0, 1000]) peer.send(data(wrong, Buffer.alloc(512, 'x')));
    peer.send(data(2, content.subarray(512)));
    await peer.expect('ACK', 2);
    assert.ok(readFileSync(served.path('f')).equals(content));
  });
});

clause('1350 §4', (duty) => {
  duty('a fresh random TID per transfer', async (driver) => {
    await using served = await Served.start(driver, { f: 'x' });
    const tids: number[] = [];
    for (let count = 0; count < 40; count += 1) {
      using peer = served.peer();
      peer.ask(request(1, 'f'));
      tids.push((await peer.expect('DATA', 1)).port);
      peer.send(ack(1));
    }
    assert.ok(!tids.includes(served.server.port), 'never the port that is asked');
    assert.ok(new Set(tids).size >= 38, 'fresh');
    const steps = new Set(tids.slice(1).map((tid, index) => tid - (tids[index] ?? 0)));
    assert.ok(steps.size > 20, `random: ${tids.join(' ')}`);
  });

  duty('a foreign TID never disturbs a read', async (driver) => {
    const content = pattern(20_000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    using stranger = served.peer();
    using far = served.peer('127.0.0.10');
    peer.ask(request(1, 'f'));
    const chunks: Buffer[] = [];
    for (let block = 1; block <= 40; block += 1) {
      const got = await peer.expect('DATA', block);
      chunks.push(got.data);
      for (const other of [stranger, far]) {
        for (const bytes of [ack(block), ack(block + 1), error(0, 'end'), data(1, Buffer.from('x')), Buffer.alloc(1)]) {
          other.send(bytes, got.port);
        }
      }
      await sleep(1);
      peer.send(ack(block));
    }
    assert.ok(Buffer.concat(chunks).equals(content));
    const heard = [...(await stranger.drain(50)), ...(await far.drain(50))];
    assert.ok(
      heard.every((each) => each.kind === 'ERROR' && each.number === 5),
      heard.map(say).join(),
    );
    assert.deepEqual(await peer.drain(50), []);
  });

  duty('a foreign TID never reaches the file', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    using stranger = served.peer();
    using far = served.peer('127.0.0.10');
    const content = pattern(5000);
    peer.ask(request(2, 'f'));
    const { port } = await peer.expect('ACK', 0);
    for (let block = 1; block <= 10; block += 1) {
      for (const other of [stranger, far]) {
        other.send(data(block, Buffer.alloc(512, 'x')), port);
        other.send(data(block, Buffer.from('x')), port);
        other.send(error(3, 'end'), port);
      }
      await sleep(2);
      peer.send(data(block, content.subarray((block - 1) * 512, block * 512)));
      await peer.expect('ACK', block);
    }
    assert.ok(readFileSync(served.path('f')).equals(content));
    const heard = [...(await stranger.drain(50)), ...(await far.drain(50))];
    assert.ok(
      heard.every((each) => each.kind === 'ERROR' && each.number === 5),
      heard.map(say).join(),
    );
  });

  duty(
    'ERROR 5 where we see it: our client tells a stranger, once for each packet, and never answers its ERROR',
    async () => {
      // A server made by hand: it gives two blocks, and a stranger mixes in between.
      const server = createSocket('udp4');
      server.bindSync({ address: HOST });
      using near = new Peer({ host: HOST, port: 1, from: HOST });
      using far = new Peer({ host: HOST, port: 1, from: '127.0.0.10' });
      const strangers = [near, far];
      const content = pattern(700);
      server.on('message', (bytes, from) => {
        const opcode = bytes[1];
        const block = opcode === 1 ? 1 : bytes.readUInt16BE(2) + 1;
        if (block > 2) return;
        if (block === 2) {
          for (const stranger of strangers) {
            stranger.send(data(2, Buffer.from('evil')), from.port);
            stranger.send(error(0, 'end'), from.port);
          }
        }
        setTimeout(
          () => server.send(data(block, content.subarray((block - 1) * 512, block * 512)), from.port, HOST),
          30,
        );
      });
      try {
        const got = await get({ host: HOST, port: server.address().port, name: 'f', windowsize: 1, blksize: 512 });
        assert.ok(Buffer.from(got).equals(content));
      } finally {
        server.close();
      }
      for (const stranger of strangers) {
        assert.deepEqual((await stranger.drain(100)).map(say), ['ERROR 5 "unknown TID"']);
      }
    },
  );

  duty('a copy of the request is no second transfer', async (driver) => {
    const content = pattern(2000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    for (let count = 0; count < 5; count += 1) peer.send(request(1, 'f'), served.server.port);
    const came = await peer.drain(150);
    assert.equal(new Set(came.map((each) => each.port)).size, 1, came.map(say).join());
    assert.equal(served.server.transfers, 1);
  });
});

clause('1350 §5 §7', (duty) => {
  duty('ERROR 1 for a missing file, NUL-terminated', async (driver) => {
    await using served = await Served.start(driver);
    using peer = served.peer();
    for (const name of ['nothing', 'no/such/folder/f', '/nothing', 'f/']) {
      peer.ask(request(1, name, [['blksize', 1024]]));
      const got = await peer.expect('ERROR', 1);
      assert.equal(got.raw.at(-1), 0);
      assert.equal(got.raw.indexOf(0, 4), got.raw.length - 1, 'one NUL, at the end');
      assert.ok(got.message.length > 0);
    }
  });

  duty('mode in any case; an unknown one is ERROR 4', async (driver) => {
    await using served = await Served.start(driver, { f: 'x' });
    using peer = served.peer();
    for (const mode of ['octet', 'OCTET', 'OcTeT', 'netascii', 'NetASCII', 'NETASCII']) {
      assert.equal((await read(peer, { name: 'f', mode })).bytes.toString(), 'x', mode);
    }
    for (const mode of ['', 'binary', 'octets', 'octet ', 'ocTET\u0130']) {
      peer.ask(request(1, 'f', [], mode));
      await peer.expect('ERROR', 4);
    }
  });

  duty('an ERROR is never answered', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(5000) }, { up: REPLACE });
    using peer = served.peer();
    for (let code = 0; code <= 9; code += 1) peer.send(error(code, 'x'));
    for (const bytes of [
      [0, 5],
      [0, 5, 0],
      [0, 5, 0, 1],
      [0, 5, 0, 5, 0],
      [0, 5, 255, 255, 65],
    ]) {
      peer.send(Buffer.from(bytes));
    }
    assert.deepEqual((await peer.drain(150)).map(say), [], 'to the port that is asked');
    for (const bytes of [error(0, 'end'), Buffer.from([0, 5, 0, 0]), Buffer.from([0, 5, 0, 3, 65, 66]), error(65535)]) {
      peer.ask(request(1, 'f'));
      await peer.expect('DATA', 1);
      peer.send(bytes);
      peer.send(bytes);
      peer.ask(request(2, 'up'));
      await peer.expect('ACK', 0);
      peer.send(bytes);
      assert.deepEqual((await peer.drain(150)).map(say), [], 'to a transfer');
    }
  });

  duty('an ERROR from the peer ends the transfer at once', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(5000) }, { up: REPLACE });
    using peer = served.peer();
    peer.ask(request(1, 'f'));
    await peer.expect('DATA', 1);
    peer.send(error(3, 'my disk is full'));
    const event = await served.event(1, 500);
    assert.match(`${event.result} ${event.error}`, /^failed .*my disk is full/);
    assert.equal(event.errorCode, 3);
    peer.ask(request(2, 'up'));
    await peer.expect('ACK', 0);
    peer.send(data(1, pattern(512)));
    await peer.expect('ACK', 1);
    peer.send(error(0, 'no more'));
    await served.event(2, 500);
    assert.deepEqual(readdirSync(served.folder), ['f'], 'nothing is left of the upload');
    assert.equal(served.server.transfers, 0);
    assert.deepEqual((await peer.drain(1300)).map(say), [], 'nothing is repeated');
  });

  duty('packets that do not belong into a transfer are passed over', async (driver) => {
    const content = pattern(1500);
    await using served = await Served.start(driver, { f: content }, { up: REPLACE });
    using peer = served.peer();
    const odd = [
      Buffer.alloc(0),
      Buffer.from([0]),
      Buffer.from([0, 4]),
      Buffer.from([0, 4, 0]),
      Buffer.from([0, 0, 0, 0]),
      Buffer.from([0, 7, 0, 1]),
      Buffer.from([255, 255, 255, 255]),
      Buffer.from([4, 0, 0, 1]),
      request(1, 'f'),
      request(2, 'f'),
      Buffer.from([0, 6]),
      Buffer.from('\0\x06blksize\x009\0'),
    ];
    peer.ask(request(1, 'f'));
    const chunks: Buffer[] = [];
    for (let block = 1; block <= 3; block += 1) {
      chunks.push((await peer.expect('DATA', block)).data);
      for (const bytes of [...odd, data(block, Buffer.from('x'))]) peer.send(bytes);
      peer.send(ack(block));
    }
    assert.ok(Buffer.concat(chunks).equals(content));
    peer.ask(request(2, 'up'));
    await peer.expect('ACK', 0);
    for (let block = 1; block <= 3; block += 1) {
      for (const bytes of [...odd, ack(block), Buffer.from([0, 3]), Buffer.from([0, 3, 0])]) peer.send(bytes);
      peer.send(data(block, content.subarray((block - 1) * 512, block * 512)));
      await peer.expect('ACK', block);
    }
    assert.ok(readFileSync(served.path('up')).equals(content));
    assert.deepEqual(served.errors, []);
  });

  duty('what is no request gets no answer, a broken request ERROR 4', async (driver) => {
    await using served = await Served.start(driver, { f: 'x' });
    using peer = served.peer();
    for (const bytes of [
      ack(0),
      ack(1),
      data(1, Buffer.from('x')),
      Buffer.from('\0\x06blksize\x009\0'),
      Buffer.alloc(3),
    ]) {
      peer.send(bytes);
    }
    peer.send(Buffer.from([9, 1, 65, 0, 65, 0]));
    assert.deepEqual((await peer.drain(200)).map(say), []);
    for (const bytes of ['\0\x01file', '\0\x01file\0octet', '\0\x01\0octet\0', '\0\x02f\0']) {
      peer.ask(Buffer.from(bytes));
      await peer.expect('ERROR', 4);
    }
  });
});

clause('1350 §6 dally', (duty) => {
  duty('the last ACK is repeated for a repeated last DATA', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    const content = pattern(600);
    peer.ask(request(2, 'f'));
    await peer.expect('ACK', 0);
    peer.send(data(1, content.subarray(0, 512)));
    await peer.expect('ACK', 1);
    peer.send(data(2, content.subarray(512)));
    await peer.expect('ACK', 2);
    for (let count = 0; count < 4; count += 1) {
      await sleep(200);
      peer.send(data(2, Buffer.from('something else')));
      await peer.expect('ACK', 2);
    }
    assert.ok(readFileSync(served.path('f')).equals(content));
    assert.deepEqual(served.written, ['f 600'], 'put in place once');
    assert.equal(served.events.length, 1);
    assert.deepEqual((await peer.drain(300)).map(say), [], 'never without being asked');
  });

  duty('so with a window, of which the peer repeats all', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    const content = pattern(1800);
    const blocks = [1, 2, 3, 4].map((block) => data(block, content.subarray((block - 1) * 512, block * 512)));
    peer.ask(request(2, 'f', [['windowsize', 8]]));
    await peer.expect('OACK');
    for (const block of blocks) peer.send(block);
    await peer.expect('ACK', 4);
    for (const block of blocks) peer.send(block);
    const again = await peer.drain(150);
    assert.ok(
      again.length >= 1 && again.every((each) => each.kind === 'ACK' && each.number === 4),
      again.map(say).join(),
    );
    assert.ok(readFileSync(served.path('f')).equals(content));
  });
});

/** netascii, written the slow way. */
const encode = (text: string): string => text.replaceAll(/[\r\n]/g, (each) => (each === '\n' ? '\r\n' : '\r\0'));

/** All texts of CR, LF, NUL and a letter with a length, so that each pair falls on each place. */
function texts(length: number): string[] {
  return Array.from({ length: 4 ** length }, (_, index) =>
    Array.from({ length }, (__, place) => '\r\n\0a'[Math.floor(index / 4 ** place) % 4] ?? '').join(''),
  );
}

clause('1123 §4.2', (duty) => {
  duty('netascii is read, with pairs across block borders', async (driver) => {
    const files = {
      short: texts(4).join('b'),
      long: `${'a'.repeat(510)}\n\r${'a\n'.repeat(1000)}\r`,
      none: 'abc',
      cr: '\r',
    };
    await using served = await Served.start(driver, files);
    using peer = served.peer();
    for (const [name, text] of Object.entries(files)) {
      for (const blksize of [8, 9, 511, 512, 513]) {
        for (const windowsize of [1, 3]) {
          const options = [
            ['blksize', blksize],
            ['windowsize', windowsize],
            ['tsize', 0],
          ] as const;
          const got = await read(peer, { name, mode: 'netascii', options });
          assert.equal(got.bytes.toString('latin1'), encode(text), `${name} in blocks of ${blksize}`);
          assert.equal(got.oack?.['tsize'], String(encode(text).length));
        }
      }
    }
  });

  duty('netascii is written, with pairs across block borders', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    for (const text of [texts(4).join('b'), `${'a'.repeat(511)}\n\r`, `${'a'.repeat(510)}\r\n`, '\r', '\n']) {
      for (const blksize of [8, 9, 512]) {
        for (const windowsize of [1, 3]) {
          const options = [
            ['blksize', blksize],
            ['windowsize', windowsize],
          ] as const;
          const put = await write(peer, { name: 'f', mode: 'netascii', options, content: Buffer.from(encode(text)) });
          assert.equal(put.error, undefined);
          assert.equal(readFileSync(served.path('f'), 'latin1'), text);
        }
      }
    }
  });

  duty('netascii survives lost and doubled ACKs', async (driver) => {
    const text = texts(4).join('bc');
    await using served = await Served.start(driver, { f: text });
    using peer = served.peer();
    const options = [
      ['blksize', 8],
      ['windowsize', 4],
      ['timeout', 1],
    ] as const;
    let count = 0;
    const times = (): number => [1, 2, 1, 0, 3][(count += 1) % 5] ?? 1;
    const got = await read(peer, { name: 'f', mode: 'netascii', options, times, patienceMs: 30 });
    assert.equal(got.bytes.toString('latin1'), encode(text));
  });

  duty('mail is refused', async (driver) => {
    await using served = await Served.start(driver, { f: 'x' }, { up: REPLACE });
    using peer = served.peer();
    for (const mode of ['mail', 'MAIL']) {
      for (const [opcode, name] of [
        [1, 'f'],
        [2, 'up'],
      ] as const) {
        peer.ask(request(opcode, name, [], mode));
        await peer.expect('ERROR', 4);
      }
    }
  });

  duty('a duplicate ACK never re-sends DATA', async (driver) => {
    const content = pattern(50 * 512 + 1);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    const got = await read(peer, { name: 'f', times: () => 4 });
    assert.ok(got.bytes.equals(content));
    // Each block once, but for what a slow machine has repeated on time; each ACK came four times.
    const count = got.came.filter((each) => each.kind === 'DATA').length;
    assert.ok(count >= 51 && count <= 60, `${count} DATA for 51 blocks`);
  });

  duty('a duplicate DATA is ACKed and not written twice', async (driver) => {
    await using served = await Served.start(driver, {}, { f: REPLACE });
    using peer = served.peer();
    const content = pattern(20 * 512 + 7);
    const put = await write(peer, { name: 'f', content, times: () => 2 });
    assert.equal(put.error, undefined);
    assert.ok(readFileSync(served.path('f')).equals(content));
  });

  duty('adaptive timeout: a quick peer is asked again sooner than a slow one, each wait doubles', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(100 * 512) });
    const waits: number[] = [];
    for (const delayMs of [0, 150]) {
      using peer = served.peer();
      peer.ask(request(1, 'f'));
      let last: Received | undefined;
      for (let block = 1; block <= 12; block += 1) {
        last = await peer.expect('DATA', block);
        if (block === 12) break;
        await sleep(delayMs);
        peer.send(ack(block));
      }
      const times = [last?.atMs ?? 0];
      while (times.length < 4) times.push((await peer.expect('DATA', 12)).atMs);
      peer.send(error(0, 'enough'));
      const [second = 0, third = 0] = times.slice(2).map((time, index) => time - (times[index + 1] ?? 0));
      // The first wait is blurred: this process may see the block late.
      waits.push(second);
      assert.ok(third / second > 1.3 && third / second < 3.5, `${second} ms, then ${third} ms`);
    }
    const [quick = 0, slow = 0] = waits;
    assert.ok(quick >= 80 && quick < slow, `${quick} ms after the first repeat for a quick peer`);
    assert.ok(slow >= 300 && slow < 2500, `${slow} ms after the first repeat for a slow peer`);
  });

  duty('retries are bounded: a peer that falls silent is given up', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(5000) });
    using peer = served.peer();
    using silent = served.peer();
    silent.ask(request(1, 'f'));
    peer.ask(request(1, 'f'));
    await peer.expect('DATA', 1);
    peer.send(ack(1));
    const came: Received[] = [];
    for (
      let got = await peer.receive(20_000);
      got !== undefined && got.kind === 'DATA';
      got = await peer.receive(20_000)
    ) {
      // Block 1 comes again when this process was slow to ACK it.
      if (got.number !== 1) came.push(got);
    }
    assert.equal(came.length, 8, 'a block is sent 8 times at most');
    assert.ok(came.every((each) => each.number === 2));
    const unproven = await silent.listen(0);
    assert.equal(unproven.length, 3, 'one DATA and two repeats to an address that never answered');
    assert.deepEqual((await served.event(2)).result, 'failed');
    assert.equal(served.server.transfers, 0);
  });

  duty('a request to a broadcast address is ignored', async (driver) => {
    await using served = await Served.start(driver, { f: 'x' });
    using peer = served.peer();
    peer.sendTo(request(1, 'f'), served.server.port, '127.255.255.255');
    assert.deepEqual((await peer.drain(200)).map(say), []);
    peer.ask(request(1, 'f'));
    await peer.expect('DATA', 1);
  });
});
