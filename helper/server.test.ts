import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { type Socket, createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { asyncProperty, assert as check, uint8Array } from 'fast-check';
import { HelperError, callHelper } from './client.ts';
import { openPeerLookup } from './peer.ts';
import { RefusedError } from './plan.ts';
import { type ServerOptions, serveHelper } from './server.ts';
import { MAX_LINE_BYTES } from './verb.ts';

const LIST = '{"verb":"machine.list"}\n';

/** A server at a path of its own that answers with the verb it got. */
async function start(
  t: TestContext,
  options: Partial<ServerOptions> = {},
): Promise<{ path: string; log: string[]; close: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'helper-'));
  const path = join(folder, 'sock');
  const log: string[] = [];
  const server = await serveHelper({
    listen: { path },
    perform: async (verb) => ({ verb }),
    lockOf: (verb) => ('build' in verb ? verb.build : undefined),
    log: (line) => log.push(line),
    ...options,
  });
  t.after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });
  return { path, log, close: () => server.close() };
}

/** Sends bytes, and with `end` a half-close, and gives all that comes back. */
function ask(path: string, bytes: string | Uint8Array, end = false): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = createConnection(path);
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => (answer += chunk));
    socket.on('close', () => resolve(answer));
    socket.on('error', () => undefined);
    if (end) socket.end(bytes);
    else socket.write(bytes);
  });
}

test('a request is answered with one line', async (t) => {
  const { path } = await start(t);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(await ask(path, LIST), '{"ok":true,"verb":{"verb":"machine.list"}}\n');
  assert.equal(await ask(path, LIST, true), '{"ok":true,"verb":{"verb":"machine.list"}}\n');
});

test('a request in two pieces is one request', async (t) => {
  const { path } = await start(t);
  const socket = createConnection(path);
  socket.write(LIST.slice(0, 9));
  await sleep(20);
  socket.write(LIST.slice(9));
  const [answer] = await Array.fromAsync(socket);
  assert.match(String(answer), /^\{"ok":true/);
});

test('a bad request is told what is wrong', async (t) => {
  const { path } = await start(t, { lineTimeoutMs: 100 });
  const refused = (error: string): string => `{"ok":false,"error":"Cannot take the request: ${error}"}\n`;
  assert.equal(await ask(path, 'hello\n'), refused('it is not JSON'));
  assert.equal(await ask(path, '[]\n'), refused('it is not a JSON object'));
  assert.equal(await ask(path, '\n'), refused('it is not JSON'));
  assert.equal(await ask(path, LIST + LIST), refused('it is more than one line'));
  assert.equal(await ask(path, LIST.trim(), true), refused('it has no newline at its end'));
  assert.equal(await ask(path, LIST.trim()), refused('no line came within 100 ms'));
  assert.equal(await ask(path, ''), refused('no line came within 100 ms'));
  assert.equal(await ask(path, '', true), '');
});

test('a line of 16 KiB is read, a longer one is not', async (t) => {
  const { path } = await start(t);
  const fill = (bytes: number): string => `${LIST.trim().padEnd(bytes - 1)}\n`;
  assert.match(await ask(path, fill(MAX_LINE_BYTES)), /^\{"ok":true/);
  assert.match(await ask(path, fill(MAX_LINE_BYTES + 1)), /longer than 16384 bytes/);
  assert.match(await ask(path, Buffer.alloc(8_000_000, 0x20)), /longer than 16384 bytes|^$/);
});

test('any bytes get an answer or the end, and the server lives', async (t) => {
  const { path } = await start(t);
  await check(
    asyncProperty(uint8Array({ maxLength: 300 }), async (bytes) => {
      const answer = await ask(path, bytes, true);
      assert.match(answer, /^(\{"ok":(true|false).*\}\n)?$/);
    }),
    { numRuns: 100 },
  );
  assert.match(await ask(path, LIST), /"ok":true/);
});

test('connections above the limit are told so', async (t) => {
  const hold = Promise.withResolvers<void>();
  const both = Promise.withResolvers<void>();
  let inHand = 0;
  const perform = async (): Promise<object> => {
    inHand += 1;
    if (inHand === 2) both.resolve();
    await hold.promise;
    return {};
  };
  const { path } = await start(t, { maxConnections: 2, perform });
  const held = [ask(path, LIST), ask(path, LIST)];
  await both.promise;
  assert.match(await ask(path, LIST), /"error":"The helper has 2 requests in hand/);
  hold.resolve();
  assert.deepEqual(await Promise.all(held), ['{"ok":true}\n', '{"ok":true}\n']);
  assert.match(await ask(path, LIST), /"ok":true/);
});

test('verbs on one build come one after the other, others beside them', { timeout: 20_000 }, async (t) => {
  const events: string[] = [];
  const stopping = Promise.withResolvers<void>();
  const deleted = Promise.withResolvers<void>();
  const { path } = await start(t, {
    perform: async (verb) => {
      const name = `${verb.verb} ${'build' in verb ? verb.build : ''}`;
      events.push(`start ${name}`);
      if (verb.verb === 'machine.stop') {
        stopping.resolve();
        // If b had to wait for a, it would be for ever.
        await deleted.promise;
      }
      events.push(`end ${name}`);
      if (name === 'machine.delete b') deleted.resolve();
      if (verb.verb === 'machine.stop') throw new RefusedError('no', 'not now');
      return {};
    },
  });
  const stop = ask(path, '{"verb":"machine.stop","build":"a"}\n');
  await stopping.promise;
  const later = [
    ask(path, '{"verb":"machine.delete","volume":"v","build":"a"}\n'),
    ask(path, '{"verb":"machine.delete","volume":"v","build":"b"}\n'),
  ];
  assert.equal(await stop, '{"ok":false,"error":"no","hint":"not now"}\n');
  await Promise.all(later);
  assert.deepEqual(events, [
    'start machine.stop a',
    'start machine.delete b',
    'end machine.delete b',
    'end machine.stop a',
    'start machine.delete a',
    'end machine.delete a',
  ]);
});

test('a verb goes on when its client leaves, and is told of it', async (t) => {
  const ended = Promise.withResolvers<boolean>();
  const { path, close } = await start(t, {
    perform: async (_verb, _log, gone) => {
      await sleep(60);
      ended.resolve(gone.aborted);
      return {};
    },
  });
  const socket: Socket = createConnection(path);
  socket.write(LIST);
  await sleep(20);
  socket.destroy();
  await close(); // waits for the verb
  assert.equal(await ended.promise, true);
});

test('an error that nobody foresaw is an answer, with its stack in the log', async (t) => {
  const { path, log } = await start(t, { perform: () => Promise.reject(new TypeError('odd')) });
  assert.match(await ask(path, LIST), /"error":"odd","hint":"see the journal/);
  assert.match(log.join('\n'), /TypeError: odd\n +at /);
});

test('only allowed users are answered', async (t) => {
  const lookUp = await openPeerLookup();
  assert.ok(lookUp, 'node:ffi is there');
  const self = process.getuid?.() ?? 0;
  const yes = await start(t, { peers: { lookUp, uids: [self] } });
  assert.match(await ask(yes.path, LIST), /"ok":true/);
  const no = await start(t, { peers: { lookUp, uids: [self + 1] } });
  assert.match(await ask(no.path, LIST), /"error":"This user may not ask the helper"/);
  assert.match(no.log.join('\n'), new RegExp(`user ${self}, process ${process.pid}`));
});

test('callHelper() gives the reply, the refusal, or says that nobody answered', async (t) => {
  const { path } = await start(t, {
    perform: async (verb) => {
      if (verb.verb === 'reboot') throw new RefusedError('not now', 'wait');
      return { builds: [] };
    },
  });
  const reply = await callHelper({ verb: 'machine.list' }, { socket: path });
  assert.deepEqual(reply.builds, []);
  await assert.rejects(callHelper({ verb: 'reboot', reason: 'x' }, { socket: path }), {
    name: 'HelperError',
    reason: 'refused',
    message: 'not now',
    hint: 'wait',
  });
  const missing = callHelper({ verb: 'machine.list' }, { socket: `${path}.not`, timeoutMs: 100 });
  await assert.rejects(missing, { name: 'HelperError', reason: 'unreachable' });
});

test('callHelper() asks again when the helper dies before it answers', async (t) => {
  let asked = 0;
  const { path } = await start(t, {
    peers: {
      uids: [0],
      lookUp: (socket) => {
        asked += 1;
        if (asked < 3) socket.destroy();
        return { pid: 1, uid: 0 };
      },
    },
  });
  const reply: object = await callHelper({ verb: 'machine.list' }, { socket: path });
  assert.deepEqual(reply, { ok: true, verb: { verb: 'machine.list' } });
  assert.equal(asked, 3);
});

test('callHelper() ends at once when it is aborted', async (t) => {
  const { path } = await start(t, { perform: () => sleep(200, {}) });
  const abort = new AbortController();
  const call = callHelper({ verb: 'machine.list' }, { socket: path, signal: abort.signal });
  await sleep(20);
  abort.abort(new Error('enough'));
  await assert.rejects(call, (error) => error instanceof HelperError && error.message.includes('enough'));
});
