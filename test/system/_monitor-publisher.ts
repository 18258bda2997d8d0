/** A web server that publishes toolchains and images as a site does, and can do it badly. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type Server as HttpServer, createServer as createHttpServer } from 'node:http';
import { formatImageManifest } from '../../manifests/image-manifest.ts';
import { formatSha256Sums } from '../../manifests/sha256sums.ts';
import { formatToolchainList } from '../../manifests/toolchain-list.ts';
import { type ToolchainJson, formatToolchainJson } from '../../manifests/toolchain.ts';

export const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

/** What is published, from memory. */
export class Publisher implements AsyncDisposable {
  readonly files: Map<string, string | Uint8Array> = new Map();
  /** paths asked for, in order */
  readonly asked: string[] = [];
  /** answers nothing but 503 */
  isDown = false;
  readonly #server: HttpServer;

  constructor() {
    this.#server = createHttpServer((request, response) => {
      const path = request.url ?? '';
      this.asked.push(path);
      const content = this.files.get(path);
      if (this.isDown) response.writeHead(503).end();
      else if (path === '/silence') response.writeHead(200, { 'content-length': '10' }).write('x');
      else if (path === '/cut')
        response.writeHead(200, { 'content-length': '10' }).end('x', () => request.socket.destroy());
      else if (content === undefined) response.writeHead(404).end();
      else response.writeHead(200).end(content);
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  url(path: string): string {
    const address = this.#server.address();
    assert.ok(typeof address === 'object' && address !== null);
    return `http://127.0.0.1:${address.port}${path}`;
  }

  /** Publishes an image in one step, or with parts left as they were. */
  image(buildId: string, stale: readonly string[] = []): void {
    const kernel = `kernel of ${buildId}`;
    const initrd = `initrd of ${buildId}`;
    const manifest = formatImageManifest({
      format: 1,
      buildId,
      host: 'build-host',
      hostSha256: sha256('host'),
      architecture: 'amd64',
      base: { name: 'debian', version: '13', suite: 'trixie' },
      kernelVersion: '6.12',
      node: { version: '26.10.0', sha256: sha256('node') },
      packages: [],
      files: [
        { path: 'buildos-image', sha256: sha256(kernel), sizeBytes: kernel.length },
        { path: 'buildos-initrd', sha256: sha256(initrd), sizeBytes: initrd.length },
      ],
      rootfsBytes: 1,
    });
    const content: Record<string, string> = {
      'buildos-image': kernel,
      'buildos-initrd': initrd,
      'buildos-manifest.json': manifest,
      'buildos-buildid': `${buildId}\n`,
    };
    const sums = Object.entries(content).map(([path, text]) => ({ path, sha256: sha256(text) }));
    content['SHA256SUMS'] = formatSha256Sums(sums);
    for (const [name, text] of Object.entries(content)) {
      if (!stale.includes(name)) this.files.set(`/image/${name}`, text);
    }
  }

  /** Publishes a toolchain; `files` come on top of toolchain.json. */
  toolchain(
    name: string,
    options: {
      readonly version?: string;
      readonly script: string;
      readonly timeLimitSeconds?: number;
      readonly agent: Uint8Array;
      readonly leaves?: readonly string[];
    },
  ): void {
    const json: ToolchainJson = {
      bootstrap: {
        command: ['sh', '{files}/bootstrap.sh', '{prefix}'],
        timeLimitSeconds: options.timeLimitSeconds ?? 30,
        leaves: options.leaves ?? ['bin/tool'],
        environment: { WHERE: '{prefix}' },
      },
      agent: 'agent.tar',
      machine: { environment: {} },
    };
    const files = new Map<string, string | Uint8Array>([
      ['toolchain.json', formatToolchainJson(json)],
      ['bootstrap.sh', options.script],
      ['agent.tar', options.agent],
    ]);
    for (const [path, content] of files) this.files.set(`/${name}/${path}`, content);
    const list = formatToolchainList({
      version: options.version ?? '1.0',
      disabled: false,
      files: [...files].map(([path, content]) => ({ path, sha256: sha256(content) })),
    });
    this.files.set(`/${name}/list`, list);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
