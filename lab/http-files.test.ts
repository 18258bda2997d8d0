import assert from 'node:assert/strict';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type HttpFiles, type HttpRequestEvent, parseRange, serveHttpFiles } from './http-files.ts';

let folder: string;
let server: HttpFiles;
const events: HttpRequestEvent[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'http-files-'));
  await writeFile(join(folder, 'file'), '0123456789');
  await writeFile(join(folder, 'empty'), '');
  await symlink('file', join(folder, 'link'));
  await symlink('/etc/passwd', join(folder, 'out'));
  server = await serveHttpFiles({ folder, address: '127.0.0.1', port: 0, onRequest: (event) => events.push(event) });
});
after(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

/** The path goes out as it is: fetch() would resolve the dots. */
function raw(path: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  request({ host: '127.0.0.1', port: server.port, path }, (response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  })
    .on('error', reject)
    .end();
  return promise;
}

test('GET, HEAD and ranges', { timeout: 5000 }, async () => {
  assert.equal(await (await fetch(`${server.url}/link?x`)).text(), '0123456789');
  assert.equal(await (await fetch(`${server.url}/empty`)).text(), '');
  const head = await fetch(`${server.url}/file`, { method: 'HEAD' });
  assert.equal(head.headers.get('content-length'), '10');
  const part = await fetch(`${server.url}/file`, { headers: { range: 'bytes=2-4' } });
  assert.deepEqual([part.status, part.headers.get('content-range'), await part.text()], [206, 'bytes 2-4/10', '234']);
  assert.equal((await fetch(`${server.url}/file`, { headers: { range: 'bytes=10-' } })).status, 416);
  assert.ok(events.some((event) => event.path === '/link' && event.bytes === 10 && event.complete));
});

test('nothing outside the folder, no folder, no other method', { timeout: 5000 }, async () => {
  for (const path of ['/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/out', '/', '/missing', '/%ff', '/file/x']) {
    assert.equal(await raw(path), 404, path);
  }
  assert.equal((await fetch(`${server.url}/file`, { method: 'POST', body: 'x' })).status, 405);
});

test('parseRange() as RFC 9110 has it', () => {
  assert.deepEqual(parseRange('bytes=0-', 10), { first: 0, last: 9 });
  assert.deepEqual(parseRange('bytes=-3', 10), { first: 7, last: 9 });
  assert.deepEqual(parseRange('bytes=5-100', 10), { first: 5, last: 9 });
  assert.equal(parseRange('bytes=-0', 10), 'unsatisfiable');
  assert.equal(parseRange('bytes=0-', 0), 'unsatisfiable');
  for (const header of [undefined, 'bytes=', 'bytes=-', 'bytes=4-2', 'lines=1-2', 'bytes=0-1,3-4']) {
    assert.equal(parseRange(header, 10), undefined);
  }
});
