/**
 * The controller as people run it: a process of its own, spoken to over HTTP, killed at the worst moments.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { submitCommand } from '../../cli/submit.ts';
import { readLog, readTasks, readTaskView, submitTask, waitForTask } from '../../controller/client.ts';
import { openController } from '../../controller/server.ts';
import { keyFingerprint, signChallenge } from '../../manifests/challenge.ts';
import { formatResultRequest } from '../../manifests/result-request.ts';
import type { Result } from '../../manifests/result.ts';
import { formatTaskRequest } from '../../manifests/task-request.ts';
import type { TaskRequest } from '../../manifests/task-request.ts';
import { hasTask, parseTaskResponse } from '../../manifests/task-response.ts';
import type { TaskGiven } from '../../manifests/task-response.ts';
import { formatTask } from '../../manifests/task.ts';
import type { Task } from '../../manifests/task.ts';

const MAIN = join(import.meta.dirname, '../../cli/main.ts');
const TIMEOUT = { timeout: 120_000 };

const TASK: Task = {
  name: 'hello',
  version: '2.10',
  repositoryUrl: 'http://x/hello.tar.gz',
  repositoryType: 'archive',
  machine: 'linux_debian_13',
  target: 'x86_64-linux-gnu',
};
const REQUEST: TaskRequest = {
  agent: 'host-1',
  toolchainName: 'default',
  toolchainVersion: '1.0',
  machines: [{ id: '1', name: 'linux_debian_13-gcc_14', summary: 'Debian 13' }],
};
const RESULT: Result = {
  name: 'hello',
  version: '2.10',
  status: 'success',
  operations: [{ operation: 'build', status: 'success', log: 'cc -o hello hello.c\n' }],
};

/** A directory for one test. */
class Folder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'controller-'));
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

/** A running `buildos controller`. */
class Program implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  /** @param before - a program with arguments that starts what follows them, in the same process */
  static async start(
    folder: string,
    args: readonly string[] = ['--port', '0'],
    before: readonly string[] = [],
  ): Promise<Program> {
    const command = [...before, process.execPath, MAIN, 'controller', '--folder', folder, '--json', ...args];
    const child = spawn(command[0] ?? '', command.slice(1), {
      // Not its standard error: the errors that we cause here would look like failures.
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    for await (const line of createInterface({ input: child.stdout })) {
      const said: unknown = JSON.parse(line);
      assert.ok(typeof said === 'object' && said !== null && 'url' in said && typeof said.url === 'string');
      return new Program(child, said.url);
    }
    throw new Error('the controller has said nothing');
  }

  /** Sends a signal and waits for the end. @returns the exit status, or nothing when it was killed */
  async end(signal: 'SIGKILL' | 'SIGTERM' | 'SIGINT'): Promise<number | null> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#child.exitCode;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
    return this.#child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGKILL');
  }
}

/** Runs `buildos` to its end. */
async function run(args: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  await once(child, 'close');
  return { status: child.exitCode, stdout, stderr };
}

async function post(url: string, body: string, type = 'text/manifest'): Promise<{ status: number; text: string }> {
  const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': type }, body });
  return { status: response.status, text: await response.text() };
}

/** Asks for a task as an agent does. */
async function poll(url: string, request: TaskRequest = REQUEST): Promise<TaskGiven | undefined> {
  const { status, text } = await post(`${url}/?build-task`, formatTaskRequest(request));
  assert.equal(status, 200, text);
  const response = parseTaskResponse(text);
  return hasTask(response) ? response : undefined;
}

/** Asks for a task that must be there. */
async function claim(url: string, request: TaskRequest = REQUEST): Promise<TaskGiven> {
  const given = await poll(url, request);
  assert.ok(given, 'a task is expected');
  return given;
}

function giveResult(
  given: Pick<TaskGiven, 'session' | 'resultUrl'>,
  result: Result = RESULT,
  challenge?: string,
): Promise<{ status: number; text: string }> {
  const request = { session: given.session, result, ...(challenge === undefined ? {} : { challenge }) };
  return post(given.resultUrl, formatResultRequest(request));
}

/** Uploads as an agent does; `sums` replaces the right digest. */
async function upload(
  given: TaskGiven,
  content: Uint8Array,
  more: { readonly sum?: string; readonly challenge?: string } = {},
): Promise<{ status: number; text: string }> {
  const form = new FormData();
  form.set('session', given.session);
  if (more.challenge !== undefined) form.set('challenge', more.challenge);
  form.set('instance', 'install');
  form.set('archive', new Blob([new Uint8Array(content)]), 'upload.tar');
  form.set('sha256sum', more.sum ?? createHash('sha256').update(content).digest('hex'));
  const response = await fetch(given.uploadUrls['install'] ?? '', { method: 'POST', body: form });
  return { status: response.status, text: await response.text() };
}

/** The file of a task. */
async function download(url: string, id: string): Promise<Buffer> {
  const response = await fetch(`${url}/?upload=${id}`);
  assert.equal(response.status, 200);
  return Buffer.from(await response.arrayBuffer());
}

test('a task goes from submit to its result, log, file and page; SIGTERM ends the controller', TIMEOUT, async () => {
  using folder = new Folder();
  await using controller = await Program.start(join(folder.path, 'made/by/it'));
  const { url } = controller;
  const file = join(folder.path, 'hello.task');
  writeFileSync(file, formatTask(TASK));
  const submitted = run(['submit', '--controller', url, '--task', file, '--wait', '--timeout', '60']);
  let given = await poll(url);
  for (let tries = 0; given === undefined && tries < 200; tries += 1) {
    await sleep(50);
    given = await poll(url);
  }
  assert.ok(given);
  assert.equal(given.task.machine, 'linux_debian_13-gcc_14');
  assert.equal(given.challenge, undefined);
  assert.equal(await poll(url), undefined, 'a task is handed out once');
  const content = randomBytes(3_000_000);
  assert.deepEqual(await upload(given, content), { status: 200, text: 'accepted\n' });
  assert.deepEqual(await giveResult(given), { status: 200, text: 'accepted\n' });

  const { status, stdout, stderr } = await submitted;
  assert.equal(status, 0, stderr);
  assert.match(
    stdout,
    /^1\nhello 2\.10: success\n {2}build +success +20 bytes .*\/\?log=1&operation=build\n {2}upload /,
  );
  const view = await readTaskView({ url }, '1');
  assert.deepEqual(
    view.events.map(({ name }) => name),
    ['submitted', 'claimed', 'upload', 'result'],
  );
  assert.equal(await readLog({ url }, '1', 'build'), 'cc -o hello hello.c\n');
  assert.ok((await download(url, '1')).equals(content));
  const page = await fetch(url);
  assert.match(page.headers.get('content-type') ?? '', /^text\/html/);
  assert.match(await page.text(), /hello 2\.10/);
  assert.equal((await fetch(`${url}/?result=1`)).headers.get('content-type'), 'text/manifest; charset=utf-8');
  assert.equal((await fetch(`${url}/?tasks`, { method: 'HEAD' })).status, 200);
  assert.equal(await controller.end('SIGTERM'), 0);
});

test('submit ends with 1 for a bad result and 64 for wrong usage', TIMEOUT, async () => {
  using folder = new Folder();
  await using controller = await Program.start(folder.path);
  const { url } = controller;
  const file = join(folder.path, 'hello.task');
  writeFileSync(file, formatTask(TASK));
  const id = (await run(['submit', '--controller', url, '--task', file])).stdout.trim();
  assert.equal(id, '1');
  const waiting = run(['submit', '--controller', url, '--task', file, '--wait', '--json']);
  const first = await claim(url);
  await giveResult(first);
  const failed: Result = { ...RESULT, status: 'error', operations: [{ operation: 'build', status: 'error', log: '' }] };
  let second = await poll(url);
  while (second === undefined) {
    await sleep(50);
    second = await poll(url);
  }
  await giveResult(second, failed);
  const { status, stdout } = await waiting;
  assert.equal(status, 1);
  const view: unknown = JSON.parse(stdout);
  assert.ok(typeof view === 'object' && view !== null && 'status' in view);
  assert.equal(view.status, 'error');

  for (const [args, message] of [
    [[], /--controller/],
    [['--controller', 'ftp://x'], /http or https/],
    [['--controller', url], /a task is needed/],
    [['--controller', url, '--name', 'x', '--machine', 'm'], /--version, --source are missing/],
    [['--controller', url, '--task', file, '--name', 'x'], /--name cannot be given with it/],
    [['--controller', url, '--task', file, '--timeout', 'soon'], /Seconds are expected/],
  ] as const) {
    const wrong = await run(['submit', ...args]);
    assert.equal(wrong.status, 64, wrong.stderr);
    assert.match(wrong.stderr, message);
  }
  writeFileSync(file, ': 1\nname hello\n');
  const broken = await run(['submit', '--controller', url, '--task', file]);
  assert.equal(broken.status, 1);
  assert.match(broken.stderr, /line 2, column 6: ":" expected after the name "name"/);
  const away = await run(['submit', '--controller', 'http://127.0.0.1:1', '--task', file.replace('hello', 'none')]);
  assert.equal(away.status, 1);
});

test('submit makes a task of its options', TIMEOUT, async () => {
  using folder = new Folder();
  await using controller = await openController({ folder: folder.path, address: '127.0.0.1', port: 0 });
  const sha256 = '3'.repeat(64);
  const options = { name: 'hello', version: '2.10', source: 'http://x/y.tgz', sha256, machine: 'linux_debian_13' };
  const args = Object.entries({ ...options, target: 'a-b', 'target-config': '--disable-nls', environment: 'e' });
  await submitCommand().parseAsync(
    ['--controller', controller.url, ...args.flatMap(([name, value]) => [`--${name}`, value])],
    { from: 'user' },
  );
  assert.deepEqual((await claim(controller.url)).task, {
    name: 'hello',
    version: '2.10',
    repositoryUrl: `http://x/y.tgz#sha256=${sha256}`,
    repositoryType: 'archive',
    machine: 'linux_debian_13-gcc_14',
    target: 'a-b',
    targetConfig: '--disable-nls',
    environment: 'e',
  });
});

test('kill -9 while results come in: no accepted one is lost, a repeated one counts once', TIMEOUT, async () => {
  using folder = new Folder();
  let controller = await Program.start(folder.path);
  const port = new URL(controller.url).port;
  const { url } = controller;
  try {
    const all: { given: TaskGiven; result: Result; content: Buffer }[] = [];
    let unanswered = 0;
    let acceptedBefore = 0;
    let cutAfterSome = 0;
    // How many answers have come when it is killed, and milliseconds after that.
    for (const [afterAnswers, afterMs] of [
      [0, 0],
      [0, 5],
      [0, 20],
      [1, 0],
      [5, 0],
      [6, 0],
      [7, 1],
      [8, 0],
      [10, 0],
      [11, 2],
    ] as const) {
      const round: typeof all = [];
      for (let number = 0; number < 6; number += 1) {
        await submitTask({ url }, TASK);
        const given = await claim(url);
        const log = `${given.session}\n${'x'.repeat(200_000)}`;
        const result: Result = { ...RESULT, operations: [{ operation: 'build', status: 'success', log }] };
        round.push({ given, result, content: randomBytes(100_000) });
      }
      all.push(...round);
      const heard: number[] = [];
      const hear = <T>(answer: T): T => {
        heard.push(performance.now());
        return answer;
      };
      const answers = round.map(async ({ given, result, content }) => {
        const first = await upload(given, content)
          .then(hear)
          .catch(() => undefined);
        const second = await giveResult(given, result)
          .then(hear)
          .catch(() => undefined);
        return { uploaded: first?.status === 200, accepted: second?.status === 200 };
      });
      while (heard.length < afterAnswers) await sleep(0);
      await sleep(afterMs);
      await controller.end('SIGKILL');
      const known = await Promise.all(answers);
      controller = await Program.start(folder.path, ['--port', port]);

      if (known.some(({ accepted }) => accepted) && known.some(({ accepted }) => !accepted)) cutAfterSome += 1;
      for (const [index, { uploaded, accepted }] of known.entries()) {
        const { given, result, content } = round[index] ?? assert.fail();
        const id = given.session.split('-')[0] ?? '';
        if (!accepted) unanswered += 1;
        if (accepted) {
          assert.equal((await readTaskView({ url }, id)).state, 'done');
          assert.equal(await readLog({ url }, id, 'build'), result.operations[0]?.log);
        }
        if (uploaded) assert.ok((await download(url, id)).equals(content));
        // Whatever the agent has heard, it does the same again.
        const again = await upload(given, content);
        assert.equal(again.status, 200, again.text);
        const repeated = await giveResult(given, result);
        assert.equal(repeated.status, 200, repeated.text);
        if (accepted) assert.equal(repeated.text, 'accepted before\n');
        if (!accepted && repeated.text === 'accepted before\n') acceptedBefore += 1;
        assert.equal((await giveResult(given, { ...result, status: 'warning' })).status, 409);
        assert.equal((await upload(given, Buffer.from('other'))).status, 409);
      }
    }
    assert.ok(cutAfterSome > 0, 'a kill fell between two results');
    const tasks = await readTasks({ url });
    assert.equal(tasks.length, all.length);
    for (const { id } of tasks) {
      const { events, attempts, uploads } = await readTaskView({ url }, id);
      assert.deepEqual(
        events.map(({ name }) => name),
        ['submitted', 'claimed', 'upload', 'result'],
      );
      assert.equal(attempts, 1);
      assert.equal(uploads.length, 1);
    }
    const files = readdirSync(join(folder.path, 'uploads'));
    assert.equal(files.length, all.length, 'nothing half received is left');
    process.stderr.write(
      `${all.length} results, ${unanswered} cut off by kills, of these ${acceptedBefore} kept without the sender knowing\n`,
    );
  } finally {
    await controller.end('SIGKILL');
  }
});

test('garbage is refused with what is wrong and where, and the controller goes on', TIMEOUT, async () => {
  using folder = new Folder();
  await using controller = await openController({
    folder: folder.path,
    address: '127.0.0.1',
    port: 0,
    maxUploadBytes: 1000,
    maxQueued: 2,
  });
  const { url } = controller;
  const task = formatTask(TASK);
  const request = formatTaskRequest(REQUEST);
  const session = `7-1-${'a'.repeat(32)}`;
  for (const [query, body, status, message] of [
    ['build-task', '', 400, /line 1, column 1: it holds no manifest/],
    ['build-task', 'x', 400, /line 1, column 2: ":" expected/],
    ['build-task', request.replace('agent: host-1', 'agent: a b'), 400, /line 2, column 1: .* found "a b" for "agent"/],
    ['build-task', request.replace('agent:', 'agnet:'), 400, /line 1, column 1: "agent" is missing/],
    ['build-task', `${request}:\nid: 1\n`, 400, /line 9, column 1: "name" is missing/],
    ['build-task', 'x'.repeat(100_001), 413, /may have 100000 bytes/],
    ['build-result', ': 1\nsession: x\n:\nname: a\n', 400, /"status" is missing/],
    ['build-result', formatResultRequest({ session: 'made-up', result: RESULT }), 400, /is not a session/],
    ['build-result', 'x'.repeat(15_000_001), 413, /may have 15000000 bytes/],
    ['submit', task.replace('version: 2.10\n', ''), 400, /"version" is missing/],
    ['submit', `${task}host: maybe\n`, 400, /line 8, column 1: one of true, false is expected/],
    ['submit', `${task}x: \u0000\n`, 400, /line 8, column 4: the character U\+0000/],
    ['nothing', task, 404, /nothing at "\/\?nothing"/],
    ['__proto__', task, 404, /nothing at/],
    ['tasks', task, 405, /POST is not for/],
    ['build-upload=other', task, 404, /no uploads of the type "other"/],
    ['build-upload=install', task, 400, /multipart\/form-data with a boundary is expected/],
  ] as const) {
    const { status: found, text } = await post(`${url}/?${query}`, body);
    assert.equal(found, status, `${query}: ${text}`);
    assert.match(text, message);
    assert.match(text, /^error: /);
  }
  assert.equal((await post(`${url}/?submit`, task, 'text/plain')).status, 400);
  assert.equal((await post(`${url}/x?submit`, task)).status, 404);
  for (const query of [
    'task=2',
    'task=',
    'task=x',
    'log=1',
    'result=9',
    'upload=1',
    'task=9999999999999999',
    'build-task',
  ]) {
    const { status } = await fetch(`${url}/?${query}`);
    assert.ok(status === 404 || status === 405, query);
  }
  const expired = await giveResult({ session, resultUrl: `${url}/?build-result` });
  assert.deepEqual(expired, { status: 200, text: 'expired\n' });

  await submitTask({ url }, TASK);
  await submitTask({ url }, TASK);
  await assert.rejects(submitTask({ url }, TASK), { message: /answered 503: 2 tasks are waiting/ });
  const given = await claim(url);
  assert.equal((await giveResult(given, { ...RESULT, version: '3' })).status, 400);
  assert.equal((await giveResult(given, RESULT, 'c2lnbmVk')).status, 400, 'a challenge that was not given');
  assert.equal((await upload(given, Buffer.from('a'), { sum: '0'.repeat(64) })).status, 400);
  assert.equal((await upload(given, Buffer.from('a'), { sum: 'none' })).status, 400);
  assert.equal((await upload(given, Buffer.alloc(1001))).status, 413);
  assert.equal((await upload({ ...given, session }, Buffer.from('a'))).status, 410);
  assert.equal((await upload({ ...given, session: '../x' }, Buffer.from('a'))).status, 400);
  const form = new FormData();
  form.set('archive', new Blob(['a']));
  form.set('session', given.session);
  assert.equal((await fetch(given.uploadUrls['install'] ?? '', { method: 'POST', body: form })).status, 400);
  assert.deepEqual(readdirSync(join(folder.path, 'uploads')), [], 'nothing of what was refused is left');

  // Bytes that are not even HTTP, and requests that end in the middle.
  for (const bytes of [
    randomBytes(2000),
    Buffer.from('POST /?build-task HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf'),
    Buffer.from('GET /?task=1 HTTP/1.1\r\n\r\n'),
    Buffer.from(
      `POST /?build-task HTTP/1.1\r\nHost: a b\r\nContent-Type: text/manifest\r\nContent-Length: ${request.length}\r\n\r\n${request}`,
    ),
    Buffer.from('GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n'),
  ]) {
    const socket = connect(controller.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.on('data', () => undefined);
    socket.end(bytes);
    await once(socket, 'close');
  }
  assert.equal((await giveResult(given)).text, 'accepted\n');
});

test(
  'a full disk refuses what does not fit and keeps the rest',
  {
    ...TIMEOUT,
    skip: process.getuid?.() === 0 ? false : 'needs root: mounts a small tmpfs',
  },
  async () => {
    using folder = new Folder();
    // In a mount namespace of its own, so that nothing is left to unmount.
    const small = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"', folder.path];
    await using controller = await Program.start(folder.path, ['--port', '0'], small);
    const { url } = controller;
    await submitTask({ url }, TASK);
    const given = await claim(url);
    const long: Result = {
      ...RESULT,
      operations: [{ operation: 'build', status: 'success', log: 'x'.repeat(2_000_000) }],
    };
    for (const { status, text } of [await giveResult(given, long), await upload(given, randomBytes(3_000_000))]) {
      assert.equal(status, 507);
      assert.match(text, /The disk of the controller is full, nothing was kept/);
    }
    assert.equal((await readTaskView({ url }, '1')).state, 'claimed');
    assert.equal((await upload(given, randomBytes(1000))).status, 200);
    assert.equal((await giveResult(given)).status, 200);
  },
);

test('only trusted agents get tasks, and only they give results', TIMEOUT, async () => {
  using folder = new Folder();
  const keys = [generateKeyPairSync('ed25519'), generateKeyPairSync('rsa', { modulusLength: 2048 })];
  const files = keys.map(({ publicKey }, index) => {
    const file = join(folder.path, `agent-${index}.pub`);
    writeFileSync(file, publicKey.export({ type: 'spki', format: 'pem' }));
    return file;
  });
  const trust = files.flatMap((file) => ['--trust', file]);
  await using controller = await Program.start(join(folder.path, 'data'), ['--port', '0', ...trust]);
  const { url } = controller;
  const stranger = generateKeyPairSync('ed25519');
  const asked = await post(`${url}/?build-task`, formatTaskRequest(REQUEST));
  assert.equal(asked.status, 401);
  const unknown = formatTaskRequest({ ...REQUEST, fingerprint: keyFingerprint(stranger.publicKey) });
  assert.equal((await post(`${url}/?build-task`, unknown)).status, 401);

  for (const { publicKey, privateKey } of keys) {
    const id = await submitTask({ url }, TASK);
    const given = await claim(url, { ...REQUEST, fingerprint: keyFingerprint(publicKey) });
    const nonce = given.challenge ?? '';
    assert.match(nonce, /^[0-9a-f]{64}$/);
    const challenge = signChallenge(nonce, privateKey);
    const others = [undefined, 'AAAA', signChallenge(nonce, stranger.privateKey), signChallenge('x', privateKey)];
    for (const wrong of others) {
      assert.equal((await giveResult(given, RESULT, wrong)).status, 400);
      const more = wrong === undefined ? {} : { challenge: wrong };
      assert.equal((await upload(given, Buffer.from('a'), more)).status, 400);
    }
    assert.equal((await upload(given, Buffer.from('a'), { challenge })).status, 200);
    assert.equal((await giveResult(given, RESULT, challenge)).status, 200);
    assert.equal((await readTaskView({ url }, id)).state, 'done');
  }
  const broken = await run(['controller', '--folder', folder.path, '--trust', join(folder.path, 'none')]);
  assert.equal(broken.status, 1);
  assert.match(broken.stderr, /Cannot read the public key/);
});

test('a task without a result is handed out again, until its attempts are used up', TIMEOUT, async () => {
  using folder = new Folder();
  let nowMs = Date.UTC(2026, 0, 1);
  const open = (): ReturnType<typeof openController> =>
    openController({
      folder: folder.path,
      address: '127.0.0.1',
      port: 0,
      taskTimeoutSeconds: 60,
      maxAttempts: 3,
      now: () => nowMs,
    });
  let first: TaskGiven;
  {
    await using controller = await open();
    await submitTask({ url: controller.url }, TASK);
    first = await claim(controller.url);
    nowMs += 59_999;
    assert.equal(await poll(controller.url), undefined);
  }
  await using controller = await open();
  const { url } = controller;
  nowMs += 1;
  const second = await claim(url);
  assert.notEqual(second.session, first.session);
  const resultUrl = `${url}/?build-result`;
  assert.equal((await giveResult({ session: first.session, resultUrl })).text, 'expired\n', 'another one is at work');
  assert.equal((await readTaskView({ url }, '1')).state, 'claimed');

  const interrupted: Result = { ...RESULT, status: 'interrupt', operations: [] };
  assert.equal((await giveResult(second, interrupted)).text, 'accepted\n');
  assert.equal((await giveResult(second, interrupted)).text, 'accepted before\n');
  assert.equal((await giveResult(second)).status, 409);
  const third = await claim(url);
  nowMs += 60_000;
  assert.equal(await poll(url), undefined, 'no attempts are left');
  const view = await readTaskView({ url }, '1');
  assert.equal(view.state, 'given-up');
  assert.equal(view.status, 'abnormal');
  assert.deepEqual(
    view.events.map(({ name }) => name),
    ['submitted', 'claimed', 'timeout', 'claimed', 'interrupt', 'claimed', 'timeout', 'given-up'],
  );
  assert.equal((await waitForTask({ url }, '1', { timeoutMs: 1000 })).state, 'given-up');
  assert.equal((await giveResult(third)).text, 'accepted\n', 'late is better than never');
  assert.equal((await readTaskView({ url }, '1')).status, 'success');
});

test('a controller that is off says 501, one whose folder is in use says so', TIMEOUT, async () => {
  using folder = new Folder();
  await using controller = await Program.start(folder.path, ['--port', '0', '--off']);
  assert.equal((await post(`${controller.url}/?build-task`, formatTaskRequest(REQUEST))).status, 501);
  const second = await run(['controller', '--folder', folder.path, '--port', '0']);
  assert.equal(second.status, 1);
  assert.match(second.stderr, /hint: Another controller uses this folder/);
  const { port } = new URL(controller.url);
  const third = await run(['controller', '--folder', join(folder.path, 'b'), '--port', port]);
  assert.equal(third.status, 1);
  assert.match(third.stderr, /Cannot listen on/);
  assert.equal((await run(['controller', '--port', '0'])).status, 64);
  assert.equal(await controller.end('SIGINT'), 0);
});
