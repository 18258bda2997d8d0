/**
 * Published texts that have to be signed: a toolchain's list, the sums of an image. The signature lies beside the text,
 * `<name>.minisig`, by the key that a kernel option names (`buildos.toolchain_trust`, `buildos.buildid_trust`).
 *
 * The text comes from one request and the signature from another, so a publisher may have replaced one of them in
 * between. They do not fit then, which is no reason to give up: the next look gets both anew.
 */
import type { HostOptions, OptionProblem } from '../host/kernel-cmdline.ts';
import { MinisignError, parsePublicKey, verifyMinisign } from '../manifests/minisign.ts';
import { FetchError, type FetchLimits, fetchText } from './fetch.ts';

/** Where something is published, and who has to have signed it. */
export interface Source {
  readonly url: string;
  /** minisign public key, base64; undefined: whatever is there is taken */
  readonly trust: string | undefined;
}

/** What is published is not signed by the key that is trusted. */
export class UntrustedError extends Error {
  override readonly name = 'UntrustedError';
  readonly url: string;
  readonly hint: string;

  constructor(url: string, reason: string, hint: string, cause: unknown) {
    super(`Cannot trust ${url}${reason}`, { cause });
    this.url = url;
    this.hint = hint;
  }
}

/** A signature has four lines; minisign allows 8 KiB for the comment that is signed. */
const SIGNATURE_MAX_BYTES = 16 * 1024;

/**
 * Checks the signature of a text, where a key is trusted.
 *
 * @param text - what was fetched from the source
 * @param limits - for fetching the signature
 * @throws {UntrustedError} when it has no signature, or not that of the key
 */
export async function checkSigned(
  text: string,
  source: Source,
  limits: FetchLimits,
  signal: AbortSignal,
): Promise<void> {
  const { url, trust } = source;
  if (trust === undefined) return;
  try {
    const key = parsePublicKey(trust);
    const signature = await fetchText(signatureUrl(url), { ...limits, maxBytes: SIGNATURE_MAX_BYTES }, signal);
    // fetchText() takes nothing but UTF-8 and leaves a byte order mark: these are the bytes that came.
    verifyMinisign(new TextEncoder().encode(text), signature, key);
  } catch (cause) {
    if (cause instanceof MinisignError) throw new UntrustedError(url, `: ${cause.message}`, cause.hint, cause);
    if (!(cause instanceof FetchError)) throw cause;
    const hint = 'publish it with --sign, or sign it with "minisign -S"';
    throw new UntrustedError(url, ` without its signature: ${cause.message}`, hint, cause);
  }
}

/** What a host takes from whoever publishes it, as one warning; nothing when there is a key for all that it watches. */
export function findUnsigned({ buildidUrl, buildidTrust, toolchains }: HostOptions): readonly OptionProblem[] {
  const names = Object.entries(toolchains)
    .filter(([, { url, trust }]) => url !== undefined && trust === undefined)
    .map(([name]) => `buildos.toolchain_trust${name === 'default' ? '' : `.${name}`}`);
  if (buildidUrl !== undefined && buildidTrust === undefined) names.unshift('buildos.buildid_trust');
  if (names.length === 0) return [];
  const message = 'not given, so this host follows whatever is published, whoever has put it there';
  return [{ name: names.join(', '), message, hint: 'publish with --sign, and give hosts the public key' }];
}

/** Where the signature is: its name comes before a query, and before the `;mode=octet` of a TFTP URL (RFC 3617). */
export function signatureUrl(url: string): string {
  const beside = new URL(url);
  beside.pathname = beside.pathname.replace(/(;mode=octet)?$/, '.minisig$1');
  return beside.href;
}
