/**
 * `buildos-publication.json`: what a published folder was told last, so that `rollback` can say it again of an older
 * version. Hosts do not read it.
 */
import { z } from 'zod';
import { BIOS_LOADERS, type BootLoaders, UEFI_LOADERS } from './boot-loaders.ts';

/** How hosts are told to boot, whatever the version. */
export interface PublicationSettings {
  /** How hosts reach the folder over HTTP. */
  readonly url?: string;
  /** `buildos.` options without the prefix. */
  readonly options: Readonly<Record<string, string>>;
  readonly kernelArgs: readonly string[];
  /** More options for single hosts, by MAC address. */
  readonly hosts: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** A unified kernel image is published too. */
  readonly uki?: UkiSettings;
  /** An ISO 9660 image with such a unified kernel image in it, too. */
  readonly iso?: UkiSettings;
  /** Boot loaders are published too, and what DHCP has to say about them. */
  readonly loaders?: BootLoaders;
}

/** Files on the machine that publishes. Without a key the image is not signed. */
export interface UkiSettings {
  readonly stub: string;
  readonly key?: string;
  readonly certificate?: string;
}

/** The whole file. */
export interface Publication extends PublicationSettings {
  readonly format: 1;
  /** The oldest first. */
  readonly versions: readonly VersionEntry[];
}

/** A version that was published. */
export interface VersionEntry {
  readonly buildId: string;
  /** Those of the image itself. */
  readonly kernelArgs: readonly string[];
}

/** Its name in the published folder. */
export const PUBLICATION_JSON = 'buildos-publication.json';

const text = z.string();
const pairs = z.record(text, text);

const uki = z.object({ stub: text, key: text.exactOptional(), certificate: text.exactOptional() });

const schema: z.ZodType<Publication> = z.object({
  format: z.literal(1),
  url: text.exactOptional(),
  options: pairs,
  kernelArgs: z.array(text),
  hosts: z.record(text, pairs),
  uki: uki.exactOptional(),
  iso: uki.exactOptional(),
  loaders: z.object({ bios: z.enum(BIOS_LOADERS), uefi: z.enum(UEFI_LOADERS) }).exactOptional(),
  versions: z.array(z.object({ buildId: z.string().regex(/^[0-9a-f]{20}$/), kernelArgs: z.array(text) })),
});

/** @throws {SyntaxError | z.ZodError} when it is of another form */
export function parsePublication(content: string): Publication {
  return schema.parse(JSON.parse(content));
}

export function formatPublication(publication: Publication): string {
  return `${JSON.stringify(publication, undefined, 2)}\n`;
}
