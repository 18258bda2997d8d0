/** Debian's minisign, with a key of its own. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** One who signs. */
export class Signer implements Disposable {
  /** the line of base64 that options take */
  readonly publicKey: string;
  /** 16 hexadecimal digits; minisign leaves out zeros at the front */
  readonly keyId: string;
  /** the file with the secret key, which has no password */
  readonly secretKeyFile: string;
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'minisign-'));

  constructor() {
    this.secretKeyFile = join(this.#folder, 'key');
    const pub = join(this.#folder, 'key.pub');
    run(['-G', '-W', '-p', pub, '-s', this.secretKeyFile]);
    const [comment = '', line = ''] = readFileSync(pub, 'utf8').split('\n');
    this.publicKey = line;
    this.keyId = (comment.split(' ').at(-1) ?? '').padStart(16, '0');
  }

  /** @param options - more of minisign's, such as `-l` for a signature of the old kind @returns the `.minisig` file */
  sign(content: string | Uint8Array, ...options: readonly string[]): string {
    const file = join(this.#folder, 'content');
    writeFileSync(file, content);
    run(['-S', ...options, '-s', this.secretKeyFile, '-m', file, '-x', join(this.#folder, 'signature')]);
    return readFileSync(join(this.#folder, 'signature'), 'utf8');
  }

  /** What minisign says of a file with its signature beside it; throws when it refuses it. */
  verify(file: string): string {
    return run(['-V', '-P', this.publicKey, '-m', file]);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const run = (args: readonly string[]): string =>
  execFileSync('minisign', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 10_000 });
