/** What RFC 2347, 2348, 2349 and 7440 ask, clause by clause, of the running server; by a client that misbehaves. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, truncateSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { clause } from './_tftp-duty.ts';
import {
  type OptionList,
  type Peer,
  type Received,
  ack,
  data,
  describe as say,
  error,
  read,
  request,
  write,
} from './_tftp-misbehave.ts';
import { REPLACE, Served, pattern } from './_tftp-server.ts';

/** Asks, takes the first answer, and ends the transfer politely. */
async function probe(
  peer: Peer,
  options: OptionList,
  opcode: 1 | 2 = 1,
  name = 'f',
  mode = 'octet',
): Promise<Received> {
  peer.ask(request(opcode, name, options, mode));
  const got = await peer.receive();
  assert.ok(got !== undefined, `no answer to ${JSON.stringify(options)}`);
  if (got.kind !== 'ERROR') peer.send(error(8, 'no, thanks'));
  return got;
}

/** The value of an option in an OACK. */
const granted = (got: Received, name: string): string | undefined =>
  got.options.find(([option]) => option.toLowerCase() === name)?.[1];

clause('2347', (duty) => {
  duty('unknown options are left out, no OACK if none is left', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' }, { up: REPLACE });
    using peer = served.peer();
    for (const options of [
      [['foo', '1']],
      [
        ['blksiz', 512],
        ['xblksize', 9],
      ],
      [['', 'x']],
      [['multicast', '']],
    ] as const) {
      assert.equal(say(await probe(peer, options)), 'DATA 1 with 7 bytes', JSON.stringify(options));
      assert.equal(say(await probe(peer, options, 2, 'up')), 'ACK 0', JSON.stringify(options));
    }
    const mixed = await probe(peer, [
      ['foo', 1],
      ['blksize', 1000],
      ['bar', 2],
    ]);
    assert.equal(say(mixed), 'OACK blksize=1000');
  });

  duty('names in any case', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    const got = await probe(peer, [
      ['BLKSIZE', 1000],
      ['TSize', 0],
      ['TimeOut', 9],
      ['windowSIZE', 2],
    ]);
    assert.equal(say(got).toLowerCase(), 'oack blksize=1000 tsize=7 timeout=9 windowsize=2');
  });

  duty('an OACK holds only what was asked', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    const values = { blksize: 600, tsize: 0, timeout: 3, windowsize: 4 };
    const names = Object.keys(values);
    for (let set = 1; set < 16; set += 1) {
      const asked = Object.entries(values).filter((_, index) => ((set >> index) & 1) === 1);
      const got = await probe(peer, asked);
      assert.equal(got.kind, 'OACK');
      assert.deepEqual(
        got.options.map(([name]) => name),
        asked.map(([name]) => name),
        names.join(),
      );
    }
  });

  duty('a repeated option is answered once; a broken one ends the list', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    const twice = await probe(peer, [
      ['blksize', 600],
      ['blksize', 700],
      ['BLKSIZE', 800],
    ]);
    assert.equal(twice.options.length, 1, say(twice));
    for (const tail of ['blksize', 'blksize\0', 'blksize\x00600', '\0\0\0\0']) {
      peer.ask(Buffer.from(`\0\x01f\0octet\0${tail}`));
      assert.equal(say(await peer.receive()), 'DATA 1 with 7 bytes', JSON.stringify(tail));
      peer.send(ack(1));
    }
    peer.ask(Buffer.from('\0\x01f\0octet\0tsize\x000\0blksize'));
    assert.equal(say(await peer.receive()), 'OACK tsize=7');
    peer.send(error(0));
  });

  duty('DATA 1 only after ACK 0', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(1500) });
    using peer = served.peer();
    peer.ask(
      request(1, 'f', [
        ['blksize', 600],
        ['windowsize', 2],
      ]),
    );
    await peer.expect('OACK');
    assert.deepEqual((await peer.drain(300)).map(say), []);
    peer.send(ack(0));
    await peer.expect('DATA', 1);
    peer.send(error(0));
  });

  duty('the OACK is repeated, for a read and for a write', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' }, { up: REPLACE });
    for (const [opcode, name] of [
      [1, 'f'],
      [2, 'up'],
    ] as const) {
      using peer = served.peer();
      peer.ask(
        request(opcode, name, [
          ['blksize', 600],
          ['timeout', 1],
        ]),
      );
      const first = await peer.expect('OACK');
      const second = await peer.expect('OACK');
      assert.equal(say(second), say(first));
      assert.equal(second.port, first.port);
      peer.send(opcode === 1 ? ack(0) : data(1, Buffer.from('content')));
      assert.equal(say(await peer.receive()), opcode === 1 ? 'DATA 1 with 7 bytes' : 'ACK 1');
      peer.send(ack(1));
    }
    assert.equal(readFileSync(served.path('up'), 'utf8'), 'content');
  });

  duty('an ACK 0 that comes twice brings DATA 1 once', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(1500) });
    using peer = served.peer();
    peer.ask(request(1, 'f', [['blksize', 600]]));
    await peer.expect('OACK');
    for (let count = 0; count < 5; count += 1) peer.send(ack(0));
    await peer.expect('DATA', 1);
    peer.send(ack(1));
    await peer.expect('DATA', 2);
    peer.send(error(0));
  });

  duty('ERROR 8 ends it, and the next RRQ from the same port works (UEFI size probe)', async (driver) => {
    const content = pattern(3000);
    await using served = await Served.start(driver, { f: content });
    for (let count = 0; count < 10; count += 1) {
      using peer = served.peer();
      peer.ask(
        request(1, 'f', [
          ['tsize', 0],
          ['blksize', 1468],
        ]),
      );
      const size = await peer.expect('OACK');
      assert.equal(granted(size, 'tsize'), '3000');
      peer.send(error(8, 'User aborted the transfer'));
      const got = await read(peer, {
        name: 'f',
        options: [
          ['blksize', 1468],
          ['windowsize', 4],
        ],
      });
      assert.equal(got.error, undefined);
      assert.ok(got.bytes.equals(content));
      assert.notEqual(got.came[0]?.port, size.port, 'a new TID');
    }
    await served.event(20);
    assert.equal(served.events.filter((event) => event.result === 'done').length, 10);
  });
});

const INVALID_NUMBERS = [
  '',
  ' ',
  '-1',
  '+9',
  ' 600',
  '600 ',
  '6e2',
  '0x200',
  '600.0',
  'abc',
  '٦٠٠',
  '1'.repeat(40),
  '1,000',
];

clause('2348', (duty) => {
  duty('8…65464 granted or lowered', async (driver) => {
    const content = pattern(131_000);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    for (const blksize of [8, 9, 511, 512, 513, 1024, 1428, 1468, 4096, 8192, 65463, 65464]) {
      const got = await probe(peer, [['blksize', blksize]]);
      const value = Number(granted(got, 'blksize'));
      assert.ok(value >= 8 && value <= blksize, `${blksize} asked, ${value} granted`);
    }
    for (const blksize of [65464, 40_000, 1468]) {
      const got = await read(peer, { name: 'f', options: [['blksize', blksize]] });
      assert.ok(got.bytes.equals(content));
      assert.equal(got.came[1]?.data.length, Number(got.oack?.['blksize']));
    }
  });

  duty('a limit of the server lowers it', async (driver) => {
    const content = pattern(10_000);
    await using served = await Served.start(driver, { f: content }, undefined, { blksizeMax: 1400 });
    using peer = served.peer();
    for (const [asked, given] of [
      [1399, '1399'],
      [1400, '1400'],
      [1401, '1400'],
      [65464, '1400'],
    ] as const) {
      assert.equal(granted(await probe(peer, [['blksize', asked]]), 'blksize'), given);
    }
    assert.ok((await read(peer, { name: 'f', options: [['blksize', 65464]] })).bytes.equals(content));
  });

  duty('invalid values are never granted', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' }, { up: REPLACE });
    using peer = served.peer();
    for (const value of ['0', '1', '7', '65465', '65536', '4294967808', ...INVALID_NUMBERS]) {
      assert.equal(say(await probe(peer, [['blksize', value]])), 'DATA 1 with 7 bytes', value);
      assert.equal(say(await probe(peer, [['blksize', value]], 2, 'up')), 'ACK 0', value);
      assert.equal(
        say(
          await probe(peer, [
            ['blksize', value],
            ['tsize', 0],
          ]),
        ),
        'OACK tsize=7',
        value,
      );
    }
  });

  duty('DATA larger than blksize ends an upload', async (driver) => {
    await using served = await Served.start(driver, {}, { up: REPLACE });
    using peer = served.peer();
    peer.ask(request(2, 'up', [['blksize', 600]]));
    await peer.expect('OACK');
    peer.send(data(1, Buffer.alloc(601)));
    await peer.expect('ERROR', 4);
    assert.deepEqual(readdirSync(served.folder), []);
  });
});

clause('2349', (duty) => {
  duty('tsize exact, also past 4 GiB', async (driver) => {
    await using served = await Served.start(driver, { f: '' });
    using peer = served.peer();
    for (const size of [1, 511, 512, 65_537, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 5_368_709_133]) {
      truncateSync(served.path('f'), size);
      const got = await probe(peer, [
        ['tsize', 0],
        ['blksize', 1468],
      ]);
      assert.equal(granted(got, 'tsize'), String(size));
    }
  });

  duty('a tsize in a read that is not 0 is answered with the size, too', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    assert.equal(say(await probe(peer, [['tsize', 1234]])), 'OACK tsize=7');
    for (const value of INVALID_NUMBERS)
      assert.equal(say(await probe(peer, [['tsize', value]])), 'DATA 1 with 7 bytes');
  });

  duty('timeout 1…255 echoed', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    for (const value of [1, 2, 9, 60, 254, 255]) {
      assert.equal(say(await probe(peer, [['timeout', value]])), `OACK timeout=${value}`);
    }
    for (const value of ['0', '256', '1000', ...INVALID_NUMBERS]) {
      assert.equal(say(await probe(peer, [['timeout', value]])), 'DATA 1 with 7 bytes', value);
    }
  });

  duty('timeout is used: that long until the first repeat', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    await Promise.all(
      [1, 2, 3].map(async (seconds) => {
        using peer = served.peer();
        peer.ask(request(1, 'f', [['timeout', seconds]]));
        const first = await peer.expect('OACK');
        const second = await peer.receive(5000);
        peer.send(error(0));
        const waited = (second?.atMs ?? Infinity) - first.atMs;
        // Never sooner; how much later is the machine's affair.
        assert.ok(waited > seconds * 1000 - 250 && waited < 5000, `${seconds} s asked, ${waited} ms waited`);
      }),
    );
  });

  duty('the tsize of a WRQ is echoed', async (driver) => {
    await using served = await Served.start(driver, {}, { up: { maxBytes: 1000, rule: 'replace' } });
    using peer = served.peer();
    for (const size of [0, 1, 999, 1000]) {
      assert.equal(say(await probe(peer, [['tsize', size]], 2, 'up')), `OACK tsize=${size}`);
    }
  });

  duty('WRQ tsize too large → ERROR 3, before any DATA', async (driver) => {
    await using served = await Served.start(driver, { up: 'old' }, { up: { maxBytes: 1000, rule: 'replace' } });
    using peer = served.peer();
    for (const size of [1001, 2 ** 32 + 1, 999_999_999_999_999]) {
      assert.equal((await probe(peer, [['tsize', size]], 2, 'up')).number, 3);
    }
    assert.deepEqual(readdirSync(served.folder), ['up']);
    assert.equal(readFileSync(served.path('up'), 'utf8'), 'old');
  });

  duty('an upload that ends before the tsize it announced is no success', async (driver) => {
    await using served = await Served.start(driver, { up: 'old' }, { up: REPLACE });
    using peer = served.peer();
    peer.ask(request(2, 'up', [['tsize', 100]]));
    await peer.expect('OACK');
    peer.send(data(1, Buffer.from('short')));
    assert.equal((await peer.receive())?.kind, 'ERROR');
    assert.equal(readFileSync(served.path('up'), 'utf8'), 'old');
  });
});

clause('7440', (duty) => {
  duty('1…65535, granted ≤ asked', async (driver) => {
    await using served = await Served.start(driver, { f: 'content' });
    using peer = served.peer();
    for (const asked of [1, 2, 3, 16, 63, 64, 65, 1000, 65534, 65535]) {
      for (const blksize of [undefined, 8, 1468, 65464]) {
        const options = [
          ['windowsize', asked] as const,
          ...(blksize === undefined ? [] : [['blksize', blksize] as const]),
        ];
        const value = Number(granted(await probe(peer, options), 'windowsize'));
        assert.ok(value >= 1 && value <= asked, `${asked} asked, ${value} granted`);
      }
    }
    for (const value of ['0', '65536', '100000', ...INVALID_NUMBERS]) {
      assert.equal(say(await probe(peer, [['windowsize', value]])), 'DATA 1 with 7 bytes', value);
    }
  });

  duty('exactly N blocks, then wait', async (driver) => {
    const content = pattern(100_000);
    await using served = await Served.start(driver, { f: content });
    for (const asked of [2, 3, 8, 64]) {
      using peer = served.peer();
      peer.ask(
        request(1, 'f', [
          ['windowsize', asked],
          ['timeout', 2],
        ]),
      );
      const windowsize = Number(granted(await peer.expect('OACK'), 'windowsize'));
      for (let start = 0; start < 3 * windowsize; start += windowsize) {
        // A slow peer: the server waits some round trips before it repeats.
        await sleep(80);
        peer.send(ack(start));
        const came = await peer.drain(60);
        const wanted = Array.from({ length: windowsize }, (_, index) => `DATA ${start + index + 1} with 512 bytes`);
        // When this process was slow, the window comes once more: never anything behind it.
        assert.deepEqual(came.slice(0, windowsize).map(say), wanted);
        assert.ok(came.every((each) => each.number <= start + windowsize));
      }
      peer.send(error(0));
    }
  });

  duty('an ACK inside the window moves its start', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(100_000) });
    using peer = served.peer();
    peer.ask(
      request(1, 'f', [
        ['windowsize', 4],
        ['timeout', 2],
      ]),
    );
    await peer.expect('OACK');
    for (const [acked, wanted] of [
      [0, [1, 2, 3, 4]],
      [2, [3, 4, 5, 6]],
      [5, [6, 7, 8, 9]],
      [9, [10, 11, 12, 13]],
    ] as const) {
      await sleep(80);
      peer.send(ack(acked));
      const came = (await peer.drain(60)).map((each) => each.number);
      assert.deepEqual([...new Set(came)], wanted, `after ACK ${acked}`);
    }
    peer.send(error(0));
  });

  duty('copies of one ACK do not multiply traffic', async (driver) => {
    const content = pattern(200 * 512);
    await using served = await Served.start(driver, { f: content });
    using peer = served.peer();
    const got = await read(peer, { name: 'f', options: [['windowsize', 8]], times: () => 5 });
    assert.ok(got.bytes.equals(content));
    const packets = got.came.filter((each) => each.kind === 'DATA').length + (await peer.drain(50)).length;
    // Were each copy answered, it would be five times as many.
    assert.ok(packets <= 201 * 2, `${packets} DATA for 201 blocks, each ACK five times`);
  });

  duty('upload: one ACK per window', async (driver) => {
    await using served = await Served.start(driver, {}, { up: REPLACE });
    using peer = served.peer();
    const content = pattern(40 * 512 + 5);
    const put = await write(peer, { name: 'up', content, options: [['windowsize', 8]] });
    const acked = put.came.slice(1).map((each) => each.number);
    assert.deepEqual(
      [8, 16, 24, 32, 40, 41].filter((block) => !acked.includes(block)),
      [],
    );
    assert.ok(
      acked.length <= 12,
      `ACKs of ${acked.join()}: of each window, and perhaps one where this process was slow`,
    );
    assert.ok(readFileSync(served.path('up')).equals(content));
  });

  duty('upload: on a gap ACK the last in-order block', async (driver) => {
    await using served = await Served.start(driver, {}, { up: REPLACE });
    using peer = served.peer();
    const content = pattern(20 * 512);
    const block = (number: number): Buffer => data(number, content.subarray((number - 1) * 512, number * 512));
    peer.ask(request(2, 'up', [['windowsize', 8]]));
    await peer.expect('OACK');
    for (const number of [1, 2, 3, 5, 6, 7, 8]) peer.send(block(number));
    await peer.expect('ACK', 3);
    for (const number of [4, 5, 6, 7, 8, 9, 10, 11]) peer.send(block(number));
    for (;;) {
      const got = await peer.expect('ACK');
      // What was kept from behind the gap may count.
      if (got.number === 11) break;
      assert.equal(got.number, 8);
    }
    for (const number of [12, 14, 13, 15, 16, 17, 18, 19]) peer.send(block(number));
    await peer.expect('ACK', 19);
    peer.send(data(20, content.subarray(19 * 512)));
    peer.send(data(21, Buffer.alloc(0)));
    await peer.expect('ACK', 21);
    assert.ok(readFileSync(served.path('up')).equals(content));
  });

  duty('upload: a window whose end is lost is asked for', async (driver) => {
    await using served = await Served.start(driver, {}, { up: REPLACE });
    using peer = served.peer();
    peer.ask(request(2, 'up', [['windowsize', 8]]));
    await peer.expect('OACK');
    const content = pattern(8 * 512 + 1);
    for (const number of [1, 2, 3]) peer.send(data(number, content.subarray((number - 1) * 512, number * 512)));
    await peer.expect('ACK', 3);
    for (let number = 4; number <= 9; number += 1)
      peer.send(data(number, content.subarray((number - 1) * 512, number * 512)));
    await peer.expect('ACK', 9);
    assert.ok(readFileSync(served.path('up')).equals(content));
  });

  duty('retries bounded: a window is sent 8 times at most to a peer that falls silent', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(100_000) });
    using peer = served.peer();
    peer.ask(request(1, 'f', [['windowsize', 4]]));
    await peer.expect('OACK');
    peer.send(ack(0));
    for (let block = 1; block <= 4; block += 1) await peer.expect('DATA', block);
    peer.send(ack(4));
    const came: Received[] = [];
    for (let got = await peer.receive(20_000); got?.kind === 'DATA'; got = await peer.receive(20_000)) came.push(got);
    assert.ok(came.length <= 8 * 4 && came.length >= 3 * 4, `${came.length} DATA`);
    assert.equal((await served.event()).result, 'failed');
  });

  duty('retries bounded: a peer that repeats the same ACK for ever', async (driver) => {
    await using served = await Served.start(driver, { f: pattern(100_000) });
    using peer = served.peer();
    peer.ask(request(1, 'f', [['windowsize', 4]]));
    await peer.expect('OACK');
    peer.send(ack(0));
    let came = 0;
    const endMs = performance.now() + 15_000;
    while (served.events.length === 0 && performance.now() < endMs) {
      for (let count = 0; count < 20; count += 1) peer.send(ack(0));
      came += (await peer.listen(10)).filter((each) => each.kind === 'DATA').length;
    }
    assert.ok(came <= 4 * 12, `${came} DATA`);
    assert.equal((await served.event()).result, 'failed');
  });
});
