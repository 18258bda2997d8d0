/** The values of `buildos.` options, each checked as the option table of the host specification has it. Pure. */

/** Why a value or a name is refused; its message and hint become an `OptionProblem`. */
export class BadValueError extends Error {
  override readonly name = 'BadValueError';
  readonly hint: string | undefined;
  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

const CONTROLLER_SCHEMES = ['http', 'https'] as const;

export function parseUrl(value: string, schemes: readonly string[]): string {
  const url = URL.parse(value);
  const scheme = url?.protocol.slice(0, -1) ?? '';
  if (url === null || !schemes.includes(scheme) || url.hostname === '') {
    throw new BadValueError(
      `is no URL that can be used here`,
      `starts with ${schemes.map((s) => `${s}://`).join(', ')}`,
    );
  }
  return value;
}

export function parseController(value: string): { priority: string; url: string } {
  const match = /^(?:(\d{1,5})=)?(.*)$/s.exec(value);
  const priority = match?.[1] ?? '0';
  const url = match?.[2] ?? '';
  try {
    return { priority, url: parseUrl(url, CONTROLLER_SCHEMES) };
  } catch {
    throw new BadValueError(
      `"${value}" is no controller`,
      '[<priority>=]<url>, comma separated; a priority has 1 to 5 digits, a URL starts with http:// or https://, a comma in it is %2C',
    );
  }
}

export function parseFingerprint(value: string): string {
  if (!/^[0-9A-F]{2}(?::[0-9A-F]{2}){31}$/i.test(value)) {
    throw new BadValueError(
      `"${value}" is no certificate fingerprint`,
      'SHA-256: 32 hex pairs with colons, comma separated',
    );
  }
  return value.toUpperCase();
}

export function parseCount(value: string, min: number, max: number): number {
  const count = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (!(count >= min && count <= max)) throw new BadValueError(`is no whole number from ${min} to ${max}`);
  return count;
}

export function parseSeconds(value: string, min: number, max: number): number {
  const match = /^(\d{1,9})([smh]?)$/.exec(value);
  const unit = { '': 1, s: 1, m: 60, h: 3600 }[match?.[2] ?? ''] ?? 1;
  const seconds = Number(match?.[1] ?? Number.NaN) * unit;
  if (!(seconds >= min && seconds <= max)) {
    throw new BadValueError(`is no time from ${min} s to ${max} s`, 'seconds, or a number with s, m or h: 60, 5m');
  }
  return seconds;
}

/** A size with K, M, G or T (powers of 1024); a plain number is KiB, as in build2's Build OS. */
export function parseMiB(value: string, min: number): number {
  const match = /^(\d{1,12})(?:([KMGT])(?:i?B)?)?$/i.exec(value);
  const unit = { K: 1 / 1024, M: 1, G: 1024, T: 1024 * 1024 }[(match?.[2] ?? 'K').toUpperCase()] ?? 1;
  const mib = Math.floor(Number(match?.[1] ?? Number.NaN) * unit);
  if (!(mib >= min)) {
    const plain = match !== null && match[2] === undefined;
    throw new BadValueError(
      `is no size of at least ${min} MiB`,
      plain ? `a plain number is KiB: write ${value}M or ${value}G` : 'a number with M or G: 512M, 4G',
    );
  }
  return mib;
}

export function parseInteractive(value: string): 'false' | 'true' | 'both' {
  if (value !== 'false' && value !== 'true' && value !== 'both') throw new BadValueError('must be false, true or both');
  return value;
}

export function parseBoolean(value: string): boolean {
  if (['1', 'true', 'yes', 'on'].includes(value)) return true;
  if (['0', 'false', 'no', 'off'].includes(value)) return false;
  throw new BadValueError('must be true or false', 'named alone it is on');
}

export function parseRelay(value: string): string {
  const match = /^([a-z0-9.-]{1,253}|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/i.exec(value);
  if (match === null || Number(match[2] ?? 25) > 65_535)
    throw new BadValueError('is no mail relay', '<host> or <host>:<port>');
  return value;
}

export function parseEmail(value: string): string {
  if (!/^[^\s@<>,;]+@[^\s@<>,;]+$/.test(value)) throw new BadValueError('is no mail address', '<name>@<domain>');
  return value;
}

export function parseSshKey(value: string): string {
  if (!/^(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]{40,}={0,3}(?: [\x20-\x7e]*)?$/.test(value)) {
    throw new BadValueError(
      'is no ssh public key',
      'one line of id_*.pub, in quotes: buildos.ssh_key="ssh-ed25519 AAAA… name"',
    );
  }
  return value.trimEnd();
}

export function parseHostname(value: string): string {
  const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
  if (value.length > 64 || !new RegExp(`^${label}(?:\\.${label})*$`, 'i').test(value)) {
    throw new BadValueError(
      'is no host name',
      'letters, digits and dashes in labels with dots between, at most 64 characters',
    );
  }
  return value;
}

/**
 * Checks a minisign public key: base64 of `Ed`, 8 bytes of key id, 32 bytes of Ed25519 key.
 *
 * @throws {BadValueError} when it is none
 */
export function checkMinisignKey(value: string): void {
  if (/^RW[QRST][A-Za-z0-9+/]{53}$/.test(value)) return;
  throw new BadValueError(
    'is no minisign public key, so nothing is taken as signed by it',
    'the second line of minisign.pub: 56 characters, starting with RW',
  );
}
