/**
 * Data in an image: an image is published for all to read, so of prerequisite data it takes what a definition calls public,
 * and nothing else. What is taken counts as an input, by its digest.
 *
 * Refused besides: a private key in a file or text of the definition, which is there by mistake more often than not.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { type DataRef, type DataSource, DataStore, describeRef } from '../properties/data.ts';
import type { HostDefinition } from '../properties/host-definition.ts';
import { describeApplication, type PropertyApplication, readRegistered } from '../properties/property.ts';
import type { Secret } from '../properties/secret.ts';

/** A secret would become part of an image. */
export class SecretInImageError extends Error {
  override readonly name = 'SecretInImageError';
  readonly hint: string;

  constructor(what: readonly string[], hint: string) {
    super(`Cannot put secrets into an image, which is published for all to read: ${what.join('; ')}`);
    this.hint = hint;
  }
}

const DEPLOY =
  'write whenContained(null, …) around the property: the image is then made without it, and "buildos host deploy HOST --on CHAIN ' +
  '--data …" brings it to the host that runs; ';

/** What properties that are applied to an image may read: public data. */
class ImageData extends DataStore {
  /** Was done, for those that are inside. */
  override async check(): Promise<void> {
    await Promise.resolve();
  }

  override async read(ref: DataRef, mayAsk: boolean): Promise<Secret> {
    if (ref.public === true) return await super.read(ref, mayAsk);
    throw new SecretInImageError([`something asks for ${describeRef(ref)}`], `${DEPLOY}or leave it out`);
  }
}

/** Data for an image. */
export interface DataOfImage {
  /** For the properties. */
  readonly store: DataStore;
  /** SHA-256 of each datum, by `context/name`; undefined when there are none. */
  readonly digests: Readonly<Record<string, string>> | undefined;
}

/**
 * Sees to it that no secret is asked for, and reads what is public.
 *
 * @throws {SecretInImageError} naming each property and what it asks for; nothing was read then
 * @throws {MissingDataError} for public data that no source has
 */
export async function readImageData(definition: HostDefinition, sources: readonly DataSource[]): Promise<DataOfImage> {
  const asked = definition.properties.flatMap(insideOf).flatMap(dataOf);
  const secret = asked.filter(({ ref }) => ref.public !== true);
  if (secret.length > 0) {
    throw new SecretInImageError(
      secret.map(({ ref, by }) => `${by.p} asks for ${describeRef(ref)} (${describeApplication(by)})`),
      `${DEPLOY}or, if everybody may know it, say so in the definition: { context: '…', name: '…', public: true }`,
    );
  }
  const keys: string[] = [];
  for (const application of definition.properties.flatMap(insideOf)) {
    if (await hasPrivateKey(application))
      keys.push(`${application.p} has a private key (${describeApplication(application)})`);
  }
  if (keys.length > 0) {
    throw new SecretInImageError(
      keys,
      `${DEPLOY}or, if everybody may have it, make it public data: file.hasData(path, { context, name, public: true }) and --data`,
    );
  }
  const store = new ImageData(sources);
  if (asked.length === 0) return { store, digests: undefined };
  const refs = asked.map(({ ref }) => ref).toSorted((a, b) => (describeRef(a) < describeRef(b) ? -1 : 1));
  await new DataStore(sources).check(refs);
  const digests: Record<string, string> = {};
  for (const ref of refs) {
    const content = (await store.read(ref, true)).reveal();
    digests[describeRef(ref)] = createHash('sha256').update(content).digest('hex');
  }
  return { store, digests };
}

/** What of a property holds inside an image, as properties that are not made of others. */
function insideOf(application: PropertyApplication): readonly PropertyApplication[] {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') return [application];
  const children = definition.children(...application.a);
  // Its first argument is for the inside (conditions.ts); children are without what is null.
  const inside = application.p === 'whenContained' ? children.slice(0, application.a[0] === null ? 0 : 1) : children;
  return inside.flatMap(insideOf);
}

/** What a property asks for. */
function dataOf(by: PropertyApplication): readonly { readonly ref: DataRef; readonly by: PropertyApplication }[] {
  const { type, definition } = readRegistered(by.p);
  return type === 'property' ? (definition.data?.(...by.a) ?? []).map((ref) => ({ ref, by })) : [];
}

const PRIVATE_KEY = /-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----/;

/** Of a file, so much is looked at: the line is at the top of one. */
const HEAD_BYTES = 4096;

/** Whether a text or a file of a property's arguments is one. */
async function hasPrivateKey(value: unknown): Promise<boolean> {
  if (typeof value === 'string') return PRIVATE_KEY.test(value);
  if (value === null || typeof value !== 'object') return false;
  if ('source' in value && 'sha256' in value && typeof value.source === 'string') {
    return PRIVATE_KEY.test(await headOf(value.source));
  }
  for (const item of Object.values(value)) if (await hasPrivateKey(item)) return true;
  return false;
}

async function headOf(file: string): Promise<string> {
  try {
    await using handle = await open(file);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.toString('latin1', 0, bytesRead);
  } catch {
    // Whoever copies it says what is wrong with it.
    return '';
  }
}
